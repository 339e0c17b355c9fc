//! Single flipped bits, seeded, in the files of a real store: whatever is served, to readers or to peers, is what was written, or the
//! damage is noticed. Half of the stores are not read as a whole when they are opened, as large ones are not: then the checks at
//! read time must catch it, or the audit of rows in the background after them.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anabranch_protocol::commit::Frame;
use anabranch_protocol::id::{DatasetId, Key, Lineage};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::TagSet;
use anabranch_protocol::replica::{Op, WriteOp};
use anabranch_protocol::value::Value;

use super::tests::{entropy, now, orders, settings};
use super::*;
use crate::api::ListQuery;
use crate::store::SledEngine;

const FLIPS: u64 = 200;

/// What a store of this kind serves: documents of its collection, and frames by seq.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Served {
    documents: BTreeMap<String, Vec<u8>>,
    frames: BTreeMap<u64, Vec<u8>>,
}

fn engine() -> SledEngine {
    // Small, so that most of its bytes mean something.
    SledEngine { segment_bytes: 64 << 10, ..SledEngine::default() }
}

fn write(directory: &Path, kind: Kind) -> WriterId {
    let mut seed = 0;
    let mut ledger = Ledger::open(&engine(), directory, 1 << 20, settings(kind), &mut entropy(&mut seed)).unwrap();
    ledger.compare_reached(directory).unwrap();
    for n in 0..60_u32 {
        let value = value(n);
        let op = match kind {
            Kind::Append => Op::Append { value },
            Kind::Documents => Op::Put { key: Key::new(&format!("k{:02}", n % 40)).unwrap(), value },
        };
        let request = WriteRequest { ops: vec![WriteOp { collection: orders(), op }] };
        ledger.write(now(n), &[request], &mut entropy(&mut seed)).unwrap();
    }
    ledger.settle().unwrap();
    ledger.replica().vector().iter().next().map(|(writer, _)| *writer).unwrap()
}

fn value(n: u32) -> Vec<u8> {
    Value::Text("x".repeat((n as usize * 37) % 900)).encode()
}

/// What was once written under a key.
fn was_written(key: &str, found: &[u8]) -> bool {
    key.strip_prefix('k').and_then(|n| n.parse().ok()).is_some_and(|n: u32| [n, n + 40].into_iter().any(|n| value(n) == found))
}

/// Everything that is served, until something is noticed; and whether it was.
fn served(directory: &Path, kind: Kind, writer: WriterId, audit: bool) -> (Served, bool) {
    let mut served = Served::default();
    let mut seed = 99;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut ledger = Ledger::open(&engine(), directory, 1 << 20, settings(kind), &mut entropy(&mut seed))?;
        ledger.check()?;
        ledger.compare_reached(directory)?;
        if audit {
            ledger.audit()?;
        }
        Ok::<_, LedgerError>(ledger)
    }));
    let Ok(Ok(mut ledger)) = opened else { return (served, true) };
    let mut noticed = false;
    let query = ListQuery { limit: 1_000, ..ListQuery::default() };
    match ledger.view().list(&orders(), &query) {
        Ok(page) => served.documents = page.documents.into_iter().map(|found| (found.key.to_string(), found.value)).collect(),
        Err(_) => noticed = true,
    }
    for n in 0..40 {
        let key = Key::new(&format!("k{n:02}")).unwrap();
        match ledger.view().get(&orders(), &key) {
            Ok(Some(found)) => drop(served.documents.insert(found.key.to_string(), found.value)),
            Ok(None) => {}
            Err(_) => noticed = true,
        }
    }
    for seq in 1..=60 {
        match ledger.view().page(&[Want { writer, from_seq: seq }], &TagSet::All, 1) {
            Ok(page) => {
                if let Some(frame) = page.frames.first() {
                    served.frames.insert(seq, frame.to_vec());
                }
            }
            Err(_) => noticed = true,
        }
    }
    (served, noticed || (!audit && found_in_the_background(&mut ledger)))
}

fn found_in_the_background(ledger: &mut Ledger) -> bool {
    loop {
        match ledger.audit_slice(now(100), 7) {
            Ok(true) => return false,
            Ok(false) => {}
            Err(_) => return true,
        }
    }
}

