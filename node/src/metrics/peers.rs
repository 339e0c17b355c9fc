//! Series of each peer. An identity costs nothing, so only peers that were once accepted for a dataset, or that the network keeps an
//! address of, get any, and only so many.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_actors::api::PeerInfo;
use anabranch_protocol::id::PeerId;

use super::page::Page;
use super::series as s;
use crate::seen::Seen;

/// Peers that get series of their own, connected ones first.
pub const SHOWN_MAX: usize = 256;

/// `known` is whom the network would dial.
pub fn add(page: &mut Page, seen: &Seen, known: &BTreeMap<PeerId, Vec<String>>) {
    let heard: BTreeMap<PeerId, &PeerInfo> = seen.peers.iter().flatten().map(|info| (info.peer, info)).collect();
    let connected = |peer: &PeerId| heard.get(peer).is_some_and(|info| info.connected);
    let standings = seen.datasets.iter().flat_map(|sample| &sample.peers);
    let accepted = standings.flat_map(|peers| peers.connected.iter().chain(&peers.away)).map(|sample| sample.peer);
    let dialed = known.iter().filter(|(_, addresses)| !addresses.is_empty()).map(|(peer, _)| *peer);
    let all: BTreeSet<PeerId> = accepted.chain(dialed).collect();
    let (first, rest): (Vec<PeerId>, Vec<PeerId>) = all.iter().partition(|peer| connected(peer));
    let shown: BTreeSet<PeerId> = first.into_iter().chain(rest).take(SHOWN_MAX).collect();
    page.set(&s::PEERS_OMITTED, &[], (all.len() - shown.len()) as u64);
    for peer in &shown {
        let name = peer.to_string();
        page.set(&s::PEER_CONNECTED, &[&name], connected(peer));
        if let Some(rtt) = heard.get(peer).and_then(|info| info.rtt) {
            page.set(&s::PEER_RTT, &[&name], rtt);
        }
    }
    apart(page, seen, &shown);
}

/// How each dataset stands to each peer.
fn apart(page: &mut Page, seen: &Seen, shown: &BTreeSet<PeerId>) {
    for sample in &seen.datasets {
        let name = &sample.info.dataset;
        let standings = sample.peers.iter().flat_map(|peers| seen.standings(name, peers));
        for apart in standings.filter(|apart| shown.contains(&apart.peer)) {
            let labels = [name.as_str(), &apart.peer.to_string()];
            page.set(&s::PEER_LAG_COMMITS, &labels, apart.standing.lag_commits);
            page.set(&s::PEER_LAG, &labels, apart.standing.lag);
            page.set(&s::PEER_APART, &labels, apart.waited);
            page.set(&s::PEER_STATE, &[labels[0], labels[1], apart.standing.state.as_str()], true);
        }
    }
    let refused = seen.peers.iter().flatten().filter(|info| shown.contains(&info.peer));
    for (peer, (dataset, standing)) in refused.flat_map(|info| info.datasets.iter().map(|named| (info.peer, named))) {
        page.set(&s::PEER_STATE, &[dataset.as_str(), &peer.to_string(), standing.state.as_str()], true);
    }
}
