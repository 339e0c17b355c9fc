//! `GET …/docs`: a page of documents in key order.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::ListQuery;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Wait, query, wait_for_write};
use super::problem::Problem;
use super::{Api, docs, target};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// Only keys that begin so.
    prefix: String,
    /// Where the page begins: the `next` of the page before.
    after: Option<String>,
    /// Most documents; 100 where it is left out, never more than 1000.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// For `append` datasets: records from this time on, RFC 3339 or milliseconds since 1970.
    from: Option<String>,
    /// For `append` datasets: records before this time.
    to: Option<String>,
    /// The write that the page has to have in it. `after` is where the page begins.
    after_token: Option<String>,
    /// How long to wait for that write; 5000 where it is left out.
    #[param(maximum = 300000)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    docs: Vec<DocumentRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DocumentRow {
    key: String,
    #[schema(value_type = serde_json::Value)]
    value: Value,
    stamp: String,
}

/// Documents in key order.
#[utoipa::path(
    get, path = "/v1/datasets/{d}/collections/{c}/docs", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders"), Query),
    responses((status = 200, body = Page)),
)]
pub async fn list(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    let kind = api.kind(&dataset)?;
    let collection = target::collection(&request)?;
    let (query, wait) = judged(query(&request)?, kind)?;
    wait_for_write(&api, &dataset, &collection, &wait).await?;
    let listing = api.node.list(&dataset, &collection, query).await.map_err(|error| Problem::of_dataset(&error))?;
    let mut rows = Vec::with_capacity(listing.documents.len());
    for document in listing.documents {
        let value = docs::json(&document.value, &dataset)?;
        rows.push(DocumentRow { key: document.key.to_string(), value, stamp: document.stamp.to_string() });
    }
    Ok(HttpResponse::Ok().json(Page { docs: rows, next: listing.next }))
}

fn judged(query: Query, kind: Kind) -> Result<(ListQuery, Wait), Problem> {
    if kind == Kind::Documents && (query.from.is_some() || query.to.is_some()) {
        return Err(Problem::bad_request("`from` and `to` are for append datasets, whose keys sort by time"));
    }
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 {
        return Err(Problem::bad_request(format!("`limit` is 0: use 1 to {LIMIT_MAX}")));
    }
    let wait = Wait { after: query.after_token, timeout_ms: query.timeout_ms };
    let query = ListQuery {
        prefix: query.prefix,
        after: query.after,
        limit: limit.min(LIMIT_MAX),
        from: query.from.as_deref().map(time).transpose()?,
        to: query.to.as_deref().map(time).transpose()?,
    };
    Ok((query, wait))
}

/// A time: RFC 3339 in UTC, or milliseconds since the Unix epoch.
fn time(text: &str) -> Result<WallClock, Problem> {
    if let Ok(millis) = text.parse() {
        return Ok(WallClock(millis));
    }
    let refused = || Problem::bad_request(format!("{text:?} is not a time: use 2026-01-31T12:00:00Z or milliseconds"));
    let at = humantime::parse_rfc3339_weak(text).map_err(|_| refused())?;
    let since = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| refused())?;
    u64::try_from(since.as_millis()).map(WallClock).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_in_two_ways() {
        assert_eq!(time("1970-01-01T00:00:01Z").unwrap(), WallClock(1_000));
        assert_eq!(time("1500").unwrap(), WallClock(1_500));
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn a_page_is_bounded_and_times_are_for_records() {
        let with = |limit, from: Option<&str>| Query { limit, from: from.map(str::to_owned), ..Query::default() };
        assert_eq!(judged(with(Some(5_000), None), Kind::Documents).unwrap().0.limit, LIMIT_MAX);
        assert_eq!(judged(with(None, None), Kind::Documents).unwrap().0.limit, LIMIT_DEFAULT);
        assert!(judged(with(Some(0), None), Kind::Documents).is_err());
        assert!(judged(with(None, Some("0")), Kind::Documents).is_err());
        assert!(judged(with(None, Some("0")), Kind::Append).is_ok());
    }
}
