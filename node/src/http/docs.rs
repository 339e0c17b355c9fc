//! One document: PUT, GET, PATCH, DELETE, and POST where the node chooses the key.

use actix_web::http::StatusCode;
use actix_web::http::header::{ContentType, ETAG};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::Confirmed;
use anabranch_protocol::id::{Collection, DatasetId};
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest, Written};
use anabranch_protocol::value::{Value, decode};
use anabranch_protocol::wire::Kind;

use super::answer::{
    Wait, WriteQuery, WrittenPage, etag, expectation, is_known, receipt, unconditional_write, wait_as_asked, write_options,
};
use super::idempotency::idempotency;
use super::problem::Problem;
use super::{Api, body, target};

/// Writes a document, whether there was one or not.
#[utoipa::path(
    put, path = "/v1/datasets/{d}/collections/{c}/docs/{key}", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders"), ("key" = String, Path, description = "Key, percent-encoded", min_length = 1, max_length = 1024, example = "o-1"), WriteQuery, ("Idempotency-Key" = Option<String>, Header, description = "Sent again under the same key within 24 hours, the write is answered as it was and does not happen again", min_length = 1, max_length = 255, pattern = "^([!#-~][!-~]*|\"[!#-Z^-~]+\")$"), ("If-Match" = Option<String>, Header, description = "`*`, or entity tags: only if the document has one of them"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no document")),
    request_body(content = serde_json::Value, description = "The document: any JSON value"),
    responses((status = 200, description = "Replaced", body = WrittenPage), (status = 201, description = "Created", body = WrittenPage), (status = 202, description = "Written here, and fewer nodes confirmed it in time than were asked for", body = WrittenPage)),
)]
pub async fn put(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, body::VALUE_BODY_MAX, &api.bodies).await?;
    let place = Place::of(&request, &api)?;
    let op = Op::Put { key: target::key(&request)?, value: value(&body)?.encode() };
    let (written, confirmed) = place.write(&request, &api, op, &body).await?;
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(WrittenPage::new(&written, &confirmed).respond(status))
}

/// Writes a document, or a record, under a key that the node chooses.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/collections/{c}/docs", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders"), WriteQuery, ("Idempotency-Key" = Option<String>, Header, description = "Sent again under the same key within 24 hours, the write is answered as it was and does not happen again", min_length = 1, max_length = 255, pattern = "^([!#-~][!-~]*|\"[!#-Z^-~]+\")$")),
    request_body(content = serde_json::Value, description = "The document: any JSON value"),
    responses((status = 201, description = "Created; `key` says where", body = WrittenPage), (status = 202, description = "Written here, and fewer nodes confirmed it in time than were asked for", body = WrittenPage)),
)]
pub async fn post(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, body::VALUE_BODY_MAX, &api.bodies).await?;
    let place = Place::of(&request, &api)?;
    let value = value(&body)?.encode();
    let op = match place.kind {
        Kind::Append => Op::Append { value },
        Kind::Documents => Op::Put { key: api.new_key(), value },
    };
    unconditional_write(&request)?;
    let (written, confirmed) = place.write(&request, &api, op, &body).await?;
    Ok(WrittenPage::with_key(&written, &confirmed).respond(StatusCode::CREATED))
}

/// Changes fields of a document (RFC 7396).
#[utoipa::path(
    patch, path = "/v1/datasets/{d}/collections/{c}/docs/{key}", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders"), ("key" = String, Path, description = "Key, percent-encoded", min_length = 1, max_length = 1024, example = "o-1"), WriteQuery, ("Idempotency-Key" = Option<String>, Header, description = "Sent again under the same key within 24 hours, the write is answered as it was and does not happen again", min_length = 1, max_length = 255, pattern = "^([!#-~][!-~]*|\"[!#-Z^-~]+\")$"), ("If-Match" = Option<String>, Header, description = "`*`, or entity tags: only if the document has one of them"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no document")),
    request_body(content = serde_json::Value, description = "A merge patch: fields to set, null for those to remove; anything but an object replaces the document"),
    responses((status = 200, body = WrittenPage), (status = 202, description = "Written here, and fewer nodes confirmed it in time than were asked for", body = WrittenPage)),
)]
pub async fn patch(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, body::VALUE_BODY_MAX, &api.bodies).await?;
    let place = Place::of(&request, &api)?;
    let op = Op::Merge { key: target::key(&request)?, patch: value(&body)?, must_exist: true };
    let (written, confirmed) = place.write(&request, &api, op, &body).await?;
    Ok(WrittenPage::new(&written, &confirmed).respond(StatusCode::OK))
}

