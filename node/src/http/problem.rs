//! Errors as RFC 9457 problem details. Each says what happened, whether anything was written, and what to do.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use anabranch_actors::api::{AfterError, DatasetError, RegistrationError, WriteError};
use anabranch_protocol::id::{DatasetId, NameError};
use anabranch_protocol::replica::WriteRefusal;
use serde_json::{Map, Value as Json};

/// What `type` begins with. A URN: there is no page behind it to fetch.
const TYPE_PREFIX: &str = "urn:anabranch:problem/";
/// A store that failed to read is opened again in about this time.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct Problem(Box<Details>);

#[derive(Debug)]
struct Details {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    detail: String,
    dataset: Option<DatasetId>,
    retry_after: Option<Duration>,
    /// The methods that the path takes.
    allow: Option<String>,
    more: Map<String, Json>,
}

impl Problem {
    pub fn new(status: StatusCode, name: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Details { status, name, title, detail, dataset: None, retry_after: None, allow: None, more: Map::new() }))
    }

    /// The request is malformed; nothing was written.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is malformed", detail)
    }

    /// A body or value over its limit; nothing was written.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// Nothing by that name.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// A part of the API that a later version brings.
    pub fn not_yet(what: &str) -> Self {
        let detail = format!("{what} is not supported by this version yet; nothing was done");
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-supported-yet", "Not supported by this version yet", detail)
    }

    pub fn unknown_dataset(name: &str) -> Self {
        let name: String = name.chars().take(80).collect();
        Self::new(StatusCode::NOT_FOUND, "unknown-dataset", "Unknown dataset", format!("no dataset {name:?} on this node"))
    }

    /// What was done on its own ended without a word.
    pub fn interrupted(error: &impl std::fmt::Display) -> Self {
        let detail = format!("how it ended is not known: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "interrupted", "It was interrupted", detail)
    }

    /// Why a dataset didn't answer.
    pub fn of_dataset(error: &DatasetError) -> Self {
        let detail = error.to_string();
        match error {
            DatasetError::Unknown(dataset) => Self::unknown_dataset(dataset.as_str()).in_dataset(dataset),
            DatasetError::Unavailable { dataset, state, retry_after, .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "dataset-unavailable", "The dataset can't answer now", detail)
                    .in_dataset(dataset)
                    .retry_after(*retry_after)
                    .with("state", state.as_str())
            }
            DatasetError::Overloaded { dataset, retry_after, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "Too many requests wait already", detail)
                    .in_dataset(dataset)
                    .retry_after(*retry_after)
            }
            DatasetError::Storage { dataset, .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage-failed", "The store can't be read", detail)
                    .in_dataset(dataset)
                    .retry_after(STORAGE_RETRY)
            }
        }
    }

    /// Why a collection was not registered or unregistered.
    pub fn of_registration(error: &RegistrationError, dataset: &DatasetId) -> Self {
        let detail = error.to_string();
        match error {
            RegistrationError::Dataset(error) => Self::of_dataset(error),
            RegistrationError::Refused(_) => {
                Self::new(StatusCode::FORBIDDEN, "registration-refused", "The registration can't be changed so", detail)
                    .in_dataset(dataset)
            }
            RegistrationError::Unknown(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "outcome-unknown", "The outcome is unknown", detail)
                    .in_dataset(dataset)
            }
        }
    }

    /// Why a write was not acknowledged.
    pub fn of_write(error: &WriteError, dataset: &DatasetId) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::Dataset(error) => Self::of_dataset(error),
            WriteError::Refused(refusal) => Self::of_refusal(refusal).in_dataset(dataset),
            WriteError::NoSpace { dataset } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", "No space left", detail).in_dataset(dataset)
            }
            WriteError::Unknown { dataset, .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "outcome-unknown", "The outcome of the write is unknown", detail)
                    .in_dataset(dataset)
            }
        }
    }

    /// Why a read that waits for a write was not answered.
    pub fn of_wait(error: &AfterError, dataset: &DatasetId) -> Self {
        let detail = error.to_string();
        match error {
            AfterError::Dataset(error) => return Self::of_dataset(error),
            AfterError::Late { .. } | AfterError::Importing(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "not-arrived", "The write did not arrive in time", detail)
            }
            AfterError::OtherHistory => Self::new(StatusCode::CONFLICT, "other-history", "A token of another history", detail),
            AfterError::NotRegistered(_) => {
                Self::new(StatusCode::CONFLICT, "not-registered", "The collection does not replicate here", detail)
            }
        }
        .in_dataset(dataset)
    }

    fn of_refusal(refusal: &WriteRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            WriteRefusal::NotAWriter => Self::new(StatusCode::FORBIDDEN, "not-a-writer", "This node may not write here", detail),
            WriteRefusal::NotFound { .. } => Self::not_found(detail),
            WriteRefusal::NotAsExpected { current, .. } => {
                let current = current.map(|stamp| stamp.to_string());
                Self::new(StatusCode::PRECONDITION_FAILED, "not-as-expected", "The document is not as expected", detail)
                    .with("current", current)
            }
            WriteRefusal::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used for another request",
                detail,
            ),
            WriteRefusal::AppendOnly | WriteRefusal::DocumentsOnly => {
                Self::new(StatusCode::CONFLICT, "wrong-kind", "Not for a dataset of this kind", detail)
            }
            WriteRefusal::RecordsStay => Self::new(StatusCode::CONFLICT, "wrong-kind", "Not for a dataset of this kind", detail),
            WriteRefusal::DropsNothingShared { .. } => {
                Self::new(StatusCode::CONFLICT, "not-registered", "The collection does not replicate here", detail)
            }
            WriteRefusal::ValueTooLarge { .. } | WriteRefusal::TooLarge(_) => Self::too_large(detail),
            WriteRefusal::InvalidValue(_) | WriteRefusal::Reserved { .. } => Self::bad_request(detail),
        }
    }

    /// Too much is under way.
    #[must_use]
    pub fn busy(detail: impl Into<String>) -> Self {
        let title = "Too many requests wait already";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", title, detail).retry_after(Duration::from_secs(1))
    }

    #[must_use]
    pub fn in_dataset(mut self, dataset: &DatasetId) -> Self {
        self.0.dataset = Some(dataset.clone());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Names the methods that are.
    #[must_use]
    pub fn allowing(mut self, methods: String) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// Another member of the problem details.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// The answer with a dataset's name in it, where it has none yet.
    pub fn naming(&self, dataset: &DatasetId) -> Option<HttpResponse> {
        self.0.dataset.is_none().then(|| self.respond(Some(dataset)))
    }

    fn respond(&self, dataset: Option<&DatasetId>) -> HttpResponse {
        let mut response = HttpResponse::build(self.0.status);
        response.content_type("application/problem+json");
        if let Some(after) = self.0.retry_after {
            // Whole seconds, rounded up: zero would invite a storm.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.insert_header((RETRY_AFTER, seconds.max(1).to_string()));
        }
        if let Some(methods) = &self.0.allow {
            response.insert_header((ALLOW, methods.as_str()));
        }
        response.body(self.body(dataset).to_string())
    }

    fn body(&self, dataset: Option<&DatasetId>) -> Json {
        let details = &self.0;
        let mut members = Map::new();
        members.insert("type".to_owned(), format!("{TYPE_PREFIX}{}", details.name).into());
        members.insert("title".to_owned(), details.title.into());
        members.insert("status".to_owned(), details.status.as_u16().into());
        members.insert("detail".to_owned(), details.detail.clone().into());
        if let Some(dataset) = dataset {
            members.insert("dataset".to_owned(), dataset.as_str().into());
        }
        members.extend(details.more.clone());
        Json::Object(members)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        self.respond(self.0.dataset.as_ref())
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_problem(error: WriteError) -> (u16, Json, Option<String>) {
        let problem = Problem::of_write(&error, &DatasetId::primary());
        let response = problem.error_response();
        let retry = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), problem.body(problem.0.dataset.as_ref()), retry)
    }

    #[test]
    fn every_write_error_has_its_status() {
        let dataset = DatasetId::primary();
        let (status, body, retry) = write_problem(WriteError::Dataset(DatasetError::Overloaded {
            dataset: dataset.clone(),
            waiting: 9,
            retry_after: Duration::from_millis(1_200),
        }));
        assert_eq!((status, body["dataset"].as_str(), retry.as_deref()), (429, Some("primary"), Some("2")));
        let (status, _, retry) = write_problem(WriteError::Dataset(DatasetError::Unavailable {
            dataset: dataset.clone(),
            state: anabranch_actors::api::DatasetState::Restarting,
            reason: "x".into(),
            retry_after: Duration::ZERO,
        }));
        assert_eq!((status, retry.as_deref()), (503, Some("1")));
        assert_eq!(write_problem(WriteError::Dataset(DatasetError::Unknown(dataset.clone()))).0, 404);
        assert_eq!(write_problem(WriteError::NoSpace { dataset: dataset.clone() }).0, 507);
        let (status, body, retry) = write_problem(WriteError::Unknown { dataset, reason: "x".into() });
        assert_eq!((status, retry), (500, None));
        assert!(body["type"].as_str().unwrap().ends_with("/outcome-unknown"));
        assert_eq!(body["status"], 500);
    }

    #[test]
    fn every_refusal_has_its_status() {
        let status = |refusal| write_problem(WriteError::Refused(refusal)).0;
        assert_eq!(status(WriteRefusal::AppendOnly), 409);
        assert_eq!(status(WriteRefusal::DocumentsOnly), 409);
        assert_eq!(status(WriteRefusal::KeyReused), 422);
        assert_eq!(status(WriteRefusal::RecordsStay), 409);
        let collection = anabranch_protocol::id::Collection::new("x").unwrap();
        assert_eq!(status(WriteRefusal::DropsNothingShared { collection: collection.clone() }), 409);
        assert_eq!(status(WriteRefusal::Reserved { collection }), 400);
        assert_eq!(status(WriteRefusal::ValueTooLarge { bytes: 2, limit: 1 }), 413);
        assert_eq!(status(WriteRefusal::TooLarge("x")), 413);
    }

    #[test]
    fn problems_say_their_content_type() {
        let response = Problem::bad_request("x").with("line", 3).error_response();
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        assert!(Problem::bad_request("x").naming(&DatasetId::primary()).is_some());
        assert!(Problem::bad_request("x").in_dataset(&DatasetId::primary()).naming(&DatasetId::primary()).is_none());
        assert_eq!(Problem::bad_request("x").with("line", 3).body(None)["line"], 3);
    }
}
