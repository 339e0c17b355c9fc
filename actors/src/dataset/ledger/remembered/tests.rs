//! What a ledger remembers of writes under idempotency keys, through crashes and for how long.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::Key;
use anabranch_protocol::idempotency::{IDEMPOTENCY_LIFETIME, IdempotencyKey};
use anabranch_protocol::replica::{Op, WriteOp, WriteRefusal, WriteRequest, Written};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use super::super::tests::{entropy, now, orders, settings};
use super::super::{FORMAT_VERSION, FORMAT_WITH_KEYS, Ledger, LedgerError, META_FORMAT, number};
use crate::dataset::layout;
use crate::store::{FaultEngine, FaultPlan, MemoryEngine, StoreEngine, StoreError};

const PLACE: &str = "/nowhere/primary";
const DAY: u32 = 24 * 60 * 60 * 1_000;

fn open(engine: &dyn StoreEngine, kind: Kind, seed: &mut u8) -> Ledger {
    Ledger::open(engine, Path::new(PLACE), 1 << 20, settings(kind), &mut entropy(seed)).unwrap()
}

fn keyed(n: u32, kind: Kind) -> WriteRequest {
    let value = Value::Text(format!("{n}")).encode();
    let op = match kind {
        Kind::Documents => Op::Put { key: Key::new(&format!("k{n}")).unwrap(), value },
        Kind::Append => Op::Append { value },
    };
    let key: IdempotencyKey = format!("key-{n}").parse().unwrap();
    WriteRequest::once(vec![WriteOp { collection: orders(), op }], &key)
}

fn write(ledger: &mut Ledger, at: u32, request: WriteRequest, seed: &mut u8) -> Result<Written, WriteRefusal> {
    ledger.write(now(at), &[request], &mut entropy(seed)).unwrap().0.remove(0)
}

fn rows(ledger: &Ledger) -> usize {
    let mut rows = 0;
    let count = ledger.store.scan(b"w", b"x", &mut |_, _| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    });
    count.unwrap();
    assert_eq!(rows, ledger.remembering.by_time.len(), "memory is what the rows say");
    rows
}

fn commits(ledger: &Ledger) -> u64 {
    ledger.replica().vector().commits()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever put or barrier fails, and whatever of the unflushed rest survives: each write is sent again under its key until it is
    /// acknowledged, and then it happened once, and was answered as it is answered ever after.
    #[test]
    fn no_crash_makes_a_write_happen_twice(
        append in any::<bool>(), seed in any::<u64>(), settle in any::<bool>(),
        crashes in proptest::collection::vec((0_u32..60, any::<bool>(), 1_usize..4), 1..5),
    ) {
        let kind = if append { Kind::Append } else { Kind::Documents };
        let memory = MemoryEngine::default();
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let (mut random, mut acked, mut next) = (0, BTreeMap::<u32, Written>::new(), 0);
        for (round, (fails_after, barrier, together)) in crashes.into_iter().enumerate() {
            let mut ledger = open(&engine, kind, &mut random);
            // Those that nobody knows of, and new ones.
            let sent: Vec<u32> = (0..next + 8).filter(|n| !acked.contains_key(n)).collect();
            next += 8;
            let call = if barrier { "barrier" } else { "put" };
            plan.reload(&format!("{call}:error:after={}", if barrier { fails_after / 4 } else { fails_after })).unwrap();
            for group in sent.chunks(together) {
                let requests: Vec<_> = group.iter().map(|n| keyed(*n, kind)).collect();
                let Ok((outcomes, _)) = ledger.write(now(next), &requests, &mut entropy(&mut random)) else { break };
                acked.extend(group.iter().copied().zip(outcomes.into_iter().map(Result::unwrap)));
                if settle {
                    let _ = ledger.settle();
                }
            }
            drop(ledger);
            plan.clear();
            memory.crash_seeded(Path::new(PLACE), seed.wrapping_add(round as u64));
            let mut ledger = open(&engine, kind, &mut random);
            let before = commits(&ledger);
            for (n, written) in &acked {
                prop_assert_eq!(write(&mut ledger, next, keyed(*n, kind), &mut random), Ok(written.clone()));
            }
            prop_assert_eq!(commits(&ledger), before, "what was acknowledged happens once");
            ledger.check().unwrap();
            ledger.audit().unwrap();
        }
        let mut ledger = open(&engine, kind, &mut random);
        for n in 0..next {
            let written = write(&mut ledger, next, keyed(n, kind), &mut random).unwrap();
            prop_assert!(written.created, "{} was written before by itself", n);
            prop_assert!(acked.get(&n).is_none_or(|known| *known == written));
        }
        prop_assert_eq!(ledger.replica().documents(), u64::from(next));
        prop_assert_eq!(rows(&ledger), next as usize);
    }
}

