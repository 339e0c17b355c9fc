//! Bad frames: whom they cost what. A sender is backed off for what no writer made, and only that sender; a writer is held for what
//! it signed and this version does not know.

use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::FrameFault;
use anabranch_protocol::id::{PeerId, WriterId};

use super::super::clock::{BadFramesOf, Unreadable, UnreadableHere};
use super::Sync;

/// How long a writer that needs a newer version of this node is left alone. An upgrade is a restart, which asks again anyway.
const UPGRADE_RETRY: Duration = Duration::from_secs(600);
/// Writers, and peers, of which it is kept that they need a newer version of this node.
const UNREADABLE_MAX: usize = 1_024;

/// A page had bad frames.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct BadFrames {
    pub peer: PeerId,
    pub session: u64,
    pub faults: Vec<FrameFault>,
}

impl Sync {
    /// Takes in what was wrong with frames that `peer` sent.
    pub(super) fn note_faults(&mut self, peer: PeerId, faults: &[FrameFault], ctx: &mut Context<Self>) {
        for fault in faults {
            match fault {
                FrameFault::Unproven { claimed, .. } => {
                    // Another peer may deliver the writer; this one is asked for it again later.
                    self.leave_to_others(peer, *claimed);
                }
                FrameFault::NewerHeader { claimed, .. } => {
                    if let (Some(session), Some(writer)) = (self.sessions.get_mut(&peer), claimed)
                        && session.newer.len() < UNREADABLE_MAX
                    {
                        session.newer.insert(*writer);
                    }
                    self.unreadable(peer, Unreadable { writer: None, from: Some(peer), fault: fault.clone() }, ctx);
                }
                FrameFault::NeedsUpgrade { writer, .. } => {
                    self.unreadable(peer, Unreadable { writer: Some(*writer), from: None, fault: fault.clone() }, ctx);
                }
            }
        }
        if let Some(fault) = faults.iter().find(|fault| fault.blames_sender()) {
            self.blame(peer, fault);
        }
    }

    fn leave_to_others(&mut self, peer: PeerId, writer: Option<WriterId>) {
        if let (Some(session), Some(writer)) = (self.sessions.get_mut(&peer), writer) {
            session.lacking.insert(writer);
        }
    }

    /// Counts what a sender did; who goes on and on is shut out by the network.
    pub(super) fn blame(&mut self, peer: PeerId, fault: &FrameFault) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.bad_messages += 1;
        let count = session.bad_messages;
        tracing::warn!(dataset = %self.dataset(), %peer, %fault, count, "the peer sent a bad commit");
        self.context.clock.do_send(BadFramesOf { peer, count, fault: fault.clone() });
        self.context.transport.misbehaved(peer, "bad commits");
    }

    fn unreadable(&mut self, sender: PeerId, unreadable: Unreadable, ctx: &mut Context<Self>) {
        let place = (unreadable.writer, unreadable.from);
        if self.unreadable.len() >= UNREADABLE_MAX && !self.unreadable.contains_key(&place) {
            // Keys are cheap to make: what is not kept is at least not asked for again at once.
            return self.back_off(sender, Duration::ZERO, ctx);
        }
        if self.unreadable.insert(place, unreadable.clone()).is_none() {
            tracing::warn!(dataset = %self.dataset(), fault = %unreadable.fault, "needs_upgrade: a writer is held");
            ctx.run_later(UPGRADE_RETRY, move |actor, ctx| {
                actor.unreadable.remove(&place);
                actor.tell_unreadable();
                actor.pull_from_anyone(ctx);
            });
        }
        self.tell_unreadable();
    }

    /// What waits for a newer version of this node is no more said of a peer that is gone.
    pub(super) fn forget_unreadable_of(&mut self, peer: PeerId) {
        self.unreadable.retain(|(_, from), _| *from != Some(peer));
        self.tell_unreadable();
    }

    fn tell_unreadable(&self) {
        self.context.clock.do_send(UnreadableHere(self.unreadable.values().cloned().collect()));
    }

    /// Writers that are held until this node is upgraded.
    pub(super) fn held_for_upgrade(&self) -> impl Iterator<Item = &WriterId> {
        self.unreadable.keys().filter(|(_, from)| from.is_none()).filter_map(|(writer, _)| writer.as_ref())
    }
}

impl Handler<BadFrames> for Sync {
    type Result = ();
    fn handle(&mut self, bad: BadFrames, ctx: &mut Context<Self>) {
        if self.sessions.get(&bad.peer).is_some_and(|session| session.number == bad.session) {
            self.note_faults(bad.peer, &bad.faults, ctx);
        }
    }
}
