//! A line parts once, whatever breaks while it does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::commit::{Change, Commit, Draft, Entry, ForkProof, Identity};
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Collection, DatasetId, Hash, Key, Lineage, Salt};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::{Registration, TagSet};
use anabranch_protocol::replica::{Op, ReplicaSettings, Verdict, WriteOp, WriteRequest, WriterState};
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use super::Ledger;
use crate::store::{FaultEngine, FaultPlan, MemoryEngine, StoreEngine};

const NOON: u64 = 1_700_000_000_000;

fn open(engine: &dyn StoreEngine, seed: &mut u8, kind: Kind) -> Ledger {
    let settings = ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: Lineage::ZERO,
        kind,
        identity: Identity::from_secret(&[7; 32]),
        registration: Registration::all(),
        max_clock_skew: Duration::from_secs(300),
        writers: anabranch_protocol::access::Peers::All,
    };
    Ledger::open(engine, Path::new("/nowhere/primary"), 1 << 20, settings, &mut entropy(seed)).unwrap()
}

fn entropy(seed: &mut u8) -> impl FnMut(&mut [u8]) + '_ {
    |bytes| {
        *seed = seed.wrapping_add(1) & 0x7f;
        bytes.fill(*seed);
    }
}

fn orders() -> Collection {
    Collection::new("orders").unwrap()
}

fn write(ledger: &mut Ledger, n: u64, kind: Kind, seed: &mut u8) -> Arc<Commit> {
    let op = match kind {
        Kind::Documents => Op::Put { key: Key::new("k").unwrap(), value: vec![0] },
        Kind::Append => Op::Append { value: vec![0] },
    };
    let request = WriteRequest::new(vec![WriteOp { collection: orders(), op }]);
    let (_, committed) = ledger.write(WallClock(NOON + n), &[request], &mut entropy(seed)).unwrap();
    committed.commits[0].clone()
}

