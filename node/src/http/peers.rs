//! `GET /v1/peers`, and `POST /v1/peers {"address"}`, which dials.

use std::collections::BTreeMap;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::{PeerDataset, PeerInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Api, body};

const DIAL_BODY_MAX: usize = 4 << 10;

#[derive(Debug, Serialize, ToSchema)]
pub struct PeerRow {
    peer_id: String,
    connected: bool,
    addresses: Vec<String>,
    rtt_ms: Option<f64>,
    /// Why nothing at all is synced with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    datasets: BTreeMap<String, PeerDatasetRow>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PeerDatasetRow {
    state: &'static str,
    lag_commits: u64,
    lag_seconds: f64,
    reason: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dial {
    address: String,
}

/// Peers that were heard of, and those the address book knows but that were not reached yet.
#[utoipa::path(
    get, path = "/v1/peers", tag = "peers",
    responses((status = 200, body = Vec<PeerRow>)),
)]
pub async fn list(api: Data<Api>) -> HttpResponse {
    let mut known = api.network.peers();
    let heard = api.node.peers().await;
    let mut rows: Vec<_> = heard.into_iter().map(|info| row(known.remove(&info.peer).unwrap_or_default(), info)).collect();
    let unheard =
        |peer| PeerInfo { peer, connected: false, addresses: Vec::new(), rtt: None, refused: None, datasets: Vec::new() };
    rows.extend(known.into_iter().map(|(peer, addresses)| row(addresses, unheard(peer))));
    HttpResponse::Ok().json(rows)
}

/// The peer shows in the list once it is connected; that the address was taken is all that is known now.
#[utoipa::path(
    post, path = "/v1/peers", tag = "peers",
    request_body = Dial,
    responses((status = 202, description = "It is dialed, now and again", body = Dial)),
)]
pub async fn dial(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, DIAL_BODY_MAX, &api.bodies).await?;
    let Dial { address } = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is not {{\"address\": MULTIADDR}}: {error}")))?;
    let parsed = crate::config::multiaddr(&address).map_err(|why| Problem::bad_request(format!("{address}: {why}")))?;
    api.network.dial(&parsed).map_err(|why| Problem::bad_request(format!("{address}: {why}")))?;
    Ok(HttpResponse::Accepted().json(Dial { address }))
}

/// `known` is where the network would dial; where it knows nothing, what the peer says of itself.
fn row(known: Vec<String>, peer: PeerInfo) -> PeerRow {
    let dataset = |dataset: PeerDataset| PeerDatasetRow {
        state: dataset.state.as_str(),
        lag_commits: dataset.lag_commits,
        lag_seconds: dataset.lag.as_secs_f64(),
        reason: dataset.reason,
    };
    PeerRow {
        peer_id: peer.peer.to_string(),
        connected: peer.connected,
        addresses: if known.is_empty() { peer.addresses } else { known },
        // Whole microseconds: more digits would be noise.
        rtt_ms: peer.rtt.map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3),
        refused: peer.refused,
        datasets: peer.datasets.into_iter().map(|(id, state)| (id.to_string(), dataset(state))).collect(),
    }
}