/// Deletes a document that is there.
#[utoipa::path(
    delete, path = "/v1/datasets/{d}/collections/{c}/docs/{key}", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders"), ("key" = String, Path, description = "Key, percent-encoded", min_length = 1, max_length = 1024, example = "o-1"), WriteQuery, ("Idempotency-Key" = Option<String>, Header, description = "Sent again under the same key within 24 hours, the write is answered as it was and does not happen again", min_length = 1, max_length = 255, pattern = "^([!#-~][!-~]*|\"[!#-Z^-~]+\")$"), ("If-Match" = Option<String>, Header, description = "`*`, or entity tags: only if the document has one of them"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no document")),
    responses((status = 200, body = WrittenPage), (status = 202, description = "Written here, and fewer nodes confirmed it in time than were asked for", body = WrittenPage)),
)]
pub async fn delete(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let place = Place::of(&request, &api)?;
    let op = Op::Delete { key: target::key(&request)?, must_exist: true };
    let (written, confirmed) = place.write(&request, &api, op, &[]).await?;
    Ok(WrittenPage::new(&written, &confirmed).respond(StatusCode::OK))
}

/// The document itself; its stamp is the entity tag.
#[utoipa::path(
    get, path = "/v1/datasets/{d}/collections/{c}/docs/{key}", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders"), ("key" = String, Path, description = "Key, percent-encoded", min_length = 1, max_length = 1024, example = "o-1"), Wait, ("If-None-Match" = Option<String>, Header, description = "Entity tags that the client has")),
    responses((status = 200, body = serde_json::Value, headers(("ETag" = String, description = "The stamp"))), (status = 304, description = "The client has it")),
)]
pub async fn get(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let (collection, key) = (target::collection(&request)?, target::key(&request)?);
    wait_as_asked(&request, &api, &dataset, &collection).await?;
    let found = api.node.get(&dataset, &collection, &key).await.map_err(|error| Problem::of_dataset(&error))?;
    let Some(document) = found else {
        let detail = format!("no document {:?} in collection {:?}", key.as_str(), collection.as_str());
        return Err(Problem::not_found(detail).in_dataset(&dataset));
    };
    let etag = (ETAG, etag(&document.stamp));
    if is_known(&request, &document.stamp) {
        return Ok(HttpResponse::NotModified().insert_header(etag).finish());
    }
    let json = json(&document.value, &dataset)?.to_json();
    Ok(HttpResponse::Ok().content_type(ContentType::json()).insert_header(etag).body(json))
}

/// Where a write goes.
struct Place {
    dataset: DatasetId,
    kind: Kind,
    collection: Collection,
}

impl Place {
    fn of(request: &HttpRequest, api: &Api) -> Result<Self, Problem> {
        let dataset = target::dataset(request)?;
        let kind = api.kind(&dataset)?;
        Ok(Self { dataset, kind, collection: target::collection(request)? })
    }

    async fn write(self, request: &HttpRequest, api: &Api, op: Op, body: &[u8]) -> Result<(Written, Confirmed), Problem> {
        let options = write_options(request)?;
        let idempotency = idempotency(request, body)?;
        let Self { dataset, collection, .. } = self;
        let mut ops = Vec::with_capacity(2);
        if let Some(expected) = expectation(request)? {
            ops.push(WriteOp { collection: collection.clone(), op: Op::Expect { key: target::key(request)?, expected } });
        }
        ops.push(WriteOp { collection: collection.clone(), op });
        let written = api.write(&dataset, WriteRequest { ops, idempotency }).await?;
        let confirmed = receipt(api, &dataset, vec![collection], &written, options).await?;
        Ok((written, confirmed))
    }
}

fn value(body: &[u8]) -> Result<Value, Problem> {
    Value::from_json(body).map_err(|error| Problem::bad_request(format!("the body is not a JSON value: {error}")))
}

/// A stored value as JSON. What was stored was checked on its way in, so a failure here is a damaged store.
pub fn json(stored: &[u8], dataset: &DatasetId) -> Result<Value, Problem> {
    decode(stored).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", "A stored value is damaged", error.to_string())
            .in_dataset(dataset)
    })
}
