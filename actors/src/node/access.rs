//! Who gets in: which peers may connect, who proved the network key, and who may read which dataset.
//!
//! On an open network a `Hello` names datasets at once. With network keys it takes two: the first says nothing and asks for the
//! peer's proof, the second brings ours and the datasets (`anabranch_protocol::network_key`). Either side that finds the other
//! without a key that both hold says so, shows it among its peers, and leaves the other alone for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::access::Peers;
use anabranch_protocol::id::{DatasetId, Incarnation, PeerId, Salt};
use anabranch_protocol::network_key::{Claim, Keyring};
use anabranch_protocol::wire::{DatasetHello, DatasetReply, Hello, HelloReply, Refusal, RefusalCode, Request, Response, VERSION};

use super::Datasets;
use super::router::Node;
use crate::runtime::Runtime;
use crate::transport::{Class, SharedTransport};

/// How long a peer that was turned away may take to read why, before the connection is closed.
const READ_WHY_WITHIN: Duration = Duration::from_secs(1);
/// How long a peer may stay connected without a proof of the network key. Longer than a dataset may take to open, which the
/// peer's first `Hello` waits for.
const PROVE_WITHIN: Duration = Duration::from_secs(60);
/// Peers that were turned away and are shown although they never were connected.
const STRANGERS_SHOWN_MAX: usize = 256;

/// Who may connect.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Keys of the private network; none: an open one.
    pub network_keys: Keyring,
    /// Nobody else may connect.
    pub allow: Peers,
    /// These may not connect.
    pub deny: BTreeSet<PeerId>,
}

impl AccessSettings {
    fn may_connect(&self, peer: &PeerId) -> bool {
        self.allow.contains(peer) && !self.deny.contains(peer)
    }
}

/// What becomes of a peer's `Hello` before its datasets are looked at.
pub(super) enum Entry {
    /// They may be looked at.
    Admitted,
    /// The peer is asked for its proof, and given ours.
    Challenged(HelloReply),
    /// The peer has no key of ours: it is told so about each dataset it named.
    Keyless(HelloReply, Refusal),
    /// The peer may not come in.
    Refused(Refusal),
}

/// Why a peer is not synced with.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// `Hello` is said again soon.
    Again(String),
    /// The peer does not let us in, or we don't let it in.
    TurnedAway(Refusal),
}

impl Node {
    /// Judges who says `Hello`.
    pub(super) fn judge_entry(&mut self, peer: PeerId, hello: &Hello) -> Entry {
        if !self.access.may_connect(&peer) {
            return Entry::Refused(not_allowed());
        }
        let keys = &self.access.network_keys;
        if keys.is_open() {
            // Only a node with a network key says Hello without naming a dataset.
            let names_none = hello.datasets.is_empty() && hello.withdrawn.is_empty();
            let asks_for_key = names_none || !hello.proofs.is_empty();
            return if asks_for_key { Entry::Refused(Refusal::new(RefusalCode::NetworkKey, ONE_KEY)) } else { Entry::Admitted };
        }
        let spent = self.peers.entry(peer).or_default().challenge.spend();
        if let (Some(verifier_nonce), false) = (spent, hello.proofs.is_empty()) {
            let claim = Claim { prover: peer, verifier: self.peer, prover_nonce: hello.nonce, verifier_nonce };
            let proven = self.access.network_keys.verify(&claim, &hello.proofs);
            return if proven { Entry::Admitted } else { Entry::Refused(Refusal::new(RefusalCode::NetworkKey, OTHER_KEY)) };
        }
        // A proof that answers no nonce of ours is not the wrong key: the peer may try again.
        let (code, reason) = if hello.proofs.is_empty() {
            (RefusalCode::NetworkKey, ONE_KEY)
        } else {
            (RefusalCode::Busy, "the proof answers no Hello of ours: say Hello again")
        };
        let refusal = Refusal::new(code, reason);
        let refused = |named: &DatasetHello| DatasetReply { dataset: named.dataset.clone(), refusal: refusal.clone() };
        let refused = hello.datasets.iter().map(refused).collect();
        let mut own = self.answer_hello(peer, hello.nonce, Vec::new());
        own.listen.clear();
        let reply = HelloReply { hello: own, refused };
        // Who names datasets before a proof was asked for has no key to prove.
        if hello.datasets.is_empty() || !hello.proofs.is_empty() {
            Entry::Challenged(reply)
        } else {
            Entry::Keyless(reply, refusal)
        }
    }

