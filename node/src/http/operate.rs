//! `POST /v1/datasets/{d}/restart`, `/pause`, `/resume` and `/repair-clock`; what was set aside: `GET /v1/datasets/{d}/aside`,
//! `DELETE /v1/datasets/{d}/aside/{name}`.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::{DropAsideError, Order, RepairError, SetAside};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Api, target};

/// A damaged store that was set aside.
#[derive(Debug, Serialize, ToSchema)]
pub struct AsideRow {
    name: String,
    path: String,
    at: String,
    reason: String,
}

/// What an order comes to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ordered {
    dataset_id: String,
    now: &'static str,
}

impl From<SetAside> for AsideRow {
    fn from(aside: SetAside) -> Self {
        Self { name: aside.name, path: aside.path.display().to_string(), at: aside.at, reason: aside.reason }
    }
}

/// Closes a dataset and opens it again.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/restart", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses((status = 202, body = Ordered)),
)]
pub async fn restart(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    order(&request, &api, Order::Restart, "restarting").await
}

/// A pause is a state of the running process: the next start of the node runs the dataset again.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/pause", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses((status = 202, body = Ordered)),
)]
pub async fn pause(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    order(&request, &api, Order::Pause, "paused; it runs again when it is resumed or the node starts again").await
}

/// Lets a paused dataset run.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/resume", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses((status = 202, body = Ordered)),
)]
pub async fn resume(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    order(&request, &api, Order::Resume, "running, or about to").await
}

async fn order(request: &HttpRequest, api: &Api, order: Order, now: &'static str) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(request)?;
    api.kind(&dataset)?;
    api.node.order(&dataset, order).await.map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Accepted().json(Ordered { dataset_id: dataset.to_string(), now }))
}

/// What repairing the clock of a dataset came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct RepairedPage {
    dataset_id: String,
    /// Commits of this node that were issued again, with stamps of now under a new epoch.
    repaired_commits: u64,
    /// Records of writes that don't replicate, which got stamps of now.
    restamped_local: u64,
    /// The store as it was before, as `GET …/aside` lists it; null where nothing was to be done.
    set_aside: Option<String>,
}

/// Issues the commits of this node whose stamps lie further ahead of its clock than `max_clock_skew` again, with sane stamps under a
/// new epoch. Answered once it is done, which takes as long as reading and writing the whole store; the dataset is down meanwhile.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/repair-clock", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses(
        (status = 200, body = RepairedPage),
        (status = 409, description = "It may not be done now, as `detail` says: this node's clock is still wrong, or a peer has some of the commits or may have; nothing was changed"),
    ),
)]
pub async fn repair_clock(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    match api.node.repair_clock(&dataset).await {
        Ok(repaired) => Ok(HttpResponse::Ok().json(RepairedPage {
            dataset_id: dataset.to_string(),
            repaired_commits: repaired.commits,
            restamped_local: repaired.local,
            set_aside: repaired.aside.map(|aside| aside.name),
        })),
        Err(RepairError::Dataset(error)) => Err(Problem::of_dataset(&error)),
        Err(error @ RepairError::Refused(..)) => {
            let title = "The clock can't be repaired now";
            Err(Problem::new(StatusCode::CONFLICT, "clock-not-repaired", title, error.to_string()).in_dataset(&dataset))
        }
        Err(error @ RepairError::Failed { .. }) => {
            let title = "Repairing the clock failed";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "repair-failed", title, error.to_string()).in_dataset(&dataset))
        }
    }
}

/// Damaged stores that were set aside.
#[utoipa::path(
    get, path = "/v1/datasets/{d}/aside", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses((status = 200, body = Vec<AsideRow>)),
)]
pub async fn list_aside(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let rows = api.node.set_aside(&dataset).map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Ok().json(rows.into_iter().map(AsideRow::from).collect::<Vec<_>>()))
}

/// Deletes what was set aside.
#[utoipa::path(
    delete, path = "/v1/datasets/{d}/aside/{name}", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary"), ("name" = String, Path, description = "As it is listed")),
    responses((status = 204, description = "Deleted")),
)]
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
