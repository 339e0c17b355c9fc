//! `GET /healthz` (the process runs) and `GET /readyz` (every enabled dataset does).

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use anabranch_actors::api::{DatasetInfo, DatasetState};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;

/// How long a health check waits for datasets.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the node is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthPage {
    /// `healthy`, `degraded` or `unhealthy`.
    health: &'static str,
    why: Vec<String>,
}

/// How the node is, and why it isn't better.
struct Health {
    word: &'static str,
    why: Vec<String>,
    not_running: Vec<String>,
}

/// How the node is: `healthy`, `degraded` or `unhealthy`, and why. The process runs if it is answered.
#[utoipa::path(
    get, path = "/healthz", tag = "node",
    responses((status = 200, body = HealthPage)),
)]
pub async fn alive(api: Data<Api>) -> HttpResponse {
    let health = Health::ask(&api).await;
    HttpResponse::Ok().json(HealthPage { health: health.word, why: health.why })
}

/// Whether every enabled dataset runs.
#[utoipa::path(
    get, path = "/readyz", tag = "node",
    responses((status = 200, body = HealthPage), (status = 503, description = "Not every dataset runs", body = serde_json::Value, content_type = "application/problem+json")),
)]
pub async fn ready(api: Data<Api>) -> Result<HttpResponse, Problem> {
    let health = Health::ask(&api).await;
    if health.not_running.is_empty() {
        return Ok(HttpResponse::Ok().json(HealthPage { health: health.word, why: health.why }));
    }
    let detail = format!("not running: {}", health.why.join("; "));
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not every dataset runs", detail)
        .retry_after(Duration::from_secs(1))
        .with("health", health.word)
        .with("why", health.why)
        .with("datasets", health.not_running))
}

impl Health {
    /// Asks every dataset, but never waits long: that nothing answers is an answer.
    async fn ask(api: &Api) -> Self {
        match tokio::time::timeout(PATIENCE, api.node.datasets()).await {
            Ok(datasets) => Self::of(&datasets),
            Err(_) => Self {
                word: "unhealthy",
                why: vec![format!("datasets did not answer within {PATIENCE:?}")],
                not_running: api.node.enabled().iter().map(ToString::to_string).collect(),
            },
        }
    }

    fn of(datasets: &[DatasetInfo]) -> Self {
        // While collections are imported a dataset serves all that it has.
        let serves = |info: &&DatasetInfo| matches!(info.state, DatasetState::Running | DatasetState::Importing);
        let enabled = || datasets.iter().filter(|info| info.enabled);
        let (running, others): (Vec<_>, Vec<_>) = enabled().partition(serves);
        let word = match (running.is_empty(), others.is_empty()) {
            (_, true) if running.iter().all(|info| info.reason.is_none()) => "healthy",
            (true, false) => "unhealthy",
            _ => "degraded",
        };
        let why = enabled().filter(|info| info.state != DatasetState::Running || info.reason.is_some()).map(|info| {
            let reason = info.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} is {}{reason}", info.dataset, info.state.as_str())
        });
        Self { word, why: why.collect(), not_running: others.iter().map(|info| info.dataset.to_string()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::id::DatasetId;
    use anabranch_protocol::wire::Kind;

    use super::*;

    fn info(name: &str, state: DatasetState, reason: Option<&str>) -> DatasetInfo {
        DatasetInfo {
            dataset: DatasetId::new(name).unwrap(),
            kind: Kind::Documents,
            enabled: true,
            state,
            reason: reason.map(str::to_owned),
            restarts: 0,
            contents: None,
            counts: anabranch_actors::api::Counts::default(),
            set_aside: Vec::new(),
        }
    }

    #[test]
    fn health_names_who_does_not_run_and_why() {
        let well = info("a", DatasetState::Running, None);
        let failed = info("b", DatasetState::Failed, Some("disk"));
        assert_eq!(Health::of(std::slice::from_ref(&well)).word, "healthy");
        let both = Health::of(&[well, failed.clone()]);
        assert_eq!(
            (both.word, both.why.concat(), both.not_running.join("")),
            ("degraded", "b is failed: disk".into(), "b".into())
        );
        assert_eq!(Health::of(&[failed]).word, "unhealthy");
        let off = DatasetInfo { enabled: false, ..info("c", DatasetState::Paused, Some("disabled")) };
        let beside = Health::of(&[info("a", DatasetState::Running, None), off]);
        assert_eq!((beside.word, beside.why.len(), beside.not_running.len()), ("healthy", 0, 0));
        let importing = Health::of(&[info("a", DatasetState::Importing, Some("orders is imported"))]);
        assert_eq!((importing.word, importing.not_running.len()), ("degraded", 0));
        let warned = Health::of(&[info("a", DatasetState::Running, Some("clock"))]);
        assert_eq!((warned.word, warned.not_running.len()), ("degraded", 0));
    }
}
