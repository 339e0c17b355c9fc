//! `POST …/batch`: several writes, one commit, all or nothing.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::WriteError;
use anabranch_protocol::replica::{WriteRefusal, WriteRequest};

use super::answer::{WriteQuery, WrittenPage, receipt, unconditional_write};
use super::ops::{OpError, OpReader, SentOp, WriteObject};
use super::problem::Problem;
use super::{Api, body, target};

/// Several writes in one commit: all of them or none.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/batch", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "primary"), WriteQuery),
    request_body(content = Vec<WriteObject>),
    responses((status = 200, body = WrittenPage), (status = 202, description = "Written here, and fewer nodes confirmed it in time than were asked for", body = WrittenPage)),
)]
pub async fn post(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, body::BATCH_BODY_MAX, &api.bodies).await?;
    let options = unconditional_write(&request)?;
    let dataset = target::dataset(&request)?;
    let kind = api.kind(&dataset)?;
    let sent: Vec<SentOp<'_>> = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is not a list of operations: {error}")))?;
    if sent.is_empty() {
        return Err(Problem::bad_request("the list of operations is empty"));
    }
    let new_key = || api.new_key();
    let mut reader = OpReader::new(kind, &new_key);
    let mut ops = Vec::with_capacity(sent.len());
    for (index, op) in sent.into_iter().enumerate() {
        let read = reader.read(op).map_err(|error| refusal(&error, index, &dataset))?;
        ops.push(read);
    }
    let collections: BTreeSet<_> = ops.iter().map(|write| write.collection.clone()).collect();
    let written = api.write(&dataset, WriteRequest { ops }).await?;
    let confirmed = receipt(&api, &dataset, collections.into_iter().collect(), &written, options).await?;
    Ok(WrittenPage::new(&written, &confirmed).respond(StatusCode::OK))
}

/// A batch: what is accepted is what a commit takes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(body: &[u8]) {
    let Ok(sent) = serde_json::from_slice::<Vec<SentOp<'_>>>(body) else { return };
    let kind =
        if sent.len() % 2 == 0 { anabranch_protocol::wire::Kind::Documents } else { anabranch_protocol::wire::Kind::Append };
    super::ops::fuzz(kind, sent);
}

fn refusal(error: &OpError, index: usize, dataset: &anabranch_protocol::id::DatasetId) -> Problem {
    let detail = format!("operation {index}: {}; nothing was written", error.detail());
    let problem = match error {
        OpError::Malformed(_) => Problem::bad_request(detail),
        OpError::TooLarge(_) => Problem::too_large(detail),
        OpError::WrongKind => Problem::of_write(&WriteError::Refused(WriteRefusal::AppendOnly), dataset),
    };
    problem.in_dataset(dataset).with("index", index)
}
