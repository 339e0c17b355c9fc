//! A line parts once, whatever breaks while it does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::commit::{Change, Commit, Draft, Entry, ForkProof, Identity};
use anabranch_protocol::coverage::{Scope, Standing};
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

/// Six commits of another node, with a section each that is registered here and one that is not, and what a copy of it wrote
/// after the second.
fn of_another() -> (Vec<Commit>, Commit, ForkProof) {
    let made = |seq: u64, previous: Hash, text: u8| {
        let entry = |index| {
            let key = Key::new(&format!("k{seq}")).unwrap();
            vec![Entry { index, change: Change::Put { key, value: vec![text] } }]
        };
        let draft = Draft {
            dataset: &DatasetId::primary(),
            lineage: Lineage::ZERO,
            epoch: anabranch_protocol::id::Epoch([9; 16]),
            seq,
            previous,
            parent: None,
            hlc: Hlc((NOON + seq) << 16),
            sections: vec![(orders(), Salt([1; 16]), entry(0)), (customers(), Salt([2; 16]), entry(1))],
        };
        draft.seal(&Identity::from_secret(&[8; 32]))
    };
    let mut line: Vec<Commit> = Vec::new();
    for seq in 1..=6 {
        let previous = line.last().map_or(Hash::ZERO, Commit::hash);
        line.push(made(seq, previous, 0));
    }
    let other = made(3, line[1].hash(), 1);
    let proof = ForkProof::of(&line[2], &other).unwrap();
    (line, other, proof)
}

fn customers() -> Collection {
    Collection::new("customers").unwrap()
}

/// The newest records that the stored mark leaves out say of which line their commits were a part before it parted.
#[test]
fn records_that_are_taken_in_again_make_no_line_whole_that_parted() {
    let (engine, mut random) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, &mut random, Kind::Documents);
    let (line, other, proof) = of_another();
    let ends = |ledger: &Ledger| {
        let seq = |id| ledger.replica().vector().seq(&id);
        (seq(line[0].writer()), seq(line[2].branch()), seq(other.branch()))
    };
    // Each in a turn of its own, so that the mark gets beyond the fork.
    for commit in &line {
        ledger.receive(WallClock(NOON + 9), vec![commit.clone()]).unwrap();
    }
    ledger.receive_with(WallClock(NOON + 9), Vec::new(), vec![proof]).unwrap();
    assert_eq!(ends(&ledger), (2, 6, 0));
    // As a process that is killed leaves it.
    drop(ledger);
    let mut ledger = open(&engine, &mut random, Kind::Documents);
    assert_eq!(ends(&ledger), (2, 6, 0));
    ledger.check().unwrap();
    ledger.audit().unwrap();
    let (verdicts, _) = ledger.receive(WallClock(NOON + 9), vec![other.clone()]).unwrap();
    assert_eq!((verdicts, ends(&ledger)), (vec![Verdict::Applied], (2, 6, 3)));
}

