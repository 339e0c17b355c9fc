//! What fuzzers feed: everything that is read back from a dataset's directory, with what must hold of whatever is accepted.
//!
//! Checksums would keep a fuzzer out, so a target also seals what it was given. `tests/fuzz` runs these under libFuzzer; its
//! corpora are replayed by this module's tests.

mod stores;

use std::path::Path;

use anabranch_protocol::codec;
use anabranch_protocol::fingerprint::Tally;
use anabranch_protocol::id::{Epoch, Incarnation, Lineage};
use anabranch_protocol::limits::SEQ_MAX;

use super::{aside, layout, ledger, lineage, log};
use crate::store::{MemoryEngine, Store, StoreEngine as _};

/// A decoder under test: what its corpus is called, and what is run.
pub type Target = (&'static str, fn(&[u8]));

/// Every decoder of what is on a dataset's disk.
pub const TARGETS: &[Target] = &[
    ("actors-coverage", coverage),
    ("actors-enrolment", enrolment),
    ("actors-facts", facts),
    ("actors-fork", ledger::fuzz_fork),
    ("actors-keys", keys),
    ("actors-ledger", stores::ledger),
    ("actors-line", line),
    ("actors-lineage", |data| text(data, lineage::fuzz)),
    ("actors-listing", stores::listing),
    ("actors-log-parts", log_parts),
    ("actors-log-record", log_record),
    ("actors-reached", |data| text(data, ledger::fuzz_reached)),
    ("actors-registration", ledger::fuzz_registration),
    ("actors-remembered", remembered),
    ("actors-row", row),
    ("actors-set-aside", set_aside),
    ("actors-store", store),
    ("actors-stub", stub),
];

fn text(data: &[u8], run: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        run(text);
    }
}

