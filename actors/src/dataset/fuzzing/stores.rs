//! Whole stores that were written by a ledger, with some rows as nobody wrote them, and what is asked of whole ones.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::{Change, Commit, Draft, Entry, ForkProof, Identity};
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Collection, DatasetId, Epoch, Hash, Key, Lineage, Salt};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::{Registration, TagSet};
use anabranch_protocol::replica::{Op, ReplicaSettings, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;

use super::put;
use crate::api::ListQuery;
use crate::dataset::layout::{sealed, unsealed};
use crate::dataset::ledger::Ledger;
use crate::store::{MemoryEngine, Row, Store, StoreEngine as _, StoreError};

const PLACE: &str = "/fuzz/ledger";
const NOON: u64 = 1_700_000_000_000;

fn settings(kind: Kind) -> ReplicaSettings {
    ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: Lineage::ZERO,
        kind,
        identity: Identity::from_secret(&[7; 32]),
        registration: Registration::of([collection("a")]),
        writers: Peers::All,
        max_clock_skew: Duration::from_secs(300),
    }
}

fn collection(name: &str) -> Collection {
    Collection::new(name).expect("a name")
}

/// The same in every run.
fn entropy(seed: &mut u8) -> impl FnMut(&mut [u8]) + '_ {
    |bytes| {
        *seed = seed.wrapping_add(1) & 0x7f;
        bytes.fill(*seed);
    }
}

fn open(engine: &MemoryEngine, kind: Kind) -> Option<Ledger> {
    Ledger::open(engine, Path::new(PLACE), 0, settings(kind), &mut entropy(&mut 100)).ok()
}

/// A store with a row of each prefix: local and replicated writes, a commit that came again with more, a collection whose local
/// rows were issued, one whose past is missing, a line that parted, a peer that was accepted, and a write under an idempotency key.
fn written(kind: Kind) -> MemoryEngine {
    let (engine, mut seed) = (MemoryEngine::default(), 0);
    let mut ledger = open(&engine, kind).expect("a new store opens");
    let now = |n: u64| WallClock(NOON + n);
    let op = |name: &str, n: u64| {
        let value = Value::Text("x".repeat(if n == 3 { 7_100 } else { 3 })).encode();
        let key = Key::new(&format!("k{n}")).expect("a key");
        WriteOp {
            collection: collection(name),
            op: if kind == Kind::Append { Op::Append { value } } else { Op::Put { key, value } },
        }
    };
    for n in 0..4 {
        let request = WriteRequest::new(vec![op("a", n), op("kept", n)]);
        ledger.write(now(n), &[request], &mut entropy(&mut seed)).expect("memory writes");
    }
    ledger.peer_accepted(Identity::from_secret(&[9; 32]).peer(), now(5)).expect("memory writes");
    let (first, second, other) = theirs(kind);
    let proof = ForkProof::of(&second, &other).expect("both follow the first");
    ledger.receive(now(6), vec![first.clone(), second]).expect("memory writes");
    ledger.register(&collection("b")).expect("memory writes").0.expect("it may be registered");
    ledger.widen(vec![first]).expect("memory writes");
    ledger.register(&collection("kept")).expect("memory writes").0.expect("it may be registered");
    while ledger.issue(now(7), &mut entropy(&mut seed)).expect("memory writes").1 {}
    ledger.receive_with(now(8), vec![other], vec![proof]).expect("memory writes");
    ledger.settle().expect("memory writes");
    ledger.unregister(&collection("kept")).expect("memory writes").0.expect("it may be unregistered");
    // Past the mark: the next start takes it in again.
    let once = WriteRequest::once(vec![op("a", 1)], &"once".parse().expect("a key"));
    ledger.write(now(9), &[once], &mut entropy(&mut seed)).expect("memory writes");
    ledger.check().and_then(|()| ledger.audit()).expect("what was written is whole");
    engine
}

/// A peer's first commit, and two that follow it.
fn theirs(kind: Kind) -> (Commit, Commit, Commit) {
    let identity = Identity::from_secret(&[9; 32]);
    let commit = |seq: u64, previous: Hash, value: u8| {
        let change = |name: &str| match kind {
            Kind::Append => Change::Append { value: vec![value] },
            Kind::Documents => Change::Put { key: Key::new(name).expect("a key"), value: vec![value] },
        };
        let section = |name: &str, index: u32| (collection(name), Salt([3; 16]), vec![Entry { index, change: change(name) }]);
        let draft = Draft {
            dataset: &DatasetId::primary(),
            lineage: Lineage::ZERO,
            epoch: Epoch([5; 16]),
            seq,
            previous,
            parent: None,
            hlc: Hlc((NOON + seq) << 16),
            sections: vec![section("a", 0), section("b", 1)],
        };
        draft.seal(&identity)
    };
    let first = commit(1, Hash::ZERO, 0);
    let (second, other) = (commit(2, first.hash(), 1), commit(2, first.hash(), 2));
    (first, second, other)
}

fn kind_of(byte: u8) -> Kind {
    if byte.is_multiple_of(2) { Kind::Documents } else { Kind::Append }
}

fn base(kind: Kind) -> &'static [Row] {
    static ROWS: [OnceLock<Vec<Row>>; 2] = [const { OnceLock::new() }; 2];
    ROWS[usize::from(kind == Kind::Append)].get_or_init(|| {
        let store = written(kind).open(Path::new(PLACE), 0).expect("memory opens");
        let mut rows = Vec::new();
        let whole = store.scan(&[], &[u8::MAX], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        whole.expect("memory reads");
        rows
    })
}

