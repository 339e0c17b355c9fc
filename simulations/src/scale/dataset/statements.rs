//! Statements, as `actors/src/dataset/confirmation.rs` makes, keeps and relays them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anabranch_protocol::confirmation::{SignedStatement, Statement};
use anabranch_protocol::id::{Incarnation, ShortHash};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;

use super::Dataset;
use crate::scale::message::{Body, Stated, Statements};
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
    /// Whose statements each neighbour has yet to hear.
    news: BTreeMap<u32, BTreeSet<u32>>,
    own_news: bool,
    /// Our newest statement, for as long as it says what is.
    stated: Option<Rc<Stated>>,
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
            news: BTreeMap::new(),
            own_news: false,
            stated: None,
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

    /// What a neighbour has yet to hear, as much as one message takes.
    fn next_news(&mut self, peer: u32) -> Rc<[Rc<Stated>]> {
        let Some(mut now) = self.news.remove(&peer) else { return Rc::new([]) };
        if let Some(first_of_rest) = now.iter().nth(STATEMENTS_MAX).copied() {
            self.news.insert(peer, now.split_off(&first_of_rest));
        }
        now.into_iter().filter_map(|about| self.of(about).cloned()).collect()
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
        news.entry(peer).or_default().extend(known.iter().flatten().map(|stated| stated.about));
        self.state_soon(outside);
    }

    pub(super) fn audience_left(&mut self, peer: u32) {
        self.confirming.audience.remove(&peer);
        self.confirming.told.remove(&peer);
        self.confirming.news.remove(&peer);
    }

    /// What is here changed.
    pub(super) fn state_soon(&mut self, outside: &mut Outside) {
        self.confirming.own_news = true;
        self.send_soon(outside);
    }

    fn send_soon(&mut self, outside: &mut Outside) {
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
        if about == self.me || !self.confirming.insert(from, stated, outside) {
            return;
        }
        let Confirming { audience, news, .. } = &mut self.confirming;
        let mut anybody = false;
        for peer in audience.iter().filter(|peer| **peer != from && **peer != about) {
            news.entry(*peer).or_default().insert(about);
            anybody = true;
        }
        if anybody {
            self.send_soon(outside);
        }
    }

    /// Our statement, for a peer that pushed.
    pub(super) fn state_for(&mut self, peer: u32, outside: &Outside) -> Rc<Stated> {
        self.confirming.told.insert(peer, self.vector.clone());
        self.state(outside)
    }

    fn state(&mut self, outside: &Outside) -> Rc<Stated> {
        if let Some(stated) = self.confirming.stated.as_ref().filter(|stated| stated.digest == self.digest) {
            return stated.clone();
        }
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
        let stated = Stated::new(self.me, statement, self.digest, signed);
        self.confirming.stated = Some(stated.clone());
        stated
    }

    /// Statements were gathered: they are sent.
    pub fn send_gathered(&mut self, outside: &mut Outside) {
        self.confirming.gathering = false;
        for peer in self.confirming.audience.clone() {
            let mut mine = None;
            if self.waits_for_us(peer) {
                mine = Some(self.state(outside));
                self.confirming.told.insert(peer, self.vector.clone());
            }
            let relayed = self.confirming.next_news(peer);
            let statements = Statements::for_peer(peer, mine, &relayed, STATEMENTS_MAX);
            if !statements.is_empty() {
                outside.tell(peer, self.index, Body::Confirm(statements));
            }
        }
        if std::mem::take(&mut self.confirming.own_news) && self.untold().next().is_some() && !self.confirming.unhurried {
            self.confirming.unhurried = true;
            outside.later(UNHURRIED, Timer::Unhurried(self.index));
        }
        if !self.confirming.news.is_empty() {
            self.send_soon(outside);
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
