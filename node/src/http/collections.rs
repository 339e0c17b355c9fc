//! `GET …/collections`: registered and local-only collections.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::problem::Problem;
use super::{Api, target};

#[derive(Debug, Serialize)]
struct Row {
    collection: String,
    registered: bool,
    documents: u64,
}

pub async fn list(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let collections = api.node.collections(&dataset).await.map_err(|error| Problem::of_dataset(&error))?;
    let row = |info: anabranch_actors::api::CollectionInfo| Row {
        collection: info.collection.to_string(),
        registered: info.registered,
        documents: info.documents,
    };
    Ok(HttpResponse::Ok().json(collections.into_iter().map(row).collect::<Vec<_>>()))
}
