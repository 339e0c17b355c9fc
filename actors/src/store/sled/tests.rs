//! What is particular to sled: blob files, damage, panics and failed syncs. Power loss: `actors/tests/power_loss.rs`.

use super::*;
use crate::store::{KEY_BYTES_MAX, PART_BYTES_MAX};

fn opened(dir: &Path) -> SledStore {
    let opening = Opening { dir: dir.to_path_buf(), cache_bytes: 8 << 20, segment_bytes: SEGMENT_BYTES };
    opening.run().expect("the store opens")
}

fn blobs(dir: &Path) -> usize {
    fs::read_dir(dir.join("blobs")).expect("sled makes it").count()
}

/// A key as long as keys get, that shares nothing with its neighbours in a leaf, so that sled can't shorten it there.
fn longest_key(number: u32) -> Vec<u8> {
    let mut key = blake3::hash(&number.to_be_bytes()).as_bytes().to_vec();
    key.resize(KEY_BYTES_MAX, b'x');
    key
}

#[test]
fn documents_in_parts_make_no_blob_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = opened(dir.path());
    let part = vec![7; PART_BYTES_MAX];
    let parts_per_document = (1024 * 1024_usize).div_ceil(PART_BYTES_MAX);
    for document in 0..16_u32 {
        // Written, overwritten, and every second one deleted but for a few parts, so that pages split and merge.
        for part_number in (0..parts_per_document).chain(0..parts_per_document) {
            store.put(&part_key(document, part_number), &part).expect("put");
        }
        for part_number in (0..parts_per_document).filter(|number| document % 2 == 0 && number % 5 > 0) {
            store.delete(&part_key(document, part_number)).expect("delete");
        }
        store.barrier().expect("barrier");
        assert_eq!(blobs(dir.path()), 0, "after document {document}");
    }
}

fn key_that_differs_at_its_end(number: u32) -> Vec<u8> {
    let mut key = vec![b'x'; KEY_BYTES_MAX - 4];
    key.extend(number.to_be_bytes());
    key
}

fn part_key(document: u32, part: usize) -> Vec<u8> {
    format!("part-{document:08}-{part:05}").into_bytes()
}

#[test]
fn the_longest_keys_with_the_largest_values_make_no_blob_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = opened(dir.path());
    let part = vec![7; PART_BYTES_MAX];
    for number in 0..600 {
        store.put(&longest_key(number), &part).expect("put");
        assert_eq!(blobs(dir.path()), 0, "after put {number}");
    }
    for number in (0..600).filter(|number| number % 4 > 0) {
        store.delete(&longest_key(number)).expect("delete");
        assert_eq!(blobs(dir.path()), 0, "after delete {number}");
    }
}

#[test]
fn inner_pages_full_of_the_longest_keys_make_no_blob_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = opened(dir.path());
    // In order, leaves stay half full: most leaves, so most keys in the pages above them. The keys differ at their
    // end only, else sled would shorten them there.
    let keys: Vec<Vec<u8>> = (0..4_000_u32).map(key_that_differs_at_its_end).collect();
    for key in &keys {
        store.put(key, b"").expect("put");
    }
    store.barrier().expect("barrier");
    assert_eq!(blobs(dir.path()), 0, "after the puts");
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 9 > 0) {
        store.delete(key).expect("delete");
        assert_eq!(blobs(dir.path()), 0, "after delete {number}");
    }
    store.barrier().expect("barrier");
    assert_eq!(blobs(dir.path()), 0, "after the last barrier");
}

#[test]
fn a_failed_sync_poisons_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = opened(dir.path());
    store.put(b"k", b"v").expect("put");
    // A device that can't be synced.
    store.log = File::open("/dev/null").expect("a device");
    assert!(matches!(store.barrier(), Err(StoreError::Io(_))));
    assert!(matches!(store.barrier(), Err(StoreError::Poisoned)));
    assert!(matches!(store.put(b"k", b"w"), Err(StoreError::Poisoned)));
    assert!(matches!(store.delete(b"k"), Err(StoreError::Poisoned)));
    assert_eq!(store.get(b"k").expect("reads go on"), Some(b"v".to_vec()));
}

#[test]
fn a_panic_in_sled_becomes_an_error_and_poisons() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = opened(dir.path());
    let outcome = store.attempt(|| -> sled::Result<()> { panic!("page gone") });
    assert!(matches!(outcome, Err(StoreError::Corrupt(text)) if text.contains("page gone")));
    assert!(matches!(store.put(b"k", b"v"), Err(StoreError::Poisoned)));
}

#[test]
fn a_full_disk_has_a_name_of_its_own() {
    // Error 28 is ENOSPC, 122 EDQUOT; a sled error that was cloned keeps only the kind.
    for code in [28, 122] {
        let error = io::Error::from_raw_os_error(code);
        let cloned = sled::Error::Io(error).clone();
        assert!(matches!(store_error(cloned), StoreError::NoSpace), "error {code}");
    }
    assert!(matches!(store_error(sled::Error::Io(io::Error::from_raw_os_error(5))), StoreError::Io(_)));
}

#[test]
fn damaged_directories_are_refused_in_words_and_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = SledEngine::default();
    let make = |name: &str| {
        let dir = dir.path().join(name);
        let store = opened(&dir);
        (0..500_u32).for_each(|n| store.put(&n.to_be_bytes(), &[1; 2_000]).expect("put"));
        store.barrier().expect("barrier");
        dir
    };
    let conf = make("conf");
    fs::write(conf.join("conf"), "not a configuration of sled\n").expect("written");
    let snapshot = make("snapshot");
    drop(engine.open(&snapshot, 0).expect("opens, and saves a snapshot"));
    let names = fs::read_dir(&snapshot).expect("readable").map(|entry| entry.expect("an entry").path());
    let saved = names.filter(|path| path.to_string_lossy().contains("snap.")).collect::<Vec<_>>();
    assert!(!saved.is_empty(), "sled saved a snapshot");
    saved.iter().for_each(|path| fs::write(path, [0; 64]).expect("written"));
    for damaged in [conf, snapshot] {
        let outcome = engine.open(&damaged, 0);
        assert!(matches!(outcome, Err(OpenError::Corrupt { .. })), "{damaged:?}: {outcome:?}");
    }
}

#[test]
fn an_open_that_takes_too_long_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = SledEngine { open_timeout: Duration::ZERO, ..SledEngine::default() };
    let outcome = engine.open(dir.path(), 0);
    assert!(matches!(&outcome, Err(OpenError::Corrupt { reason, .. }) if reason.contains("did not open")));
}

#[test]
fn what_is_not_a_directory_is_an_error_of_the_system() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    for path in [file.clone(), file.join("below")] {
        let outcome = SledEngine::default().open(&path, 0);
        assert!(matches!(outcome, Err(OpenError::Io { .. })), "{outcome:?}");
    }
}

#[test]
fn an_unfinished_snapshot_does_not_lock_the_store_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = opened(dir.path());
    store.put(b"k", b"v").expect("put");
    store.barrier().expect("barrier");
    drop(store);
    let unfinished = dir.path().join("snap.00FFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, [0; 40]).expect("written");
    assert_eq!(opened(dir.path()).get(b"k").expect("get"), Some(b"v".to_vec()));
    assert!(!unfinished.exists());
}
