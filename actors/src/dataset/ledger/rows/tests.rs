//! The audit of rows between turns: a row as it once was is found, and nothing that turns do raises an alarm.

use std::path::Path;

use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Identity};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Epoch, Hash, Lineage, Salt};
use anabranch_protocol::replica::{Op, Verdict, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use proptest::prelude::*;

use super::super::tests::{entropy, now, orders, settings};
use super::*;
use crate::store::{MemoryEngine, SledEngine, StoreEngine};

fn open(engine: &dyn StoreEngine, directory: &Path) -> Ledger {
    let mut seed = 0;
    Ledger::open(engine, directory, 1 << 20, settings(Kind::Documents), &mut entropy(&mut seed)).unwrap()
}

fn drafts() -> Collection {
    Collection::new("drafts").unwrap()
}

fn key(n: u32) -> Key {
    Key::new(&format!("k{n:02}")).unwrap()
}

fn value(n: u32, size: usize) -> Vec<u8> {
    Value::Text(format!("{n}{}", "x".repeat(size))).encode()
}

fn write(ledger: &mut Ledger, at: u32, collection: Collection, key: Key, value: Option<Vec<u8>>) {
    let op = match value {
        Some(value) => Op::Put { key, value },
        None => Op::Delete { key, must_exist: false },
    };
    let mut seed = u8::try_from(at % 200).unwrap();
    let request = WriteRequest { ops: vec![WriteOp { collection, op }] };
    ledger.write(now(at), &[request], &mut entropy(&mut seed)).unwrap();
}

/// A store whose documents were all written twice, and what it held under one key after the first time.
fn written_twice(engine: &dyn StoreEngine, directory: &Path, once: u32) -> (Ledger, Vec<u8>) {
    let mut ledger = open(engine, directory);
    let mut old = Vec::new();
    for n in 0..80 {
        if n == 40 {
            old = ledger.store.get(&layout::row_key(&orders(), &key(once))).unwrap().unwrap();
        }
        write(&mut ledger, n, orders(), key(n % 40), Some(value(n, 30)));
    }
    (ledger, old)
}

fn plant(ledger: &Ledger, once: u32, old: &[u8]) {
    ledger.store.put(&layout::row_key(&orders(), &key(once)), old).unwrap();
}

/// How many walks come to their end before damage is found, with a write between slices.
fn walks_until_found(ledger: &mut Ledger, write_over: u32) -> u64 {
    for at in 100.. {
        match ledger.audit_slice(now(at), 8) {
            Ok(_) if ledger.row_audit().walks > 3 => break,
            Ok(_) => write(ledger, at, orders(), key((at * 7) % 40), Some(value(at, 30))),
            Err(StoreError::Corrupt(reason)) => {
                assert_eq!(reason, "the rows of orders are not what their tally says");
                return ledger.row_audit().walks;
            }
            Err(error) => panic!("{error}"),
        }
        if at == 101 {
            write(ledger, at, orders(), key(write_over), Some(value(at, 30)));
        }
    }
    panic!("not found")
}

#[test]
fn a_row_as_it_once_was_is_found() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("d");
    // In front of the first cursor and behind it; written over by a turn before the walk comes by, and not.
    for (once, write_over) in [(3, 30), (30, 3), (30, 30), (39, 0), (0, 39)] {
        let (mut ledger, old) = written_twice(&SledEngine::default(), &directory, once);
        // Or the next start would write it anew.
        ledger.settle().unwrap();
        plant(&ledger, once, &old);
        ledger.store.barrier().unwrap();
        drop(ledger);
        let mut ledger = open(&SledEngine::default(), &directory);
        ledger.check().unwrap();
        assert_eq!(ledger.view().get(&orders(), &key(once)).unwrap().unwrap().value, value(once, 30), "nothing else notices");
        assert_eq!(walks_until_found(&mut ledger, write_over), 0);
        drop(ledger);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn what_goes_wrong_behind_the_cursor_is_found_by_the_next_walk() {
    let (mut ledger, old) = written_twice(&MemoryEngine::default(), Path::new("/behind"), 1);
    assert!(matches!(ledger.audit_slice(now(90), 8), Ok(false)));
    plant(&ledger, 1, &old);
    assert_eq!(walks_until_found(&mut ledger, 30), 1);
}

#[test]
fn a_row_or_tally_that_is_gone_or_torn_is_found() {
    let engine = MemoryEngine::default();
    let (mut ledger, _) = written_twice(&engine, Path::new("/gone"), 1);
    assert!(matches!(ledger.audit_on(now(90)), Ok(true)), "one slice has room for it");
    assert_eq!(ledger.row_audit(), RowAudit { rows: 0, walks: 1, finished: Some(now(90)) });
    let row = layout::row_key(&orders(), &key(20));
    for at in [row, layout::tally_key(&orders())] {
        let whole = ledger.store.get(&at).unwrap().unwrap();
        ledger.store.delete(&at).unwrap();
        assert!(matches!(ledger.audit_on(now(91)), Err(StoreError::Corrupt(_))));
        ledger.store.put(&at, &[&whole[..], &[0]].concat()).unwrap();
        assert!(matches!(ledger.audit_on(now(92)), Err(StoreError::Corrupt(_))));
        ledger.store.put(&at, &whole).unwrap();
        assert!(matches!(ledger.audit_on(now(93)), Ok(true)));
    }
}

/// Most of what moves rows, in any order, between slices.
#[derive(Debug, Clone)]
enum Event {
    /// A local write: collection, key, value or none.
    Write(bool, u32, Option<usize>),
    /// A commit of another peer, which writes to both collections, under a clock that is ahead or behind.
    Receive(u32, Option<usize>, u64),
    /// Both collections are registered: old commits come again with more sections, what was local is issued.
    Register,
    Unregister,
    Slice(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // More than one part now and then.
    let sizes = || proptest::option::weighted(0.7, prop_oneof![8 => 0_usize..40, 1 => Just(9_000)]);
    let event = prop_oneof![
        6 => (any::<bool>(), 0_u32..12, sizes()).prop_map(|(draft, key, size)| Event::Write(draft, key, size)),
        4 => (0_u32..12, sizes(), 0_u64..60).prop_map(|(key, size, hlc)| Event::Receive(key, size, hlc)),
        1 => Just(Event::Register),
        1 => Just(Event::Unregister),
        8 => (1_usize..6).prop_map(Event::Slice),
    ];
    proptest::collection::vec(event, 1..50)
}

/// The next commit of a peer.
fn commit(before: Option<&Commit>, key: &Key, value: Option<Vec<u8>>, hlc: u64) -> Commit {
    let change = value.map_or_else(|| Change::Delete { key: key.clone() }, |value| Change::Put { key: key.clone(), value });
    let section = |collection, index| (collection, Salt([3; 16]), vec![Entry { index, change: change.clone() }]);
    let clock = Hlc::at(WallClock(1_700_000_000_000 + hlc));
    let draft = Draft {
        dataset: &DatasetId::primary(),
        lineage: Lineage::ZERO,
        epoch: Epoch([5; 16]),
        seq: before.map_or(1, |before| before.header().seq + 1),
        previous: before.map_or(Hash::ZERO, Commit::hash),
        parent: None,
        hlc: before.map_or(clock, |before| clock.max(Hlc(before.header().hlc.0 + 1))),
        sections: vec![section(orders(), 0), section(drafts(), 1)],
    };
    draft.seal(&Identity::from_secret(&[9; 32]))
}

fn happens(ledger: &mut Ledger, at: u32, event: &Event, commits: &mut Vec<Commit>) -> Result<(), StoreError> {
    match event {
        Event::Write(draft, n, size) => {
            write(ledger, at, if *draft { drafts() } else { orders() }, key(*n), size.map(|size| value(at, size)));
        }
        Event::Receive(n, size, hlc) => {
            let next = commit(commits.last(), &key(*n), size.map(|size| value(at, size)), *hlc);
            let (verdicts, _) = ledger.receive(now(at), vec![next.clone()])?;
            assert_eq!(verdicts, [Verdict::Applied]);
            commits.push(next);
        }
        Event::Register => {
            drop(ledger.register(&drafts())?);
            let widened = ledger.widen(commits.clone())?;
            assert!(widened.rest.is_empty());
            let mut seed = 7;
            while ledger.issue(now(at), &mut entropy(&mut seed))?.1 {}
        }
        Event::Unregister => drop(ledger.unregister(&drafts())?),
        Event::Slice(rows) => drop(ledger.audit_slice(now(at), *rows)?),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_turns_do_raises_an_alarm(events in events()) {
        let mut ledger = open(&MemoryEngine::default(), Path::new("/turns"));
        let mut commits = Vec::new();
        for (at, event) in (0..).zip(&events) {
            let happened = happens(&mut ledger, at, event, &mut commits);
            prop_assert!(happened.is_ok(), "{event:?}: {happened:?}");
        }
        let walks = ledger.row_audit().walks;
        while ledger.row_audit().walks < walks + 2 {
            let ended = ledger.audit_slice(now(99), 3);
            prop_assert!(ended.is_ok(), "{ended:?}");
        }
        ledger.audit().unwrap();
    }
}
