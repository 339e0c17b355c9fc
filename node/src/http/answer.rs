//! What writes answer, and the options they take.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use anabranch_actors::api::{Ack, Confirmed};
use anabranch_protocol::conflict::Stamp;
use anabranch_protocol::id::{Collection, DatasetId};
use anabranch_protocol::replica::{Expected, Written};
use anabranch_protocol::token::Token;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::problem::Problem;

/// The answer to a write.
#[derive(Debug, Serialize, ToSchema)]
pub struct WrittenPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Null where everything stayed local.
    token: Option<String>,
    stamp: Option<String>,
    /// Peers known to have it durably; nobody is asked under `ack=local`.
    confirmed_by: Vec<String>,
    replicated: bool,
    #[serde(skip)]
    enough: bool,
}

impl WrittenPage {
    /// Of a write whose key the client chose.
    pub fn new(written: &Written, confirmed: &Confirmed) -> Self {
        Self {
            key: None,
            token: written.token.map(|token| token.to_string()),
            stamp: written.stamp.map(|stamp| stamp.to_string()),
            confirmed_by: confirmed.by.iter().map(ToString::to_string).collect(),
            replicated: written.replicated,
            enough: confirmed.enough,
        }
    }

    /// Of a write whose key the node chose.
    pub fn with_key(written: &Written, confirmed: &Confirmed) -> Self {
        Self { key: written.key.as_ref().map(ToString::to_string), ..Self::new(written, confirmed) }
    }

    /// With `status`, or 202 where the write stands but too few have it.
    pub fn respond(&self, status: StatusCode) -> HttpResponse {
        let mut response = HttpResponse::build(if self.enough { status } else { StatusCode::ACCEPTED });
        if let Some(stamp) = &self.stamp {
            response.insert_header((ETAG, format!("\"{stamp}\"")));
        }
        response.json(self)
    }
}

/// How long `ack` and `after` wait where the client doesn't say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest wait; a client that needs more asks again.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, serde::Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    /// `local` (durable here), `all` (at every enrolled peer), or on how many other nodes.
    #[param(pattern = "^(local|all|[1-9][0-9]{0,3})$")]
    ack: Option<String>,
    /// How long to wait for that; 5000 where it is left out.
    #[param(maximum = 300000)]
    timeout_ms: Option<u64>,
}

/// What a client asks of a write beside writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Where else it has to be durable; none: here is enough.
    pub ack: Option<Ack>,
    /// How long to wait for that.
    pub patience: Duration,
}

/// The wait that a read's query asks for.
#[derive(Debug, Default, serde::Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The token of a write that has to be in the answer.
    pub after: Option<String>,
    /// How long to wait for it; 5000 where it is left out.
    #[param(maximum = 300000)]
    pub timeout_ms: Option<u64>,
}

/// Parses the query; an unknown parameter is an error, for its sender counts on it.
pub fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| Problem::bad_request(format!("the query is malformed: {error}")))
}

/// What is asked of a write. Preconditions are for single documents: see [`expectation`].
pub fn write_options(request: &HttpRequest) -> Result<WriteOptions, Problem> {
    let WriteQuery { ack, timeout_ms } = query(request)?;
    let ack = match ack.as_deref() {
        None | Some("local") => None,
        Some("all") => Some(Ack::All),
        Some(count) => match count.parse::<u16>() {
            Ok(count) if count > 0 => Some(Ack::Peers(count)),
            _ => {
                let detail = format!("`ack` is {count:?}: use `local`, `all` or a number of nodes");
                return Err(Problem::bad_request(detail));
            }
        },
    };
    Ok(WriteOptions { ack, patience: patience(timeout_ms)? })
}

/// As [`write_options`], where nothing can be expected of one document.
pub fn unconditional_write(request: &HttpRequest) -> Result<WriteOptions, Problem> {
    if [IF_MATCH, IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name)) {
        let detail =
            "`If-Match` and `If-None-Match` are for one document: PUT, PATCH and DELETE of its path; nothing was written";
        return Err(Problem::bad_request(detail));
    }
    write_options(request)
}

fn patience(timeout_ms: Option<u64>) -> Result<Duration, Problem> {
    let patience = timeout_ms.map_or(TIMEOUT_DEFAULT, Duration::from_millis);
    if patience > TIMEOUT_MAX {
        return Err(Problem::bad_request(format!("`timeout_ms` is more than {}", TIMEOUT_MAX.as_millis())));
    }
    Ok(patience)
}

/// What `If-Match` or `If-None-Match` expects of a document.
pub fn expectation(request: &HttpRequest) -> Result<Option<Expected>, Problem> {
    let text = |name: &HeaderName| {
        let lines: Vec<_> = request.headers().get_all(name).map(|value| value.to_str().unwrap_or("?")).collect();
        (!lines.is_empty()).then(|| lines.join(","))
    };
    match (text(&IF_MATCH), text(&IF_NONE_MATCH)) {
        (None, None) => Ok(None),
        (Some(tags), None) if tags.trim() == "*" => Ok(Some(Expected::Present)),
        // A tag that is no stamp of ours is one that no document has.
        (Some(tags), None) => Ok(Some(Expected::AnyOf(stamps(&tags)))),
        (None, Some(tags)) if tags.trim() == "*" => Ok(Some(Expected::Absent)),
        (None, Some(_)) => Err(Problem::bad_request("`If-None-Match` on a write is `*`: only where nothing is there yet")),
        (Some(_), Some(_)) => Err(Problem::bad_request("send `If-Match` or `If-None-Match`, not both")),
    }
}