    /// Our `Hello` in answer to one with `nonce`; its own nonce is what the peer's next one has to answer.
    pub(super) fn answer_hello(&mut self, peer: PeerId, nonce: Salt, datasets: Vec<DatasetHello>) -> Hello {
        let introduction = self.introduction(peer);
        let answer = introduction.hello(Some(nonce), datasets, Vec::new());
        self.peers.entry(peer).or_default().challenge.issue(answer.nonce);
        answer
    }

    /// What is needed to say `Hello` to a peer.
    pub(super) fn introduction(&self, peer: PeerId) -> Introduction {
        Introduction {
            me: self.peer,
            peer,
            keys: self.access.network_keys.clone(),
            incarnation: self.incarnation,
            transport: self.transport.clone(),
            runtime: self.hosting.settings.runtime.clone(),
        }
    }

    /// Whether `Hello` may be said for these now. With network keys one is under way at a time, because each answers the nonce of
    /// the one before; what is named meanwhile goes with the next.
    pub(super) fn may_greet(&mut self, peer: PeerId, named: &[DatasetId]) -> bool {
        let Some(session) = self.peers.get_mut(&peer) else { return false };
        if self.access.network_keys.is_open() {
            return true;
        }
        if session.greeting {
            session.greet_next.extend(named.iter().cloned());
            return false;
        }
        session.greeting = true;
        true
    }

    /// `Hello` was said: goes on with what was named meanwhile.
    pub(super) fn greeted(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        session.greeting = false;
        let next = std::mem::take(&mut session.greet_next);
        if !next.is_empty() || !session.withdrawing.is_empty() {
            self.greet(peer, next.into_iter().collect(), ctx);
        }
    }

    /// Names, of these datasets, only those that the peer may read; the others are shown as refused.
    pub(super) fn readable(&mut self, peer: PeerId, named: Vec<DatasetId>) -> Vec<DatasetId> {
        let (readable, forbidden): (Vec<_>, Vec<_>) = named.into_iter().partition(|d| may_read(&self.datasets, d, &peer));
        if let Some(session) = self.peers.get_mut(&peer) {
            session.refused.extend(forbidden.into_iter().map(|dataset| (dataset, not_a_reader().to_string())));
        }
        readable
    }

    /// The peer did not name some of our datasets: it is asked about them once, so that both sides can say how they stand.
    pub(super) fn greet_for_the_rest(&mut self, peer: PeerId, hello: &Hello, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        if std::mem::replace(&mut session.asked_for_rest, true) {
            return;
        }
        let named: BTreeSet<_> = hello.datasets.iter().filter_map(|d| DatasetId::from_wire(d.dataset.as_ref())).collect();
        let known = |dataset: &DatasetId| session.accepted.contains(dataset) || session.refused.contains_key(dataset);
        let rest: Vec<_> = self.datasets.names().into_iter().filter(|d| !named.contains(d) && !known(d)).collect();
        if !rest.is_empty() {
            self.greet(peer, rest, ctx);
        }
    }

    /// Shows why a peer is not synced with, and leaves it alone for a while.
    pub(super) fn turn_away(&mut self, peer: PeerId, refusal: &Refusal, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        let (connection, reason) = (session.connection, refusal.to_string());
        if session.turned_away.as_ref() != Some(&reason) {
            tracing::warn!(%peer, reason, "the peer is not synced with");
        }
        session.turned_away = Some(reason.clone());
        ctx.run_later(READ_WHY_WITHIN, move |actor, _| {
            let still = actor.peers.get(&peer).is_some_and(|session| session.turned_away.is_some());
            if still && actor.is_current(peer, connection) {
                actor.transport.disconnect(peer, &reason);
            }
        });
    }

