//! Records of the log: cut into parts on the way in, checked and joined on the way out.
//!
//! ```text
//! record = frame bytes || tail            tail = CBOR [ local or null, effects ]
//! head   = version (1), flags (1), record length (u32), frame length (u32), durable (u64), BLAKE3-16 of the record
//! part 0 = head || first bytes of the record      part n = the next bytes
//! ```
//!
//! A record whose commit came again with more sections is replaced by a stub that names the arrival where it is now:
//!
//! ```text
//! stub   = version (1), flags = 4 (1), arrival (u64), CRC-32
//! ```
//!
//! The head is written last. `durable` is the newest arrival that had passed a barrier when the record was written: a record
//! that is broken though a later one says that it was durable is damage; one that is broken without such a witness is a
//! write that a crash cut short, and was never acknowledged.

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Commit, Section};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::Lineage;
use anabranch_protocol::limits::FRAME_BYTES_MAX;
use anabranch_protocol::replica::{Effects, LocalBatch, Record};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::layout::{PART_BYTES, local_sections, log_part, sealed, unsealed};
use crate::store::{Store, StoreError};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 1 + 4 + 4 + 8 + 16;
const FLAG_FRAME: u8 = 1;
/// No section was left out: the bytes can be served to whoever registered everything.
const FLAG_WHOLE: u8 = 2;
/// The record moved: what is here is a stub.
const FLAG_MOVED: u8 = 4;
const STUB_BYTES: usize = 1 + 1 + 8 + 4;
/// The largest record: a frame, and local entries of one request.
const RECORD_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX + (1 << 20);
/// What reading a record may take before its parts were seen.
const FIRST_BYTES: usize = 64 << 10;

/// A record's bytes as they were read and checked.
#[derive(Debug)]
pub(super) struct StoredRecord {
    flags: u8,
    durable: u64,
    frame_len: usize,
    bytes: Vec<u8>,
}

/// What a look at the log found.
#[derive(Debug)]
pub(super) enum Found {
    Record(StoredRecord),
    /// The record was written again under this arrival.
    Moved(u64),
    /// Nothing, or a record that is not whole.
    Broken,
}

#[derive(Serialize, Deserialize)]
struct Tail(Option<(Hlc, Vec<ByteBuf>)>, Effects);

/// Writes a record; it is durable after the next barrier. Returns its length in bytes.
pub(super) fn write(store: &dyn Store, arrival: u64, durable: u64, record: &Record) -> Result<usize, StoreError> {
    let frame = record.commit.as_ref().map(Commit::to_bytes);
    let whole = record.commit.as_ref().is_some_and(|commit| commit.left_out().next().is_none());
    let flags = if frame.is_some() { FLAG_FRAME } else { 0 } | if whole { FLAG_WHOLE } else { 0 };
    let mut bytes = frame.unwrap_or_default();
    let frame_len = bytes.len();
    bytes.extend_from_slice(&codec::encode(&tail_of(record)));
    write_bytes(store, arrival, &StoredRecord { flags, durable, frame_len, bytes })
}

/// Writes a record again as it was read.
pub(super) fn write_again(store: &dyn Store, arrival: u64, durable: u64, mut stored: StoredRecord) -> Result<usize, StoreError> {
    stored.durable = durable;
    write_bytes(store, arrival, &stored)
}

fn write_bytes(store: &dyn Store, arrival: u64, record: &StoredRecord) -> Result<usize, StoreError> {
    let (first, rest) = record.bytes.split_at(record.bytes.len().min(PART_BYTES - HEAD_BYTES));
    for (part, chunk) in (1_u16..).zip(rest.chunks(PART_BYTES)) {
        store.put(&log_part(arrival, part), chunk)?;
    }
    let mut head = Vec::with_capacity(HEAD_BYTES + first.len());
    head.extend_from_slice(&[VERSION, record.flags]);
    head.extend_from_slice(&length(record.bytes.len()).to_be_bytes());
    head.extend_from_slice(&length(record.frame_len).to_be_bytes());
    head.extend_from_slice(&record.durable.to_be_bytes());
    head.extend_from_slice(&blake3::hash(&record.bytes).as_bytes()[..16]);
    head.extend_from_slice(first);
    store.put(&log_part(arrival, 0), &head)?;
    Ok(record.bytes.len())
}

/// Writes a stub over a record that was written again under `now`. Its further parts stay until [`drop_parts`].
pub(super) fn move_record(store: &dyn Store, arrival: u64, now: u64) -> Result<(), StoreError> {
    let mut stub = vec![VERSION, FLAG_MOVED];
    stub.extend_from_slice(&now.to_be_bytes());
    store.put(&log_part(arrival, 0), &sealed(stub))
}

