//! A store whose scans and lookups differ in one row, as sled's do where a leaf came up as it once was.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anabranch_protocol::id::Key;
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;

use super::super::Ledger;
use super::super::tests::{entropy, now, orders, settings};
use super::*;
use crate::store::{MemoryEngine, OpenError, Row, StoreEngine};

/// What one way to a row has of it instead: nothing, or another value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    key: Vec<u8>,
    instead: Option<Vec<u8>>,
    /// Scans differ; otherwise lookups.
    in_scans: bool,
    /// Not those that begin here or later: they go through another leaf.
    before: Option<Vec<u8>>,
}

type Shared = Arc<Mutex<Option<Difference>>>;

#[derive(Debug, Default)]
struct TwoWays(MemoryEngine, Shared);

impl StoreEngine for TwoWays {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        Ok(Arc::new(TwoWayStore(self.0.open(dir, cache_bytes)?, self.1.clone())))
    }
}

#[derive(Debug)]
struct TwoWayStore(Arc<dyn Store>, Shared);

impl TwoWayStore {
    /// What is seen of a row by a lookup, or by a scan that begins somewhere.
    fn as_seen(&self, scan: Option<&[u8]>, key: &[u8], value: Vec<u8>) -> Option<Vec<u8>> {
        let differs = |difference: &&Difference| {
            let before = scan.zip(difference.before.as_deref()).is_none_or(|(start, before)| start < before);
            difference.in_scans == scan.is_some() && difference.key == key && before
        };
        match self.1.lock().unwrap().as_ref().filter(differs) {
            Some(difference) => difference.instead.clone(),
            None => Some(value),
        }
    }
}

impl Store for TwoWayStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key)?.and_then(|value| self.as_seen(None, key, value)))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.0.delete(key)
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.0.scan(start, end, &mut |key, value| match self.as_seen(Some(start), key, value.to_vec()) {
            Some(value) => visit(key, &value),
            None => ControlFlow::Continue(()),
        })
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        let mut end = end.to_vec();
        while let Some((key, value)) = self.0.last(start, &end)? {
            match self.as_seen(None, &key, value) {
                Some(value) => return Ok(Some((key, value))),
                None => end = key,
            }
        }
        Ok(None)
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.0.barrier()
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
}

fn rows(store: &dyn Store) -> Vec<Row> {
    let mut rows = Vec::new();
    let collect = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(&[], &[u8::MAX], collect).unwrap();
    rows
}

/// A row is not there one way, or is as it never was.
fn differences((key, value): &Row) -> impl Iterator<Item = Difference> {
    let changed: Vec<u8> = value.iter().map(|byte| !byte).collect();
    let both = [None, Some(changed)].into_iter().flat_map(|instead| [(instead.clone(), true), (instead, false)]);
    both.map(|(instead, in_scans)| Difference { key: key.clone(), instead, in_scans, before: None })
}

#[test]
fn a_checked_scan_passes_over_nothing() {
    let engine = TwoWays::default();
    let store = engine.open(Path::new("/scan"), 0).unwrap();
    for n in 1..=9 {
        store.put(&[n], &[n]).unwrap();
    }
    let scanned = |break_at: u8| {
        let mut seen = Vec::new();
        let outcome = scan_checked(&*store, &[2], &[9], &mut |key, _| {
            seen.push(key[0]);
            if key[0] == break_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        outcome.map(|()| seen).map_err(|error| error.to_string())
    };
    assert_eq!(scanned(u8::MAX), Ok((2..9).collect()));
    assert_eq!(scanned(5), Ok((2..=5).collect()));
    for row in rows(&*store) {
        for difference in differences(&row) {
            *engine.1.lock().unwrap() = Some(difference.clone());
            // From the first to the last, and none beyond where it starts, ends or is broken off.
            assert_eq!(scanned(u8::MAX).is_err(), (2..9).contains(&row.0[0]), "{difference:?}");
            // Where a scan does not come by it can't be broken off either.
            let unseen = row.0[0] == 5 && difference.in_scans && difference.instead.is_none();
            assert_eq!(scanned(5).is_err(), (2..=5).contains(&row.0[0]) || unseen, "{difference:?}");
        }
    }
}

fn ledger(engine: &TwoWays, kind: Kind) -> Ledger {
    let mut seed = 0;
    let mut ledger = Ledger::open(engine, Path::new("/d"), 0, settings(kind), &mut entropy(&mut seed)).unwrap();
    for n in 0..24_u32 {
        let value = Value::Text("x".repeat(if n % 5 == 0 { 20_000 } else { 30 })).encode();
        let op = match kind {
            Kind::Append => Op::Append { value },
            Kind::Documents => Op::Put { key: Key::new(&format!("k{}", n % 7)).unwrap(), value },
        };
        let request = WriteRequest::new(vec![WriteOp { collection: orders(), op }]);
        ledger.write(now(n), &[request], &mut entropy(&mut seed)).unwrap();
    }
    ledger.settle().unwrap();
    ledger
}

#[test]
fn what_scans_and_lookups_do_not_agree_on_is_found_when_a_store_is_read_as_a_whole() {
    for kind in [Kind::Documents, Kind::Append] {
        let engine = TwoWays::default();
        let ledger = ledger(&engine, kind);
        let found = || matches!(ledger.check().and_then(|()| ledger.audit()), Err(StoreError::Corrupt(_)));
        assert!(!found());
        for row in rows(&*ledger.store) {
            for difference in differences(&row) {
                *engine.1.lock().unwrap() = Some(difference.clone());
                assert!(found(), "{kind}: {difference:?}");
                *engine.1.lock().unwrap() = None;
            }
        }
        assert!(!found());
    }
}

/// Whether one walk in the background finds something.
fn found_in_the_background(ledger: &mut Ledger) -> bool {
    loop {
        match ledger.audit_slice(now(100), 3) {
            Ok(true) => return false,
            Ok(false) => {}
            Err(StoreError::Corrupt(_)) => return true,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_scans_and_lookups_do_not_agree_on_is_found_in_the_background() {
    for (kind, prefix) in [(Kind::Documents, b'r'), (Kind::Append, b'x')] {
        let engine = TwoWays::default();
        let mut ledger = ledger(&engine, kind);
        assert!(!found_in_the_background(&mut ledger));
        for row in rows(&*ledger.store).into_iter().filter(|(key, _)| key[0] == prefix) {
            for difference in differences(&row) {
                *engine.1.lock().unwrap() = Some(difference.clone());
                assert!(found_in_the_background(&mut ledger), "{difference:?}");
                *engine.1.lock().unwrap() = None;
                // The walk that found it is over.
                assert!(!found_in_the_background(&mut ledger));
            }
        }
    }
}

/// A slice that ends among the rows of a leaf that reaches too far is followed by one that goes past it by another way.
#[test]
fn a_scan_that_passes_over_a_row_is_found_where_slices_meet() {
    for (kind, prefix) in [(Kind::Documents, b'r'), (Kind::Append, b'x')] {
        let engine = TwoWays::default();
        let mut ledger = ledger(&engine, kind);
        let rows: Vec<Row> = rows(&*ledger.store).into_iter().filter(|(key, _)| key[0] == prefix).collect();
        for (at, (key, _)) in rows.iter().enumerate().skip(1) {
            for (before, _) in &rows[1..=at] {
                let difference = Difference { key: key.clone(), instead: None, in_scans: true, before: Some(before.clone()) };
                *engine.1.lock().unwrap() = Some(difference.clone());
                assert!(found_in_the_background(&mut ledger), "{difference:?}");
            }
        }
    }
}
