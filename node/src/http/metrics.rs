//! `GET /metrics`, and what counts the requests shown there.

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::Api;
use super::problem::Problem;

/// Prometheus text; `docs/metrics.md` names every series.
#[utoipa::path(get, path = "/metrics", tag = "node", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn show(api: Data<Api>) -> Result<HttpResponse, Problem> {
    let page = api.metrics.page(&api).await.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no-metrics", "The metrics can't be shown", error.to_string())
    })?;
    Ok(HttpResponse::Ok().content_type(prometheus::TEXT_FORMAT).body(page))
}

/// Counts a request, whoever answers it.
pub async fn count<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, actix_web::Error> {
    let api = request.app_data::<Data<Api>>().expect("every application has the API's data").clone();
    let (route, method) = (request.match_pattern(), request.method().clone());
    let in_flight = api.metrics.http.begin();
    let answer = next.call(request).await;
    let status = match &answer {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    api.metrics.http.answered(&in_flight, route, &method, status.as_u16());
    answer
}
