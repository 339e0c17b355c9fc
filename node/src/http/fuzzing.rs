//! What a fuzzer makes of a request's head: lines for its URI, `If-Match`, `If-None-Match`, `Host`, `Origin` and `Authorization`; an
//! empty one leaves it out.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::Uri;
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderValue, IF_MATCH, IF_NONE_MATCH, ORIGIN};
use actix_web::http::uri::Authority;
use actix_web::test::TestRequest;
use anabranch_actors::api::Ack;
use anabranch_protocol::replica::Expected;

use super::{answer, guard, list, target};

/// What is taken from a head is within bounds, and nobody but this machine passes for it.
pub(crate) fn fuzz(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let uri = lines.next().and_then(|line| Uri::try_from(line).ok()).unwrap_or_default();
    let mut request = TestRequest::default().uri(&uri.to_string());
    for (name, line) in [IF_MATCH, IF_NONE_MATCH, HOST, ORIGIN, AUTHORIZATION].into_iter().zip(lines) {
        if let Some(value) = HeaderValue::from_bytes(line).ok().filter(|value| !value.is_empty()) {
            request = request.append_header((name, value));
        }
    }
    let request = request.to_http_request();
    check_expectation(&request);
    check_options(&request);
    check_target(&request);
    check_guard(&request);
}

fn check_expectation(request: &HttpRequest) {
    let Ok(Some(Expected::AnyOf(stamps))) = answer::expectation(request) else { return };
    let sent = request.headers().get(IF_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // As it was sent, and in no other spelling.
    assert!(stamps.iter().all(|stamp| sent.contains(&answer::etag(stamp))));
}

fn check_options(request: &HttpRequest) {
    if let Ok(options) = answer::write_options(request) {
        assert!(options.patience <= answer::TIMEOUT_MAX && options.ack != Some(Ack::Peers(0)));
        let guarded = [IF_MATCH, IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name));
        assert_eq!(answer::unconditional_write(request).is_err(), guarded);
    }
    list::check(request);
}

fn check_target(request: &HttpRequest) {
    let _ = (target::dataset(request), target::key(request), target::aside(request));
    if let Ok(collection) = target::collection(request) {
        assert!(!collection.is_reserved(), "reserved ones are not for users");
    }
}

fn check_guard(request: &HttpRequest) {
    let token = "secret-secret-secret";
    if guard::check_token(request.headers(), token).is_ok() {
        let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(sent.contains(token));
    }
    let host = request.headers().get(HOST).map(|value| value.to_str().unwrap_or_default());
    if guard::check_local(request.headers(), None).is_ok()
        && let Some(host) = host
    {
        let authority: Authority = host.parse().expect("this machine's name is one");
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        assert!(name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()), "{host}");
    }
}