/// A key's length, the key, and its value.
fn keyed(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A row of coverage: a head, or a span of a writer.
fn coverage(data: &[u8]) {
    let Some((key, value)) = keyed(data) else { return };
    let Some((scope, writer)) = layout::parse_coverage_key(key) else { return };
    let again = writer.map_or_else(|| layout::coverage_key(&scope), |writer| layout::span_key(&scope, &writer));
    assert_eq!(again[1..], key[1..]);
    for value in [value.to_vec(), layout::sealed(value.to_vec())] {
        match writer {
            Some(_) => layout::decode_span(&value).into_iter().for_each(|span| {
                assert_eq!(layout::encode_span(span), value);
                assert!(span.next >= 1 && span.missing() <= SEQ_MAX);
            }),
            None => layout::decode_coverage_head(&value).into_iter().for_each(|head| assert_eq!(head.encode(), value)),
        }
    }
}

fn enrolment(data: &[u8]) {
    let Some((key, value)) = keyed(data) else { return };
    for value in [value.to_vec(), layout::sealed(value.to_vec())] {
        if let Some((peer, demoted)) = layout::parse_enrolment(key, &value) {
            assert_eq!(layout::enrolled_key(&peer)[1..], key[1..]);
            assert_eq!(value.len(), 8 + usize::from(demoted) + 4);
        }
    }
}

/// What is remembered of an idempotency key.
fn remembered(data: &[u8]) {
    let Some((key, value)) = keyed(data) else { return };
    for value in [value.to_vec(), layout::sealed(value.to_vec())] {
        if let Some((of, remembered)) = layout::parse_remembered(key, &value) {
            assert_eq!(layout::remembered_key(&of)[1..], key[1..]);
            assert_eq!(layout::encode_remembered(&remembered), value);
        }
    }
}

/// Keys are read back as they were made, each by whoever scans its prefix.
fn keys(key: &[u8]) {
    match key.first() {
        Some(b'l') => {
            layout::parse_log_part(key).into_iter().for_each(|(arrival, part)| assert_eq!(layout::log_part(arrival, part), key))
        }
        Some(b's') => {
            layout::parse_seq_index(key).into_iter().for_each(|(writer, seq)| assert_eq!(layout::seq_index(&writer, seq), key))
        }
        Some(b'r') => layout::parse_row_key(key).into_iter().for_each(|(collection, of)| {
            assert_eq!(layout::row_key(&collection, &of), key);
            assert!(
                key.starts_with(&layout::row_prefix(&collection))
                    && *key < *layout::after_prefix(&layout::row_prefix(&collection))
            );
        }),
        Some(b'x') => layout::parse_record_index(key)
            .into_iter()
            .for_each(|collection| assert!(key.starts_with(&layout::record_index_prefix(&collection)))),
        _ => {}
    }
}

/// What stands in place of a record that moved, sealed by turns.
fn stub(data: &[u8]) {
    let store = memory();
    for value in [data.to_vec(), layout::sealed(data.to_vec())] {
        put(&*store, &layout::log_part(1, 0), &value);
        if let log::Found::Moved(now) = log::read(&*store, 1).expect("memory reads") {
            log::move_record(&*store, 2, now).expect("memory writes");
            assert_eq!(store.get(&layout::log_part(2, 0)).expect("memory reads").as_deref(), Some(&value[..]));
        }
    }
}

fn line(data: &[u8]) {
    let Some((key, value)) = data.split_at_checked(49) else { return };
    for value in [value.to_vec(), layout::sealed(value.to_vec())] {
        if let Some((writer, line)) = layout::decode_line(key, &value) {
            assert_eq!(layout::line_key(&writer)[1..], key[1..]);
            assert_eq!(layout::encode_line(&line), value);
        }
    }
}

fn row(data: &[u8]) {
    for head in [data.to_vec(), layout::sealed(data.to_vec())] {
        let Some((row, rest)) = layout::decode_row_head(&head) else { continue };
        assert!(row.value.as_ref().is_none_or(|value| value.len() <= head.len()));
        if rest == 0 && layout::row_is_whole(&row) && row.value.is_some() {
            let (again, parts) = layout::encode_row(&row);
            // A head longer than this version writes is read all the same; its bytes then differ.
            assert!(!parts.is_empty() || layout::decode_row_head(&again).is_some_and(|(read, _)| read == row));
        }
    }
}

/// The parts of a log record as they lie in the store: one length byte for each but the last.
fn log_parts(data: &[u8]) {
    let store = memory();
    let mut rest = data;
    for part in 0..8 {
        let Some((length, behind)) = rest.split_first() else { break };
        let (value, behind) = behind.split_at(behind.len().min(usize::from(*length) * 32));
        put(&*store, &layout::log_part(1, part), value);
        rest = behind;
    }
    read_record(&*store);
}

/// A record whose hash is right, whatever it holds: a byte of flags, two of the frame's length, and the record.
fn log_record(data: &[u8]) {
    let Some(([flags, high, low], bytes)) = data.split_first_chunk::<3>() else { return };
    let store = memory();
    log::write_fuzzed(&*store, *flags, usize::from(u16::from_be_bytes([*high, *low])), bytes);
    read_record(&*store);
}

fn read_record(store: &dyn Store) {
    let log::Found::Record(stored) = log::read(store, 1).expect("memory reads") else { return };
    let Ok(record) = stored.decode(Lineage::ZERO) else { return };
    if let Some(commit) = &record.commit {
        assert_eq!(Some(commit.to_bytes().as_slice()), stored.frame());
    }
    // What was read is written as something that reads the same.
    log::write(store, 2, 0, &record).expect("memory writes");
    let log::Found::Record(again) = log::read(store, 2).expect("memory reads") else { panic!("what was written is whole") };
    let again = again.decode(Lineage::ZERO).expect("what was written decodes");
    assert_eq!((again.commit, again.effects), (record.commit, record.effects));
}

fn facts(data: &[u8]) {
    for value in [data.to_vec(), layout::sealed(data.to_vec())] {
        let Some(bytes) = layout::unsealed(&value) else { continue };
        let same = |again: Vec<u8>| assert_eq!(again, bytes);
        codec::decode::<Tally>(bytes, layout::TALLY_BYTES_MAX).into_iter().for_each(|fact| same(codec::encode(&fact)));
        codec::decode::<(u64, u64)>(bytes, 1_024).into_iter().for_each(|fact| same(codec::encode(&fact)));
        codec::decode::<Option<Epoch>>(bytes, 1_024).into_iter().for_each(|fact| same(codec::encode(&fact)));
        codec::decode::<Incarnation>(bytes, 1_024).into_iter().for_each(|fact| same(codec::encode(&fact)));
        codec::decode::<String>(bytes, 1_024).into_iter().for_each(|fact| same(codec::encode(&fact)));
    }
}

fn set_aside(data: &[u8]) {
    aside::fuzz_note(data);
}

/// A whole store of keys and values that nobody wrote: `[key length, value length / 8, key, value]…`, values sealed by turns.
fn store(data: &[u8]) {
    let store = memory();
    let mut rest = data;
    let mut seal = false;
    while let Some(([key_len, value_len], behind)) = rest.split_first_chunk::<2>() {
        let (key, behind) = behind.split_at(behind.len().min(usize::from(*key_len)));
        let (value, behind) = behind.split_at(behind.len().min(usize::from(*value_len) * 8));
        put(&*store, key, &if seal { layout::sealed(value.to_vec()) } else { value.to_vec() });
        seal = !seal;
        rest = behind;
    }
    ledger::fuzz_saved(&*store);
}

fn memory() -> std::sync::Arc<dyn Store> {
    MemoryEngine::default().open(Path::new("/fuzz"), 0).expect("memory opens")
}

fn put(store: &dyn Store, key: &[u8], value: &[u8]) {
    store.put(key, &value[..value.len().min(crate::store::PART_BYTES_MAX)]).expect("memory writes");
}

#[cfg(test)]
mod tests {
    /// Inputs that fuzzers found worth keeping, and every one that once broke a rule.
    #[test]
    fn the_corpora_are_replayed() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, run) in super::TARGETS {
            let inputs = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name} has a corpus: {error}"));
            let mut count = 0;
            for input in inputs {
                run(&std::fs::read(input.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has inputs");
        }
    }
}
