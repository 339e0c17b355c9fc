//! A node, as `actors/src/node/` has it: greets its neighbours, judges their `Hello`, asks rounds, routes to datasets.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anabranch_protocol::handshake::judge;
use anabranch_protocol::id::{DatasetId, Incarnation, Salt, ShortHash};
use anabranch_protocol::round::{self, Rounds};
use anabranch_protocol::wire::{DatasetHello, Hello, HelloReply, VERSION};
use rand::{Rng as _, RngExt as _};

use super::dataset::Dataset;
use super::message::Direct;
use super::outside::{Outside, Timer};

/// `sync.anti_entropy_interval` as it comes, microseconds.
pub(super) const ROUND_INTERVAL: u64 = 15_000_000;

/// See the module documentation.
pub(super) struct Node {
    me: u32,
    incarnation: Incarnation,
    pub datasets: Vec<Dataset>,
    peers: BTreeMap<u32, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// By index.
    accepted: BTreeSet<usize>,
    rounds: Rounds,
    round: Option<RoundUnderWay>,
}

#[derive(Debug)]
struct RoundUnderWay {
    mine: ShortHash,
    theirs: Option<ShortHash>,
    /// Datasets that are being compared.
    comparing: usize,
    /// All of them were.
    complete: bool,
}

impl Node {
    pub fn new(me: u32, outside: &mut Outside) -> Self {
        let mut incarnation = Incarnation::ZERO;
        outside.rng.fill_bytes(&mut incarnation.0);
        let datasets = (0..outside.roster.datasets.len()).map(|index| {
            let mut store = Incarnation::ZERO;
            outside.rng.fill_bytes(&mut store.0);
            Dataset::new(index, me, store, outside.roster)
        });
        let datasets = datasets.collect();
        // Nodes were started at some time each: their rounds don't meet.
        let first = outside.rng.random_range(0..ROUND_INTERVAL);
        outside.later(first, Timer::Rounds);
        Self { me, incarnation, datasets, peers: BTreeMap::new() }
    }

    /// A connection stands.
    pub fn connected(&mut self, peer: u32, dialed: bool, outside: &mut Outside) {
        self.peers.insert(peer, Peer::default());
        if dialed {
            let named = self.datasets.iter().map(Dataset::introduction).collect();
            let hello = self.hello(named, outside);
            outside.send(peer, Direct::Hello(Rc::new(hello)));
        }
    }

