//! None of the rows that nothing else covers is lost or older than it was unnoticed, and no crash looks like it.

use std::path::Path;

use anabranch_protocol::commit::{Commit, ForkProof};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, Key, PeerId};
use anabranch_protocol::replica::{Op, ReplicaSettings, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::super::LedgerError;
use super::super::rows::tests::commit_at;
use super::super::tests::{entropy, now, orders, settings};
use super::*;
use crate::dataset::lineage::LineageChoice;
use crate::store::{MemoryEngine, Row, StoreEngine};

const DIRECTORY: &str = "/nowhere/held";

fn open(engine: &MemoryEngine, seed: &mut u8) -> Result<Ledger, LedgerError> {
    Ledger::open(engine, Path::new(DIRECTORY), 1 << 20, settings(Kind::Documents), &mut entropy(seed))
}

fn customers() -> Collection {
    Collection::new("customers").unwrap()
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 32])
}

fn key(n: u8) -> Key {
    Key::new(&format!("k{n}")).unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    Write(u8),
    Receive,
    Fork,
    /// All documents are gone, and one is there of more than one part.
    Drop,
    Accepted(u8),
    Enrolled(u8, bool),
    Registered(bool),
    Settle,
}

fn receive(ledger: &mut Ledger, at: u8, commits: &mut Vec<Commit>) -> Result<(), StoreError> {
    let hlc = Hlc((1_700_000_000_000 + commits.len() as u64) << 16);
    let next = commit_at(Kind::Documents, commits.last(), &key(at), Some(vec![at % 24]), hlc);
    // After a crash some of them come again.
    ledger.receive(now(99), commits.clone())?;
    ledger.receive(now(99), vec![next.clone()])?;
    commits.push(next);
    Ok(())
}

fn happens(ledger: &mut Ledger, at: u8, event: &Event, seed: &mut u8, commits: &mut Vec<Commit>) -> Result<(), StoreError> {
    match event {
        Event::Write(n) => {
            let op = |collection| WriteOp { collection, op: Op::Put { key: key(*n), value: vec![at % 24] } };
            let request = WriteRequest::new(vec![op(orders()), op(Collection::new("drafts").unwrap())]);
            ledger.write(now(at.into()), &[request], &mut entropy(seed)).map(drop)
        }
        Event::Receive => receive(ledger, at, commits),
        Event::Fork => {
            let Some(last) = commits.last().filter(|_| ledger.replica().forks().is_empty()) else { return Ok(()) };
            let before = commits.len().checked_sub(2).map(|before| &commits[before]);
            let other = commit_at(Kind::Documents, before, &key(at), Some(vec![23]), last.header().hlc);
            // The same again proves nothing.
            let Some(proof) = ForkProof::of(last, &other) else { return Ok(()) };
            ledger.receive_with(now(99), vec![other], vec![proof]).map(drop)
        }
        Event::Drop => {
            let value = Value::Text("x".repeat(9_000)).encode();
            let ops = [Op::Truncate, Op::Put { key: key(9), value }];
            let ops = ops.into_iter().map(|op| WriteOp { collection: orders(), op }).collect();
            ledger.write(now(at.into()), &[WriteRequest::new(ops)], &mut entropy(seed)).map(drop)
        }
        Event::Accepted(n) => ledger.peer_accepted(peer(*n), now(at.into())),
        Event::Enrolled(n, enrolled) => ledger.set_enrolled(peer(*n), *enrolled, now(at.into())).map(drop),
        Event::Registered(true) => ledger.register(&customers()).map(drop),
        Event::Registered(false) => ledger.unregister(&customers()).map(drop),
        Event::Settle => ledger.settle(),
    }
}

