//! `Idempotency-Key`: a write that is sent again is answered as it was, and does not happen again.

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use anabranch_protocol::idempotency::{Idempotency, IdempotencyKey, IdempotencyKeyError};

use super::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a write is known by, if it has a key. Method, path, conditions and body make it the same request; for how long it waits
/// for whom does not.
pub fn idempotency(request: &HttpRequest, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = key(request)? else { return Ok(None) };
    let mut parts = vec![request.method().as_str().as_bytes(), request.uri().path().as_bytes()];
    for name in [&IF_MATCH, &IF_NONE_MATCH] {
        parts.extend(request.headers().get_all(name).flat_map(|value| [name.as_str().as_bytes(), value.as_bytes()]));
    }
    parts.push(body);
    Ok(Some(Idempotency::new(&key, parts)))
}

/// Refuses a key where many commits follow from one request: a part of them may stand.
pub fn no_key(request: &HttpRequest) -> Result<(), Problem> {
    if request.headers().contains_key(&IDEMPOTENCY_KEY) {
        return Err(Problem::bad_request(
            "`Idempotency-Key` can't be used for an ingest, which is many commits, of which some may stand when it ends: send \
             batches under a key each, or put documents under keys of your own, which may be sent twice; nothing was written",
        ));
    }
    Ok(())
}

fn key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = request.headers().get_all(&IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request("`Idempotency-Key` is sent twice; nothing was written"));
    }
    let key = value.to_str().map_err(|_| IdempotencyKeyError::Character).and_then(str::parse);
    key.map(Some).map_err(|error| Problem::bad_request(format!("`Idempotency-Key`: {error}; nothing was written")))
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use actix_web::http::Method;
    use actix_web::test::TestRequest;

    use super::*;

    const PATH: &str = "/v1/datasets/primary/collections/c/docs/k";

    fn of(request: TestRequest, body: &str) -> Idempotency {
        idempotency(&request.to_http_request(), body.as_bytes()).unwrap().unwrap()
    }

    fn sent(path: &str) -> TestRequest {
        TestRequest::with_uri(path).method(Method::PUT).insert_header((IDEMPOTENCY_KEY, "\"k\""))
    }

    #[test]
    fn what_makes_a_request_the_same() {
        let first = of(sent(PATH), "1");
        assert_eq!(of(sent(&format!("{PATH}?ack=1&timeout_ms=5")), "1"), first, "who is waited for makes no difference");
        assert_eq!(of(TestRequest::with_uri(PATH).method(Method::PUT).insert_header((IDEMPOTENCY_KEY, "k")), "1"), first);
        let others = [
            of(sent(PATH), "2"),
            of(sent(&format!("{PATH}2")), "1"),
            of(sent(PATH).method(Method::PATCH), "1"),
            of(sent(PATH).insert_header((IF_MATCH, "*")), "1"),
            of(sent(PATH).insert_header((IF_NONE_MATCH, "*")), "1"),
        ];
        for other in others {
            assert_eq!(other.key, first.key);
            assert_ne!(other.request, first.request);
        }
        assert_eq!(idempotency(&TestRequest::with_uri(PATH).to_http_request(), b"1").unwrap(), None);
    }

    #[test]
    fn a_bad_key_is_refused_in_words() {
        let status = |request: TestRequest| idempotency(&request.to_http_request(), b"").unwrap_err().status_code().as_u16();
        let with = |value: &str| TestRequest::with_uri(PATH).insert_header((IDEMPOTENCY_KEY, value));
        for bad in ["", "a b", "\"a", &"k".repeat(256)] {
            assert_eq!(status(with(bad)), 400, "{bad:?}");
        }
        assert_eq!(status(with("a").append_header((IDEMPOTENCY_KEY, "b"))), 400);
        assert_eq!(no_key(&with("a").to_http_request()).unwrap_err().status_code().as_u16(), 400);
        assert!(no_key(&TestRequest::with_uri(PATH).to_http_request()).is_ok());
    }
}
