//! What a ledger keeps through crashes, failures, and copies of its directory.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Identity};
use anabranch_protocol::coverage::Standing;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Key, Lineage};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Op, ReplicaSettings, WriteOp, WriteRequest, WriterState};
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use super::Ledger;
use crate::api::ListQuery;
use crate::store::{FaultEngine, FaultPlan, MemoryEngine, SledEngine, Store, StoreEngine, StoreError, Visitor};

pub(super) fn settings(kind: Kind) -> ReplicaSettings {
    ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: Lineage::ZERO,
        kind,
        identity: Identity::from_secret(&[7; 32]),
        registration: Registration::of([Collection::new("orders").unwrap()]),
        max_clock_skew: Duration::from_secs(300),
        writers: anabranch_protocol::access::Peers::All,
    }
}

/// Random bytes that are the same in every run.
pub(super) fn entropy(seed: &mut u8) -> impl FnMut(&mut [u8]) + '_ {
    |bytes| {
        *seed = seed.wrapping_add(1);
        bytes.fill(*seed);
    }
}

fn open(engine: &dyn StoreEngine, directory: &Path, seed: &mut u8) -> Ledger {
    Ledger::open(engine, directory, 1 << 20, settings(Kind::Documents), &mut entropy(seed)).unwrap()
}

pub(super) fn orders() -> Collection {
    Collection::new("orders").unwrap()
}

fn put(collection: &Collection, key: &str, value: &[u8]) -> WriteOp {
    let value = anabranch_protocol::value::Value::Text(String::from_utf8(value.to_vec()).unwrap()).encode();
    WriteOp { collection: collection.clone(), op: Op::Put { key: Key::new(key).unwrap(), value } }
}

fn listing(ledger: &Ledger, collection: &Collection) -> Vec<(String, Vec<u8>)> {
    let query = ListQuery { limit: 10_000, ..ListQuery::default() };
    let page = ledger.view().list(collection, &query).unwrap();
    page.documents.into_iter().map(|document| (document.key.to_string(), document.value)).collect()
}

/// One turn that writes `value` under a common key and under a key of its own, and to a collection that doesn't replicate.
fn pair(n: u32, size: usize) -> WriteRequest {
    let value = format!("{n}:{}", "x".repeat(size));
    let local = Collection::new("drafts").unwrap();
    WriteRequest::new(vec![
        put(&orders(), "last", value.as_bytes()),
        put(&orders(), &format!("k{n:06}"), value.as_bytes()),
        put(&local, "last", value.as_bytes()),
    ])
}

pub(super) fn now(n: u32) -> WallClock {
    WallClock(1_700_000_000_000 + u64::from(n))
}

