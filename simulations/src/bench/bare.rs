//! The limit: a loop that puts the same frames and rows into sled with the same barriers, and does nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch_actors::dataset::ledger::Ledger;
use anabranch_actors::store::{MemoryEngine, SledEngine, Store, StoreEngine};
use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Key, Lineage};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Op, ReplicaSettings, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;

/// Part size of frames in the store.
const PART_BYTES: usize = 7_000;
/// What a row carries beside its value: stamp, hash, checksum.
const ROW_HEAD: [u8; 86] = [7; 86];
const CACHE_BYTES: u64 = 128 << 20;

/// One commit, ready to be written.
struct Prepared {
    frame: Vec<u8>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Writes `documents` in commits of `per_commit` and tells how long the writing took.
///
/// # Panics
/// When the store fails: there is nothing to measure then.
#[must_use]
pub fn run(kind: Kind, documents: &[(String, String)], per_commit: usize) -> Duration {
    let prepared: Vec<Prepared> = prepare(kind, documents, per_commit);
    let place = tempfile::tempdir().expect("a temporary directory");
    let store = SledEngine::default().open(&place.path().join("bare"), CACHE_BYTES).expect("sled opens");
    let started = Instant::now();
    for (arrival, commit) in (1_u64..).zip(&prepared) {
        write(&store, arrival, commit);
    }
    started.elapsed()
}

/// Writes one document a commit, and tells how long each took.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn lone_fsyncs(documents: &[(String, String)]) -> Vec<Duration> {
    let prepared = prepare(Kind::Documents, documents, 1);
    let place = tempfile::tempdir().expect("a temporary directory");
    let store = SledEngine::default().open(&place.path().join("bare"), CACHE_BYTES).expect("sled opens");
    let mut took = Vec::new();
    for (arrival, commit) in (1_u64..).zip(&prepared) {
        let started = Instant::now();
        write(&store, arrival, commit);
        took.push(started.elapsed());
        // Paced like the writer it is compared with: a disk that rests answers otherwise than one that is pressed.
        std::thread::sleep(Duration::from_millis(20).saturating_sub(started.elapsed()));
    }
    took
}

fn write(store: &Arc<dyn Store>, arrival: u64, commit: &Prepared) {
    for (part, chunk) in (0_u16..).zip(commit.frame.chunks(PART_BYTES)) {
        let mut key = [b'l'; 11];
        key[1..9].copy_from_slice(&arrival.to_be_bytes());
        key[9..].copy_from_slice(&part.to_be_bytes());
        store.put(&key, chunk).expect("sled takes a part");
    }
    for (key, value) in &commit.rows {
        store.put(key, value).expect("sled takes a row");
    }
    store.barrier().expect("sled flushes");
}

/// Makes the frames a node would make, with a ledger in memory.
fn prepare(kind: Kind, documents: &[(String, String)], per_commit: usize) -> Vec<Prepared> {
    let settings = ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: Lineage::ZERO,
        kind,
        identity: Identity::from_secret(&[1; 32]),
        registration: Registration::all(),
        max_clock_skew: Duration::from_secs(300),
        writers: anabranch_protocol::access::Peers::All,
    };
    let mut entropy = |bytes: &mut [u8]| bytes.fill(5);
    let mut ledger =
        Ledger::open(&MemoryEngine::default(), Path::new("/bare"), CACHE_BYTES, settings, &mut entropy).expect("memory opens");
    let collection = Collection::new("items").expect("a name");
    let mut prepared = Vec::new();
    for (n, group) in (0_u64..).zip(documents.chunks(per_commit)) {
        let request = WriteRequest::new(group.iter().map(|document| write_op(kind, &collection, document)).collect());
        let (_, committed) = ledger.write(WallClock(1_700_000_000_000 + n), &[request], &mut entropy).expect("memory writes");
        let rows = if kind == Kind::Documents { group.iter().map(row).collect() } else { Vec::new() };
        prepared.push(Prepared { frame: committed.commits[0].to_bytes(), rows });
    }
    prepared
}

fn write_op(kind: Kind, collection: &Collection, (key, json): &(String, String)) -> WriteOp {
    let value = Value::from_json(json.as_bytes()).expect("JSON").encode();
    let op = match kind {
        Kind::Documents => Op::Put { key: Key::new(key).expect("a key"), value },
        Kind::Append => Op::Append { value },
    };
    WriteOp { collection: collection.clone(), op }
}

fn row((key, json): &(String, String)) -> (Vec<u8>, Vec<u8>) {
    let value = Value::from_json(json.as_bytes()).expect("JSON").encode();
    ([b"ritems\0", key.as_bytes()].concat(), [&ROW_HEAD[..], &value].concat())
}
