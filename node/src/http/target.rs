//! What a path names. Segments are taken from the path as it was sent and decoded strictly: a key may hold any text, `/` as
//! `%2F`, and what is no UTF-8 is refused instead of being replaced.

use actix_web::HttpRequest;
use anabranch_protocol::id::{Collection, DatasetId, Key, NameError, PeerId};

use super::problem::Problem;

/// The dataset in `/v1/datasets/{d}…`.
pub fn dataset(request: &HttpRequest) -> Result<DatasetId, Problem> {
    let name = segment(request.uri().path(), 3)?;
    DatasetId::new(&name).map_err(|_| Problem::unknown_dataset(&name))
}

/// The collection in `/v1/datasets/{d}/collections/{c}…`. Reserved ones are not for users.
pub fn collection(request: &HttpRequest) -> Result<Collection, Problem> {
    Ok(Collection::user(&segment(request.uri().path(), 5)?)?)
}

/// The key in `/v1/datasets/{d}/collections/{c}/docs/{key}`: all that follows.
pub fn key(request: &HttpRequest) -> Result<Key, Problem> {
    let rest = request.uri().path().splitn(8, '/').nth(7).unwrap_or_default();
    Ok(Key::new(&decoded(rest)?)?)
}

/// What was set aside, in `/v1/datasets/{d}/aside/{name}`; the dataset knows which names there are.
pub fn aside(request: &HttpRequest) -> Result<String, Problem> {
    segment(request.uri().path(), 5)
}

/// The peer in `/v1/peers/{peer_id}…`.
pub fn peer(request: &HttpRequest) -> Result<PeerId, Problem> {
    let text = segment(request.uri().path(), 3)?;
    text.parse().map_err(|error: NameError| Problem::bad_request(error.to_string()))
}

/// The segment at `index`, counted from 1.
fn segment(path: &str, index: usize) -> Result<String, Problem> {
    decoded(path.split('/').nth(index).unwrap_or_default())
}

/// Percent-decodes one segment.
fn decoded(segment: &str) -> Result<String, Problem> {
    let refused = || Problem::bad_request("the path is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(refused()) };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| refused())?);
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

/// Any name or key that a client spells as a segment is read as it was; what is read from any segment is spelled so.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(text: &str) {
    use crate::cli::client::segment as spelled;
    assert_eq!(decoded(&spelled(text)).ok().as_deref(), Some(text));
    if let Ok(meant) = decoded(text) {
        assert_eq!(decoded(&spelled(&meant)).ok(), Some(meant));
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn key_of(path: &str) -> Result<String, Problem> {
        let request = TestRequest::with_uri(path).to_http_request();
        key(&request).map(|key| key.to_string())
    }

    #[test]
    fn a_key_may_hold_any_text() {
        let docs = "/v1/datasets/primary/collections/c/docs/";
        for (sent, meant) in
            [("a", "a"), ("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("%C3%BC+%2B", "ü++"), ("a/b", "a/b"), (".", ".")]
        {
            assert_eq!(key_of(&format!("{docs}{sent}")).unwrap(), meant);
        }
        for bad in ["", "%", "%2", "%zz", "%FF", "a%00b", &"k".repeat(1_025)] {
            assert!(key_of(&format!("{docs}{bad}")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_decoded_and_checked() {
        let request = TestRequest::with_uri("/v1/datasets/lo%67s/collections/my%20things/docs").to_http_request();
        assert_eq!(dataset(&request).unwrap().as_str(), "logs");
        assert_eq!(collection(&request).unwrap().as_str(), "my things");
        for bad in ["_control", "a%00", "a%2Fb", "*"] {
            let request = TestRequest::with_uri(&format!("/v1/datasets/d/collections/{bad}/docs")).to_http_request();
            assert!(collection(&request).is_err(), "{bad:?}");
        }
    }
}
