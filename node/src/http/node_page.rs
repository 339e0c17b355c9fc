//! `GET /v1/node`, which is also what `--ready-file` gets.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::Api;

/// Who the node is and where it listens.
#[derive(Debug, Clone, Serialize)]
pub struct NodePage {
    pub peer_id: String,
    pub version: &'static str,
    /// Multiaddrs to paste, each ending in `/p2p/<peer id>`.
    pub listen: Vec<String>,
    /// `host:port`.
    pub http: String,
    pub data_dir: String,
    pub uptime_seconds: u64,
}

pub async fn show(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().json(api.node_page())
}
