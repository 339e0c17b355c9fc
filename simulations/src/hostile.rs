//! A peer that says what no honest node says: forged writers, forks, replays, gaps, omitted entries, absurd vectors, oversized and
//! deeply nested frames, and storms of them.

use std::time::Duration;

use anabranch_actors::transport::{Class, Transport as _, TransportEvent};
use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Identity};
use anabranch_protocol::confirmation::{SignedStatement, Statement};
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Epoch, Hash, Incarnation, Key, PeerId, Salt, ShortHash, WriterId};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{
    Announce, Confirm, DatasetHello, Heads, HeadsReply, Hello, HelloReply, Kind, Page, Pull, Push, Request, Response, Round,
    VERSION,
};
use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::network::{Network, Wire};
use crate::node::{DatasetPlan, LINEAGE};
use crate::rng::Rng;
use crate::workload;

/// Between two messages.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_millis(500);
/// Honest frames that are kept to be torn and replayed.
const FRAMES_MAX: usize = 64;
/// Pushes at once in a storm.
const STORM: usize = 200;

/// Lets a peer of this identity loose on a node for a while; a second one only hears the other side of its fork.
pub fn begin(
    network: &Network,
    identity: &Identity,
    (victim, other): (usize, usize),
    plans: &[DatasetPlan],
    rng: Rng,
    lasts: Duration,
) {
    let place = network.add(identity.peer(), &[victim, other]);
    network.is_hostile(place);
    let (events, inbox) = mpsc::channel(256);
    let wire = network.up(place, events);
    let peer = |node: usize| network.peers().lock().map(|peers| peers[node]).unwrap_or(identity.peer());
    let hostile = Hostile {
        identity: identity.clone(),
        victim: peer(victim),
        other: peer(other),
        plans: plans.to_vec(),
        rng,
        wire,
        frames: Vec::new(),
        inbox,
        until: Instant::now() + lasts,
    };
    let network = network.clone();
    tokio::task::spawn_local(async move {
        hostile.run().await;
        network.down(place, false);
    });
}

struct Hostile {
    identity: Identity,
    victim: PeerId,
    other: PeerId,
    plans: Vec<DatasetPlan>,
    rng: Rng,
    wire: std::sync::Arc<Wire>,
    /// Honest frames, by dataset.
    frames: Vec<(usize, Vec<u8>)>,
    inbox: mpsc::Receiver<TransportEvent>,
    until: Instant,
}

impl Hostile {
    async fn run(mut self) {
        let mut connected = 0;
        while Instant::now() < self.until {
            let pause = self.rng.time(PAUSE);
            match tokio::time::timeout(pause, self.inbox.recv()).await {
                Ok(Some(event)) => {
                    connected += u32::from(matches!(event, TransportEvent::Connected { .. }));
                    if connected == 2 {
                        connected += 1;
                        self.fork().await;
                    }
                    self.answer(event);
                }
                Ok(None) => return,
                Err(_) => self.speak().await,
            }
        }
    }

    fn answer(&mut self, event: TransportEvent) {
        let TransportEvent::Request { request, reply, .. } = event else { return };
        let response = match request {
            Request::Hello(_) => Response::Hello(HelloReply { hello: self.hello(), refused: Vec::new() }),
            Request::Push(push) => {
                self.keep(push.dataset.as_ref(), &push.frames);
                // Silence is an answer too.
                return;
            }
            Request::Pull(pull) => {
                let dataset = self.place_of(pull.dataset.as_ref());
                Response::Page(Page {
                    dataset: pull.dataset,
                    frames: self.bad_frames(dataset),
                    more: true,
                    incomplete: Vec::new(),
                })
            }
            Request::Heads(heads) => Response::Heads(HeadsReply {
                dataset: heads.dataset,
                heads: Some(self.absurd_vector()),
                held: Vec::new(),
                forks: Vec::new(),
            }),
            Request::Round(_) => Response::Round(Round { digest: ShortHash([7; 8]) }),
            Request::Confirm(_) => Response::Confirmed,
        };
        // Whoever asked may be gone.
        let _ = reply.send(response);
    }

    fn place_of(&self, dataset: Option<&anabranch_protocol::id::DatasetId>) -> usize {
        let named = anabranch_protocol::id::DatasetId::from_wire(dataset);
        self.plans.iter().position(|plan| Some(&plan.id) == named.as_ref()).unwrap_or(0)
    }

    fn keep(&mut self, dataset: Option<&anabranch_protocol::id::DatasetId>, frames: &[ByteBuf]) {
        let place = self.place_of(dataset);
        let room = FRAMES_MAX.saturating_sub(self.frames.len());
        self.frames.extend(frames.iter().take(room).map(|frame| (place, frame.to_vec())));
    }

