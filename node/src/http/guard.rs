//! Who may use the API.
//!
//! On loopback the danger is the user's own browser: a page of another site may resolve its name to 127.0.0.1 (a foreign
//! `Host`) or post here blindly (a foreign `Origin`). Beyond loopback, or wherever a token is set, every request must carry it.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::Api;
use super::problem::Problem;
use super::target;

/// Lets a request through, or answers 401 or 403.
pub async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, actix_web::Error> {
    let api = request.app_data::<Data<Api>>().expect("every application has the API's data");
    let allowed = match &api.token {
        Some(token) => check_token(request.headers(), token),
        None => Ok(()),
    };
    let allowed = allowed.and_then(|()| {
        if api.addr.ip().is_loopback() {
            check_local(request.headers(), request.uri().authority().map(|authority| authority.as_str()))
        } else {
            Ok(())
        }
    });
    allowed?;
    let response = next.call(request).await?;
    Ok(match naming_dataset(&response) {
        Some(named) => response.into_response(named).map_into_right_body(),
        None => response.map_into_left_body(),
    })
}

/// A problem below `/v1/datasets/{d}` says which dataset, whoever found it.
fn naming_dataset<B>(response: &ServiceResponse<B>) -> Option<HttpResponse> {
    let problem = response.response().error()?.as_error::<Problem>()?;
    if !response.request().path().starts_with("/v1/datasets/") {
        return None;
    }
    let dataset = target::dataset(response.request()).ok()?;
    problem.naming(&dataset)
}

pub(super) fn check_token(headers: &HeaderMap, token: &str) -> Result<(), Problem> {
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    if sent.is_some_and(|sent| same(sent.trim().as_bytes(), token.as_bytes())) {
        return Ok(());
    }
    let detail = "send the token of `http.token_file` as `Authorization: Bearer TOKEN`";
    Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail))
}

/// Compares without telling by its duration how much of the token was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

pub(super) fn check_local(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Problem> {
    let foreign = |what: &str| {
        let detail = format!("the request's `{what}` is not this machine's: use http://127.0.0.1 or http://localhost");
        Problem::new(StatusCode::FORBIDDEN, "foreign-origin", "Not from another site", detail)
    };
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(HOST);
    if host.is_some_and(|host| !is_local(host)) || authority.is_some_and(|authority| !is_local(authority)) {
        return Err(foreign("Host"));
    }
    // A page served by another port of this machine is another site too.
    match text(ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") != host => Err(foreign("Origin")),
        _ => Ok(()),
    }
}

/// Whether `host[:port]` names this machine. Any port: it may be forwarded.
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn admitted(headers: &[(HeaderName, &'static str)]) -> bool {
        let map: HeaderMap = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        check_local(&map, None).is_ok()
    }

    #[test]
    fn only_this_machine_names_itself() {
        for host in ["127.0.0.1:7070", "localhost", "LOCALHOST:1", "[::1]:7070", "127.0.0.2"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1:7070", "", "localhost.evil.example:80"] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        assert!(admitted(&[(HOST, "localhost:7070")]));
        assert!(admitted(&[(HOST, "localhost:7070"), (ORIGIN, "http://localhost:7070")]));
        assert!(!admitted(&[(HOST, "evil.example")]));
        assert!(!admitted(&[(HOST, "localhost:7070"), (ORIGIN, "http://evil.example")]));
        assert!(!admitted(&[(HOST, "localhost:7070"), (ORIGIN, "http://localhost:3000")]));
        assert!(!admitted(&[(HOST, "localhost:7070"), (ORIGIN, "null")]));
    }

    #[test]
    fn a_token_must_be_the_one() {
        let with = |value: &'static str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        assert!(check_token(&with("Bearer secret-secret-secret"), "secret-secret-secret").is_ok());
        for bad in ["Bearer secret-secret-secreT", "secret-secret-secret", "Bearer ", "Bearer secret-secret-secret-and-more"] {
            assert!(check_token(&with(bad), "secret-secret-secret").is_err(), "{bad}");
        }
        assert!(check_token(&HeaderMap::new(), "x").is_err());
    }
}