#[test]
fn a_key_is_taken_in_again_with_its_record_and_known_after_a_clean_stop() {
    for kind in [Kind::Documents, Kind::Append] {
        let (engine, mut seed) = (MemoryEngine::default(), 0);
        let mut ledger = open(&engine, kind, &mut seed);
        let first = write(&mut ledger, 1, keyed(1, kind), &mut seed).unwrap();
        let row = ledger.store.get(&layout::remembered_key(&keyed(1, kind).idempotency.unwrap().key)).unwrap();
        for settled in [false, true] {
            if settled {
                ledger.settle().unwrap();
            } else {
                // The barrier covers the record, its rows come after it: a crash may take them all.
                ledger.store.delete(&layout::remembered_key(&keyed(1, kind).idempotency.unwrap().key)).unwrap();
            }
            drop(ledger);
            ledger = open(&engine, kind, &mut seed);
            assert_eq!(ledger.store.get(&layout::remembered_key(&keyed(1, kind).idempotency.unwrap().key)).unwrap(), row);
            assert_eq!(write(&mut ledger, 2, keyed(1, kind), &mut seed).as_ref(), Ok(&first));
            assert_eq!((rows(&ledger), commits(&ledger)), (1, 1));
            ledger.check().and_then(|()| ledger.audit()).unwrap();
        }
    }
}

#[test]
fn nothing_to_do_is_remembered_through_a_crash() {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, Kind::Documents, &mut seed);
    let key = Key::new("k2").unwrap();
    let delete = WriteOp { collection: orders(), op: Op::Delete { key: key.clone(), must_exist: false } };
    let request = WriteRequest::once(vec![delete], &"d".parse().unwrap());
    let nothing = write(&mut ledger, 1, request.clone(), &mut seed).unwrap();
    write(&mut ledger, 2, keyed(2, Kind::Documents), &mut seed).unwrap();
    engine.crash_seeded(Path::new(PLACE), 3);
    drop(ledger);
    let mut ledger = open(&engine, Kind::Documents, &mut seed);
    assert_eq!(write(&mut ledger, 3, request, &mut seed), Ok(nothing));
    assert!(ledger.view().get(&orders(), &key).unwrap().is_some());
    ledger.check().and_then(|()| ledger.audit()).unwrap();
}

#[test]
fn keys_are_forgotten_after_a_day_and_not_before() {
    let (engine, mut seed, kind) = (MemoryEngine::default(), 0, Kind::Documents);
    let mut ledger = open(&engine, kind, &mut seed);
    for n in 0..3 {
        write(&mut ledger, n * 10, keyed(n, kind), &mut seed).unwrap();
    }
    ledger.forget_answers(now(DAY - 1)).unwrap();
    assert_eq!(rows(&ledger), 3);
    ledger.forget_answers(now(DAY + 10)).unwrap();
    assert_eq!(rows(&ledger), 1);
    // One that is over counts for nothing, forgotten or not, and is replaced.
    assert!(!write(&mut ledger, DAY + 30, keyed(2, kind), &mut seed).unwrap().created);
    assert_eq!((rows(&ledger), commits(&ledger)), (1, 4));
    ledger.forget_answers(now(DAY + 30)).unwrap();
    assert_eq!(rows(&ledger), 1, "it lasts a day from when it happened again");
    assert_eq!(u128::from(DAY), IDEMPOTENCY_LIFETIME.as_millis());
    drop(ledger);
    let mut ledger = open(&engine, kind, &mut seed);
    assert_eq!(rows(&ledger), 1);
    ledger.forget_answers(WallClock(u64::MAX)).unwrap();
    assert_eq!(rows(&ledger), 0);
}

#[test]
fn the_oldest_key_makes_room_for_one_too_many() {
    let (engine, mut seed, kind) = (MemoryEngine::default(), 0, Kind::Documents);
    let mut ledger = open(&engine, kind, &mut seed);
    ledger.remembering.max = 3;
    for n in 0..5 {
        write(&mut ledger, n, keyed(n, kind), &mut seed).unwrap();
    }
    assert_eq!((rows(&ledger), commits(&ledger)), (3, 5));
    for n in 2..5 {
        assert!(write(&mut ledger, 10, keyed(n, kind), &mut seed).unwrap().created, "{n} is remembered");
    }
    assert_eq!(commits(&ledger), 5);
    assert!(!write(&mut ledger, 10, keyed(0, kind), &mut seed).unwrap().created, "0 made room, and happens again");
}

#[test]
fn a_store_says_that_it_has_keys_and_damage_shows() {
    let (engine, mut seed, kind) = (MemoryEngine::default(), 0, Kind::Documents);
    let mut ledger = open(&engine, kind, &mut seed);
    write(&mut ledger, 0, WriteRequest::new(keyed(0, kind).ops), &mut seed).unwrap();
    assert_eq!(number(&*ledger.store, META_FORMAT).unwrap(), FORMAT_VERSION, "older versions may read it");
    write(&mut ledger, 1, keyed(1, kind), &mut seed).unwrap();
    assert_eq!(number(&*ledger.store, META_FORMAT).unwrap(), FORMAT_WITH_KEYS);
    // Not one that its record brings back.
    ledger.settle().unwrap();
    let place = layout::remembered_key(&keyed(1, kind).idempotency.unwrap().key);
    let mut value = ledger.store.get(&place).unwrap().unwrap();
    value[20] ^= 1;
    ledger.store.put(&place, &value).unwrap();
    drop(ledger);
    let opened = Ledger::open(&engine, Path::new(PLACE), 1 << 20, settings(kind), &mut entropy(&mut seed));
    assert!(matches!(opened, Err(LedgerError::Store(StoreError::Corrupt(_)))));
}