#[test]
fn fences_are_set_once_and_known_again_after_a_start() {
    use anabranch_protocol::access::Peers;
    use anabranch_protocol::commit::{Change, Draft, Entry};
    use anabranch_protocol::hlc::Hlc;
    use anabranch_protocol::id::{Epoch, Hash, Salt};

    for kind in [Kind::Documents, Kind::Append] {
        let (engine, directory, mut seed) = (MemoryEngine::default(), Path::new("/fences"), 0);
        let removed = Identity::from_secret(&[9; 32]);
        let change = match kind {
            Kind::Documents => Change::Put { key: Key::new("k").unwrap(), value: vec![1] },
            Kind::Append => Change::Append { value: vec![1] },
        };
        let draft = Draft {
            dataset: &DatasetId::primary(),
            lineage: Lineage::ZERO,
            epoch: Epoch([5; 16]),
            seq: 1,
            previous: Hash::ZERO,
            parent: None,
            hlc: Hlc(5),
            sections: vec![(orders(), Salt([3; 16]), vec![Entry { index: 0, change }])],
        };
        let commit = draft.seal(&removed);
        let line = commit.writer();
        let open = |writers, seed: &mut u8| {
            Ledger::open(&engine, directory, 1 << 20, ReplicaSettings { writers, ..settings(kind) }, &mut entropy(seed)).unwrap()
        };
        let mut ledger = open(Peers::All, &mut seed);
        ledger.receive(now(1), vec![commit]).unwrap();
        assert!(ledger.set_fences(now(2), &mut entropy(&mut seed)).unwrap().commits.is_empty(), "everybody may write");
        drop(ledger);
        let short = Peers::Only([settings(kind).identity.peer()].into());
        let mut ledger = open(short.clone(), &mut seed);
        let set = ledger.set_fences(now(3), &mut entropy(&mut seed)).unwrap();
        assert_eq!((set.commits.len(), set.fences.end(&line)), (1, 1), "{kind}");
        assert_eq!(ledger.replica().documents(), 1, "{kind}: documents of users only");
        ledger.check().and_then(|()| ledger.audit()).unwrap();
        // Once by rows alone, once with the record taken in again.
        for settled in [false, true] {
            if settled {
                ledger.settle().unwrap();
            }
            drop(ledger);
            ledger = open(short.clone(), &mut seed);
            assert_eq!(ledger.replica().fences().end(&line), 1, "{kind}");
            assert!(ledger.set_fences(now(4), &mut entropy(&mut seed)).unwrap().commits.is_empty(), "once");
            ledger.check().and_then(|()| ledger.audit()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever put or barrier fails, and whatever of the unflushed rest survives: every acknowledged write is there, no commit
    /// shows by half, and tallies are those of the rows.
    #[test]
    fn no_crash_loses_an_acknowledged_write(
        fails_after in 0_u32..400, barrier in any::<bool>(), seed in any::<u64>(), rounds in 1_usize..4, size in prop_oneof![Just(10_usize), Just(20_000)],
    ) {
        let memory = MemoryEngine::default();
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let directory = Path::new("/nowhere/primary");
        let (mut random, mut written, mut acked) = (0, 0, Vec::new());
        for round in 0..rounds {
            let mut ledger = open(&engine, directory, &mut random);
            let call = if barrier { "barrier" } else { "put" };
            let after = if barrier { fails_after / 20 } else { fails_after };
            plan.reload(&format!("{call}:error:after={after}")).unwrap();
            for _ in 0..20 {
                written += 1;
                match ledger.write(now(written), &[pair(written, size)], &mut entropy(&mut random)) {
                    Ok((outcomes, _)) => {
                        prop_assert!(outcomes[0].is_ok());
                        acked.push(written);
                    }
                    Err(_) => break,
                }
            }
            drop(ledger);
            plan.clear();
            memory.crash_seeded(directory, seed.wrapping_add(round as u64));
            let ledger = open(&engine, directory, &mut random);
            let documents = listing(&ledger, &orders());
            let last = documents.iter().find(|(key, _)| key == "last");
            let newest = documents.iter().rfind(|(key, _)| key != "last");
            // Both rows of a commit or neither, and nothing older than what was acknowledged.
            prop_assert_eq!(last.map(|(_, value)| value), newest.map(|(_, value)| value));
            let numbered: Vec<u32> = documents.iter().filter_map(|(key, _)| key.strip_prefix('k')?.parse().ok()).collect();
            prop_assert!(acked.iter().all(|n| numbered.contains(n)), "{numbered:?} lacks some of {acked:?}");
            let replica = ledger.replica();
            prop_assert_eq!(replica.tallies().get(&orders()).map_or(0, |tally| tally.live), documents.len() as u64);
            let local = listing(&ledger, &Collection::new("drafts").unwrap());
            prop_assert_eq!(local.first().map(|(_, value)| value), last.map(|(_, value)| value));
            let seqs: u64 = replica.vector().iter().map(|(_, head)| head.seq).sum();
            prop_assert_eq!(seqs, documents.len().saturating_sub(1) as u64);
        }
    }
}

/// A commit of another writer with a section in each of two collections.
fn foreign(n: u64, previous: anabranch_protocol::id::Hash) -> Commit {
    let entry = |index, key: &str| {
        let value = anabranch_protocol::value::Value::Text(format!("{key}{n}")).encode();
        Entry { index, change: Change::Put { key: Key::new(&format!("{key}{}", n % 5)).unwrap(), value } }
    };
    let salt = anabranch_protocol::id::Salt([u8::try_from(n % 200).unwrap(); 16]);
    let draft = Draft {
        dataset: &DatasetId::primary(),
        lineage: Lineage::ZERO,
        epoch: anabranch_protocol::id::Epoch([9; 16]),
        seq: n,
        previous,
        parent: None,
        hlc: anabranch_protocol::hlc::Hlc::at(now(u32::try_from(n).unwrap())),
        sections: vec![(orders(), salt, vec![entry(0, "o")]), (customers(), salt, vec![entry(1, "c")])],
    };
    draft.seal(&Identity::from_secret(&[8; 32]))
}

fn customers() -> Collection {
    Collection::new("customers").unwrap()
}

fn only(collection: &Collection) -> anabranch_protocol::registration::TagSet {
    Registration::of([collection.clone()]).tags(&DatasetId::primary(), Lineage::ZERO)
}

fn chain(length: u64) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    for n in 1..=length {
        let previous = commits.last().map_or(anabranch_protocol::id::Hash::ZERO, Commit::hash);
        commits.push(foreign(n, previous));
    }
    commits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Collections are registered, imported, unregistered and written to, and it crashes again and again: a collection that counts
    /// as complete has what the commits say, what was written locally is issued once, and nothing counts as damage.
    #[test]
    fn no_crash_makes_a_collection_complete_that_is_not(
        fails in proptest::collection::vec((0_u32..60, any::<bool>(), any::<u64>()), 1..5), steps in proptest::collection::vec(0_u8..8, 8..40),
    ) {
        let memory = MemoryEngine::default();
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let directory = Path::new("/nowhere/primary");
        let commits = chain(12);
        let (mut random, mut written, mut acked): (u8, u32, Option<u32>) = (0, 100, None);
        for (fails_after, barrier, seed) in fails {
            let mut ledger = open(&engine, directory, &mut random);
            let call = if barrier { "barrier" } else { "put" };
            plan.reload(&format!("{call}:error:after={}", if barrier { fails_after / 4 } else { fails_after })).unwrap();
            for step in &steps {
                let had = ledger.replica().vector().iter().filter(|(writer, _)| writer.peer != ledger.replica().settings().identity.peer());
                let had = usize::try_from(had.map(|(_, head)| head.seq).sum::<u64>()).unwrap();
                let done = match step {
                    0 | 1 => {
                        let next = commits.iter().skip(had).take(2).cloned().collect();
                        ledger.receive(now(50), next).map(drop)
                    }
                    2 => ledger.register(&customers()).map(drop),
                    3 => ledger.unregister(&customers()).map(drop),
                    4 => {
                        let past = commits.iter().take(had).map(|commit| commit.clone().keep_only(&only(&customers()))).collect();
                        ledger.widen(past).map(drop)
                    }
                    5 => {
                        written += 1;
                        let ops = vec![put(&customers(), "mine", written.to_string().as_bytes()), put(&orders(), "mine", b"x")];
                        ledger.write(now(written), &[WriteRequest::new(ops)], &mut entropy(&mut random)).map(|_| acked = Some(written))
                    }
                    6 => ledger.skim().map(drop),
                    _ => ledger.issue(now(written), &mut entropy(&mut random)).map(drop),
                };
                if done.is_err() {
                    break;
                }
            }
            drop(ledger);
            plan.clear();
            memory.crash_seeded(directory, seed);
            let mut ledger = open(&engine, directory, &mut random);
            ledger.check().unwrap();
            ledger.audit().unwrap();
            let registration = ledger.replica().registration().clone();
            prop_assert_eq!(&ledger.view().registered().now().registration, &registration);
            complete_is_complete(&ledger, &commits)?;
            let mine = ledger.view().get(&customers(), &Key::new("mine").unwrap()).unwrap();
            let mine = mine.map(|document| String::from_utf8_lossy(&document.value[1..]).parse::<u32>().unwrap());
            prop_assert!(mine >= acked, "{mine:?} of {acked:?}");
            // Once more from the start, without faults: everything comes to its end.
            ledger.register(&customers()).unwrap().0.unwrap();
            while ledger.issue(now(written), &mut entropy(&mut random)).unwrap().1 {}
            let had = ledger.replica().vector().iter().find(|(writer, _)| writer.epoch.0 == [9; 16]).map_or(0, |(_, head)| head.seq);
            let past = commits[..usize::try_from(had).unwrap()].to_vec();
            ledger.widen(past).unwrap();
            // Own commits never lack anything, and nobody has to deliver them.
            ledger.skim().unwrap();
            prop_assert_eq!(ledger.coverages().standing(&customers()), Standing::Complete);
            complete_is_complete(&ledger, &commits)?;
            let keys = ledger.store.get(&super::layout::row_key(&customers(), &Key::new("mine").unwrap())).unwrap();
            prop_assert!(keys.is_none_or(|head| !ledger.replica().is_local(&super::layout::decode_row_head(&head).unwrap().0)));
            ledger.settle().unwrap();
            prop_assert!(!ledger.moves.any_settled(u64::MAX), "what was replaced stays for ever");
            ledger.check().unwrap();
            ledger.audit().unwrap();
        }
    }
}

/// What counts as complete has the document that each key's newest commit says.
fn complete_is_complete(ledger: &Ledger, commits: &[Commit]) -> Result<(), TestCaseError> {
    if ledger.coverages().standing(&customers()) != Standing::Complete {
        return Ok(());
    }
    let had = ledger.replica().vector().iter().find(|(writer, _)| writer.epoch.0 == [9; 16]).map_or(0, |(_, head)| head.seq);
    let listed: std::collections::BTreeMap<_, _> = listing(ledger, &customers()).into_iter().collect();
    let mut expected = std::collections::BTreeMap::new();
    for commit in &commits[..usize::try_from(had).unwrap()] {
        for entry in commit.sections().filter(|section| section.collection == customers()).flat_map(|section| &section.entries) {
            if let Change::Put { key, value } = &entry.change {
                expected.insert(key.to_string(), value.clone());
            }
        }
    }
    for (key, value) in expected {
        prop_assert_eq!(listed.get(&key), Some(&value), "{}", key);
    }
    Ok(())
}

#[test]
fn how_far_a_collection_got_is_never_ahead_of_the_log() {
    let directory = Path::new("/nowhere/primary");
    let commits = chain(5);
    for fails_after in 0..40 {
        let memory = MemoryEngine::default();
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let mut random = 0;
        let mut ledger = open(&engine, directory, &mut random);
        ledger.receive(now(50), commits.clone()).unwrap();
        ledger.register(&customers()).unwrap().0.unwrap();
        let call = if fails_after < 4 { "barrier" } else { "put" };
        plan.reload(&format!("{call}:error:after={}", fails_after % 36)).unwrap();
        let _ = ledger.widen(commits.clone());
        drop(ledger);
        plan.clear();
        memory.crash_seeded(directory, fails_after);
        let mut ledger = open(&engine, directory, &mut random);
        ledger.audit().unwrap();
        complete_is_complete(&ledger, &commits).unwrap();
        ledger.widen(commits.clone()).unwrap();
        assert_eq!(ledger.coverages().standing(&customers()), Standing::Complete);
        complete_is_complete(&ledger, &commits).unwrap();
    }
}

/// The same for records: found by key wherever their commit lies now, and local ones are issued once.
#[test]
fn records_are_found_after_they_moved_and_after_they_were_issued() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/logs");
    let mut random = 0;
    let mut writer = Ledger::open(
        &MemoryEngine::default(),
        directory,
        1 << 20,
        ReplicaSettings {
            identity: Identity::from_secret(&[8; 32]),
            registration: Registration::all(),
            ..settings(Kind::Append)
        },
        &mut entropy(&mut random),
    )
    .unwrap();
    let append = |collection: &Collection, text: &str| {
        let value = anabranch_protocol::value::Value::Text(text.into()).encode();
        WriteOp { collection: collection.clone(), op: Op::Append { value } }
    };
    let mut commits: Vec<Commit> = Vec::new();
    for n in 1..40 {
        // Some of more than one part of the log.
        let text = format!("{n}{}", "x".repeat(if n % 7 == 0 { 20_000 } else { 0 }));
        let ops = vec![append(&orders(), &text), append(&customers(), &text)];
        let (_, committed) = writer.write(now(n), &[WriteRequest::new(ops)], &mut entropy(&mut random)).unwrap();
        commits.extend(committed.commits.iter().map(|commit| (**commit).clone()));
    }
    let open = |random: &mut u8| Ledger::open(&memory, directory, 1 << 20, settings(Kind::Append), &mut entropy(random)).unwrap();
    let mut ledger = open(&mut random);
    ledger.receive(now(50), commits.clone()).unwrap();
    for n in 60..70 {
        let ops = vec![append(&customers(), &format!("local {n}")), append(&Collection::new("other").unwrap(), "stays")];
        ledger.write(now(n), &[WriteRequest::new(ops)], &mut entropy(&mut random)).unwrap();
    }
    assert_eq!((listing(&ledger, &customers()).len(), listing(&ledger, &orders()).len()), (10, 39));
    ledger.register(&customers()).unwrap().0.unwrap();
    while ledger.issue(now(80), &mut entropy(&mut random)).unwrap().1 {}
    let part: Vec<Commit> = commits.iter().map(|commit| commit.clone().keep_only(&only(&customers()))).collect();
    assert_eq!(ledger.widen(part[..20].to_vec()).unwrap().got_on, 20);
    assert_eq!(ledger.widen(part.clone()).unwrap().got_on, 19);
    assert_eq!(ledger.widen(part.clone()).unwrap().got_on, 0);
    for _ in 0..3 {
        assert_eq!((listing(&ledger, &customers()).len(), listing(&ledger, &orders()).len()), (49, 39));
        assert_eq!(listing(&ledger, &Collection::new("other").unwrap()).len(), 10);
        assert_eq!(ledger.replica().tallies()[&customers()].live, 49);
        assert_eq!(ledger.coverages().standing(&customers()), Standing::Complete);
        ledger.check().unwrap();
        ledger.audit().unwrap();
        let wants = [anabranch_protocol::plan::Want { writer: commits[0].writer(), from_seq: 1 }];
        let both = Registration::of([orders(), customers()]).tags(&DatasetId::primary(), Lineage::ZERO);
        assert_eq!(ledger.view().page(&wants, &both, 8 << 20).unwrap().frames.len(), 39);
        drop(ledger);
        memory.crash_seeded(directory, 5);
        ledger = open(&mut random);
        // How far it got rides on later barriers: after a crash some of it may come again.
        ledger.widen(part.clone()).unwrap();
        ledger.settle().unwrap();
    }
}

#[test]
fn a_restart_without_peers_goes_on_with_its_epoch_and_a_copy_does_not() {
    let place = tempfile::tempdir().unwrap();
    let (original, copy) = (place.path().join("original"), place.path().join("copy"));
    let mut random = 0;
    let write = |ledger: &mut Ledger, n| {
        let (_, committed) = ledger.write(now(n), &[pair(n, 10)], &mut entropy(&mut { 100 + u8::try_from(n).unwrap() })).unwrap();
        (committed.commits[0].writer(), committed.commits[0].header().seq)
    };
    let mut ledger = open(&SledEngine::default(), &original, &mut random);
    let first = write(&mut ledger, 1);
    ledger.settle().unwrap();
    drop(ledger);
    copy_directory(&original, &copy);

    let mut ledger = open(&SledEngine::default(), &original, &mut random);
    assert_eq!(write(&mut ledger, 2), (first.0, 2), "the same directory goes on");
    drop(ledger);

    let mut ledger = open(&SledEngine::default(), &copy, &mut random);
    assert_eq!(ledger.replica().writer(), WriterState::Closed);
    let (writer, seq) = write(&mut ledger, 3);
    assert_ne!(writer, first.0, "a copy must not count on");
    assert_eq!(seq, 1);
    let commit =
        ledger.view().page(&[anabranch_protocol::plan::Want { writer, from_seq: 1 }], ledger.replica().tags(), 1 << 20).unwrap();
    let commit = anabranch_protocol::commit::Frame::decode(&commit.frames[0]).unwrap();
    assert_eq!(commit.header().parent.map(|parent| parent.0), Some(first.0.epoch));
}

#[test]
fn after_a_peer_was_accepted_a_restart_needs_its_word() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/primary");
    let mut random = 0;
    let mut ledger = open(&memory, directory, &mut random);
    ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
    ledger.peer_accepted(anabranch_protocol::id::PeerId([9; 32]), WallClock(1)).unwrap();
    let known = ledger.replica().vector().clone();
    drop(ledger);

    let mut ledger = open(&memory, directory, &mut random);
    assert!(matches!(ledger.replica().writer(), WriterState::Unproven(_)));
    ledger.learn_own_line(&known).unwrap();
    assert!(matches!(ledger.replica().writer(), WriterState::Open(_)));
}