    /// Shows a refusal without leaving the peer.
    pub(super) fn note_refusal(&mut self, peer: PeerId, refusal: &Refusal) {
        if let Some(session) = self.peers.get_mut(&peer) {
            session.turned_away = Some(refusal.to_string());
        }
    }

    /// The network keeps a peer out.
    pub(super) fn kept_out(&mut self, peer: PeerId, refusal: &Refusal) {
        if self.peers.contains_key(&peer) || self.peers.len() < STRANGERS_SHOWN_MAX {
            self.peers.entry(peer).or_default();
            self.note_refusal(peer, refusal);
        }
    }

    /// A refusal that was read only after its connection had ended.
    pub(super) fn note_last_word(&mut self, peer: PeerId, connection: u64, refusal: &Refusal) {
        let ended = self.peers.get(&peer).is_some_and(|session| !session.connected && session.connection == connection);
        if ended {
            self.note_refusal(peer, refusal);
        }
    }

    /// A connection to a stranger does not stand for ever.
    pub(super) fn expect_proof(&mut self, peer: PeerId, connection: u64, ctx: &mut Context<Self>) {
        if self.access.network_keys.is_open() {
            return;
        }
        ctx.run_later(PROVE_WITHIN, move |actor, ctx| {
            let silent = actor.peers.get(&peer).is_some_and(|session| session.incarnation.is_none());
            if silent && actor.is_current(peer, connection) {
                let reason = format!("the peer did not prove the network key within {PROVE_WITHIN:?}");
                actor.turn_away(peer, &Refusal::new(RefusalCode::NetworkKey, reason), ctx);
            }
        });
    }

    /// A connection ended. One that we dialed and that ended before any `Hello` was answered tells something too.
    pub(super) fn connection_ended(&mut self, peer: PeerId) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        session.challenge.spend();
        session.greeting = false;
        session.greet_next.clear();
        session.asked_for_rest = false;
        if session.dialed && session.incarnation.is_none() && session.turned_away.is_none() {
            session.turned_away = Some(CLOSED_UNANSWERED.to_owned());
        }
    }
}

const ONE_KEY: &str = "one side has a network key and the other has none: give both the same --network-key";
const OTHER_KEY: &str = "the two sides have no network key in common";
const CLOSED_UNANSWERED: &str =
    "the peer closed the connection before it answered Hello: its access lists may not let this node in";

fn not_allowed() -> Refusal {
    Refusal::new(RefusalCode::Forbidden, "the peer's id is denied, or not among those allowed, in `[access]`")
}

fn not_a_reader() -> Refusal {
    Refusal::new(RefusalCode::Forbidden, "the peer is not among the dataset's `readers`")
}

fn may_read(datasets: &Datasets, dataset: &DatasetId, peer: &PeerId) -> bool {
    datasets.get(dataset).is_none_or(|handle| handle.readers().contains(peer))
}

/// Parts the datasets of a peer's `Hello` into those it may read here, and refusals for the others.
pub(super) fn part_readers(
    datasets: &Datasets,
    peer: PeerId,
    theirs: Vec<DatasetHello>,
) -> (Vec<DatasetHello>, Vec<(DatasetId, Refusal)>) {
    let (mut readable, mut refused) = (Vec::new(), Vec::new());
    for hello in theirs {
        match DatasetId::from_wire(hello.dataset.as_ref()) {
            Some(dataset) if !may_read(datasets, &dataset, &peer) => refused.push((dataset, not_a_reader())),
            _ => readable.push(hello),
        }
    }
    (readable, refused)
}

/// Says `Hello` to one peer.
pub(super) struct Introduction {
    me: PeerId,
    peer: PeerId,
    keys: Keyring,
    incarnation: Incarnation,
    transport: SharedTransport,
    runtime: Runtime,
}

