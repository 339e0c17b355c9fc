//! What writes answer, and the options they take.

use actix_web::http::StatusCode;
use actix_web::http::header::{IF_MATCH, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use anabranch_protocol::replica::Written;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The answer to a write.
#[derive(Debug, Serialize)]
pub struct WrittenPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Null where everything stayed local.
    token: Option<String>,
    stamp: Option<String>,
    /// Peers known to have it durably; nobody is waited for under `ack=local`.
    confirmed_by: Vec<String>,
    replicated: bool,
}

impl WrittenPage {
    /// Of a write whose key the client chose.
    pub fn new(written: &Written) -> Self {
        Self {
            key: None,
            token: written.token.map(|token| token.to_string()),
            stamp: written.stamp.map(|stamp| stamp.to_string()),
            confirmed_by: Vec::new(),
            replicated: written.replicated,
        }
    }

    /// Of a write whose key the node chose.
    pub fn with_key(written: &Written) -> Self {
        Self { key: written.key.as_ref().map(ToString::to_string), ..Self::new(written) }
    }

    pub fn respond(&self, status: StatusCode) -> HttpResponse {
        HttpResponse::build(status).json(self)
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteQuery {
    ack: Option<String>,
    /// How long `ack` may take; nothing takes long yet.
    #[serde(rename = "timeout_ms")]
    _timeout_ms: Option<u64>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadQuery {
    after: Option<String>,
    /// How long `after` may take; nothing takes long yet.
    #[serde(rename = "timeout_ms")]
    _timeout_ms: Option<u64>,
}

/// Parses the query; an unknown parameter is an error, for its sender counts on it.
pub fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| Problem::bad_request(format!("the query is malformed: {error}")))
}

/// Refuses what this version can't honour on a write: waiting for other nodes, and preconditions.
pub fn check_write_options(request: &HttpRequest) -> Result<(), Problem> {
    let WriteQuery { ack, .. } = query(request)?;
    match ack.as_deref() {
        None | Some("local") => {}
        Some("all") => return Err(Problem::not_yet("`ack` other than `local`")),
        Some(count) if count.parse::<u16>().is_ok_and(|count| count > 0) => {
            return Err(Problem::not_yet("`ack` other than `local`"));
        }
        Some(other) => {
            let detail = format!("`ack` is {other:?}: use `local`, `all` or a number of nodes");
            return Err(Problem::bad_request(detail));
        }
    }
    if [IF_MATCH, IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name)) {
        return Err(Problem::not_yet("`If-Match` and `If-None-Match` on writes"));
    }
    Ok(())
}

/// Refuses what this version can't honour on a read: waiting for a write.
pub fn check_read_options(request: &HttpRequest) -> Result<(), Problem> {
    let ReadQuery { after, .. } = query(request)?;
    if after.is_some() { Err(Problem::not_yet("`after` on reads")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_what_is_honoured_is_accepted() {
        let status = |query: &str| {
            let request = TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
            check_write_options(&request).map_or_else(|problem| problem.status_code().as_u16(), |()| 200)
        };
        assert_eq!([status(""), status("ack=local&timeout_ms=5")], [200, 200]);
        assert_eq!([status("ack=2"), status("ack=all")], [501, 501]);
        assert_eq!([status("ack=0"), status("ack=some"), status("akc=2"), status("timeout_ms=x")], [400; 4]);
        let guarded = TestRequest::with_uri("/x").insert_header((IF_NONE_MATCH, "*")).to_http_request();
        assert_eq!(check_write_options(&guarded).unwrap_err().status_code().as_u16(), 501);
    }
}
