//! Announcements, as `actors/src/dataset/clock.rs` makes them.

use std::rc::Rc;

use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Announce, Kind};

use super::Dataset;
use crate::scale::message::Announcement;
use crate::scale::outside::{Effect, Outside, Timer};

/// Fresh commits of a `documents` dataset are pushed: gossip waits this long, microseconds, where `sync.announce_interval` is zero,
/// as it comes.
const PUSHES_TAKE: u64 = 50_000;
const ANNOUNCED_HEADS_MAX: usize = 128;

/// What was announced.
#[derive(Debug)]
pub(super) struct Announcing {
    announced: Rc<VersionVector>,
    soon: bool,
}

impl Announcing {
    pub fn new(vector: Rc<VersionVector>) -> Self {
        Self { announced: vector, soon: false }
    }
}

impl Dataset {
    pub(super) fn announce_soon(&mut self, outside: &mut Outside) {
        if self.announcing.soon || self.sessions.is_empty() || !outside.roster.rules.announce {
            return;
        }
        self.announcing.soon = true;
        match self.kind {
            Kind::Documents => outside.later(PUSHES_TAKE, Timer::Announce(self.index)),
            Kind::Append => self.announce(outside),
        }
    }

    pub fn announce(&mut self, outside: &mut Outside) {
        self.announcing.soon = false;
        // Gossip is for those further away than the peers that were pushed to.
        if self.sessions.values().all(|session| session.theirs.covers(&self.vector)) {
            return;
        }
        let announced = &self.announcing.announced;
        let changed = self.vector.iter().filter(|(writer, head)| announced.head(writer) != Some(**head));
        let heads = changed.take(ANNOUNCED_HEADS_MAX).map(|(writer, head)| (*writer, *head)).collect();
        let announce = Announce { dataset: self.id.to_wire(), digest: self.digest, heads };
        self.hand_on(&Announcement::new(self.index, self.me, announce), None, outside);
        self.announcing.announced = self.vector.clone();
    }

    /// Gossip goes to every neighbour but the one it came from: with at most twelve, all are in the mesh (`mesh_n_high`).
    fn hand_on(&self, announcement: &Rc<Announcement>, but: Option<u32>, outside: &mut Outside) {
        for to in self.sessions.keys().copied().filter(|to| Some(*to) != but && *to != announcement.origin) {
            outside.effects.push(Effect::Gossip { to, announcement: announcement.clone() });
        }
    }

    /// Gossip came by way of a peer: the first time it is handed on and looked at.
    pub fn announced(&mut self, peer: u32, announcement: &Rc<Announcement>, outside: &mut Outside) {
        if !self.sessions.contains_key(&peer) || !announcement.first_seen_by(self.me) {
            return;
        }
        self.hand_on(announcement, Some(peer), outside);
        if announcement.digest == self.digest {
            return;
        }
        // The announcer may be many hops away: the neighbour may have it by now.
        if !self.vector.covers(&announcement.heads) || announcement.heads.is_empty() {
            self.compare(peer, false, outside);
        }
    }
}