    fn hello(&mut self) -> Hello {
        let mut nonce = Salt::ZERO;
        self.rng.fill(&mut nonce.0);
        Hello { nonce, ..self.introduction() }
    }

    fn introduction(&self) -> Hello {
        let hello = |plan: &DatasetPlan| DatasetHello {
            dataset: plan.id.to_wire(),
            lineage: LINEAGE,
            kind: plan.kind,
            registration: Registration::all(),
            policies: std::collections::BTreeMap::new(),
            heads: VersionVector::new(),
        };
        Hello {
            versions: vec![VERSION],
            nonce: Salt::ZERO,
            proofs: Vec::new(),
            incarnation: Incarnation([3; 16]),
            listen: Vec::new(),
            datasets: self.plans.iter().map(hello).collect(),
            withdrawn: Vec::new(),
        }
    }

    /// Says one thing to one node and another to the other, under one number and at once: a fork, signed.
    async fn fork(&self) {
        let both = [(self.victim, "one"), (self.other, "another")];
        for (peer, _) in both {
            let hello = Hello { nonce: Salt([6; 16]), ..self.introduction() };
            // Refused or not: the commits say what is to be said.
            let _ = self.wire.request(peer, Class::Interactive, Request::Hello(hello)).await;
        }
        let said = both.map(|(peer, key)| {
            let change = Change::Delete { key: Key::new(key).expect("a key") };
            let commit = self.draft(0, Epoch([8; 16]), (1, Hash([0; 32])), Salt([5; 16]), change);
            let push = Push { dataset: self.plans[0].id.to_wire(), frames: vec![ByteBuf::from(commit.to_bytes())] };
            self.wire.request(peer, Class::Interactive, Request::Push(push))
        });
        futures::future::join_all(said).await;
    }

    /// Pushes much at once: each is good, and says nothing new.
    async fn storm(&self) {
        let Some((dataset, frame)) = self.frames.first() else { return };
        let push = || Push { dataset: self.plans[*dataset].id.to_wire(), frames: vec![ByteBuf::from(frame.clone())] };
        let pushes = (0..STORM).map(|_| self.wire.request(self.victim, Class::Interactive, Request::Push(push())));
        // Whoever is stormed answers that it is busy, or late.
        let _ = tokio::time::timeout(Duration::from_secs(2), futures::future::join_all(pushes)).await;
    }

    async fn speak(&mut self) {
        if self.rng.below(16) == 0 {
            return self.storm().await;
        }
        let dataset = self.rng.below(self.plans.len());
        let wire_id = self.plans[dataset].id.to_wire();
        let request = match self.rng.below(8) {
            0 => Request::Hello(self.hello()),
            1 => Request::Heads(Heads { dataset: wire_id, digest: ShortHash([1; 8]) }),
            2 => {
                // Asks for everything, to have honest frames.
                let writer = WriterId { peer: self.victim, epoch: Epoch([0; 16]) };
                let wants = vec![Want { writer, from_seq: 1 }];
                Request::Pull(Pull { dataset: wire_id, registration: Registration::all(), wants, bytes_max: 1 << 20 })
            }
            3 => Request::Confirm(Confirm { dataset: wire_id, statements: vec![self.false_statement(dataset)] }),
            4 => {
                let heads = self.absurd_vector();
                self.wire.announce(Announce { dataset: wire_id, digest: ShortHash([2; 8]), heads });
                return;
            }
            _ => Request::Push(Push { dataset: wire_id, frames: self.bad_frames(dataset) }),
        };
        let class = if matches!(request, Request::Pull(_)) { Class::Bulk } else { Class::Interactive };
        let asked = self.wire.request(self.victim, class, request);
        if let Ok(Ok(Response::Page(page))) = tokio::time::timeout(Duration::from_secs(2), asked).await {
            self.keep(page.dataset.as_ref(), &page.frames);
        }
    }

    /// Says that somebody else has everything.
    fn false_statement(&mut self, dataset: usize) -> SignedStatement {
        let statement = Statement {
            dataset: self.plans[dataset].id.to_wire(),
            peer: self.victim,
            incarnation: Incarnation([3; 16]),
            counter: u64::MAX >> 1,
            registration: Registration::all(),
            vector: self.absurd_vector(),
        };
        SignedStatement::sign(&statement, LINEAGE, &self.identity)
    }