/// Signed once.
static FIRST: [OnceLock<Commit>; 2] = [const { OnceLock::new() }; 2];

/// A store some of whose rows are others: a byte for the kind of dataset, and `[what, which row, length, bytes]…`. Opening, checking
/// and reading it are errors or right, never a panic; and what opened and is whole opens again.
pub(super) fn ledger(data: &[u8]) {
    let Some((kind, edits)) = data.split_first() else { return };
    let kind = kind_of(*kind);
    let engine = MemoryEngine::default();
    {
        let store = engine.open(Path::new(PLACE), 0).expect("memory opens");
        base(kind).iter().for_each(|(key, value)| put(&*store, key, value));
        edit(&*store, base(kind), edits);
    }
    let Some(mut ledger) = open(&engine, kind) else { return };
    let whole = ledger.check().and_then(|()| ledger.audit());
    let read = read(&ledger).and_then(|()| ledger.skim().map(drop));
    if whole.and(read).and_then(|()| ledger.settle()).is_ok() {
        let vector = ledger.replica().vector().clone();
        drop(ledger);
        let mut again = open(&engine, kind).expect("what opened and is whole opens again");
        assert_eq!(*again.replica().vector(), vector);
        let now = WallClock(NOON + 10);
        for _ in 0..4 {
            let _ = again.issue(now, &mut entropy(&mut 50));
        }
        let _ = again.register(&collection("kept"));
        let first = FIRST[usize::from(kind == Kind::Append)].get_or_init(|| theirs(kind).0);
        let _ = again.widen(vec![first.clone()]);
    }
}

fn edit(store: &dyn Store, rows: &[Row], mut edits: &[u8]) {
    while let Some(([what, which, length], rest)) = edits.split_first_chunk::<3>() {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        edits = rest;
        let (key, value) = &rows[usize::from(*which) % rows.len()];
        match what % 6 {
            0 => store.delete(key).expect("memory deletes"),
            1 => put(store, key, bytes),
            2 => put(store, key, &sealed(bytes.to_vec())),
            // Some bytes of the value are others, and its checksum is right.
            3 => {
                let Some(((at, over), mut body)) = bytes.split_first().zip(unsealed(value).map(<[u8]>::to_vec)) else { continue };
                let at = usize::from(*at).min(body.len());
                let end = (at + over.len()).min(body.len());
                body.splice(at..end, over.iter().copied());
                put(store, key, &sealed(body));
            }
            // The value under a key of which the last bytes are others.
            4 => {
                let kept = key.len().saturating_sub(bytes.len()).max(1);
                put(store, &[&key[..kept], bytes].concat(), value);
            }
            _ => {
                let other = bytes.first().map_or(0, |byte| usize::from(*byte)) % rows.len();
                put(store, key, &rows[other].1);
            }
        }
    }
}

/// Reads everything there is, as a client and a peer would.
fn read(ledger: &Ledger) -> Result<(), StoreError> {
    let view = ledger.view();
    for name in ["a", "b", "kept", "_control"] {
        view.list(&collection(name), &ListQuery { limit: 100, ..ListQuery::default() })?;
    }
    let wants = ledger.replica().vector().iter().map(|(writer, _)| Want { writer: *writer, from_seq: 1 });
    view.page(&wants.collect::<Vec<_>>(), &TagSet::All, 1 << 20).map(drop)
}

/// A listing of what is there: a byte for the kind of dataset, one for the limit, one for what is asked, and texts with a zero
/// between them. Whatever is asked, the page is in order, within its limit and of what was asked for.
pub(super) fn listing(data: &[u8]) {
    let Some(([kind, limit, asked], texts)) = data.split_first_chunk::<3>() else { return };
    static LEDGERS: [OnceLock<std::sync::Arc<crate::dataset::view::View>>; 2] = [const { OnceLock::new() }; 2];
    let kind = kind_of(*kind);
    let opened = || open(&written(kind), kind).expect("what was written opens").view().clone();
    let view = LEDGERS[usize::from(kind == Kind::Append)].get_or_init(opened);
    let mut texts = texts.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok()).map(str::to_owned);
    let mut text = |bit: u8| if asked & bit == 0 { None } else { texts.next() };
    let (prefix, after) = (text(1).unwrap_or_default(), text(2));
    let mut time = |bit: u8| text(bit).and_then(|text| text.parse().ok()).map(WallClock);
    let query = ListQuery { prefix, after, limit: usize::from(*limit), from: time(4), to: time(8) };
    let page = view.list(&collection("a"), &query).expect("what is whole can be listed");
    let keys: Vec<&str> = page.documents.iter().map(|document| document.key.as_str()).collect();
    assert!(keys.is_sorted(), "in order");
    // Records of two branches may share a key; a page does not part them.
    let mut distinct = keys.clone();
    distinct.dedup();
    assert!(distinct.len() <= query.limit.max(1));
    assert!(keys.iter().all(|key| key.starts_with(&query.prefix)));
    // An append dataset has no record after what is no key of its own.
    assert!(query.after.as_ref().is_none_or(|after| keys.iter().all(|key| *key > after.as_str())));
    assert!(page.next.is_none() || page.next.as_deref() == keys.last().copied());
    let mut paged = page.documents.clone();
    let mut next = page.next.clone();
    while next.is_some() {
        let page = view.list(&collection("a"), &ListQuery { after: next, ..query.clone() }).expect("as before");
        paged.extend(page.documents);
        next = page.next;
    }
    let all = view.list(&collection("a"), &ListQuery { limit: 100, ..query }).expect("as before");
    assert_eq!(paged, all.documents, "page by page, or at once");
}
