//! `POST /v1/peers/{peer_id}/enrol`, `/demote` and `/disable`, `DELETE /v1/peers/{peer_id}`.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_protocol::id::{DatasetId, PeerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Api, body, target};
use crate::peering::PeeringError;
use crate::swarm::SwarmError;

const BODY_MAX: usize = 4 << 10;

/// Where, if not everywhere.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InDataset {
    /// Only there.
    dataset: Option<String>,
}

/// Lets a peer in again that was disabled, and counts on it again: in one dataset, or wherever it was demoted.
#[utoipa::path(
    post, path = "/v1/peers/{peer_id}/enrol", tag = "peers",
    params(("peer_id" = String, Path, description = "Peer", pattern = "^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$")),
    request_body = Option<InDataset>,
    responses((status = 200, body = PeerStanding)),
)]
pub async fn enrol(request: HttpRequest, api: Data<Api>, payload: Payload) -> Result<HttpResponse, Problem> {
    let (peer, dataset) = asked(&request, &api, payload).await?;
    let order = |api: Data<Api>| async move { api.peering.enrol(&api.node, &*api.network, peer, dataset).await };
    carry_out(&api, peer, order).await
}

/// Does not wait for a peer any more on writes with `ack=all`: in one dataset, or in all.
#[utoipa::path(
    post, path = "/v1/peers/{peer_id}/demote", tag = "peers",
    params(("peer_id" = String, Path, description = "Peer", pattern = "^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$")),
    request_body = Option<InDataset>,
    responses((status = 200, body = PeerStanding)),
)]
pub async fn demote(request: HttpRequest, api: Data<Api>, payload: Payload) -> Result<HttpResponse, Problem> {
    let (peer, dataset) = asked(&request, &api, payload).await?;
    let order = |api: Data<Api>| async move { api.peering.demote(&api.node, &*api.network, peer, dataset).await };
    carry_out(&api, peer, order).await
}

/// Refuses to talk to a peer until it is enrolled again. It need not be known yet.
#[utoipa::path(
    post, path = "/v1/peers/{peer_id}/disable", tag = "peers",
    params(("peer_id" = String, Path, description = "Peer", pattern = "^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$")),
    responses((status = 200, body = PeerStanding)),
)]
pub async fn disable(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let peer = target::peer(&request)?;
    let order = |api: Data<Api>| async move { api.peering.disable(&api.node, &*api.network, peer).await };
    carry_out(&api, peer, order).await
}

/// Demotes a peer everywhere, disconnects it and forgets its addresses. It may come back by itself unless it is disabled.
#[utoipa::path(
    delete, path = "/v1/peers/{peer_id}", tag = "peers",
    params(("peer_id" = String, Path, description = "Peer", pattern = "^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$")),
    responses((status = 200, body = PeerStanding)),
)]
pub async fn remove(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let peer = target::peer(&request)?;
    let order = |api: Data<Api>| async move { api.peering.remove(&api.node, &*api.network, peer).await };
    carry_out(&api, peer, order).await
}

/// On its own: a client that goes away must not leave an order half done.
async fn carry_out<Done>(api: &Data<Api>, peer: PeerId, order: impl FnOnce(Data<Api>) -> Done) -> Result<HttpResponse, Problem>
where
    Done: Future<Output = Result<(), PeeringError>> + 'static,
{
    let done = actix_web::rt::spawn(order(api.clone())).await;
    done.map_err(|error| Problem::interrupted(&error))?.map_err(|error| problem(&error))?;
    Ok(standing(api, peer).await)
}

async fn asked(request: &HttpRequest, api: &Api, mut payload: Payload) -> Result<(PeerId, Option<DatasetId>), Problem> {
    let peer = target::peer(request)?;
    let body = body::read(request, &mut payload, BODY_MAX, &api.bodies).await?;
    let ask: InDataset = if body.is_empty() { Ok(InDataset::default()) } else { serde_json::from_slice(&body) }
        .map_err(|error| Problem::bad_request(format!("the body is not {{\"dataset\": NAME}}, or empty: {error}")))?;
    let dataset = ask.dataset.map(|name| DatasetId::new(&name).map_err(|_| Problem::unknown_dataset(&name))).transpose()?;
    Ok((peer, dataset))
}

/// What this node thinks of a peer.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeerStanding {
    peer_id: String,
    /// It is not talked to.
    disabled: bool,
    /// Datasets in which `ack=all` waits for it.
    enrolled: Vec<String>,
    /// Datasets in which it does not, by an operator's word.
    demoted: Vec<String>,
}

async fn standing(api: &Api, peer: PeerId) -> HttpResponse {
    let enrolments = api.node.enrolments().await;
    let of = |demoted: bool| {
        let there = enrolments.iter().filter(|(_, e)| if demoted { &e.demoted } else { &e.enrolled }.contains(&peer));
        there.map(|(dataset, _)| dataset.to_string()).collect::<Vec<_>>()
    };
    HttpResponse::Ok().json(PeerStanding {
        peer_id: peer.to_string(),
        disabled: api.peering.disabled().contains(&peer),
        enrolled: of(false),
        demoted: of(true),
    })
}

fn problem(error: &PeeringError) -> Problem {
    let detail = error.to_string();
    match error {
        PeeringError::Myself => Problem::bad_request(detail),
        PeeringError::Unknown(_) => Problem::not_found(detail),
        PeeringError::Dataset(error) => Problem::of_dataset(error),
        PeeringError::TooMany => Problem::new(StatusCode::CONFLICT, "too-many-disabled", "Too many peers are disabled", detail),
        PeeringError::Io(_) | PeeringError::Network(SwarmError::NotWritten(_)) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not-written", "The data directory can't be written", detail)
        }
        PeeringError::Partly { failed, .. } => {
            let datasets: Vec<_> = failed.keys().map(ToString::to_string).collect();
            let (name, title) = ("not-in-every-dataset", "Not done in every dataset");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, name, title, detail)
                .retry_after(std::time::Duration::from_secs(1))
                .with("datasets", datasets)
        }
        PeeringError::Network(_) => Problem::busy(detail),
    }
}
