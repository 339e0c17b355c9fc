//! Peers that are kept out: by our lists, which they are told, or because of what they did, for a while.

use std::time::Duration;

use anabranch_actors::transport::TransportEvent;
use anabranch_protocol::wire::{Refusal, RefusalCode};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::SwarmTask;
use crate::swarm::address::{from_libp2p, to_libp2p};

/// How long a peer that is not let in may take to say `Hello`. Longer than a node that was dialed waits before it speaks first.
const STRANGER_SPEAKS_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to read why it is not let in.
const STRANGER_READS_WITHIN: Duration = Duration::from_secs(1);
/// Connections of peers that are not let in; further ones are closed at once.
const STRANGERS_MAX: usize = 16;
/// Peers that are shut out at once; a further one is only disconnected.
const SHUT_OUT_MAX: usize = 1_024;

impl SwarmTask {
    /// A peer that is not let in connected, or we to it.
    pub(super) fn on_stranger(&mut self, peer: PeerId, connection: ConnectionId) {
        self.tell_node(peer, self.lists.refusal(&peer));
        let now = Instant::now();
        self.redial.block(peer, now + self.limits.refused_for);
        if self.strangers.len() >= STRANGERS_MAX {
            self.swarm.close_connection(connection);
        } else {
            self.strangers.insert(connection, now + STRANGER_SPEAKS_WITHIN);
        }
    }

    /// It is being told why.
    pub(super) fn stranger_told(&mut self, connection: ConnectionId) {
        if let Some(until) = self.strangers.get_mut(&connection) {
            *until = (*until).min(Instant::now() + STRANGER_READS_WITHIN);
        }
    }

    /// Closes a peer's connections and takes none of its for a while: by identity, whatever address it comes from.
    pub(super) fn shut_out(&mut self, peer: PeerId, refusal: Refusal) {
        let reason = refusal.to_string();
        self.tell_node(peer, refusal);
        self.disconnect(peer, &reason);
        if self.shut_out.len() < SHUT_OUT_MAX {
            self.shut_out.insert(peer, Instant::now() + self.limits.refused_for);
            self.swarm.behaviour_mut().shut_out.block_peer(peer);
        }
    }

    /// An operator disables a peer: what stands is closed, and from now on the door is shut. Or lets it in again.
    pub(super) fn set_disabled(&mut self, id: anabranch_protocol::id::PeerId, disabled: bool) {
        let Some(peer) = to_libp2p(id) else { return };
        self.lists.set_disabled(id, disabled);
        if disabled {
            tracing::warn!(%peer, "the peer is disabled");
            self.tell_node(peer, self.lists.refusal(&peer));
        } else {
            self.admit_again(peer);
            self.redial.unblock(peer, Instant::now());
        }
        // Also where it comes in again: connections that were turned away stay so.
        self.close_all(peer);
    }

    /// Takes note of misbehaviour; who does it too often is shut out.
    pub(super) fn on_misbehaved(&mut self, peer: PeerId, points: u32, what: &str) {
        if self.shut_out.contains_key(&peer) || !self.conduct.note(peer, points, Instant::now()) {
            return;
        }
        let reason = format!("it misbehaved too often ({what}); no connection for {:?}", self.limits.refused_for);
        tracing::warn!(%peer, reason, "a peer is shut out");
        self.shut_out(peer, Refusal::new(RefusalCode::Malformed, reason));
    }

    /// Lets a peer connect that was shut out.
    pub(super) fn admit_again(&mut self, peer: PeerId) {
        if self.shut_out.remove(&peer).is_some() {
            self.swarm.behaviour_mut().shut_out.unblock_peer(peer);
        }
    }

    /// Ends what has had its time.
    pub(super) fn let_go_of_turned_away(&mut self, now: Instant) {
        let silent: Vec<_> = self.strangers.extract_if(|_, until| *until <= now).map(|(connection, _)| connection).collect();
        for connection in silent {
            self.swarm.close_connection(connection);
        }
        let over: Vec<_> = self.shut_out.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| *peer).collect();
        over.into_iter().for_each(|peer| self.admit_again(peer));
        self.conduct.forgive(now);
    }

    fn tell_node(&mut self, peer: PeerId, refusal: Refusal) {
        if let Some(peer) = from_libp2p(&peer) {
            self.outbox.offer(TransportEvent::TurnedAway { peer, refusal });
        }
    }
}
