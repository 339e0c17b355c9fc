//! `GET /v1/node`, which is also what `--ready-file` gets.

use actix_web::{HttpResponse, web};

use super::Api;
use crate::node::NodePage;

/// Who the node is and where it listens.
#[utoipa::path(
    get, path = "/v1/node", tag = "node",
    responses((status = 200, body = NodePage)),
)]
pub async fn show(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().json(api.node_page())
}
