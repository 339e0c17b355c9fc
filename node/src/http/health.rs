//! `GET /healthz` (the process runs) and `GET /readyz` (every enabled dataset does).

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::health::Health;

/// How long a health check waits for datasets; that one does not answer is an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the node is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthPage {
    /// `healthy`, `degraded` or `unhealthy`.
    health: &'static str,
    why: Vec<String>,
}

/// How the node is: `healthy`, `degraded` or `unhealthy`, and why. The process runs if it is answered.
#[utoipa::path(
    get, path = "/healthz", tag = "node",
    responses((status = 200, body = HealthPage)),
)]
pub async fn alive(api: Data<Api>) -> HttpResponse {
    page(&ask(&api).await)
}

/// Whether every enabled dataset runs.
#[utoipa::path(
    get, path = "/readyz", tag = "node",
    responses((status = 200, body = HealthPage), (status = 503, description = "Not every dataset runs", body = serde_json::Value, content_type = "application/problem+json")),
)]
pub async fn ready(api: Data<Api>) -> Result<HttpResponse, Problem> {
    let health = ask(&api).await;
    if health.not_running.is_empty() {
        return Ok(page(&health));
    }
    let detail = format!("not running: {}", health.why.join("; "));
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not every dataset runs", detail)
        .retry_after(Duration::from_secs(1))
        .with("health", health.condition.as_str())
        .with("why", health.why)
        .with("datasets", health.not_running))
}

async fn ask(api: &Api) -> Health {
    Health::of(&api.see(PATIENCE).await, &api.health)
}

fn page(health: &Health) -> HttpResponse {
    HttpResponse::Ok().json(HealthPage { health: health.condition.as_str(), why: health.why.clone() })
}
