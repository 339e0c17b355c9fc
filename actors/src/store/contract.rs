//! The contract of [`Store`](super::Store) as tests, run on every engine by one line of [`contract!`] each.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{
    FaultEngine, FaultPlan, KEY_BYTES_MAX, MemoryEngine, OpenError, PART_BYTES_MAX, Row, SledEngine, Store, StoreEngine,
    StoreError,
};

const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Runs every clause of the contract on the engine that the expression makes.
macro_rules! contract {
    ($name:ident, $engine:expr) => {
        mod $name {
            use super::*;

            contract!(@ $engine,
                reads_see_writes, keys_come_in_byte_order, a_scan_stops_when_told, an_empty_range_has_no_rows,
                over_the_limit_is_refused, a_barrier_survives_reopening, a_directory_opens_once,
                a_failed_barrier_stops_writes, threads_see_each_others_writes, behaves_like_a_map);
        }
    };
    (@ $engine:expr, $($clause:ident),+) => {
        $(#[test]
        fn $clause() {
            let dir = tempfile::tempdir().expect("a temporary directory");
            super::$clause(Arc::new($engine), &dir.path().join("deep").join("store"));
        })+
    };
}

contract!(sled, SledEngine::default());
contract!(sled_with_small_segments, SledEngine { segment_bytes: 512 * 1024, ..SledEngine::default() });
contract!(memory, MemoryEngine::default());
contract!(fault_free, FaultEngine::new(Arc::new(MemoryEngine::default()), FaultPlan::default()));

fn opened(engine: &dyn StoreEngine, dir: &Path) -> Arc<dyn Store> {
    engine.open(dir, CACHE_BYTES).expect("the store opens")
}

fn rows(store: &dyn Store, start: &[u8], end: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut collect = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(start, end, &mut collect).expect("the scan ends");
    rows
}

fn reads_see_writes(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    assert_eq!(store.get(b"k").expect("get"), None);
    store.put(b"k", b"1").expect("put");
    assert_eq!(store.get(b"k").expect("get"), Some(b"1".to_vec()));
    store.put(b"k", b"").expect("put");
    assert_eq!(store.get(b"k").expect("get"), Some(Vec::new()), "an empty value is a value");
    store.delete(b"k").expect("delete");
    assert_eq!(store.get(b"k").expect("get"), None);
    store.delete(b"k").expect("deleting what is not there is no error");
    let before = store.size_bytes();
    (0..2_000_u32).for_each(|n| store.put(&n.to_be_bytes(), &[7; 4_000]).expect("put"));
    store.barrier().expect("barrier");
    assert!(store.size_bytes() >= before + 4_000_000, "the size follows the content");
}

fn keys_come_in_byte_order(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    let keys: [&[u8]; 6] = [b"b", b"a\0", b"a", b"ab", b"\xff", b"\0"];
    keys.iter().for_each(|key| store.put(key, key).expect("put"));
    let found: Vec<Vec<u8>> = rows(&*store, b"", b"\xff\xff").into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [&b"\0"[..], b"a", b"a\0", b"ab", b"b", b"\xff"]);
    let found: Vec<Vec<u8>> = rows(&*store, b"a", b"b").into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [&b"a"[..], b"a\0", b"ab"], "the start is in, the end is out");
    assert_eq!(store.last(b"a", b"b").expect("last"), Some((b"ab".to_vec(), b"ab".to_vec())));
    assert_eq!(store.last(b"a", b"ab").expect("last"), Some((b"a\0".to_vec(), b"a\0".to_vec())));
}

fn a_scan_stops_when_told(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    (0..100_u8).for_each(|n| store.put(&[n], &[n]).expect("put"));
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.push(key[0]);
        // A visitor may use the store.
        assert_eq!(store.get(key).expect("get").as_deref(), Some(value));
        if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(&[10], &[90], &mut visit).expect("scan");
    assert_eq!(seen, [10, 11, 12]);
}

fn an_empty_range_has_no_rows(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    store.put(b"k", b"v").expect("put");
    for (start, end) in [(b"k", b"k"), (b"z", b"a"), (b"l", b"z")] {
        assert_eq!(rows(&*store, start, end), Vec::new());
        assert_eq!(store.last(start, end).expect("last"), None);
    }
}

fn over_the_limit_is_refused(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    let (key, part) = ([b'k'; KEY_BYTES_MAX], [1; PART_BYTES_MAX]);
    store.put(&key, &part).expect("the limit itself is allowed");
    assert_eq!(store.get(&key).expect("get"), Some(part.to_vec()));
    let refusal = store.put(b"big", &[1; PART_BYTES_MAX + 1]).expect_err("too large a value");
    assert!(matches!(refusal, StoreError::TooLarge { what: "value", limit: PART_BYTES_MAX, .. }), "{refusal}");
    let refusal = store.put(&[1; KEY_BYTES_MAX + 1], b"v").expect_err("too large a key");
    assert!(matches!(refusal, StoreError::TooLarge { what: "key", limit: KEY_BYTES_MAX, .. }), "{refusal}");
    assert!(store.delete(&[1; KEY_BYTES_MAX + 1]).is_err());
    assert_eq!(rows(&*store, b"", b"\xff").len(), 1, "nothing was written");
    store.put(b"small", b"v").expect("a refusal does not poison");
    store.barrier().expect("a refusal does not poison");
}

