//! `GET …/collections`: registered and local-only collections; `PUT` and `DELETE …/collections/{c}`: register and unregister one.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::{CollectionInfo, Coverage};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Api, target};

#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionRow {
    collection: String,
    registered: bool,
    documents: u64,
    /// `complete`, `importing`, `frozen` or `absent`.
    coverage: &'static str,
    /// Commits whose sections have to be pulled, while it is imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_commits: Option<u64>,
    reason: Option<String>,
}

impl From<CollectionInfo> for CollectionRow {
    fn from(info: CollectionInfo) -> Self {
        let remaining_commits = if let Coverage::Importing { missing } = info.coverage { Some(missing) } else { None };
        Self {
            collection: info.collection.to_string(),
            registered: info.registered,
            documents: info.documents,
            coverage: info.coverage.as_str(),
            remaining_commits,
            reason: info.reason,
        }
    }
}

/// What became of a registration.
#[derive(Debug, Serialize, ToSchema)]
pub struct Registered {
    collection: String,
    registered: bool,
}

/// Registered and local-only collections.
#[utoipa::path(
    get, path = "/v1/datasets/{d}/collections", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "primary")),
    responses((status = 200, body = Vec<CollectionRow>)),
)]
pub async fn list(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let collections = api.node.collections(&dataset).await.map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Ok().json(collections.into_iter().map(CollectionRow::from).collect::<Vec<_>>()))
}

/// 201 if it is registered by this, 200 if it was.
#[utoipa::path(
    put, path = "/v1/datasets/{d}/collections/{c}", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders")),
    responses((status = 200, description = "It was registered", body = Registered), (status = 201, description = "It is registered now", body = Registered)),
)]
pub async fn register(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let (dataset, collection) = (target::dataset(&request)?, target::collection(&request)?);
    api.kind(&dataset)?;
    let registered = api.node.register(&dataset, &collection).await;
    let new = registered.map_err(|error| Problem::of_registration(&error, &dataset))?;
    let mut answer = if new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(Registered { collection: collection.to_string(), registered: true }))
}

/// 200 if it is unregistered by this, 204 if it was not registered. What is here of it stays.
#[utoipa::path(
    delete, path = "/v1/datasets/{d}/collections/{c}", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "primary"), ("c" = String, Path, description = "Collection", min_length = 1, max_length = 128, example = "orders")),
    responses((status = 200, description = "It is not registered any more", body = Registered), (status = 204, description = "It was not registered")),
)]
pub async fn unregister(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let (dataset, collection) = (target::dataset(&request)?, target::collection(&request)?);
    api.kind(&dataset)?;
    let unregistered = api.node.unregister(&dataset, &collection).await;
    let was = unregistered.map_err(|error| Problem::of_registration(&error, &dataset))?;
    if !was {
        return Ok(HttpResponse::NoContent().finish());
    }
    Ok(HttpResponse::Ok().json(Registered { collection: collection.to_string(), registered: false }))
}