impl Introduction {
    /// Our `Hello` with a proof that answers `verifier_nonce`, if there is one.
    fn hello(&self, verifier_nonce: Option<Salt>, datasets: Vec<DatasetHello>, withdrawn: Vec<DatasetReply>) -> Hello {
        let mut nonce = Salt::ZERO;
        self.runtime.fill_random(&mut nonce.0);
        let claim = |verifier_nonce| Claim { prover: self.me, verifier: self.peer, prover_nonce: nonce, verifier_nonce };
        let proofs = verifier_nonce.map(|nonce| self.keys.prove(&claim(nonce))).unwrap_or_default();
        let listen = self.transport.listen_addresses();
        Hello { versions: vec![VERSION], nonce, proofs, incarnation: self.incarnation, listen, datasets, withdrawn }
    }

    /// Introduces and withdraws datasets, after the peer proved a network key where one is needed.
    pub(super) async fn say_hello(
        &self,
        datasets: Vec<DatasetHello>,
        withdrawn: Vec<DatasetReply>,
    ) -> Result<HelloReply, Unanswered> {
        if self.keys.is_open() {
            return self.ask(self.hello(None, datasets, withdrawn)).await;
        }
        let mut opening = self.hello(None, Vec::new(), Vec::new());
        opening.listen.clear();
        let nonce = opening.nonce;
        let challenge = self.ask(opening).await?;
        if !self.proven(&challenge.hello, nonce) {
            return Err(self.leave(&challenge.hello).await);
        }
        let hello = self.hello(Some(challenge.hello.nonce), datasets, withdrawn);
        let nonce = hello.nonce;
        let reply = self.ask(hello).await?;
        if self.proven(&reply.hello, nonce) { Ok(reply) } else { Err(turned_away(OTHER_KEY)) }
    }

    fn proven(&self, theirs: &Hello, ours: Salt) -> bool {
        let claim = Claim { prover: self.peer, verifier: self.me, prover_nonce: theirs.nonce, verifier_nonce: ours };
        self.keys.verify(&claim, &theirs.proofs)
    }

    /// Lets the peer find out that it can't verify us either, so that it can say so too. Names nothing.
    async fn leave(&self, theirs: &Hello) -> Unanswered {
        if theirs.proofs.is_empty() {
            return turned_away(ONE_KEY);
        }
        let mut hello = self.hello(Some(theirs.nonce), Vec::new(), Vec::new());
        hello.listen.clear();
        // Whatever it answers, it is not one of us.
        let _ = self.ask(hello).await;
        turned_away(OTHER_KEY)
    }

    async fn ask(&self, hello: Hello) -> Result<HelloReply, Unanswered> {
        match self.transport.request(self.peer, Class::Interactive, Request::Hello(hello)).await {
            Ok(Response::Hello(reply)) => {
                let keyless = |refused: &&DatasetReply| refused.refusal.code == RefusalCode::NetworkKey;
                match reply.refused.iter().find(keyless) {
                    Some(refused) => Err(Unanswered::TurnedAway(refused.refusal.clone())),
                    None => Ok(reply),
                }
            }
            Ok(Response::Refused(refusal)) if is_final(refusal.code) => Err(Unanswered::TurnedAway(refusal)),
            Ok(Response::Refused(refusal)) => Err(Unanswered::Again(refusal.to_string())),
            Ok(_) => Err(Unanswered::Again("the answer to a Hello was another message".to_owned())),
            Err(error) => Err(Unanswered::Again(error.to_string())),
        }
    }
}

fn turned_away(reason: &str) -> Unanswered {
    Unanswered::TurnedAway(Refusal::new(RefusalCode::NetworkKey, reason))
}

/// Whether saying `Hello` again at once is of no use.
fn is_final(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::NetworkKey | RefusalCode::Forbidden | RefusalCode::Version)
}