/// What a copy of this node would have written after `before`.
fn elsewhere(before: &Commit, kind: Kind) -> Commit {
    let change = match kind {
        Kind::Documents => Change::Put { key: Key::new("k").unwrap(), value: vec![1] },
        Kind::Append => Change::Append { value: vec![1] },
    };
    let draft = Draft {
        dataset: &DatasetId::primary(),
        lineage: Lineage::ZERO,
        epoch: before.writer().epoch,
        seq: before.header().seq + 1,
        previous: before.hash(),
        parent: None,
        // The same reading as the commit here that it contradicts.
        hlc: Hlc((NOON + before.header().seq + 1) << 16),
        sections: vec![(orders(), Salt([5; 16]), vec![Entry { index: 0, change }])],
    };
    draft.seal(&Identity::from_secret(&[7; 32]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_while_a_line_parts_leaves_it_whole_or_parted(
        fails_after in 0_u32..24, barrier in any::<bool>(), seed in any::<u64>(), at in 0_u64..6, append in any::<bool>(),
    ) {
        let kind = if append { Kind::Append } else { Kind::Documents };
        let (memory, plan, mut random) = (MemoryEngine::default(), FaultPlan::default(), 0);
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let mut ledger = open(&engine, &mut random, kind);
        let ours: Vec<_> = (1..=6).map(|n| write(&mut ledger, n, kind, &mut random)).collect();
        let line = ours[0].writer();
        let other = match at.checked_sub(1) {
            Some(before) => elsewhere(&ours[usize::try_from(before).unwrap()], kind),
            None => {
                let first = Draft {
                    dataset: &DatasetId::primary(), lineage: Lineage::ZERO, epoch: line.epoch, seq: 1, previous: Hash::ZERO,
                    parent: None, hlc: Hlc((NOON + 1) << 16),
                    sections: elsewhere(&ours[0], kind).sections().map(|s| (s.collection.clone(), s.salt, s.entries.clone())).collect(),
                };
                first.seal(&Identity::from_secret(&[7; 32]))
            }
        };
        let contradicted = &ours[usize::try_from(at).unwrap()];
        let proof = ForkProof::of(contradicted, &other).unwrap();

        let after = if barrier { fails_after / 3 } else { fails_after };
        plan.reload(&format!("{}:error:after={after}", if barrier { "barrier" } else { "put" })).unwrap();
        let outcome = ledger.receive_with(WallClock(NOON + 99), vec![other.clone()], vec![proof.clone()]);
        drop(ledger);
        plan.clear();
        memory.crash_seeded(Path::new("/nowhere/primary"), seed);
        let mut ledger = open(&engine, &mut random, kind);
        ledger.check().unwrap();
        ledger.audit().unwrap();
        let known = !ledger.replica().forks().is_empty();
        prop_assert!(known || outcome.is_err(), "a durable proof is gone");
        if known {
            prop_assert_eq!(ledger.replica().writer(), WriterState::Closed, "it goes on with a line that forked");
        }

        let (verdicts, committed, wrong) =
            ledger.receive_with(WallClock(NOON + 99), vec![other.clone()], vec![proof]).unwrap();
        prop_assert!(wrong.is_none() && matches!(verdicts[..], [Verdict::Applied | Verdict::Duplicate]), "{verdicts:?}");
        let seq = |line| committed.vector.seq(&line);
        prop_assert_eq!((seq(line), seq(contradicted.branch()), seq(other.branch())), (at, 6, at + 1));
        prop_assert_eq!(committed.parted.lowest.clone(), vec![(line, at + 1)]);
        let next = write(&mut ledger, 200, kind, &mut random);
        prop_assert_ne!(next.writer(), line);
        prop_assert_eq!(next.header().parent.map(|parent| (parent.0, parent.1)), (at > 0).then_some((line.epoch, at)));
        ledger.check().unwrap();
        ledger.audit().unwrap();
        // What a peer gets: the line up to its end, and each branch from its beginning.
        for (id, from, seqs) in [(line, 1, 1..=at), (contradicted.branch(), 1, at + 1..=6), (other.branch(), 1, at + 1..=at + 1)] {
            let page = ledger.view().page(&[Want { writer: id, from_seq: from }], &TagSet::All, 1 << 20).unwrap();
            let served: Vec<u64> = page.frames.iter().map(|frame| {
                Commit::open(frame, &DatasetId::primary(), Lineage::ZERO).unwrap().header().seq
            }).collect();
            prop_assert_eq!(served, seqs.collect::<Vec<u64>>());
        }
        prop_assert_eq!(ledger.replica().documents(), if append { 8 } else { 1 });
        let listed = ledger.view().list(&orders(), &crate::api::ListQuery { limit: 100, ..Default::default() }).unwrap();
        prop_assert_eq!(listed.documents.len() as u64, ledger.replica().documents());
    }
}

#[test]
fn a_proof_that_proves_nothing_changes_nothing() {
    let (engine, mut random) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, &mut random, Kind::Documents);
    let first = write(&mut ledger, 1, Kind::Documents, &mut random);
    let ours = write(&mut ledger, 2, Kind::Documents, &mut random);
    // Of another lineage: signed by the right key, for something else.
    let (dataset, lineage, epoch) = (&DatasetId::primary(), Lineage([1; 16]), first.writer().epoch);
    let sections =
        vec![(orders(), Salt([5; 16]), vec![Entry { index: 0, change: Change::Delete { key: Key::new("k").unwrap() } }])];
    let (seq, previous, hlc) = (2, first.hash(), Hlc(NOON << 16));
    let other =
        Draft { dataset, lineage, epoch, seq, previous, parent: None, hlc, sections }.seal(&Identity::from_secret(&[7; 32]));
    let proof = ForkProof::of(&ours, &other).unwrap();
    let (_, committed, wrong) = ledger.receive_with(WallClock(NOON + 9), Vec::new(), vec![proof]).unwrap();
    assert!(wrong.is_some() && !committed.newly_parted && ledger.replica().forks().is_empty());
    assert_eq!(write(&mut ledger, 3, Kind::Documents, &mut random).writer(), first.writer());
}
