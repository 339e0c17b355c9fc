//! Sessions and comparisons, as `actors/src/dataset/sync.rs` has them.

use std::collections::BTreeMap;
use std::rc::Rc;

use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{DatasetHello, Kind, PolicyScope};

use super::Dataset;
use super::session::{Comparing, Session};
use crate::scale::message::Body;
use crate::scale::outside::{Effect, LINEAGE, Outside};

/// What became of a comparison that a round waits for.
pub(super) type Compared = Option<bool>;

impl Dataset {
    /// How this dataset introduces itself.
    pub fn introduction(&self) -> DatasetHello {
        let policy = match self.kind {
            Kind::Documents => "lww",
            Kind::Append => "append",
        };
        DatasetHello {
            dataset: self.id.to_wire(),
            lineage: LINEAGE,
            kind: self.kind,
            registration: Registration::all(),
            policies: BTreeMap::from([(PolicyScope(None), policy.to_owned())]),
            heads: (*self.vector).clone(),
        }
    }

    /// A peer's `Hello` for this dataset was accepted.
    pub fn accepted(&mut self, peer: u32, hello: &DatasetHello, outside: &mut Outside) {
        let own = hello.heads.of_peer(&outside.roster.peer(self.me));
        self.replica.learn_own_line(&own);
        self.audience_joined(peer, outside);
        let opened = &mut self.sessions_opened;
        let session = self.sessions.entry(peer).or_insert_with(|| {
            *opened += 1;
            outside.effects.push(Effect::Opened);
            Session::new(*opened)
        });
        session.greeted();
        self.learn(peer, &hello.heads, outside);
    }

    /// The connection to a peer is gone.
    pub fn gone(&mut self, peer: u32, outside: &mut Outside) {
        if self.sessions.remove(&peer).is_some() {
            self.claims.retain(|_, from| *from != peer);
            self.audience_left(peer);
            self.pull_from_anyone(outside);
        }
    }

    /// A peer asks, answers or tells. Says what became of a comparison that a round waits for.
    pub fn heard(&mut self, peer: u32, body: Body, outside: &mut Outside) -> Compared {
        if !self.sessions.contains_key(&peer) {
            return None;
        }
        match body {
            Body::Heads(digest) => {
                let heads = (digest != self.digest).then(|| self.vector.clone());
                outside.tell(peer, self.index, Body::HeadsReply(heads));
            }
            Body::HeadsReply(heads) => return self.compared(peer, heads, outside),
            Body::Push(frames) => self.take_push(peer, &frames, outside),
            Body::Pushed { statement, complete } => self.pushed(peer, &statement, complete, outside),
            Body::Pull { wants, bytes_max } => self.serve(peer, &wants, bytes_max, outside),
            Body::Page { frames, more } => self.page(peer, frames, more, outside),
            Body::Busy => self.pull_refused(peer, outside),
            Body::Confirm(statements) => {
                for statement in statements.iter() {
                    self.stated(peer, statement, outside);
                    if statement.about == peer {
                        self.learn(peer, &statement.statement.vector, outside);
                    }
                }
                outside.tell(peer, self.index, Body::Confirmed);
            }
            Body::Confirmed => {}
        }
        None
    }

    /// Takes in what a peer has: pushes what is missing there, pulls what is missing here.
    pub(super) fn learn(&mut self, peer: u32, theirs: &VersionVector, outside: &mut Outside) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.learn(theirs);
        self.push_recent(peer, outside);
        self.pull(peer, outside);
    }

    /// Compares vectors with every peer with which something is open.
    pub fn anti_entropy(&mut self, outside: &mut Outside) {
        let open = self.sessions.iter().filter(|(_, session)| session.is_open(&self.vector));
        let open: Vec<u32> = open.map(|(peer, _)| *peer).collect();
        for peer in open {
            self.compare(peer, false, outside);
        }
    }

    /// Compares vectors with a peer; once at a time. Whether it began.
    pub fn compare(&mut self, peer: u32, for_round: bool, outside: &mut Outside) -> bool {
        let Some(session) = self.sessions.get_mut(&peer) else { return false };
        if session.comparing.is_some() {
            session.compare_again = true;
            return false;
        }
        session.comparing = Some(Comparing { asked_about: self.vector.clone(), for_round });
        session.compare_again = false;
        outside.tell(peer, self.index, Body::Heads(self.digest));
        true
    }

    fn compared(&mut self, peer: u32, heads: Option<Rc<VersionVector>>, outside: &mut Outside) -> Compared {
        let session = self.sessions.get_mut(&peer)?;
        let Comparing { asked_about, for_round } = session.comparing.take()?;
        let again = session.compare_again;
        self.learn(peer, &heads.unwrap_or(asked_about), outside);
        if again {
            self.compare(peer, false, outside);
        }
        for_round.then_some(true)
    }
}
