//! `GET /v1/datasets` and `GET /v1/datasets/{d}`.

use std::collections::BTreeMap;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::{DatasetContents, DatasetInfo};
use serde::Serialize;

use super::operate::AsideRow;
use super::problem::Problem;
use super::{Api, target};

/// A dataset that can't tell what it holds has its contents left out.
#[derive(Debug, Serialize)]
struct Row {
    dataset_id: String,
    kind: String,
    state: &'static str,
    reason: Option<String>,
    restarts: u64,
    set_aside: Vec<AsideRow>,
    #[serde(flatten)]
    contents: Option<Contents>,
}

#[derive(Debug, Serialize)]
struct Contents {
    documents: u64,
    commits: u64,
    oplog_bytes: u64,
    disk_bytes: u64,
    collections: Vec<String>,
    writer: Option<String>,
    vector: BTreeMap<String, u64>,
    fingerprint: String,
    held: Vec<Held>,
    received_commits: u64,
    refused_commits: u64,
}

/// A writer whose commits wait because its clock is too far ahead of ours.
#[derive(Debug, Serialize)]
struct Held {
    writer: String,
    seq: u64,
    ahead_seconds: f64,
}

pub async fn list(api: Data<Api>) -> HttpResponse {
    let rows: Vec<_> = api.node.datasets().await.into_iter().map(row).collect();
    HttpResponse::Ok().json(rows)
}

pub async fn show(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let dataset = target::dataset(&request)?;
    api.kind(&dataset)?;
    let info = api.node.dataset(&dataset).await.map_err(|error| Problem::of_dataset(&error))?;
    Ok(HttpResponse::Ok().json(row(info)))
}

fn row(info: DatasetInfo) -> Row {
    Row {
        dataset_id: info.dataset.to_string(),
        kind: info.kind.to_string(),
        state: info.state.as_str(),
        reason: info.reason,
        restarts: info.restarts,
        set_aside: info.set_aside.into_iter().map(AsideRow::from).collect(),
        contents: info.contents.map(contents),
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
    }
}
