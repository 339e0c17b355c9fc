//! Pushes: fresh commits of `documents` datasets, to each peer that has everything before them.
//!
//! One push per peer is on its way at a time; what becomes durable meanwhile goes with the next one. A peer that falls behind by
//! more than its outbox holds is left to pull.

use std::sync::Arc;

use actix::prelude::*;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::id::PeerId;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Push, Pushed, Request, Response};
use serde_bytes::ByteBuf;
use tracing::Instrument as _;

use super::super::clock::NotTaken;
use super::super::confirmation::Stated;
use super::super::span;
use super::{PeerHolds, RECENT_BYTES_MAX, Sync};
use crate::transport::Class;

/// Payload of one push, bytes; a larger commit travels alone.
const PUSH_BYTES_MAX: usize = 1 << 20;
/// Frames in one push.
const PUSH_FRAMES_MAX: usize = anabranch_protocol::limits::PAGE_FRAMES_MAX;
/// What may wait for one peer, bytes.
const OUTBOX_BYTES_MAX: usize = 8 << 20;

impl Sync {
    /// Keeps fresh commits for peers that are about to catch up.
    pub(super) fn remember(&mut self, commits: &[Arc<Commit>]) {
        for commit in commits {
            let bytes = commit.weight();
            self.recent.push_back((commit.clone(), bytes));
            self.recent_bytes += bytes;
        }
        while self.recent_bytes > RECENT_BYTES_MAX {
            let Some((_, bytes)) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes;
        }
    }

    /// Offers fresh commits to a peer.
    pub(super) fn offer(&mut self, peer: PeerId, commits: &[Arc<Commit>], ctx: &mut Context<Self>) {
        let ours = self.context.view.registered().now();
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        for commit in commits {
            let writer = commit.writer();
            // A branch is pulled.
            if self.parted.lowest.iter().any(|(forked, seq)| *forked == writer && commit.header().seq >= *seq) {
                continue;
            }
            // Only what continues what the peer has; who is known to have it is left out. The rest is pulled.
            let continues = session.expected.seq(&writer) + 1 == commit.header().seq;
            if !continues || session.refused.contains(&writer) || !commit.unservable(&session.tags, &ours.tags).is_empty() {
                continue;
            }
            let bytes = commit.weight();
            if session.outbox_bytes + bytes > OUTBOX_BYTES_MAX {
                tracing::debug!(dataset = %self.context.replica.dataset, %peer, "the peer is too slow for pushes; it will pull");
                session.forget_pushes();
                return;
            }
            session.expected.set(writer, commit.head());
            session.outbox.push_back((commit.clone(), bytes));
            session.outbox_bytes += bytes;
        }
        self.push(peer, ctx);
    }

    /// Offers what a peer that just caught up may be missing.
    pub(super) fn push_recent(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        let wanted = self.context.replica.kind == anabranch_protocol::wire::Kind::Documents
            && self.sessions.get(&peer).is_some_and(|session| !session.expected.covers(&self.vector));
        if wanted {
            let recent: Vec<Arc<Commit>> = self.recent.iter().map(|(commit, _)| commit.clone()).collect();
            self.offer(peer, &recent, ctx);
        }
    }

    fn push(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if session.pushing || session.outbox.is_empty() {
            return;
        }
        // What was unregistered since it was queued does not leave.
        let ours = self.context.view.registered().now();
        if session.outbox.iter().any(|(commit, _)| !commit.unservable(&session.tags, &ours.tags).is_empty()) {
            return session.forget_pushes();
        }
        session.pushing = true;
        let number = session.number;
        let (mut frames, mut bytes, mut heads) = (Vec::new(), 0, VersionVector::new());
        while let Some((commit, weight)) = session.outbox.pop_front() {
            if !frames.is_empty() && (bytes + weight > PUSH_BYTES_MAX || frames.len() >= PUSH_FRAMES_MAX) {
                session.outbox.push_front((commit, weight));
                break;
            }
            bytes += weight;
            session.outbox_bytes -= weight;
            heads.set(commit.writer(), commit.head());
            frames.push(ByteBuf::from(commit.bytes_for(&session.tags)));
        }
        let request = Request::Push(Push { dataset: self.context.replica.dataset.to_wire(), frames });
        let sent = self.context.transport.request(peer, Class::Interactive, request).instrument(span::with_peer(peer));
        ctx.spawn(sent.into_actor(self).map(move |answer, actor, ctx| {
            let Some(session) = actor.sessions.get_mut(&peer).filter(|session| session.number == number) else { return };
            session.pushing = false;
            match answer {
                Ok(Response::Pushed(pushed)) => actor.pushed(peer, &heads, pushed, ctx),
                Ok(other) => {
                    actor.push_failed(peer, &format!("{other:?}"));
                    if let Response::Refused(refusal) = other {
                        actor.heed(peer, &refusal);
                    }
                }
                Err(error) => actor.push_failed(peer, &error.to_string()),
            }
            actor.push(peer, ctx);
        }));
    }

    fn pushed(&mut self, peer: PeerId, heads: &VersionVector, pushed: Pushed, ctx: &mut Context<Self>) {
        let holds_back = !pushed.held.is_empty();
        self.context.clock.do_send(PeerHolds { peer, held: pushed.held });
        let (dataset, lineage) = (&self.context.replica.dataset, self.context.replica.lineage);
        let statement = self.checked.open_own(&peer, &pushed.confirmation, dataset, lineage);
        if let (false, Some(session)) = (pushed.complete, self.sessions.get_mut(&peer)) {
            session.forget_pushes();
            // Not pushed again before the peer moved on: what it refused once it would refuse as often as it is sent.
            let stated = statement.as_ref().ok().and_then(Option::as_ref);
            let has = |writer| stated.map_or(0, |statement| statement.vector.seq(writer));
            let refused = heads.iter().filter(|(writer, head)| has(writer) < head.seq);
            session.refused.extend(refused.map(|(writer, _)| *writer));
            let me = self.context.replica.identity.peer();
            if !holds_back && session.refused.iter().any(|writer| writer.peer == me) {
                self.context.clock.do_send(NotTaken(peer));
            }
        }
        match statement {
            Ok(Some(statement)) => {
                let vector = statement.vector.clone();
                self.context.confirmation.do_send(Stated { from: peer, statement, signed: pushed.confirmation });
                self.learn(peer, &vector, ctx);
            }
            Ok(None) => tracing::warn!(dataset = %self.dataset(), %peer, "a push was confirmed in another peer's name"),
            Err(error) => tracing::warn!(dataset = %self.dataset(), %peer, %error, "a push was confirmed badly"),
        }
    }

    fn push_failed(&mut self, peer: PeerId, reason: &str) {
        tracing::debug!(dataset = %self.dataset(), %peer, reason, "a push failed; the peer will pull");
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.forget_pushes();
        }
    }
}
