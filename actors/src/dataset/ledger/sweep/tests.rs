//! Drops in a ledger: gone at once, counted exactly, removed in slices, and no crash brings anything back.

use std::path::Path;
use std::sync::Arc;

use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Identity};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, DatasetId, Epoch, Hash, Key, Lineage, Salt};
use anabranch_protocol::replica::{Op, ReplicaSettings, Verdict, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use super::super::tests::{entropy, now, orders, settings};
use super::super::{FORMAT_VERSION, FORMAT_WITH_DROPS, Ledger, META_FORMAT, number};
use super::REMOVED_MAX;
use crate::api::ListQuery;
use crate::dataset::layout;
use crate::store::{FaultEngine, FaultPlan, MemoryEngine, StoreEngine, StoreError};

const DIRECTORY: &str = "/nowhere/primary";

fn open(engine: &dyn StoreEngine, secret: u8, seed: &mut u8) -> Ledger {
    let settings = ReplicaSettings { identity: Identity::from_secret(&[secret; 32]), ..settings(Kind::Documents) };
    Ledger::open(engine, Path::new(DIRECTORY), 1 << 20, settings, &mut entropy(seed)).unwrap()
}

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Key::new(key).unwrap(), value: Value::Text(value.into()).encode() }
}

fn write(ledger: &mut Ledger, at: u32, op: Op, seed: &mut u8) -> Result<(), StoreError> {
    let request = WriteRequest::new(vec![WriteOp { collection: orders(), op }]);
    let (outcomes, _) = ledger.write(now(at), &[request], &mut entropy(seed))?;
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    Ok(())
}

fn keys(ledger: &Ledger) -> Vec<String> {
    let query = ListQuery { limit: 10_000, ..ListQuery::default() };
    let page = ledger.view().list(&orders(), &query).unwrap();
    page.documents.into_iter().map(|document| document.key.to_string()).collect()
}

/// Rows and further parts of rows in the store, whether anybody sees them or not.
fn stored(ledger: &Ledger, prefix: &[u8]) -> usize {
    let mut count = 0;
    let count_row = &mut |_: &[u8], _: &[u8]| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    ledger.store.scan(prefix, &layout::after_prefix(prefix), count_row).unwrap();
    count
}

/// The commits of a line of somebody else: one entry each, at its own time.
fn foreign(line: &[(u32, Change)]) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    for (seq, (at, change)) in (1..).zip(line) {
        let entries = vec![Entry { index: 0, change: change.clone() }];
        let draft = Draft {
            dataset: &DatasetId::primary(),
            lineage: Lineage::ZERO,
            epoch: Epoch([9; 16]),
            seq,
            previous: commits.last().map_or(Hash::ZERO, Commit::hash),
            parent: None,
            hlc: Hlc::at(now(*at)),
            sections: vec![(orders(), Salt([3; 16]), entries)],
        };
        commits.push(draft.seal(&Identity::from_secret(&[8; 32])));
    }
    commits
}

fn foreign_put(key: &str) -> Change {
    Change::Put { key: Key::new(key).unwrap(), value: Value::Text("theirs".into()).encode() }
}

/// Fingerprint and documents of a replica that has the same commits from nothing, in the order of their writers.
fn rebuilt(ledger: &Ledger) -> (String, Vec<String>) {
    let mut fresh = open(&MemoryEngine::default(), 99, &mut 0);
    for (writer, head) in ledger.replica().vector().iter() {
        let commits = (1..=head.seq).map(|seq| ledger.view().commit(writer, seq).unwrap().unwrap());
        let (verdicts, _) = fresh.receive(now(1_000), commits.collect()).unwrap();
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied));
    }
    fresh.audit().unwrap();
    (fresh.replica().fingerprint(), keys(&fresh))
}