/// The owner hears of it by the proof alone: neither branch came with it.
#[test]
fn a_proof_ends_the_line_that_its_owner_writes_under() {
    let (engine, mut random) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, &mut random, Kind::Documents);
    let ours: Vec<_> = (1..=3).map(|n| write(&mut ledger, n, Kind::Documents, &mut random)).collect();
    let proof = ForkProof::of(&ours[1], &elsewhere(&ours[0], Kind::Documents)).unwrap();
    ledger.receive_with(WallClock(NOON + 9), Vec::new(), vec![proof]).unwrap();
    assert_eq!(ledger.replica().writer(), WriterState::Closed);
    let next = write(&mut ledger, 20, Kind::Documents, &mut random);
    assert_ne!(next.writer(), ours[0].writer());
    assert_eq!(next.header().parent.map(|parent| (parent.0, parent.1)), Some((ours[0].writer().epoch, 1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// A line parts while the past of a collection is imported: what was missing of the line is missing of the branch, is asked for
    /// there, and nothing counts as complete before it came.
    #[test]
    fn what_is_imported_of_a_line_that_parts_is_imported_of_its_branch(
        got_on in 0_usize..7, fails_after in 0_u32..24, barrier in any::<bool>(), seed in any::<u64>(),
    ) {
        let (memory, plan, mut random) = (MemoryEngine::default(), FaultPlan::default(), 0);
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let place = Path::new("/nowhere/primary");
        let open = |random: &mut u8| {
            let settings = ReplicaSettings {
                dataset: DatasetId::primary(),
                lineage: Lineage::ZERO,
                kind: Kind::Documents,
                identity: Identity::from_secret(&[7; 32]),
                registration: Registration::of([orders()]),
                max_clock_skew: Duration::from_secs(300),
                writers: anabranch_protocol::access::Peers::All,
            };
            Ledger::open(&engine, place, 1 << 20, settings, &mut entropy(random)).unwrap()
        };
        let mut ledger = open(&mut random);
        let (line, other, proof) = of_another();
        ledger.receive(WallClock(NOON + 9), line.clone()).unwrap();
        ledger.register(&customers()).unwrap().0.unwrap();
        ledger.widen(line[..got_on].to_vec()).unwrap();

        let after = if barrier { fails_after / 3 } else { fails_after };
        plan.reload(&format!("{}:error:after={after}", if barrier { "barrier" } else { "put" })).unwrap();
        let outcome = ledger.receive_with(WallClock(NOON + 9), Vec::new(), vec![proof.clone()]);
        let (known, missing) = (outcome.is_ok(), ledger.coverages().importing().map(|(_, missing)| missing).sum::<u64>());
        if known {
            prop_assert_eq!(missing, 6 - got_on as u64, "importing as before");
        }
        drop(ledger);
        plan.clear();
        memory.crash_seeded(place, seed);

        let mut ledger = open(&mut random);
        ledger.check().unwrap();
        ledger.audit().unwrap();
        ledger.receive_with(WallClock(NOON + 9), vec![other.clone()], vec![proof]).unwrap();
        let told = ledger.view().registered().now();
        prop_assert_eq!(&told.coverages, ledger.coverages(), "those who pull know");
        prop_assert!(got_on == 6 || !told.complete().contains(&customers()), "it says of itself what is not so");
        // What a peer is asked for that knows of the fork too, and what it answers.
        let theirs = ledger.replica().vector().clone();
        let wants = ledger.coverages().wants(&[Scope::One(customers())], &theirs);
        let wanted = |commit: &&Commit| wants.iter().any(|want| {
            let of_line = want.writer == commit.writer() && commit.header().seq <= 2;
            let of_branch = want.writer == line[2].branch() && commit.header().seq > 2;
            (of_line || of_branch) && want.from_seq <= commit.header().seq
        });
        let came: Vec<Commit> = line.iter().filter(wanted).cloned().collect();
        prop_assert!(came.len() >= 6 - got_on, "{wants:?}");
        ledger.widen(came).unwrap();
        ledger.skim().unwrap();
        prop_assert_eq!(ledger.coverages().standing(&customers()), Standing::Complete);
        for n in 1..=6 {
            prop_assert!(ledger.view().get(&customers(), &Key::new(&format!("k{n}")).unwrap()).unwrap().is_some(), "k{n}");
        }
        ledger.settle().unwrap();
        ledger.check().unwrap();
        ledger.audit().unwrap();
    }
}

/// Of a branch there is nothing below its fork: that is neither missing nor damage.
#[test]
fn a_collection_registered_after_a_line_parted_is_imported_of_its_branches() {
    let (engine, mut random) = (MemoryEngine::default(), 0);
    let settings = ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: Lineage::ZERO,
        kind: Kind::Documents,
        identity: Identity::from_secret(&[7; 32]),
        registration: Registration::of([orders()]),
        max_clock_skew: Duration::from_secs(300),
        writers: anabranch_protocol::access::Peers::All,
    };
    let place = Path::new("/nowhere/primary");
    let mut ledger = Ledger::open(&engine, place, 1 << 20, settings, &mut entropy(&mut random)).unwrap();
    let (line, other, proof) = of_another();
    ledger.receive_with(WallClock(NOON + 9), line.clone(), Vec::new()).unwrap();
    ledger.receive_with(WallClock(NOON + 9), vec![other.clone()], vec![proof]).unwrap();
    ledger.register(&customers()).unwrap().0.unwrap();
    assert!(matches!(ledger.coverages().standing(&customers()), Standing::Importing { .. }));
    // A commit of another line of that writer's peer, which is not here.
    let another = Draft {
        dataset: &DatasetId::primary(),
        lineage: Lineage::ZERO,
        epoch: anabranch_protocol::id::Epoch([10; 16]),
        seq: 1,
        previous: Hash::ZERO,
        parent: None,
        hlc: Hlc((NOON + 1) << 16),
        sections: line[0].sections().map(|s| (s.collection.clone(), s.salt, s.entries.clone())).collect(),
    };
    let widened = ledger.widen(vec![another.seal(&Identity::from_secret(&[8; 32]))]).unwrap();
    assert_eq!(widened.verdicts, [Verdict::Refused(anabranch_protocol::replica::ReceiveRefusal::Gap { have: 0 })]);
    let widened = ledger.widen(line.iter().chain([&other]).cloned().collect()).unwrap();
    assert!(widened.verdicts.iter().all(|verdict| *verdict == Verdict::Applied), "{:?}", widened.verdicts);
    assert_eq!(ledger.coverages().standing(&customers()), Standing::Complete);
    ledger.check().unwrap();
    ledger.audit().unwrap();
}