    fn absurd_vector(&mut self) -> VersionVector {
        let mut vector = VersionVector::new();
        for _ in 0..self.rng.below(200) {
            let (mut peer, mut epoch) = (self.victim, Epoch([0; 16]));
            if self.rng.chance(0.5) {
                self.rng.fill(&mut peer.0);
            }
            self.rng.fill(&mut epoch.0);
            let head = Head { seq: self.rng.within(1..1 << 47), hlc: Hlc(u64::MAX >> 2), hash: ShortHash([5; 8]) };
            vector.set(WriterId { peer, epoch }, head);
        }
        vector
    }

    fn bad_frames(&mut self, dataset: usize) -> Vec<ByteBuf> {
        if self.rng.below(6) == 0 && self.plans[dataset].kind == Kind::Documents {
            return self.forked_frames(dataset).into_iter().map(ByteBuf::from).collect();
        }
        let count = 1 + self.rng.below(4);
        (0..count).map(|_| ByteBuf::from(self.bad_frame(dataset))).collect()
    }

    fn bad_frame(&mut self, dataset: usize) -> Vec<u8> {
        let honest: Vec<Vec<u8>> = self.frames.iter().map(|(_, frame)| frame.clone()).collect();
        match self.rng.below(7) {
            // Torn, flipped, and of another dataset.
            0 if !honest.is_empty() => {
                let mut frame = self.rng.pick(&honest).clone();
                let at = self.rng.below(frame.len());
                frame[at] ^= 1 << self.rng.below(8);
                frame
            }
            1 if !honest.is_empty() => {
                let frame = self.rng.pick(&honest).clone();
                frame[..self.rng.below(frame.len())].to_vec()
            }
            2 if !honest.is_empty() => self.rng.pick(&honest).clone(),
            // Deeply nested, and oversized.
            3 => vec![0x81; 5_000],
            4 => {
                let mut noise = vec![0; self.rng.below(100_000)];
                self.rng.fill(&mut noise);
                noise
            }
            // A commit of its own that leaves a gap, and one in a false name.
            5 => self.own_frame(dataset, 7),
            _ => self.forged_frame(dataset),
        }
    }

    /// The first commit of a line of its own, and a second one that follows another first one. They delete what nobody has, so
    /// that the first, which is as good as anybody's, shows nothing.
    fn forked_frames(&mut self, dataset: usize) -> Vec<Vec<u8>> {
        let mut epoch = Epoch([0; 16]);
        self.rng.fill(&mut epoch.0);
        let nothing = Change::Delete { key: Key::new("forged").expect("a key") };
        let first = self.draft(dataset, epoch, (1, Hash::ZERO), Salt([4; 16]), nothing.clone());
        let other = self.draft(dataset, epoch, (1, Hash::ZERO), Salt([5; 16]), nothing.clone());
        let second = self.draft(dataset, epoch, (2, other.hash()), Salt([4; 16]), nothing);
        vec![first.to_bytes(), second.to_bytes()]
    }

    fn own_frame(&mut self, dataset: usize, seq: u64) -> Vec<u8> {
        let mut epoch = Epoch([0; 16]);
        self.rng.fill(&mut epoch.0);
        let value = workload::value(u64::MAX >> 1, dataset, "", 4);
        let change = if self.plans[dataset].kind == Kind::Append {
            Change::Append { value }
        } else {
            Change::Put { key: Key::new("forged").expect("a key"), value }
        };
        // The first commit, and it alone, follows nothing: a frame that breaks that rule is not looked at any further.
        let previous = if seq == 1 { Hash::ZERO } else { Hash([1; 32]) };
        self.draft(dataset, epoch, (seq, previous), Salt([4; 16]), change).to_bytes()
    }

    /// Signed by this peer, in the name of the victim.
    fn forged_frame(&mut self, dataset: usize) -> Vec<u8> {
        let frame = self.own_frame(dataset, 1);
        let (mine, theirs) = (self.identity.peer().0, self.victim.0);
        let at = frame.windows(mine.len()).position(|window| window == mine);
        let mut forged = frame;
        if let Some(at) = at {
            forged[at..at + theirs.len()].copy_from_slice(&theirs);
        }
        forged
    }

    fn draft(&self, dataset: usize, epoch: Epoch, (seq, previous): (u64, Hash), salt: Salt, change: Change) -> Commit {
        let entries = vec![Entry { index: 0, change }];
        let draft = Draft {
            dataset: &self.plans[dataset].id,
            lineage: LINEAGE,
            epoch,
            seq,
            previous,
            parent: None,
            hlc: Hlc::at(WallClock(crate::clock::BEGINNING + 60_000 + seq)),
            sections: vec![(workload::collection(workload::SHARED[1]), salt, entries)],
        };
        draft.seal(&self.identity)
    }
}
