//! `GET /v1/datasets`, `GET /v1/datasets/{d}`; `POST /v1/datasets` and `DELETE /v1/datasets/{d}`, which create and delete.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::{Counts, CreateError, DatasetContents, DatasetInfo, MessageBytes, RowAudit};
use serde::Serialize;
use utoipa::ToSchema;

use super::operate::AsideRow;
use super::problem::Problem;
use super::{Api, body, target};
use crate::hosting::HostingError;
use crate::wall_time::rfc3339_millis;

/// A thousand collections of the longest names, and room for the rest.
const DATASET_BODY_MAX: usize = 256 << 10;

/// A dataset that can't tell what it holds has its contents left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetRow {
    dataset_id: String,
    kind: String,
    enabled: bool,
    state: &'static str,
    reason: Option<String>,
    restarts: u64,
    set_aside: Vec<AsideRow>,
    counters: CountersRow,
    #[serde(flatten)]
    #[schema(value_type = Contents)]
    contents: Option<Contents>,
}

/// Since the node started.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountersRow {
    commits_written: u64,
    commits_received: u64,
    commits_refused: u64,
    entries_written: u64,
    entries_received: u64,
    restarts: u64,
    messages: BTreeMap<&'static str, MessageRow>,
    refusals: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MessageRow {
    bytes_received: u64,
    bytes_sent: u64,
}

/// What it holds; left out while it can't be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct Contents {
    #[schema(required = false)]
    documents: u64,
    #[schema(required = false)]
    commits: u64,
    #[schema(required = false)]
    oplog_bytes: u64,
    #[schema(required = false)]
    disk_bytes: u64,
    #[schema(required = false)]
    collections: Vec<String>,
    #[schema(required = false)]
    writer: Option<String>,
    #[schema(required = false)]
    vector: BTreeMap<String, u64>,
    #[schema(required = false)]
    fingerprint: String,
    #[schema(required = false)]
    held: Vec<Held>,
    #[schema(required = false)]
    received_commits: u64,
    #[schema(required = false)]
    refused_commits: u64,
    /// 32 hex digits; zeros while the dataset is open to all.
    #[schema(required = false)]
    lineage: String,
    #[schema(required = false)]
    row_audit: RowAuditRow,
}

/// The audit of rows in the background.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowAuditRow {
    /// Rows read by the walk in progress.
    rows: u64,
    /// Walks over all rows that found no damage since the store was opened.
    walks: u64,
    /// When the last of them ended, RFC 3339.
    finished_at: Option<String>,
}

/// A writer whose commits wait because its clock is too far ahead of ours.
#[derive(Debug, Serialize, ToSchema)]
pub struct Held {
    writer: String,
    seq: u64,
    ahead_seconds: f64,
}

/// A dataset to create, for those who read the API's description: its name, and keys of `[datasets.NAME]`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is judged as the configuration's page is; this is its shape")]
#[schema(as = NewDataset)]
pub struct NewDatasetObject {
    dataset_id: String,
    /// `documents` or `append`.
    kind: Option<String>,
    collections: Option<Vec<String>>,
    collections_max: Option<Vec<String>>,
    readers: Option<Vec<String>>,
    writers: Option<Vec<String>>,
    /// `new`, or 32 hex digits.
    lineage: Option<String>,
    sync: Option<BTreeMap<String, serde_json::Value>>,
}

/// What became of a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    dataset_id: String,
    now: &'static str,
    /// The configuration names it.
    configured: bool,
}

/// Every dataset, those that do not run too.
#[utoipa::path(
    get, path = "/v1/datasets", tag = "datasets",
    responses((status = 200, body = Vec<DatasetRow>)),
)]
pub async fn list(api: Data<Api>) -> HttpResponse {
    let rows: Vec<_> = api.node.datasets().await.into_iter().map(row).collect();
    HttpResponse::Ok().json(rows)
}

/// One dataset.
#[utoipa::path(
    get, path = "/v1/datasets/{d}", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses((status = 200, body = DatasetRow)),
)]
pub async fn show(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let info = api.node.dataset(&dataset).await.map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Ok().json(row(info)))
}

/// Creates a dataset: its name as `dataset_id`, and the keys of `[datasets.NAME]` of the configuration.
#[utoipa::path(
    post, path = "/v1/datasets", tag = "datasets",
    request_body(content = NewDatasetObject, example = json!({"dataset_id": "logs", "kind": "append", "collections": ["app"]})),
    responses((status = 201, body = DatasetRow), (status = 503, description = "It can not be created now")),
)]
pub async fn create(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, DATASET_BODY_MAX, &api.bodies).await?;
    let body = serde_json::from_slice(&body).map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
    // On its own: a client that goes away must not leave it half done.
    let (hosting, node) = (api.hosting.clone(), api.node.clone());
    let created = actix_web::rt::spawn(async move { hosting.create(&node, body).await }).await;
    let dataset = created.map_err(|error| Problem::interrupted(&error))?.map_err(of_hosting)?;
    let info = api.node.dataset(&dataset).await.map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Created().json(row(info)))
}

