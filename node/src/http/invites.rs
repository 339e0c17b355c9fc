//! `POST /v1/invites`: a string that lets another node join. The answer is a secret and is not to be kept by anything in between.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{DatasetId, Lineage};
use anabranch_protocol::invite::{INVITE_ADDRESSES_MAX, Invite};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Api, body};
use crate::config::is_loopback;
use crate::swarm;
use crate::wall_time::rfc3339;

const BODY_MAX: usize = 16 << 10;
/// An invite that nobody says more about serves for a day: long enough for a colleague, too short for a chat's archive.
const EXPIRES_IN_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest; `never` is longer.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// How long datasets are waited for: what one that does not answer has as its lineage, `Hello` tells too.
const LINEAGES_TIMEOUT: Duration = Duration::from_secs(2);

/// How long, and from where.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = InviteWish)]
pub struct Ask {
    /// A span such as `1h`, or `never`; a number counts seconds. A day without it.
    #[schema(value_type = Option<String>)]
    expires_in: Option<Json>,
    /// Where else the node is reached, from beyond a router say; they come first.
    addresses: Vec<String>,
}

/// An invite: a secret that lets another node join.
#[derive(Serialize, ToSchema)]
pub struct InvitePage {
    invite: String,
    peer_id: String,
    /// What it names, as multiaddrs.
    addresses: Vec<String>,
    /// RFC 3339; null where it does not expire.
    expires_at: Option<String>,
    /// Whether it holds one.
    network_key: bool,
    /// It names loopback alone.
    this_machine_only: bool,
}

/// Makes a string that lets another node join.
#[utoipa::path(
    post, path = "/v1/invites", tag = "node",
    request_body = Option<Ask>,
    responses((status = 200, body = InvitePage)),
)]
pub async fn make(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, &mut payload, BODY_MAX, &api.bodies).await?;
    let ask: Ask = if body.is_empty() { Ok(Ask::default()) } else { serde_json::from_slice(&body) }
        .map_err(|error| Problem::bad_request(format!("the body is not {{\"expires_in\": \"1h\"}}: {error}")))?;
    let expires_in = expires_in(ask.expires_in.as_ref())?;
    let addresses = addresses(&api, &ask.addresses)?;
    let made_at = api.clock.now();
    let expires_at = expires_in.map(|span| WallClock(made_at.0.saturating_add(millis(span))));
    let invite = Invite {
        peer: api.node.peer_id(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        network_key: api.network_keys.first().cloned(),
        made_at,
        expires_at,
        lineages: lineages(&api).await,
    };
    tracing::info!(expires = expires_at.map_or_else(|| "never".to_owned(), rfc3339), "an invite was made");
    let whole = addresses.iter().map(|address| format!("{address}/p2p/{}", invite.peer));
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(InvitePage {
        invite: invite.to_text(),
        peer_id: invite.peer.to_string(),
        addresses: whole.collect(),
        expires_at: expires_at.map(rfc3339),
        network_key: invite.network_key.is_some(),
        this_machine_only: addresses.iter().all(is_loopback),
    }))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How long an invite serves; none: for ever.
fn expires_in(asked: Option<&Json>) -> Result<Option<Duration>, Problem> {
    let refused = |why: &str| {
        Problem::bad_request(format!("`expires_in`: {why}: write a span such as \"1h\" or \"7d\", seconds, or \"never\""))
    };
    let span = match asked {
        None | Some(Json::Null) => EXPIRES_IN_DEFAULT,
        Some(Json::String(word)) if word == "never" => return Ok(None),
        Some(Json::String(text)) => humantime::parse_duration(text).map_err(|error| refused(&error.to_string()))?,
        Some(Json::Number(seconds)) => seconds.as_u64().map(Duration::from_secs).ok_or_else(|| refused("not whole seconds"))?,
        Some(_) => return Err(refused("neither a text nor a number")),
    };
    if span.is_zero() || span > EXPIRES_IN_MAX {
        return Err(refused("out of bounds"));
    }
    Ok(Some(span))
}

/// Where the node can be dialed: what the caller says, then what it listens on. Loopback counts only where there is nothing else.
fn addresses(api: &Api, told: &[String]) -> Result<Vec<Multiaddr>, Problem> {
    let mut dialable = Vec::new();
    for text in told {
        let parsed = crate::config::multiaddr(text);
        let (bare, named) = swarm::split_peer(&parsed.map_err(|why| Problem::bad_request(format!("{text}: {why}")))?);
        if named.is_some_and(|peer| Some(peer) != swarm::to_libp2p(api.node.peer_id())) {
            return Err(Problem::bad_request(format!("{text}: that is another node's id: leave /p2p/… out")));
        }
        dialable.push(bare);
    }
    let listen = api.network.listen_addresses();
    let listen = listen.iter().filter_map(|text| text.parse().ok()).map(|address| swarm::split_peer(&address).0);
    dialable.extend(listen.filter(is_specific));
    if dialable.iter().any(|address| !is_loopback(address)) {
        dialable.retain(|address| !is_loopback(address));
    }
    let mut seen = std::collections::BTreeSet::new();
    dialable.retain(|address| seen.insert(address.to_string()));
    dialable.truncate(INVITE_ADDRESSES_MAX);
    if dialable.is_empty() {
        let (name, title) = ("no-address", "Nobody can dial this node");
        let detail = "this node listens nowhere that another could dial: start it with --listen, or name \"addresses\"";
        return Err(Problem::new(StatusCode::CONFLICT, name, title, detail));
    }
    Ok(dialable)
}

/// Neither every interface, nor one that only means something on this link.
fn is_specific(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_link_local(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
        _ => false,
    }
}

async fn lineages(api: &Api) -> BTreeMap<DatasetId, Lineage> {
    let datasets = tokio::time::timeout(LINEAGES_TIMEOUT, api.node.datasets()).await.unwrap_or_default();
    let known = datasets.into_iter().filter_map(|info| Some((info.dataset, info.contents?.lineage)));
    known.filter(|(_, lineage)| *lineage != Lineage::ZERO).collect()
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_are_texts_seconds_or_never() {
        let of = |json: Json| expires_in(Some(&json)).map_err(|problem| problem.status_code().as_u16());
        assert_eq!(expires_in(None).ok().flatten(), Some(EXPIRES_IN_DEFAULT));
        assert_eq!([of(json!("1h")), of(json!(60))], [Ok(Some(Duration::from_secs(3_600))), Ok(Some(Duration::from_secs(60)))]);
        assert_eq!(of(json!("never")), Ok(None));
        for bad in [json!("soon"), json!(-1), json!(0), json!("0s"), json!([]), json!("1000y"), json!(u64::MAX)] {
            assert_eq!(of(bad.clone()), Err(400), "{bad}");
        }
    }

    #[test]
    fn an_address_that_means_nothing_elsewhere_is_left_out() {
        let specific = |text: &str| is_specific(&text.parse().unwrap());
        assert!(specific("/ip4/192.0.2.1/tcp/1") && specific("/ip4/127.0.0.1/tcp/1") && specific("/ip6/2001:db8::1/tcp/1"));
        for vague in ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/169.254.0.1/tcp/1"] {
            assert!(!specific(vague), "{vague}");
        }
    }
}