/// Splitmix64 (Steele, Lea and Flood).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(state: &mut u64, end: usize) -> usize {
    usize::try_from(next(state) % end as u64).unwrap()
}

fn flip(directory: &Path, seed: u64) -> String {
    let mut state = seed;
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file() && fs::metadata(path).unwrap().len() > 0 && !path.ends_with("identity"));
    files.sort();
    // Most of it is in `db`, and so are most flips.
    let db = directory.join("db");
    let path = if below(&mut state, 8) > 0 { &db } else { &files[below(&mut state, files.len())] };
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = below(&mut state, used);
    bytes[at] ^= 1 << below(&mut state, 8);
    fs::write(path, bytes).unwrap();
    format!("{} at {at}", path.file_name().unwrap().to_string_lossy())
}

#[test]
fn no_flipped_bit_is_ever_served() {
    let first = std::env::var("FLIP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count = std::env::var("FLIPS").ok().and_then(|count| count.parse().ok()).unwrap_or(FLIPS);
    let place = tempfile::tempdir().unwrap();
    let whole = [Kind::Documents, Kind::Append].map(|kind| {
        let directory = place.path().join(format!("whole-{kind}"));
        let writer = write(&directory, kind);
        // What it serves, from a copy: opening writes.
        let copy = place.path().join(format!("copy-{kind}"));
        copy_directory(&directory, &copy);
        let (truth, noticed) = served(&copy, kind, writer, true);
        assert!(!noticed && truth.frames.len() == 60 && truth.documents.len() >= 40);
        for (seq, frame) in &truth.frames {
            let commit = Frame::decode(frame).unwrap().verify(&DatasetId::primary(), Lineage::ZERO).unwrap();
            assert_eq!(commit.header().seq, *seq);
        }
        (kind, directory, writer, truth)
    });
    let (mut found, mut unchanged, mut stale, mut tails) = (0, 0, 0, 0);
    for seed in first..first + count {
        let (kind, directory, writer, truth) = &whole[usize::from(seed % 2 == 0)];
        let audit = seed % 4 < 2;
        let copy = place.path().join(format!("flipped-{seed}"));
        copy_directory(directory, &copy);
        let flipped = flip(&copy, seed);
        let (served, noticed) = served(&copy, *kind, *writer, audit);
        let case = format!("FLIP_SEED={seed} FLIPS=1: {kind}, {flipped}, audited {audit}");
        for (key, value) in &served.documents {
            let right = truth.documents.get(key) == Some(value);
            // A row may be as old as the page that survived, but nothing else, until that is noticed: see below.
            let old = *kind == Kind::Documents && was_written(key, value);
            assert!(right || old, "{case}: document {key} is {value:?}");
            stale += u64::from(!right && !audit);
        }
        for (seq, frame) in &served.frames {
            assert_eq!(truth.frames.get(seq), Some(frame), "{case}: frame {seq} is wrong");
        }
        // What nobody noticed is what it was at some time: sled may lose its newest writes, and peers bring them back. The index of
        // records is read as a whole only at a store's open.
        let judged = audit || *kind == Kind::Documents;
        assert!(!judged || noticed || is_of_one_time(&served, *kind), "{case}: something is gone, and nobody noticed");
        tails += u64::from(audit && !noticed && served != *truth);
        found += u64::from(noticed);
        unchanged += u64::from(served == *truth);
        fs::remove_dir_all(copy).unwrap();
    }
    println!(
        "{count} flips: {found} noticed, {unchanged} without effect, {tails} lost their newest commits, {stale} stale rows that the audit in the background noticed"
    );
    assert!(count < 50 || found > count / 10, "the flips hit nothing: {found}");
}

/// Whether this is what the store held after so many commits as it has: documents and frames agree, and nothing is missing between.
fn is_of_one_time(served: &Served, kind: Kind) -> bool {
    let commits = served.frames.len();
    let unbroken = served.frames.keys().copied().eq(1..=commits as u64);
    let documents = match kind {
        Kind::Append => served.documents.len() == commits,
        Kind::Documents => {
            let state = (0..60_u32).take(commits).map(|n| (format!("k{:02}", n % 40), value(n)));
            served.documents == state.collect()
        }
    };
    unbroken && documents
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