/// Removes what a stub has left of its record. The stub has to be durable.
pub(super) fn drop_parts(store: &dyn Store, arrival: u64) -> Result<(), StoreError> {
    let mut parts = Vec::new();
    store.scan(&log_part(arrival, 1), &log_part(arrival + 1, 0), &mut |key, _| {
        parts.push(key.to_vec());
        std::ops::ControlFlow::Continue(())
    })?;
    parts.iter().try_for_each(|key| store.delete(key))
}

fn stub(first: &[u8]) -> Option<u64> {
    let [VERSION, FLAG_MOVED, now @ ..] = unsealed(first)? else { return None };
    Some(u64::from_be_bytes(now.try_into().ok()?))
}

/// Writes what a fuzzer made up as a record whose hash is right.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn write_fuzzed(store: &dyn Store, flags: u8, frame_len: usize, bytes: &[u8]) {
    let record = StoredRecord { flags, durable: 0, frame_len, bytes: bytes.to_vec() };
    write_bytes(store, 1, &record).expect("memory writes");
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("records are far below 4 GiB")
}

fn tail_of(record: &Record) -> Tail {
    let sections = |local: &LocalBatch| local_sections(&local.entries).iter().map(|s| ByteBuf::from(s.encode())).collect();
    Tail(record.local.as_ref().map(|local| (local.hlc, sections(local))), record.effects.clone())
}

/// Reads the record at `arrival`.
pub(super) fn read(store: &dyn Store, arrival: u64) -> Result<Found, StoreError> {
    let Some(head) = store.get(&log_part(arrival, 0))? else { return Ok(Found::Broken) };
    if head.len() == STUB_BYTES {
        return Ok(stub(&head).map_or(Found::Broken, Found::Moved));
    }
    let Some((fixed, first)) = head.split_at_checked(HEAD_BYTES) else { return Ok(Found::Broken) };
    let number = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
    let (total, frame_len) = (number(2), number(6));
    if fixed[0] != VERSION || total > RECORD_BYTES_MAX || frame_len > total {
        return Ok(Found::Broken);
    }
    // Not the whole of it: what a damaged head says of its length, no part has to be behind.
    let mut bytes = Vec::with_capacity(total.min(FIRST_BYTES));
    bytes.extend_from_slice(first);
    let mut parts = 1..=u16::MAX;
    while bytes.len() < total {
        let Some(part) = parts.next() else { return Ok(Found::Broken) };
        let Some(chunk) = store.get(&log_part(arrival, part))? else { return Ok(Found::Broken) };
        bytes.extend_from_slice(&chunk);
    }
    let durable = u64::from_be_bytes(fixed[10..18].try_into().expect("eight bytes"));
    #[cfg(feature = "planted")]
    if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SkipChecksums) && bytes.len() == total {
        return Ok(Found::Record(StoredRecord { flags: fixed[1], durable, frame_len, bytes }));
    }
    let whole = bytes.len() == total && blake3::hash(&bytes).as_bytes()[..16] == fixed[18..34];
    Ok(if whole { Found::Record(StoredRecord { flags: fixed[1], durable, frame_len, bytes }) } else { Found::Broken })
}

impl StoredRecord {
    /// The newest arrival that was durable when this record was written.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Bytes of the record.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frame's bytes, as kept here.
    pub fn frame(&self) -> Option<&[u8]> {
        (self.flags & FLAG_FRAME != 0).then(|| &self.bytes[..self.frame_len])
    }

    /// Whether no section was left out.
    pub fn is_whole(&self) -> bool {
        self.flags & FLAG_WHOLE != 0
    }

    /// The commit, decoded.
    pub fn commit(&self, lineage: Lineage) -> Result<Option<Commit>, StoreError> {
        let damaged = |error| StoreError::Corrupt(format!("a frame in the log does not decode: {error}"));
        self.frame().map(|frame| Commit::from_verified(frame, lineage).map_err(damaged)).transpose()
    }

    /// The whole record, decoded.
    pub fn decode(&self, lineage: Lineage) -> Result<Record, StoreError> {
        let damaged = |what: &str| StoreError::Corrupt(format!("a record of the log does not decode: {what}"));
        let Tail(local, effects) =
            codec::decode(&self.bytes[self.frame_len..], RECORD_BYTES_MAX).map_err(|error| damaged(&error.to_string()))?;
        let local = match local {
            None => None,
            Some((hlc, sections)) => {
                Some(LocalBatch { hlc, entries: local_entries(&sections).ok_or_else(|| damaged("local entries"))? })
            }
        };
        Ok(Record { commit: self.commit(lineage)?, local, effects })
    }
}

type LocalEntries = Vec<(anabranch_protocol::id::Collection, anabranch_protocol::commit::Entry)>;

fn local_entries(sections: &[ByteBuf]) -> Option<LocalEntries> {
    let mut entries = Vec::new();
    for bytes in sections {
        let section = Section::decode(bytes).ok()?;
        entries.extend(section.entries.into_iter().map(|entry| (section.collection.clone(), entry)));
    }
    Some(entries)
}