#[test]
fn a_peer_that_has_more_of_our_line_ends_it_for_good() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/primary");
    let mut random = 0;
    let mut ledger = open(&memory, directory, &mut random);
    ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
    let old = ledger.replica().vector().clone();
    let (writer, head) = old.iter().next().map(|(writer, head)| (*writer, *head)).unwrap();
    let ahead = [(writer, anabranch_protocol::vector::Head { seq: 9, ..head })].into_iter().collect();
    ledger.learn_own_line(&ahead).unwrap();
    memory.crash(directory, || false);

    // A peer that is as old as we are must not talk us into the line again.
    let mut ledger = open(&memory, directory, &mut random);
    ledger.learn_own_line(&old).unwrap();
    assert_eq!(ledger.replica().writer(), WriterState::Closed);
}

#[test]
fn a_turn_that_breaks_off_while_rows_are_put_shows_nothing_by_half() {
    let directory = Path::new("/nowhere/primary");
    for fails_after in 0..30 {
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone());
        let mut random = 0;
        let mut ledger = open(&engine, directory, &mut random);
        ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
        plan.reload(&format!("put:error:after={fails_after}")).unwrap();
        let failed = ledger.write(now(2), &[pair(2, 10)], &mut entropy(&mut random)).is_err();
        let query = ListQuery { limit: 10, ..ListQuery::default() };
        if let Ok(page) = ledger.view().list(&orders(), &query) {
            // The newest document of its own key, and the one under the common key.
            let values: Vec<_> = page.documents.iter().rev().take(2).map(|document| &document.value).collect();
            assert_eq!(values.first(), values.last(), "after {fails_after} puts, failed: {failed}");
        }
    }
}