    /// A connection is gone.
    pub fn disconnected(&mut self, peer: u32, outside: &mut Outside) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        for index in gone.accepted {
            self.datasets[index].gone(peer, outside);
        }
    }

    fn hello(&self, datasets: Vec<DatasetHello>, outside: &mut Outside) -> Hello {
        let mut nonce = Salt::ZERO;
        outside.rng.fill_bytes(&mut nonce.0);
        let address = format!("/ip4/10.{}.{}.1/tcp/4001/p2p/{}", self.me / 256, self.me % 256, outside.roster.peer(self.me));
        Hello {
            versions: vec![VERSION],
            nonce,
            proofs: Vec::new(),
            incarnation: self.incarnation,
            listen: vec![address],
            datasets,
            withdrawn: Vec::new(),
        }
    }

    /// A neighbour says something.
    pub fn heard(&mut self, peer: u32, message: Direct, outside: &mut Outside) {
        match message {
            Direct::Hello(hello) => self.take_hello(peer, &hello, outside),
            Direct::HelloReply(reply) => self.accept(peer, &reply.hello, outside),
            Direct::Round(_) => {
                if let Some(digest) = self.shared_digest(peer, outside) {
                    outside.send(peer, Direct::RoundReply(digest));
                }
            }
            Direct::RoundReply(theirs) => self.end_round(peer, theirs, outside),
            Direct::About(index, body) => {
                if let Some(compared) = self.datasets[index].heard(peer, body, outside) {
                    self.compared(peer, compared);
                }
            }
        }
    }

    fn take_hello(&mut self, peer: u32, hello: &Hello, outside: &mut Outside) {
        let ours = self.judged(hello, outside).into_iter().map(|(index, _)| self.datasets[index].introduction()).collect();
        let hello_back = self.hello(ours, outside);
        // Sent first: the peer answers our own requests only once it has it.
        outside.send(peer, Direct::HelloReply(Rc::new(HelloReply { hello: hello_back, refused: Vec::new() })));
        self.accept(peer, hello, outside);
    }

    /// The datasets of a `Hello` that fit ours.
    fn judged(&self, hello: &Hello, outside: &Outside) -> Vec<(usize, DatasetHello)> {
        let named = hello.datasets.iter().filter_map(|theirs| {
            let dataset = DatasetId::from_wire(theirs.dataset.as_ref())?;
            Some((outside.roster.names.iter().position(|name| *name == dataset)?, theirs))
        });
        let fits = |(index, theirs): &(usize, &DatasetHello)| judge(&self.datasets[*index].introduction(), theirs).is_ok();
        named.filter(fits).map(|(index, theirs)| (index, theirs.clone())).collect()
    }

    fn accept(&mut self, peer: u32, hello: &Hello, outside: &mut Outside) {
        for (index, theirs) in self.judged(hello, outside) {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.accepted.insert(index);
                self.datasets[index].accepted(peer, &theirs, outside);
            }
        }
    }

    /// A timer rang.
    pub fn woken(&mut self, timer: Timer, outside: &mut Outside) {
        match timer {
            Timer::Rounds => self.begin_rounds(outside),
            Timer::Durable(index) => self.datasets[index].durable(outside),
            Timer::Gathered(index) => self.datasets[index].send_gathered(outside),
            Timer::Unhurried(index) => self.datasets[index].tell_the_rest(outside),
            Timer::Announce(index) => self.datasets[index].announce(outside),
            Timer::PageRead(index) => self.datasets[index].page_read(),
            Timer::Waited { dataset, peer, session } => self.datasets[dataset].waited(peer, session, outside),
        }
    }

    /// Datasets with which something is open compare themselves, and each neighbour is asked one question about all of them.
    fn begin_rounds(&mut self, outside: &mut Outside) {
        outside.later(ROUND_INTERVAL, Timer::Rounds);
        if !outside.roster.rules.rounds {
            return;
        }
        self.datasets.iter_mut().for_each(|dataset| dataset.anti_entropy(outside));
        let free = self.peers.iter().filter(|(_, peer)| peer.round.is_none() && !peer.accepted.is_empty());
        let free: Vec<u32> = free.map(|(peer, _)| *peer).collect();
        for peer in free {
            let Some(mine) = self.shared_digest(peer, outside) else { continue };
            if let Some(known) = self.peers.get_mut(&peer) {
                known.round = Some(RoundUnderWay { mine, theirs: None, comparing: 0, complete: true });
                outside.send(peer, Direct::Round(mine));
            }
        }
    }

    fn shared_digest(&self, peer: u32, outside: &Outside) -> Option<ShortHash> {
        let shared = &self.peers.get(&peer).filter(|known| !known.accepted.is_empty())?.accepted;
        // Nothing is ever held back here, so a dataset's state is the digest of its vector.
        let state = |index: &usize| (outside.roster.names[*index].clone(), self.datasets[*index].digest());
        Some(round::of_all(&shared.iter().map(state).collect()))
    }

    fn end_round(&mut self, peer: u32, theirs: ShortHash, outside: &mut Outside) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(under_way) = &mut known.round else { return };
        if !known.rounds.must_compare(under_way.mine, theirs) {
            known.round = None;
            return;
        }
        under_way.theirs = Some(theirs);
        for index in known.accepted.clone() {
            let begun = self.datasets[index].compare(peer, true, outside);
            under_way.comparing += usize::from(begun);
            // One that is under way began before the round.
            under_way.complete &= begun;
        }
        if under_way.comparing == 0 {
            known.round = None;
        }
    }

    fn compared(&mut self, peer: u32, done: bool) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(under_way) = &mut known.round else { return };
        under_way.comparing = under_way.comparing.saturating_sub(1);
        under_way.complete &= done;
        if under_way.comparing > 0 {
            return;
        }
        if let (true, mine, Some(theirs)) = (under_way.complete, under_way.mine, under_way.theirs) {
            known.rounds.compared(mine, theirs);
        }
        known.round = None;
    }
}
