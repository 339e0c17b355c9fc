//! `POST /v1/datasets/{d}/restart`, `/pause` and `/resume`; what was set aside: `GET /v1/datasets/{d}/aside`,
//! `DELETE /v1/datasets/{d}/aside/{name}`.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::{DropAsideError, Order, SetAside};
use serde::Serialize;
use serde_json::json;

use super::problem::Problem;
use super::{Api, target};

/// A damaged store that was set aside.
#[derive(Debug, Serialize)]
pub struct AsideRow {
    name: String,
    path: String,
    at: String,
    reason: String,
}

impl From<SetAside> for AsideRow {
    fn from(aside: SetAside) -> Self {
        Self { name: aside.name, path: aside.path.display().to_string(), at: aside.at, reason: aside.reason }
    }
}

pub async fn restart(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    order(&request, &api, Order::Restart, "restarting").await
}

/// A pause is a state of the running process: the next start of the node runs the dataset again.
pub async fn pause(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    order(&request, &api, Order::Pause, "paused; it runs again when it is resumed or the node starts again").await
}

pub async fn resume(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    order(&request, &api, Order::Resume, "running, or about to").await
}

async fn order(request: &HttpRequest, api: &Api, order: Order, now: &str) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(request)?;
    api.kind(&dataset)?;
    api.node.order(&dataset, order).await.map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Accepted().json(json!({ "dataset_id": dataset.as_str(), "now": now })))
}

pub async fn list_aside(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let rows = api.node.set_aside(&dataset).map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Ok().json(rows.into_iter().map(AsideRow::from).collect::<Vec<_>>()))
}

pub async fn drop_aside(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let name = target::aside(&request)?;
    let dropped = api.node.drop_aside(&dataset, name).await.map_err(|error| Problem::of_dataset(&error))?;
    match dropped {
        Ok(()) => Ok(HttpResponse::NoContent().finish()),
        Err(error @ DropAsideError::Unknown(_)) => Err(Problem::not_found(error.to_string())),
        Err(error @ DropAsideError::Io(_)) => {
            let (name, title) = ("aside-not-removed", "What was set aside can't be removed");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, name, title, error.to_string()))
        }
    }
}