#[test]
fn a_crash_while_a_store_is_made_leaves_one_that_opens() {
    let directory = Path::new("/nowhere/primary");
    for seed in 0..64 {
        let memory = MemoryEngine::default();
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan.clone());
        let mut random = 0;
        plan.reload(&format!("barrier:error:after={}", seed % 4)).unwrap();
        let opened = Ledger::open(&engine, directory, 1 << 20, settings(Kind::Documents), &mut entropy(&mut random));
        assert!(opened.is_err());
        memory.crash_seeded(directory, seed);
        let mut ledger = open(&engine, directory, &mut random);
        ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
    }
}

#[test]
fn a_record_that_was_durable_and_broke_is_reported() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/primary");
    let mut random = 0;
    let mut ledger = open(&memory, directory, &mut random);
    for n in 1..5 {
        ledger.write(now(n), &[pair(n, 10)], &mut entropy(&mut random)).unwrap();
    }
    let mark = ledger.mark.arrival;
    let store = ledger.store.clone();
    drop(ledger);
    // The first record past the mark, which a later one witnesses.
    store.delete(&super::layout::log_part(mark + 1, 0)).unwrap();
    store.barrier().unwrap();
    drop(store);
    let opened = Ledger::open(&memory, directory, 1 << 20, settings(Kind::Documents), &mut entropy(&mut random));
    let error = opened.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("was durable"), "{error}");
}