/// A closed store that holds something of everything, and what it held of it some changes ago.
fn store() -> (MemoryEngine, Vec<Row>) {
    let (engine, mut seed, mut commits) = (MemoryEngine::default(), 0, Vec::new());
    let mut ledger = open(&engine, &mut seed).unwrap();
    let first = [
        Event::Write(1),
        Event::Receive,
        Event::Receive,
        Event::Accepted(1),
        Event::Accepted(2),
        Event::Registered(true),
        Event::Registered(false),
        Event::Enrolled(3, true),
        Event::Write(2),
    ];
    let later = [
        Event::Fork,
        Event::Drop,
        Event::Write(2),
        Event::Enrolled(1, false),
        Event::Registered(true),
        Event::Receive,
        Event::Accepted(4),
        Event::Settle,
    ];
    for (at, event) in (0..).zip(&first) {
        happens(&mut ledger, at, event, &mut seed, &mut commits).unwrap();
    }
    let before = rows_in(&*ledger.store);
    for (at, event) in (20..).zip(&later) {
        happens(&mut ledger, at, event, &mut seed, &mut commits).unwrap();
    }
    (engine, before)
}

fn rows(engine: &MemoryEngine) -> Vec<Row> {
    rows_in(&*engine.open(Path::new(DIRECTORY), 0).unwrap())
}

fn rows_in(store: &dyn Store) -> Vec<Row> {
    let mut rows = Vec::new();
    let collect = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(&[], &[u8::MAX], collect).unwrap();
    rows
}

/// A copy of a store.
fn copy(rows: &[Row]) -> MemoryEngine {
    let engine = MemoryEngine::default();
    let store = engine.open(Path::new(DIRECTORY), 0).unwrap();
    rows.iter().for_each(|(key, value)| store.put(key, value).unwrap());
    store.barrier().unwrap();
    engine
}

/// What opening says of a store with one row as it was before, or without it.
fn opened_with(all: &[Row], key: &[u8], instead: Option<&[u8]>) -> Result<Ledger, LedgerError> {
    let engine = copy(all);
    let store = engine.open(Path::new(DIRECTORY), 0).unwrap();
    instead.map_or_else(|| store.delete(key), |value| store.put(key, value)).unwrap();
    store.barrier().unwrap();
    drop(store);
    open(&engine, &mut 90)
}

fn is_noticed(outcome: Result<Ledger, LedgerError>) -> bool {
    matches!(outcome, Err(LedgerError::Store(StoreError::Corrupt(_)) | LedgerError::OtherKind { .. }))
}

/// Rows that are lost or old without harm, or that others notice when the store was opened: see `docs/storage.md`.
fn is_covered(key: &[u8]) -> bool {
    let elsewhere = ["mark", "clock", "epoch", "incarnation", META_LINEAGE, META_HELD].map(layout::meta);
    let span = key[0] == b'c' && !key.ends_with(&[0]);
    b"cefmtv".contains(&key[0]) && !span && !elsewhere.iter().any(|name| name == key)
}

#[test]
fn no_small_row_is_gone_or_old_unnoticed() {
    let (engine, before) = store();
    let all = rows(&engine);
    open(&copy(&all), &mut 90).unwrap();
    let (mut lost, mut old) = (String::new(), String::new());
    for (key, value) in all.iter().filter(|(key, _)| is_covered(key)) {
        let shown = String::from_utf8_lossy(key);
        assert!(is_noticed(opened_with(&all, key, None)), "without {shown}");
        lost.push(char::from(key[0]));
        if let Some((_, then)) = before.iter().find(|(of, then)| of == key && then != value) {
            assert!(is_noticed(opened_with(&all, key, Some(then))), "{shown} as it was");
            old.push(char::from(key[0]));
        }
    }
    for prefix in "cefmtv".chars() {
        assert!(lost.contains(prefix), "nothing of {prefix} is there to be lost");
    }
    for prefix in "cemtv".chars() {
        assert!(old.contains(prefix), "nothing of {prefix} was once otherwise");
    }
}

/// A store without one would take on another lineage, or none.
#[test]
fn a_lineage_is_not_lost_unnoticed() {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let settings = ReplicaSettings { lineage: Lineage([5; 16]), ..settings(Kind::Documents) };
    let mut ledger = Ledger::open(&engine, Path::new(DIRECTORY), 1 << 20, settings.clone(), &mut entropy(&mut seed)).unwrap();
    happens(&mut ledger, 1, &Event::Write(1), &mut seed, &mut Vec::new()).unwrap();
    ledger.settle().unwrap();
    drop(ledger);
    let store = engine.open(Path::new(DIRECTORY), 0).unwrap();
    store.delete(&layout::meta(META_LINEAGE)).unwrap();
    drop(store);
    let choice = LineageChoice::default();
    assert!(is_noticed(Ledger::open_as(&engine, Path::new(DIRECTORY), 1 << 20, settings, &choice, &mut entropy(&mut seed))));
}