#[test]
fn a_drop_is_seen_at_once_and_its_rows_are_removed_in_slices() {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, 7, &mut seed);
    let large = "x".repeat(20_000);
    for n in 0..REMOVED_MAX * 2 + 10 {
        let value = if n % 300 == 0 { &large } else { "small" };
        write(&mut ledger, 1, put(&format!("k{n:05}"), value), &mut seed).unwrap();
    }
    assert_eq!(number(&*ledger.store, META_FORMAT).unwrap(), FORMAT_VERSION, "older versions may read it");
    assert!(!ledger.nothing_committed().to_sweep);
    write(&mut ledger, 2, Op::Drop, &mut seed).unwrap();
    assert_eq!(number(&*ledger.store, META_FORMAT).unwrap(), FORMAT_WITH_DROPS);
    assert_eq!((keys(&ledger).len(), ledger.replica().documents()), (0, 0));
    assert!(ledger.view().get(&orders(), &Key::new("k00001").unwrap()).unwrap().is_none());
    write(&mut ledger, 3, put("k00300", "again"), &mut seed).unwrap();
    ledger.audit().unwrap();
    let before = ledger.replica().fingerprint();
    assert_eq!(stored(&ledger, b"r"), REMOVED_MAX * 2 + 10);
    for left in [REMOVED_MAX + 10, 10, 1] {
        assert!(ledger.nothing_committed().to_sweep);
        ledger.sweep().unwrap();
        assert_eq!((stored(&ledger, b"r"), keys(&ledger)), (left, vec!["k00300".to_owned()]));
        ledger.audit().unwrap();
    }
    assert_eq!((stored(&ledger, b"p"), ledger.replica().fingerprint()), (0, before.clone()));
    assert!(!ledger.nothing_committed().to_sweep);
    assert_eq!(rebuilt(&ledger), (before, vec!["k00300".to_owned()]));
    // Nothing is looked for again after a stop, nor shown.
    ledger.settle().unwrap();
    drop(ledger);
    let ledger = open(&engine, 7, &mut seed);
    assert!(!ledger.nothing_committed().to_sweep);
    assert_eq!(keys(&ledger), ["k00300"]);
    ledger.check().and_then(|()| ledger.audit()).unwrap();
}

#[test]
fn a_late_drop_and_late_writes_leave_what_is_newer() {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, 7, &mut seed);
    let line = [(10, foreign_put("a")), (20, foreign_put("b")), (30, Change::Truncate), (35, foreign_put("c"))];
    let commits = foreign(&line);
    write(&mut ledger, 25, put("old", "1"), &mut seed).unwrap();
    write(&mut ledger, 40, put("new", "1"), &mut seed).unwrap();
    // What comes is older than what is here, and so is the drop.
    ledger.receive(now(50), commits[..2].to_vec()).unwrap();
    assert_eq!(keys(&ledger), ["a", "b", "new", "old"]);
    ledger.receive(now(50), commits[2..3].to_vec()).unwrap();
    assert_eq!((keys(&ledger), ledger.replica().documents()), (vec!["new".to_owned()], 1));
    ledger.receive(now(50), commits[3..].to_vec()).unwrap();
    assert_eq!(keys(&ledger), ["c", "new"]);
    ledger.audit().unwrap();
    assert_eq!(rebuilt(&ledger).0, ledger.replica().fingerprint());
    // A writer that was away all the time.
    let mut away = open(&MemoryEngine::default(), 6, &mut 100);
    write(&mut away, 15, put("away", "1"), &mut 100).unwrap();
    let late = away.replica().vector().iter().next().map(|(writer, _)| *writer).unwrap();
    let late = away.view().commit(&late, 1).unwrap().unwrap();
    for settled in [false, true] {
        if settled {
            ledger.settle().unwrap();
        }
        drop(ledger);
        ledger = open(&engine, 7, &mut seed);
        ledger.receive(now(50), vec![late.clone()]).unwrap();
        assert_eq!(keys(&ledger), ["c", "new"], "settled: {settled}");
        ledger.audit().unwrap();
    }
}

/// A drop that is older than rows of a large collection: they are counted in slices, and what is written meanwhile is counted once.
#[test]
fn what_a_late_drop_leaves_is_counted_between_other_turns() {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, 7, &mut seed);
    let rows = u32::try_from(super::super::weigh::LOOKED_AT_MAX * 2 + 100).unwrap();
    let batch = |from: u32, at: u32, ledger: &mut Ledger, seed: &mut u8| {
        let ops = (from..(from + 2_000).min(rows)).map(|n| WriteOp { collection: orders(), op: put(&format!("k{n:05}"), "1") });
        ledger.write(now(at), &[WriteRequest::new(ops.collect())], &mut entropy(seed)).unwrap();
    };
    for from in (0..rows).step_by(2_000) {
        // Two before the drop, the others after it.
        batch(from, if from < 4_000 { 10 } else { 40 }, &mut ledger, &mut seed);
    }
    let commits = foreign(&[(30, Change::Drop)]);
    let mut turns = 0;
    while !ledger.weigh(&commits).unwrap() {
        turns += 1;
        // Before and behind what was looked at; a new row, an old one again, one gone.
        for key in ["a-new", "k00001", "k08000", "z-new"] {
            write(&mut ledger, 50 + turns, put(key, "meanwhile"), &mut seed).unwrap();
        }
        for key in ["k00002", "k07000"] {
            let delete = Op::Delete { key: Key::new(key).unwrap(), must_exist: false };
            write(&mut ledger, 50 + turns, delete, &mut seed).unwrap();
        }
    }
    assert_eq!(turns, 2);
    // And once all was looked at.
    write(&mut ledger, 60, put("k00003", "meanwhile"), &mut seed).unwrap();
    let (verdicts, committed) = ledger.receive(now(70), commits).unwrap();
    assert_eq!((verdicts, committed.to_sweep), (vec![Verdict::Applied], true));
    assert_eq!(ledger.replica().documents(), u64::from(rows) - 4_000 - 1 + 2 + 2);
    ledger.audit().unwrap();
    assert_eq!(rebuilt(&ledger).0, ledger.replica().fingerprint());
    while ledger.sweep().unwrap().1 {}
    ledger.audit().unwrap();
    assert_eq!(stored(&ledger, b"r") as u64, ledger.replica().documents() + 2, "and two tombstones");
}