fn a_barrier_survives_reopening(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let mut expected = Vec::new();
    for round in 0..4_u8 {
        let store = opened(&*engine, dir);
        assert_eq!(rows(&*store, b"", b"\xff"), expected, "round {round}");
        store.put(&[round], &[round; 100]).expect("put");
        expected.push((vec![round], vec![round; 100]));
        store.barrier().expect("barrier");
        store.barrier().expect("a barrier with nothing to do");
    }
}

fn a_directory_opens_once(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    let second = engine.open(dir, CACHE_BYTES);
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    store.put(b"k", b"v").expect("the first handle is unharmed");
    drop(store);
    assert_eq!(opened(&*engine, dir).get(b"k").expect("get"), Some(b"v".to_vec()));
}

fn a_failed_barrier_stops_writes(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let plan: FaultPlan = "barrier:error:after=1".parse().expect("a valid plan");
    let faulty = FaultEngine::new(engine, plan);
    let store = opened(&faulty, dir);
    store.put(b"a", b"1").expect("put");
    store.barrier().expect("the first barrier passes");
    store.put(b"b", b"1").expect("put");
    assert!(matches!(store.barrier(), Err(StoreError::Io(_))));
    assert!(matches!(store.put(b"c", b"1"), Err(StoreError::Poisoned)));
    assert!(matches!(store.barrier(), Err(StoreError::Poisoned)));
    assert_eq!(store.get(b"a").expect("reads go on"), Some(b"1".to_vec()));
    drop(store);
    let store = opened(&faulty, dir);
    assert_eq!(store.get(b"a").expect("get"), Some(b"1".to_vec()));
    store.put(b"b", b"2").expect("written again");
    store.barrier().expect("the store is well again");
}

fn threads_see_each_others_writes(engine: Arc<dyn StoreEngine>, dir: &Path) {
    let store = opened(&*engine, dir);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..200_u8 {
                    store.put(&[thread, n], &[thread; 500]).expect("put");
                    if n % 50 == 0 {
                        store.barrier().expect("barrier");
                    }
                }
            });
        }
    });
    assert_eq!(rows(&*store, b"", b"\xff").len(), 800);
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>),
    Barrier,
    Reopen,
}

fn behaves_like_a_map(engine: Arc<dyn StoreEngine>, dir: &Path) {
    // A small alphabet, so that steps meet; lengths over sled's prefix compression of 255 bytes, too.
    let key = || prop::collection::vec(prop::sample::select(vec![0_u8, b'a', b'b', 0xff]), 0..5);
    let long_key = (key(), 0..400_usize).prop_map(|(mut key, padding)| {
        key.resize(key.len() + padding, b'a');
        key
    });
    let any_key = prop_oneof![4 => key(), 1 => long_key];
    let value = (any::<u8>(), 0..300_usize).prop_map(|(byte, length)| vec![byte; length]);
    let step = prop_oneof![
        12 => (any_key.clone(), value).prop_map(|(key, value)| Step::Put(key, value)),
        6 => any_key.clone().prop_map(Step::Delete),
        3 => (key(), key()).prop_map(|(start, end)| Step::Scan(start, end)),
        1 => Just(Step::Barrier),
        1 => Just(Step::Reopen),
    ];
    let steps = prop::collection::vec(step, 1..80);
    let runs = Cell::new(0);
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&steps, |steps| {
            runs.set(runs.get() + 1);
            compare_with_map(&*engine, &dir.join(runs.get().to_string()), &steps);
            Ok(())
        })
        .expect("the store does what a map does");
}

fn compare_with_map(engine: &dyn StoreEngine, dir: &Path, steps: &[Step]) {
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut store = opened(engine, dir);
    for step in steps {
        match step {
            Step::Put(key, value) => {
                store.put(key, value).expect("put");
                model.insert(key.clone(), value.clone());
                assert_eq!(store.get(key).expect("get").as_ref(), Some(value));
            }
            Step::Delete(key) => {
                store.delete(key).expect("delete");
                model.remove(key);
                assert_eq!(store.get(key).expect("get"), None);
            }
            Step::Scan(start, end) => compare_range(&*store, &model, start, end),
            Step::Barrier => store.barrier().expect("barrier"),
            Step::Reopen => {
                drop(store);
                store = opened(engine, dir);
            }
        }
    }
    compare_range(&*store, &model, b"", &[0xff; 8]);
}

fn compare_range(store: &dyn Store, model: &BTreeMap<Vec<u8>, Vec<u8>>, start: &[u8], end: &[u8]) {
    let within = |(key, _): &(&Vec<u8>, &Vec<u8>)| key.as_slice() >= start && key.as_slice() < end;
    let expected: Vec<Row> = model.iter().filter(within).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(store.last(start, end).expect("last"), expected.last().cloned());
    assert_eq!(rows(store, start, end), expected);
}