/// Neither a store that never had the row, nor one that was changed by a version that does not know of it, is damaged.
#[test]
fn what_was_written_without_the_row_is_taken_as_it_is() {
    let (engine, before) = store();
    let held = layout::meta(META_HELD);
    let all = rows(&engine);
    assert!(all.iter().any(|(key, _)| *key == held), "a clean stop leaves it");
    let then = before.iter().find(|(key, _)| *key == held).map(|(_, value)| &value[..]);
    for older in [None, Some(then.expect("a turn puts it"))] {
        let mut ledger = opened_with(&all, &held, older).unwrap();
        ledger.settle().unwrap();
        assert_ne!(ledger.store.get(&held).unwrap().as_deref(), older, "now it says what is there");
    }
}

/// A row that is older than the store says how many there must be at least.
#[test]
fn fewer_rows_than_there_were_are_noticed_after_others_were_added() {
    let (engine, before) = store();
    let held = layout::meta(META_HELD);
    let then = before.into_iter().find(|(key, _)| *key == held).unwrap();
    let mut all: Vec<Row> = rows(&engine).into_iter().filter(|(key, _)| *key != held).collect();
    all.push(then);
    let (of_one, of_two) = (layout::enrolled_key(&peer(1)), layout::enrolled_key(&peer(2)));
    assert!(opened_with(&all, &of_two, None).is_ok(), "one was added since");
    all.retain(|(key, _)| *key != of_one);
    assert!(is_noticed(opened_with(&all, &of_two, None)));
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0_u8..4).prop_map(Event::Write),
        3 => Just(Event::Receive),
        1 => Just(Event::Fork),
        1 => Just(Event::Drop),
        2 => (0_u8..4).prop_map(Event::Accepted),
        2 => (0_u8..4, any::<bool>()).prop_map(|(n, enrolled)| Event::Enrolled(n, enrolled)),
        2 => any::<bool>().prop_map(Event::Registered),
        1 => Just(Event::Settle),
    ];
    proptest::collection::vec(event, 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_looks_like_damage(lives in proptest::collection::vec((events(), any::<u64>()), 1..5)) {
        let (engine, mut seed, mut commits) = (MemoryEngine::default(), 0, Vec::new());
        for (events, crash) in lives {
            let mut ledger = open(&engine, &mut seed).map_err(|error| TestCaseError::fail(error.to_string()))?;
            ledger.check().unwrap();
            ledger.audit().unwrap();
            for (at, event) in (0..).zip(&events) {
                happens(&mut ledger, at, event, &mut seed, &mut commits).unwrap();
            }
            drop(ledger);
            engine.crash_seeded(Path::new(DIRECTORY), crash);
        }
        open(&engine, &mut seed).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
}

/// On people's disks. A change here needs another key.
#[test]
fn what_a_store_holds_has_these_bytes() {
    let held = Held {
        accepted: true,
        registered: Sum(3, 2, (u64::MAX, 1)),
        directory: true,
        enrolments: Sum(0x0102_0304_0506, 4, (7, 8)),
        forks: 9,
        large_rows: false,
        lineage: Lineage::ZERO,
        format: 2,
        tallies: Sum(10, 11, (12, 13)),
        lines: Sum(10, 14, (15, 16)),
    };
    let bytes = codec::encode(&held);
    assert_eq!(codec::decode::<Held>(&bytes, 1_024).unwrap(), held);
    let hex = "aa6161f56163830302821bffffffffffffffff016164f56165831b0000010203040506048207086166096167f4616c50\
               00000000000000000000000000000000616d026174830a0b820c0d6176830a0e820f10";
    assert_eq!(HEXLOWER.encode(&bytes), hex);
}
