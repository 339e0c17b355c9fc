//! Peers that mDNS finds on the local network: dialed as long as they are announced there. They come in by the same door and say
//! the same `Hello` as everybody else; who was accepted goes into the address book and stays known.

use libp2p::{Multiaddr, PeerId, mdns};
use tokio::time::Instant;

use super::SwarmTask;
use crate::swarm::address::{carrier, split_peer};

/// Peers that are known only because they are on the local network.
const FOUND_MAX: usize = 256;

impl SwarmTask {
    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => found.into_iter().for_each(|(peer, address)| self.found(peer, &address)),
            mdns::Event::Expired(lost) => {
                for (peer, address) in lost {
                    self.redial.lost(peer, &split_peer(&address).0);
                    self.show(peer);
                }
            }
        }
    }

    fn found(&mut self, peer: PeerId, address: &Multiaddr) {
        let bare = split_peer(address).0;
        let ours = peer == *self.swarm.local_peer_id();
        if ours || carrier(&bare).is_none() || !self.lists.let_in(&peer) {
            return;
        }
        if self.redial.found(peer, bare, FOUND_MAX, Instant::now()) {
            tracing::info!(%peer, %address, "found on the local network");
            self.show(peer);
        }
    }
}
