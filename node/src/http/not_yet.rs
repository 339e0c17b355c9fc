//! Parts of the API that later versions bring answer 501 and do nothing; paths outside it 404, other methods 405.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};

use super::problem::Problem;

pub async fn not_yet(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::not_yet(&format!("{} {}", request.method(), request.path())))
}

pub async fn no_such_path(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::not_found(format!("the API has no {}", request.path())))
}

/// RFC 9110, 15.5.6: 405 says what is allowed.
pub async fn no_such_method(request: HttpRequest, allowed: String) -> Result<HttpResponse, Problem> {
    let detail = format!("{} takes no {}", request.path(), request.method());
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Not for this path", detail);
    Err(problem.allowing(allowed))
}