#[test]
fn one_mebibyte_documents_stay_out_of_blob_files_and_shrink() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("primary");
    let mut random = 0;
    let mut ledger = open(&SledEngine::default(), &directory, &mut random);
    let large = "y".repeat((1 << 20) - 100);
    for n in 1..=12 {
        let request = WriteRequest::new(vec![put(&orders(), &format!("k{}", n % 3), large.as_bytes())]);
        ledger.write(now(n), &[request], &mut entropy(&mut random)).unwrap();
        assert_eq!(blobs(&directory), 0, "after document {n}");
    }
    let read = ledger.view().get(&orders(), &Key::new("k1").unwrap()).unwrap().unwrap();
    assert_eq!(read.value.len(), large.len() + 5);
    let request = WriteRequest::new(vec![put(&orders(), "k1", b"small")]);
    ledger.write(now(20), &[request], &mut entropy(&mut random)).unwrap();
    assert_eq!(ledger.view().get(&orders(), &Key::new("k1").unwrap()).unwrap().unwrap().value.len(), 6);
    drop(ledger);
    let ledger = open(&SledEngine::default(), &directory, &mut random);
    assert_eq!(listing(&ledger, &orders()).len(), 3);
    assert_eq!(blobs(&directory), 0);
}

/// A store in which rows appear right after the first look at one of them was in vain: a commit is taken in beside a reader.
#[derive(Debug)]
struct TakenInMeanwhile {
    inner: Arc<dyn Store>,
    looked_for: Vec<u8>,
    appear: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Store for TakenInMeanwhile {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.get(key)?;
        if key == self.looked_for {
            for (key, value) in self.appear.lock().unwrap().drain(..) {
                self.inner.put(&key, &value)?;
            }
        }
        Ok(found)
    }
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.inner.put(key, value)
    }
    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.inner.scan(start, end, visit)
    }
    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.inner.last(start, end)
    }
    fn barrier(&self) -> Result<(), StoreError> {
        self.inner.barrier()
    }
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}