/// The stamps of a list of entity tags. Weak ones never match a write (RFC 9110, 13.1.1).
fn stamps(tags: &str) -> Vec<Stamp> {
    let stamp = |tag: &str| tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok();
    tags.split(',').filter_map(stamp).collect()
}

/// Whether the client has the document as it is: `If-None-Match` on a read.
pub fn is_known(request: &HttpRequest, stamp: &Stamp) -> bool {
    let known = |value: &str| {
        let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        value.trim() == "*" || value.split(',').any(|tag| strong(tag) == etag(stamp))
    };
    request.headers().get_all(IF_NONE_MATCH).any(|value| value.to_str().is_ok_and(known))
}

/// A stamp as an entity tag.
pub fn etag(stamp: &Stamp) -> String {
    format!("\"{stamp}\"")
}

/// Answers a write that stands: with who has it, and 202 where those are not as many as were asked for.
pub async fn receipt(
    api: &Api,
    dataset: &DatasetId,
    collections: Vec<Collection>,
    written: &Written,
    options: WriteOptions,
) -> Result<Confirmed, Problem> {
    match (options.ack, written.token.filter(|_| written.replicated)) {
        (None, _) => Ok(Confirmed { by: Vec::new(), enough: true }),
        // What is stored here only is never confirmed by anybody.
        (Some(_), None) => Ok(Confirmed { by: Vec::new(), enough: false }),
        (Some(ack), Some(token)) => {
            let confirmed = api.node.confirmed(dataset, token, collections, ack, options.patience).await;
            confirmed.map_err(|error| Problem::of_dataset(&error))
        }
    }
}

/// Waits for the write that a read comes after, if it names one.
pub async fn wait_for_write(api: &Api, dataset: &DatasetId, collection: &Collection, wait: &Wait) -> Result<(), Problem> {
    let patience = patience(wait.timeout_ms)?;
    let Some(after) = &wait.after else { return Ok(()) };
    let token: Token = after.parse().map_err(|error| Problem::bad_request(format!("`after`: {error}")))?;
    let arrived = api.node.arrived(dataset, collection, token, patience).await;
    arrived.map_err(|error| Problem::of_wait(&error, dataset))
}

/// As [`wait_for_write`], for a read that takes no other parameters.
pub async fn wait_as_asked(
    request: &HttpRequest,
    api: &Api,
    dataset: &DatasetId,
    collection: &Collection,
) -> Result<(), Problem> {
    wait_for_write(api, dataset, collection, &query::<Wait>(request)?).await
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use actix_web::test::TestRequest;
    use anabranch_protocol::hlc::Hlc;
    use anabranch_protocol::id::{Epoch, PeerId, WriterId};

    use super::*;

    #[test]
    fn waits_are_parsed_and_bounded() {
        let options = |query: &str| {
            let request = TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
            write_options(&request).map_err(|problem| problem.status_code().as_u16())
        };
        let of = |ack, millis| Ok(WriteOptions { ack, patience: Duration::from_millis(millis) });
        assert_eq!([options(""), options("ack=local&timeout_ms=5")], [of(None, 5_000), of(None, 5)]);
        assert_eq!([options("ack=2"), options("ack=all")], [of(Some(Ack::Peers(2)), 5_000), of(Some(Ack::All), 5_000)]);
        for bad in ["ack=0", "ack=some", "akc=2", "timeout_ms=x", "timeout_ms=300001"] {
            assert_eq!(options(bad), Err(400), "{bad}");
        }
        let guarded = TestRequest::with_uri("/x").insert_header((IF_NONE_MATCH, "*")).to_http_request();
        assert_eq!(unconditional_write(&guarded).unwrap_err().status_code().as_u16(), 400);
    }

    #[test]
    fn preconditions_are_strong_tags_or_a_star() {
        let writer = WriterId { peer: PeerId([1; 32]), epoch: Epoch([2; 16]) };
        let stamp = Stamp { hlc: Hlc(3), writer, index: 4 };
        let expected = |name: HeaderName, value: &str| {
            let request = TestRequest::with_uri("/x").insert_header((name, value)).to_http_request();
            expectation(&request).map_err(|problem| problem.status_code().as_u16())
        };
        assert_eq!(expected(IF_MATCH, "*"), Ok(Some(Expected::Present)));
        assert_eq!(expected(IF_NONE_MATCH, "*"), Ok(Some(Expected::Absent)));
        assert_eq!(expected(IF_NONE_MATCH, "\"x\""), Err(400));
        let list = format!("\"{stamp}\", W/\"{stamp}\", \"other\"");
        assert_eq!(expected(IF_MATCH, &list), Ok(Some(Expected::AnyOf(vec![stamp]))));
        let request = TestRequest::with_uri("/x").insert_header((IF_NONE_MATCH, list)).to_http_request();
        assert!(is_known(&request, &stamp));
    }
}
