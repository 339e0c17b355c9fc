//! `GET /v1/node`, which is also what `--ready-file` gets.

use actix_web::{HttpResponse, web};

use super::Api;

pub async fn show(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().json(api.node_page())
}