#[test]
fn a_commit_taken_in_beside_a_reader_is_no_damage_and_a_lost_index_row_is() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/primary");
    let mut random = 0;
    let mut ledger = open(&memory, directory, &mut random);
    let (_, committed) = ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
    let writer = committed.commits[0].writer();
    let (store, tags) = (ledger.store.clone(), ledger.replica().tags().clone());
    let rows = [super::layout::seq_index(&writer, 1), super::layout::line_key(&writer)];
    let appear = rows.iter().map(|key| (key.clone(), store.get(key).unwrap().unwrap())).collect();
    rows.iter().for_each(|key| store.delete(key).unwrap());
    let racing = TakenInMeanwhile { inner: store.clone(), looked_for: rows[0].clone(), appear: Mutex::new(appear) };
    let view = super::View::new(Arc::new(racing), &settings(Kind::Documents));
    let wants = [anabranch_protocol::plan::Want { writer, from_seq: 1 }];
    assert_eq!(view.page(&wants, &tags, 1 << 20).unwrap().frames.len(), 1);

    store.delete(&rows[0]).unwrap();
    assert!(view.page(&wants, &tags, 1 << 20).unwrap_err().to_string().contains("not in its index"));
}

#[test]
fn another_kind_of_dataset_is_refused() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/primary");
    let mut random = 0;
    drop(open(&memory, directory, &mut random));
    let opened = Ledger::open(&memory, directory, 1 << 20, settings(Kind::Append), &mut entropy(&mut random));
    assert!(opened.map(|_| ()).unwrap_err().to_string().contains("append"));
}

