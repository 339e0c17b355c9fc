//! Statements, as `actors/src/dataset/confirmation.rs` makes, keeps and relays them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anabranch_protocol::confirmation::{SignedStatement, Statement};
use anabranch_protocol::id::{Incarnation, ShortHash};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;

use super::Dataset;
use crate::scale::message::{Body, Stated, Statements};
use crate::scale::node_set::NodeSet;
use crate::scale::outside::{LINEAGE, Outside, Timer};

/// Statements are gathered this long before they are sent, microseconds.
const GATHER: u64 = 50_000;
/// Whoever has all we have hears of it this much later.
const UNHURRIED: u64 = 1_000_000;
/// Relayed statements in one message.
const STATEMENTS_MAX: usize = 256;

/// What is known of who has what.
#[derive(Debug)]
pub(super) struct Confirming {
    incarnation: Incarnation,
    counter: u64,
    /// The newest statement of each node, by node.
    known: Vec<Option<Rc<Stated>>>,
    audience: BTreeSet<u32>,
    told: BTreeMap<u32, Rc<VersionVector>>,
    news: NodeSet,
    gathering: bool,
    unhurried: bool,
}

impl Confirming {
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            counter: 0,
            known: Vec::new(),
            audience: BTreeSet::new(),
            told: BTreeMap::new(),
            news: NodeSet::default(),
            gathering: false,
            unhurried: false,
        }
    }

    /// Of how many nodes it is known that they have exactly what has this digest.
    pub fn known_with(&self, digest: ShortHash) -> u32 {
        let equal = self.known.iter().flatten().filter(|stated| stated.digest == digest).count();
        u32::try_from(equal).expect("nodes are counted in 32 bits")
    }

    fn of(&self, node: u32) -> Option<&Rc<Stated>> {
        self.known.get(node as usize).and_then(Option::as_ref)
    }

    /// Takes a verified statement in; whether it is news.
    fn insert(&mut self, from: u32, stated: &Rc<Stated>, outside: &Outside) -> bool {
        let from = outside.roster.peer(from);
        let news = self.of(stated.about).is_none_or(|known| stated.statement.replaces(&known.statement, &from));
        if news {
            self.known.resize(outside.roster.identities.len(), None);
            self.known[stated.about as usize] = Some(stated.clone());
        }
        news
    }
}

impl Dataset {
    pub(super) fn audience_joined(&mut self, peer: u32, outside: &mut Outside) {
        self.confirming.audience.insert(peer);
        self.confirming.told.remove(&peer);
        let Confirming { known, news, .. } = &mut self.confirming;
        known.iter().flatten().for_each(|stated| {
            news.insert(stated.about);
        });
        self.state_soon(outside);
    }

    pub(super) fn audience_left(&mut self, peer: u32) {
        self.confirming.audience.remove(&peer);
        self.confirming.told.remove(&peer);
    }

    /// What is here changed.
    pub(super) fn state_soon(&mut self, outside: &mut Outside) {
        self.send_soon(self.me, outside);
    }

    fn send_soon(&mut self, about: u32, outside: &mut Outside) {
        self.confirming.news.insert(about);
        if !self.confirming.gathering && outside.roster.rules.state {
            self.confirming.gathering = true;
            outside.later(GATHER, Timer::Gathered(self.index));
        }
    }

    /// A statement came, by way of `from`.
    pub(super) fn stated(&mut self, from: u32, stated: &Rc<Stated>, outside: &mut Outside) {
        let about = stated.about;
        // Most of what is relayed is the very statement that came by way of another neighbour.
        if self.confirming.of(about).is_some_and(|known| Rc::ptr_eq(known, stated)) {
            return;
        }
        assert!(stated.holds(&self.id, LINEAGE), "statements of honest peers");
        let others = self.confirming.audience.iter().any(|peer| *peer != from && *peer != about);
        if about != self.me && self.confirming.insert(from, stated, outside) && others {
            self.send_soon(about, outside);
        }
    }

    /// Our statement, for a peer that pushed.
    pub(super) fn state_for(&mut self, peer: u32, outside: &Outside) -> Rc<Stated> {
        self.confirming.told.insert(peer, self.vector.clone());
        self.state(outside)
    }

    fn state(&mut self, outside: &Outside) -> Rc<Stated> {
        self.confirming.counter = (self.confirming.counter + 1).max(outside.wall().0 << 8);
        let identity = &outside.roster.identities[self.me as usize];
        let statement = Statement {
            dataset: self.id.to_wire(),
            peer: identity.peer(),
            incarnation: self.confirming.incarnation,
            counter: self.confirming.counter,
            registration: Registration::all(),
            vector: (*self.vector).clone(),
        };
        let signed = SignedStatement::sign(&statement, LINEAGE, identity);
        Stated::new(self.me, statement, self.digest, signed)
    }

    /// Statements were gathered: they are sent.
    pub fn send_gathered(&mut self, outside: &mut Outside) {
        self.confirming.gathering = false;
        let news = std::mem::take(&mut self.confirming.news);
        let known = &self.confirming;
        let fresh = news.iter().filter(|about| *about != self.me).filter_map(|about| known.of(about).cloned());
        // One more than a peer gets: the one about itself is left out.
        let relayed: Rc<[Rc<Stated>]> = fresh.take(STATEMENTS_MAX + 1).collect();
        let mut own = None;
        for peer in self.confirming.audience.clone() {
            let mut mine = None;
            if self.waits_for_us(peer) {
                mine = Some(own.get_or_insert_with(|| self.state(outside)).clone());
                self.confirming.told.insert(peer, self.vector.clone());
            }
            let statements = Statements::for_peer(peer, mine, &relayed, STATEMENTS_MAX);
            if !statements.is_empty() {
                outside.tell(peer, self.index, Body::Confirm(statements));
            }
        }
        if news.contains(self.me) && self.untold().next().is_some() && !self.confirming.unhurried {
            self.confirming.unhurried = true;
            outside.later(UNHURRIED, Timer::Unhurried(self.index));
        }
    }

    /// Whether a peer may lack something that we have, and does not know that we have it.
    fn waits_for_us(&self, peer: u32) -> bool {
        let has_all = self.confirming.of(peer).is_some_and(|stated| stated.statement.vector.covers(&self.vector));
        !has_all && self.confirming.told.get(&peer) != Some(&self.vector)
    }

    fn untold(&self) -> impl Iterator<Item = u32> + '_ {
        let told = &self.confirming.told;
        self.confirming.audience.iter().copied().filter(|peer| told.get(peer) != Some(&self.vector))
    }

    /// States what we have to whoever did not hear of it, though it lacks nothing.
    pub fn tell_the_rest(&mut self, outside: &mut Outside) {
        self.confirming.unhurried = false;
        let rest: Vec<u32> = self.untold().collect();
        if rest.is_empty() {
            return;
        }
        let own = self.state(outside);
        let none: Rc<[Rc<Stated>]> = Rc::new([]);
        for peer in rest {
            self.confirming.told.insert(peer, self.vector.clone());
            outside.tell(peer, self.index, Body::Confirm(Statements::for_peer(peer, Some(own.clone()), &none, 0)));
        }
    }
}