/// Its files are removed after the answer; under its name nothing is left when it comes.
#[utoipa::path(
    delete, path = "/v1/datasets/{d}", tag = "datasets",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "primary")),
    responses((status = 200, body = Deleted)),
)]
pub async fn delete(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    let (hosting, node, name) = (api.hosting.clone(), api.node.clone(), dataset.clone());
    let deleted = actix_web::rt::spawn(async move { hosting.delete(&node, &name).await }).await;
    let configured =
        deleted.map_err(|error| Problem::interrupted(&error))?.map_err(|error| of_hosting(error).in_dataset(&dataset))?;
    let now = if configured {
        "deleted; the configuration names it, so the next start of the node begins it anew, empty"
    } else {
        "deleted"
    };
    Ok(HttpResponse::Ok().json(Deleted { dataset_id: dataset.to_string(), now, configured }))
}

fn of_hosting(error: HostingError) -> Problem {
    let detail = error.to_string();
    let problem = |status, name, title| Problem::new(status, name, title, detail.clone());
    match error {
        HostingError::Malformed(_) => Problem::bad_request(detail),
        HostingError::OnlyPrimary => problem(StatusCode::FORBIDDEN, "only-primary", "This node runs only `primary`"),
        HostingError::Create(CreateError::Exists(dataset)) => {
            problem(StatusCode::CONFLICT, "dataset-exists", "The dataset exists").in_dataset(&dataset)
        }
        HostingError::Create(CreateError::TooMany { .. }) | HostingError::Cache { .. } => {
            problem(StatusCode::CONFLICT, "too-many-datasets", "No room for another dataset")
        }
        HostingError::Create(CreateError::NoThread | CreateError::Stopping) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "not-created", "The dataset can't be created now")
                .retry_after(Duration::from_secs(5))
        }
        HostingError::PrimaryStays => problem(StatusCode::CONFLICT, "primary-stays", "`primary` can't be deleted"),
        HostingError::Dataset(error) => Problem::of_dataset(&error),
        HostingError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            problem(StatusCode::INSUFFICIENT_STORAGE, "no-space", "No space left")
        }
        HostingError::Io(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "data-directory", "The data directory failed"),
    }
}

fn row(info: DatasetInfo) -> DatasetRow {
    DatasetRow {
        dataset_id: info.dataset.to_string(),
        kind: info.kind.to_string(),
        enabled: info.enabled,
        state: info.state.as_str(),
        reason: info.reason,
        restarts: info.restarts,
        set_aside: info.set_aside.into_iter().map(AsideRow::from).collect(),
        counters: counters(info.counts, info.restarts),
        contents: info.contents.map(contents),
    }
}

fn counters(counts: Counts, restarts: u64) -> CountersRow {
    let message = |bytes: MessageBytes| MessageRow { bytes_received: bytes.received, bytes_sent: bytes.sent };
    CountersRow {
        commits_written: counts.commits_written,
        commits_received: counts.commits_received,
        commits_refused: counts.commits_refused,
        entries_written: counts.entries_written,
        entries_received: counts.entries_received,
        restarts,
        messages: counts.messages.into_iter().map(|(kind, bytes)| (kind, message(bytes))).collect(),
        refusals: counts.refusals,
    }
}

fn contents(contents: DatasetContents) -> Contents {
    let held = contents.held.into_iter().map(|held| Held {
        writer: held.writer.to_string(),
        seq: held.seq,
        ahead_seconds: held.ahead.as_secs_f64(),
    });
    Contents {
        documents: contents.documents,
        commits: contents.commits,
        oplog_bytes: contents.oplog_bytes,
        disk_bytes: contents.disk_bytes,
        collections: contents.collections,
        writer: contents.writer.map(|writer| writer.to_string()),
        vector: contents.vector.iter().map(|(writer, head)| (writer.to_string(), head.seq)).collect(),
        fingerprint: contents.fingerprint,
        held: held.collect(),
        received_commits: contents.received_commits,
        refused_commits: contents.refused_commits,
        lineage: contents.lineage.to_string(),
        row_audit: row_audit(contents.row_audit),
    }
}

fn row_audit(RowAudit { rows, walks, finished }: RowAudit) -> RowAuditRow {
    RowAuditRow { rows, walks, finished_at: finished.map(rfc3339_millis) }
}