/// The walk over all rows stands in the middle of a collection when that is dropped, and again while it is swept.
#[test]
fn the_background_audit_takes_no_drop_for_damage() {
    let mut seed = 0;
    let mut ledger = open(&MemoryEngine::default(), 7, &mut seed);
    for n in 0..REMOVED_MAX + 90 {
        write(&mut ledger, 1, put(&format!("k{n:05}"), "1"), &mut seed).unwrap();
    }
    assert!(!ledger.audit_slice(now(1), 300).unwrap());
    write(&mut ledger, 2, Op::Truncate, &mut seed).unwrap();
    for (at, key) in [(3, "k00001"), (4, "k00500"), (5, "zz")] {
        // Over a dropped row before the cursor, over one behind it, and anew.
        write(&mut ledger, at, put(key, "2"), &mut seed).unwrap();
        assert!(!ledger.audit_slice(now(6), 150).unwrap());
    }
    ledger.sweep().unwrap();
    let mut slices = 0;
    while !ledger.audit_slice(now(7), 50).unwrap() {
        slices += 1;
        ledger.sweep().unwrap();
    }
    assert!(slices > 0, "it had not come to its end before");
    assert!(ledger.audit_slice(now(8), 5_000).unwrap());
    assert_eq!((stored(&ledger, b"r"), ledger.replica().documents()), (3, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever fails and whatever of the unflushed rest survives: what was acknowledged to be dropped stays gone, what was written
    /// after it is there, and what is left is what a replica gets that takes in the same commits from nothing.
    #[test]
    fn no_crash_brings_back_what_was_dropped(
        rounds in proptest::collection::vec((0_u32..120, any::<bool>(), any::<u64>()), 1..5),
        steps in proptest::collection::vec((0_u8..12, 0_u8..4), 6..40),
    ) {
        let (memory, plan) = (MemoryEngine::default(), FaultPlan::default());
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let line: Vec<_> = (1..30).map(|n| (n * 7, match n % 5 {
            0 => Change::Truncate,
            4 => Change::Delete { key: Key::new("k1").unwrap() },
            k => foreign_put(&format!("k{k}")),
        })).collect();
        let (theirs, mut random, mut at) = (foreign(&line), 0, 1);
        // What the last acknowledged write to each key of this node's own left there; nothing where a drop came after it.
        let mut mine: std::collections::BTreeMap<String, Option<u32>> = std::collections::BTreeMap::new();
        for (fails_after, barrier, crash) in rounds {
            let mut ledger = open(&engine, 7, &mut random);
            let call = if barrier { "barrier" } else { "put" };
            plan.reload(&format!("{call}:error:after={}", if barrier { fails_after / 6 } else { fails_after })).unwrap();
            let mut unsure = None;
            for (step, key) in &steps {
                at += 3;
                let name = format!("mine{key}");
                let value = format!("{at}:{}", "x".repeat(if *step == 3 { 20_000 } else { 1 }));
                let done = match step {
                    0..=4 => write(&mut ledger, at, put(&name, &value), &mut random).map(|()| { mine.insert(name.clone(), Some(at)); }),
                    5 => write(&mut ledger, at, Op::Drop, &mut random).map(|()| mine.values_mut().for_each(|value| *value = None)),
                    6 | 7 => ledger.sweep().map(drop),
                    8 => ledger.settle(),
                    _ => {
                        let had = ledger.replica().vector().iter().find(|(writer, _)| writer.epoch.0 == [9; 16]);
                        let had = usize::try_from(had.map_or(0, |(_, head)| head.seq)).unwrap();
                        let next: Vec<_> = theirs.iter().skip(had).take(2).cloned().collect();
                        // A drop of theirs may take mine, if it is newer: then nothing is known of them.
                        let drops = next.iter().flat_map(Commit::sections).any(|section| section.entries[0].change.is_floor());
                        if drops {
                            mine.clear();
                        }
                        ledger.receive(now(at), next).map(drop)
                    }
                };
                if done.is_err() {
                    // Its outcome is unknown.
                    unsure = Some((*step, name));
                    break;
                }
            }
            drop(ledger);
            plan.clear();
            memory.crash_seeded(Path::new(DIRECTORY), crash);
            match unsure {
                Some((0..=4, name)) => drop(mine.remove(&name)),
                Some((5, _)) => mine.clear(),
                _ => {}
            }
            let mut ledger = open(&engine, 7, &mut random);
            ledger.check().unwrap();
            ledger.audit().unwrap();
            let shown = keys(&ledger);
            for (name, value) in &mine {
                prop_assert_eq!(shown.contains(name), value.is_some(), "{} in {:?}", name, &shown);
            }
            let (fingerprint, rebuilt) = rebuilt(&ledger);
            prop_assert_eq!((ledger.replica().fingerprint(), &shown), (fingerprint.clone(), &rebuilt));
            prop_assert_eq!(ledger.replica().documents(), shown.len() as u64);
            while ledger.sweep().unwrap().1 {}
            let floor = ledger.replica().tallies().get(&orders()).and_then(|tally| tally.floor);
            let mut below = 0;
            let base = layout::row_prefix(&orders());
            ledger.store.scan(&base, &layout::after_prefix(&base), &mut |_, head| {
                let (row, _) = layout::decode_row_head(head).unwrap();
                below += usize::from(floor.is_some_and(|floor| floor.hides(&row.stamp)));
                std::ops::ControlFlow::Continue(())
            }).unwrap();
            prop_assert_eq!(below, 0, "rows below the floor stay for ever");
            ledger.audit().unwrap();
            prop_assert_eq!((ledger.replica().fingerprint(), keys(&ledger)), (fingerprint, rebuilt));
        }
    }
}

#[test]
fn dropped_before_it_was_imported_or_issued_it_stays_dropped() {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let drafts = Collection::new("drafts").unwrap();
    let mut ledger = open(&engine, 7, &mut seed);
    let local = |key: &str| WriteOp { collection: drafts.clone(), op: put(key, "local") };
    ledger.write(now(5), &[WriteRequest::new(vec![local("mine")])], &mut entropy(&mut seed)).unwrap();
    let mut peer = open(&MemoryEngine::default(), 6, &mut 100);
    peer.register(&drafts).unwrap().0.unwrap();
    for (at, op) in [(10, put("theirs", "1")), (20, Op::Drop), (30, put("after", "1"))] {
        let ops = vec![WriteOp { collection: drafts.clone(), op }];
        peer.write(now(at), &[WriteRequest::new(ops)], &mut entropy(&mut { 100 + u8::try_from(at).unwrap() })).unwrap();
    }
    let commits = |ledger: &Ledger, line: &Ledger| -> Vec<Commit> {
        let heads = line.replica().vector().iter();
        heads.flat_map(|(writer, head)| (1..=head.seq).map(|seq| ledger.view().commit(writer, seq).unwrap().unwrap())).collect()
    };
    let whole = commits(&peer, &peer);
    let tags = ledger.replica().tags().clone();
    ledger.receive(now(50), whole.iter().map(|commit| commit.clone().keep_only(&tags)).collect()).unwrap();
    ledger.register(&drafts).unwrap().0.unwrap();
    assert!(ledger.weigh(&whole).unwrap());
    assert_eq!(ledger.widen(whole).unwrap().got_on, 3);
    while ledger.issue(now(60), &mut entropy(&mut seed)).unwrap().1 {}
    let query = ListQuery { limit: 10, ..ListQuery::default() };
    let page = ledger.view().list(&drafts, &query).unwrap();
    assert_eq!(page.documents.iter().map(|document| document.key.as_str()).collect::<Vec<_>>(), ["after"]);
    ledger.audit().unwrap();
    let floor = |ledger: &Ledger| ledger.replica().tallies()[&drafts].floor;
    assert!(floor(&ledger).is_some() && floor(&ledger) == floor(&peer));
    assert_eq!(ledger.replica().fingerprint(), peer.replica().fingerprint());
}
