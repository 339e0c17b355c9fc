//! The entries of one commit that belong to one collection: what selective sync leaves out as a whole.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use super::FrameError;
use crate::codec::{self, DecodeError};
use crate::conflict::Stamp;
use crate::floor::Floor;
use crate::id::{Collection, Hash, Key, Salt};
use crate::limits::{COMMIT_ENTRIES_MAX, FRAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::value;

/// One change to one row or record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the commit; unique in a section, ascending.
    pub index: u32,
    /// What changes.
    pub change: Change,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a document to a value (deterministic CBOR). Op 1.
    Put { key: Key, value: Vec<u8> },
    /// Deletes a document. Op 2.
    Delete { key: Key },
    /// Adds an immutable record; its key follows from its stamp. Op 3, in `append` datasets only, and the only one there.
    Append { value: Vec<u8> },
    /// Removes all that was written to the collection before, and the collection from listings until it is written to. Op 4, at most
    /// one of it and [`Truncate`](Self::Truncate) in a section; in `documents` datasets.
    Drop,
    /// As [`Drop`](Self::Drop), but the collection stays listed. Op 5.
    Truncate,
}

const OP_PUT: u64 = 1;
const OP_DELETE: u64 = 2;
const OP_APPEND: u64 = 3;
const OP_DROP: u64 = 4;
const OP_TRUNCATE: u64 = 5;

impl Change {
    /// The document's key; none for an append and for what concerns the whole collection.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => Some(key),
            Self::Append { .. } | Self::Drop | Self::Truncate => None,
        }
    }

    /// The floor that this change is at its stamp, if it removes what was written before.
    #[must_use]
    pub fn floor(&self, stamp: Stamp) -> Option<Floor> {
        match self {
            Self::Drop => Some(Floor { stamp, dropped: true }),
            Self::Truncate => Some(Floor { stamp, dropped: false }),
            Self::Put { .. } | Self::Delete { .. } | Self::Append { .. } => None,
        }
    }

    /// Whether it removes what was written before.
    #[must_use]
    pub fn is_floor(&self) -> bool {
        matches!(self, Self::Drop | Self::Truncate)
    }

    /// Bytes that this change adds to a frame, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let value = match self {
            Self::Put { value, .. } | Self::Append { value } => value.len(),
            Self::Delete { .. } | Self::Drop | Self::Truncate => 0,
        };
        16 + value + self.key().map_or(0, |key| key.as_str().len())
    }
}

/// A decoded section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Random, so that the digest in the header says nothing about the entries.
    pub salt: Salt,
    /// The collection.
    pub collection: Collection,
    /// Its entries, in ascending order of their index.
    pub entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct RawSection(
    Salt,
    Collection,
    #[serde(deserialize_with = "codec::at_most::<RawEntry, _, _, COMMIT_ENTRIES_MAX>")] Vec<RawEntry>,
);

type RawEntry = (u64, u64, String, ByteBuf);

impl Section {
    /// The bytes that are stored, digested and sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw: Vec<_> = self.entries.iter().map(raw_entry).collect();
        let weight: usize = self.entries.iter().map(|entry| entry.change.weight()).sum();
        codec::encode_with_capacity(&(self.salt, &self.collection, raw), weight + 256)
    }

    /// Decodes and checks a section.
    ///
    /// # Errors
    /// [`FrameError`] with the first thing that is wrong; an unknown op is [`FrameError::NeedsUpgrade`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let RawSection(salt, collection, raw) = codec::decode(bytes, FRAME_BYTES_MAX)?;
        let in_order = raw.is_sorted_by(|a, b| a.0 < b.0) && raw.last().is_none_or(|e| e.0 < COMMIT_ENTRIES_MAX as u64);
        if !in_order {
            return Err(FrameError::Inconsistent("entries are in ascending order of their index"));
        }
        let entries = raw.into_iter().map(checked_entry).collect::<Result<Vec<_>, _>>()?;
        let section = Self { salt, collection, entries };
        // More would say nothing more, and each may cost a look at all rows.
        if section.entries.iter().filter(|entry| entry.change.is_floor()).count() > 1 {
            return Err(FrameError::Inconsistent("a section drops its collection at most once"));
        }
        Ok(section)
    }
}

/// The digest of a section's bytes.
pub(super) fn digest(bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 section");
    hasher.update(bytes);
    Hash(*hasher.finalize().as_bytes())
}

fn raw_entry(entry: &Entry) -> (u64, u64, &str, &Bytes) {
    let index = u64::from(entry.index);
    match &entry.change {
        Change::Put { key, value } => (index, OP_PUT, key.as_str(), Bytes::new(value)),
        Change::Delete { key } => (index, OP_DELETE, key.as_str(), Bytes::new(&[])),
        Change::Append { value } => (index, OP_APPEND, "", Bytes::new(value)),
        Change::Drop => (index, OP_DROP, "", Bytes::new(&[])),
        Change::Truncate => (index, OP_TRUNCATE, "", Bytes::new(&[])),
    }
}

fn checked_entry((index, op, key, bytes): RawEntry) -> Result<Entry, FrameError> {
    let index = u32::try_from(index).map_err(|_| FrameError::Inconsistent("index out of range"))?;
    let change = match op {
        OP_PUT => Change::Put { key: checked_key(&key)?, value: checked_value(bytes)? },
        OP_DELETE if bytes.is_empty() => Change::Delete { key: checked_key(&key)? },
        OP_DELETE => return Err(FrameError::Inconsistent("a delete has no value")),
        OP_APPEND if key.is_empty() => Change::Append { value: checked_value(bytes)? },
        OP_APPEND => return Err(FrameError::Inconsistent("a record has no key of its own")),
        OP_DROP | OP_TRUNCATE if !key.is_empty() || !bytes.is_empty() => {
            return Err(FrameError::Inconsistent("a drop has neither key nor value"));
        }
        OP_DROP => Change::Drop,
        OP_TRUNCATE => Change::Truncate,
        number => return Err(FrameError::NeedsUpgrade { what: "operation", number }),
    };
    Ok(Entry { index, change })
}

fn checked_key(key: &str) -> Result<Key, FrameError> {
    Key::new(key).map_err(|_| FrameError::Inconsistent("a key outside the rules"))
}

fn checked_value(bytes: ByteBuf) -> Result<Vec<u8>, FrameError> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), limit: VALUE_BYTES_MAX }.into());
    }
    value::validate(&bytes).map_err(|_| FrameError::Inconsistent("a value that is not deterministic CBOR"))?;
    Ok(bytes.into_vec())
}
