//! Replicas with rows and a log in memory: what the laws are tried on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anabranch_protocol::commit::{Commit, ForkProof, Frame, Identity};
use anabranch_protocol::conflict::Row;
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::floor::Floor;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Key, KeyHash, Lineage, WriterId};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{
    Line, Op, Record, Replica, ReplicaSettings, Rows, Saved, Turn, Verdict, WriteOp, WriteRefusal, WriteRequest, Written,
};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;

/// A wall clock that every test starts from, milliseconds.
pub const NOON: u64 = 1_790_000_000_000;

pub type RowMap = BTreeMap<(Collection, Key), Row>;

#[derive(Debug, Clone, Default)]
pub struct MemoryRows(pub RowMap, pub BTreeMap<(WriterId, u64), Line>, pub BTreeMap<KeyHash, Remembered>);

impl Rows for MemoryRows {
    type Error = Infallible;
    fn row(&self, collection: &Collection, key: &Key) -> Result<Option<Row>, Infallible> {
        Ok(self.0.get(&(collection.clone(), key.clone())).cloned())
    }
    fn above(&self, collection: &Collection, floor: &Floor) -> Result<Tally, Infallible> {
        let mut tally = Tally::default();
        for ((_, key), row) in self.0.iter().filter(|((of, _), row)| of == collection && !floor.hides(&row.stamp)) {
            if row.value.is_some() {
                tally.add(RowHasher::new(&DatasetId::primary(), collection).hash(key, &row.stamp, &row.content));
            }
        }
        Ok(tally)
    }
    fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, Infallible> {
        Ok(self.1.get(&(*line, seq)).copied())
    }
    fn remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, Infallible> {
        Ok(self.2.get(key).cloned())
    }
}

/// A replica, its rows, and its log.
#[derive(Debug, Clone)]
pub struct Node {
    pub replica: Replica,
    pub rows: MemoryRows,
    pub log: Vec<Record>,
    /// Makes the node's salts and epochs; two clones of a node need different ones.
    pub seed: u64,
}

pub fn settings(secret: u8, kind: Kind, registration: Registration) -> ReplicaSettings {
    ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: Lineage::ZERO,
        kind,
        identity: Identity::from_secret(&[secret; 32]),
        registration,
        max_clock_skew: Duration::from_secs(60),
        writers: anabranch_protocol::access::Peers::All,
    }
}

impl Node {
    pub fn new(secret: u8) -> Self {
        Self::with(settings(secret, Kind::Documents, Registration::all()))
    }

    pub fn with(settings: ReplicaSettings) -> Self {
        let seed = u64::from(settings.identity.peer().0[0]) << 32;
        let replica = Replica::load(settings, Saved::default());
        Self { replica, rows: MemoryRows::default(), log: Vec::new(), seed }
    }

    pub fn write(&mut self, millis: u64, requests: &[WriteRequest]) -> Vec<Result<Written, WriteRefusal>> {
        let (turn, outcomes) = self.decide(millis, requests);
        self.take(turn);
        outcomes
    }

    pub fn decide(&mut self, millis: u64, requests: &[WriteRequest]) -> (Turn, Vec<Result<Written, WriteRefusal>>) {
        let seed = &mut self.seed;
        let mut entropy = |bytes: &mut [u8]| {
            *seed += 1;
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(bytes);
        };
        self.replica.decide(WallClock(millis), requests, &self.rows, &mut entropy).expect("memory can be read")
    }

    pub fn receive(&mut self, millis: u64, frames: &[Vec<u8>]) -> Vec<Verdict> {
        let commits = frames.iter().map(|bytes| self.verified(bytes)).collect();
        let (turn, verdicts) = self.replica.receive(WallClock(millis), commits, &self.rows).expect("memory can be read");
        self.take(turn);
        verdicts
    }

    fn verified(&self, bytes: &[u8]) -> Commit {
        let settings = self.replica.settings();
        Frame::decode(bytes).expect("decodes").verify(&settings.dataset, settings.lineage).expect("verifies")
    }

    pub fn take(&mut self, turn: Turn) {
        self.replica.evolve(&turn);
        self.rows.0.extend(turn.rows.into_iter().map(|write| ((write.collection, write.key), write.row)));
        for record in &turn.records {
            self.rows.2.extend(record.effects.remembered.iter().cloned());
            if let (Some(id), Some(commit)) = (record.line(), &record.commit) {
                self.rows.1.insert((id, commit.header().seq), Line::of(commit));
            }
        }
        self.log.extend(turn.records);
    }

    /// Takes in a proof, and parts the line that it is about.
    pub fn learn(&mut self, proof: &ForkProof) -> bool {
        let settings = self.replica.settings();
        let fork = proof.clone().verify(&settings.dataset, settings.lineage).expect("verifies");
        let new = self.replica.learn_fork(fork.clone());
        if let Some(parting) = self.replica.parting(&fork, &self.rows).expect("memory can be read") {
            let past = self.rows.1.split_off(&(parting.line, parting.from_seq));
            for ((id, seq), line) in past {
                let id = if id == parting.line { parting.branch } else { id };
                self.rows.1.insert((id, seq), line);
            }
            self.replica.part(&parting);
        }
        new
    }

    /// Frames of the log, cut to what this node keeps.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.log.iter().filter_map(|record| record.commit.as_ref()).map(Commit::to_bytes).collect()
    }

    /// The rows that no floor hides.
    pub fn visible(&self) -> RowMap {
        let mut rows = self.rows.0.clone();
        rows.retain(|(collection, _), row| !self.replica.tallies().get(collection).is_some_and(|tally| tally.hides(&row.stamp)));
        rows
    }

    /// Removes some of the rows that a floor hides, as is done in the background.
    pub fn sweep(&mut self, remove: impl Fn(&Key) -> bool) {
        let visible = self.visible();
        self.rows.0.retain(|place, _| visible.contains_key(place) || !remove(&place.1));
    }

    /// What has to be equal where the commits are.
    pub fn state(&self) -> (RowMap, BTreeMap<Collection, Tally>, String, String) {
        let replica = &self.replica;
        (self.visible(), replica.tallies().clone(), format!("{:?}", replica.vector()), replica.fingerprint())
    }
}

pub fn collection(n: u8) -> Collection {
    Collection::new(["orders", "customers", "notes", "logs"][usize::from(n % 4)]).unwrap()
}

pub fn key(n: u8) -> Key {
    Key::new(&format!("k{n}")).unwrap()
}

pub fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

pub fn put(c: u8, k: u8, text: &str) -> WriteOp {
    WriteOp { collection: collection(c), op: Op::Put { key: key(k), value: json(text).encode() } }
}

pub fn delete(c: u8, k: u8) -> WriteOp {
    WriteOp { collection: collection(c), op: Op::Delete { key: key(k), must_exist: false } }
}

pub fn merge(c: u8, k: u8, patch: &str) -> WriteOp {
    WriteOp { collection: collection(c), op: Op::Merge { key: key(k), patch: json(patch), must_exist: false } }
}

pub fn drop_all(c: u8) -> WriteOp {
    WriteOp { collection: collection(c), op: Op::Drop }
}

pub fn truncate(c: u8) -> WriteOp {
    WriteOp { collection: collection(c), op: Op::Truncate }
}

pub fn append(c: u8, text: &str) -> WriteOp {
    WriteOp { collection: collection(c), op: Op::Append { value: json(text).encode() } }
}

pub fn request(ops: Vec<WriteOp>) -> WriteRequest {
    WriteRequest::new(ops)
}