fn blobs(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("blobs")).map_or(0, Iterator::count)
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_reader_is_not_given_another_commit_than_the_one_it_asked_for() {
    // Where all is registered, frames are passed on as they are.
    for registration in [settings(Kind::Documents).registration, Registration::all()] {
        let settings = ReplicaSettings { registration, ..settings(Kind::Documents) };
        let directory = Path::new("/nowhere/primary");
        let mut random = 0;
        let mut ledger = Ledger::open(&MemoryEngine::default(), directory, 1 << 20, settings, &mut entropy(&mut random)).unwrap();
        let (_, committed) = ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
        ledger.write(now(2), &[pair(2, 10)], &mut entropy(&mut random)).unwrap();
        let line = committed.commits[0].writer();
        assert_eq!(ledger.view().commit(&line, 2).unwrap().unwrap().header().seq, 2);
        let arrival = ledger.view().arrival(&line, 1).unwrap().unwrap();
        ledger.store.put(&super::layout::seq_index(&line, 2), &arrival.to_be_bytes()).unwrap();
        assert_eq!(ledger.view().commit(&line, 1).unwrap().unwrap().header().seq, 1);
        assert!(ledger.view().commit(&line, 2).unwrap_err().to_string().contains("names another one"));
        // Nor is a peer: it would blame us for a commit that it has already, or a gap.
        let wants = [anabranch_protocol::plan::Want { writer: line, from_seq: 2 }];
        let page = ledger.view().page(&wants, ledger.replica().tags(), 1 << 20);
        assert!(page.unwrap_err().to_string().contains("names another one"));
    }
}

#[test]
fn an_index_row_that_points_to_other_records_is_damage() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/logs");
    let mut random = 0;
    let mut ledger = Ledger::open(&memory, directory, 1 << 20, settings(Kind::Append), &mut entropy(&mut random)).unwrap();
    for (n, collection) in [(1, orders()), (2, orders()), (3, customers()), (4, customers())] {
        let value = anabranch_protocol::value::Value::Text(n.to_string()).encode();
        let op = WriteOp { collection, op: Op::Append { value } };
        ledger.write(now(n), &[WriteRequest::new(vec![op])], &mut entropy(&mut random)).unwrap();
    }
    // Customers stay local here.
    for collection in [orders(), customers()] {
        let listed = ledger.view().list(&collection, &ListQuery { limit: 10, ..ListQuery::default() }).unwrap();
        let mut rows = Vec::new();
        let base = super::layout::record_index_prefix(&collection);
        let mut keep = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        };
        ledger.store.scan(&base, &super::layout::after_prefix(&base), &mut keep).unwrap();
        ledger.store.put(&rows[1].0, &rows[0].1).unwrap();
        let second = ledger.view().get(&collection, &listed.documents[1].key);
        assert!(second.unwrap_err().to_string().contains("points to another log record"));
        let all = ledger.view().list(&collection, &ListQuery { limit: 10, ..ListQuery::default() });
        assert!(all.unwrap_err().to_string().contains("points to another log record"));
    }
}

/// Opens stores as they are while the disk is full.
#[derive(Debug)]
struct Full(MemoryEngine);

impl StoreEngine for Full {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, crate::store::OpenError> {
        Ok(Arc::new(crate::dataset::overlay::Overlay::new(self.0.open(dir, cache_bytes)?)))
    }
}

#[test]
fn what_the_log_has_past_the_mark_is_shown_on_a_full_disk_and_not_stated_to_be_durable() {
    let memory = MemoryEngine::default();
    let directory = Path::new("/nowhere/primary");
    let mut random = 0;
    let mut ledger = open(&memory, directory, &mut random);
    let (_, committed) = ledger.write(now(1), &[pair(1, 10)], &mut entropy(&mut random)).unwrap();
    let line = committed.commits[0].writer();
    ledger.settle().unwrap();
    ledger.write(now(2), &[pair(2, 10)], &mut entropy(&mut random)).unwrap();
    assert!(ledger.stable_while_full().is_none());
    // Killed before the mark moved on; the log's record may be with the system alone, for all that the next life knows.
    memory.crash(directory, || false);
    drop(ledger);
    let settings = settings(Kind::Documents);
    let mut full = Ledger::open(&Full(memory.clone()), directory, 1 << 20, settings, &mut entropy(&mut random)).unwrap();
    full.read_only();
    let key = Key::new("k000002").unwrap();
    assert!(full.view().get(&orders(), &key).unwrap().is_some());
    let stable = full.stable_while_full().unwrap();
    assert_eq!((full.replica().vector().seq(&line), stable.seq(&line)), (2, 1));
    drop(full);
    assert_eq!(open(&memory, directory, &mut random).replica().vector().seq(&line), 2);
}
