//! Incremental fingerprints of collections: they find faults, not lies.
//!
//! A fingerprint is the sum of a keyed hash over each live row, so a put or delete changes it by a subtraction and an addition, in
//! any order. The key is derived from dataset and collection. Bellare and Micciancio, *A New Paradigm for Collision-Free
//! Hashing* (1997) describe such sums; 128 bits of one are no proof against an attacker and are not used as one.

use serde::{Deserialize, Serialize};

use crate::conflict::Stamp;
use crate::id::{Collection, DatasetId, Key};

/// Live rows of a collection and the sum of their hashes.
///
/// Both wrap: in a damaged store more rows may be taken away than were there, and what a tally is off by must stay what it is
/// through all further writes, so that an [audit](crate::audit) finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Live documents.
    #[serde(rename = "n")]
    pub live: u64,
    /// Sum of row hashes modulo 2^128, as two halves (high, low).
    #[serde(rename = "f")]
    sum: (u64, u64),
}

impl Tally {
    /// Counts a live row in.
    pub fn add(&mut self, row_hash: u128) {
        self.live = self.live.wrapping_add(1);
        self.set(self.value().wrapping_add(row_hash));
    }

    /// Counts a live row out.
    pub fn remove(&mut self, row_hash: u128) {
        self.live = self.live.wrapping_sub(1);
        self.set(self.value().wrapping_sub(row_hash));
    }

    /// The sum.
    #[must_use]
    pub fn value(&self) -> u128 {
        (u128::from(self.sum.0) << 64) | u128::from(self.sum.1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of 128 bits")]
    fn set(&mut self, sum: u128) {
        self.sum = ((sum >> 64) as u64, sum as u64);
    }
}

/// Hashes rows of one collection.
#[derive(Debug, Clone)]
pub struct RowHasher {
    key: [u8; 32],
}

impl RowHasher {
    /// The hasher of a collection of a dataset.
    #[must_use]
    pub fn new(dataset: &DatasetId, collection: &Collection) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 row fingerprint");
        hasher.update(&(dataset.as_str().len() as u64).to_le_bytes());
        hasher.update(dataset.as_str().as_bytes());
        hasher.update(collection.as_str().as_bytes());
        Self { key: *hasher.finalize().as_bytes() }
    }

    /// The hash of a live row.
    #[must_use]
    pub fn hash(&self, key: &Key, stamp: &Stamp, content: &[u8; 16]) -> u128 {
        let mut row = [0; 76];
        row[..8].copy_from_slice(&stamp.hlc.0.to_le_bytes());
        row[8..40].copy_from_slice(&stamp.writer.peer.0);
        row[40..56].copy_from_slice(&stamp.writer.epoch.0);
        row[56..60].copy_from_slice(&stamp.index.to_le_bytes());
        row[60..].copy_from_slice(content);
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&row);
        hasher.update(key.as_str().as_bytes());
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        u128::from_le_bytes(hash)
    }
}

/// The fingerprint of a dataset, from what its registered collections and its vector say; hex of 16 bytes.
#[must_use]
pub fn dataset_fingerprint<'a>(
    parts: impl Iterator<Item = (&'a Collection, &'a Tally)>,
    heads: Option<&crate::vector::VersionVector>,
) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 dataset fingerprint");
    for (collection, tally) in parts.filter(|(_, tally)| tally.live > 0) {
        hasher.update(&(collection.as_str().len() as u64).to_le_bytes());
        hasher.update(collection.as_str().as_bytes());
        hasher.update(&tally.live.to_le_bytes());
        hasher.update(&tally.value().to_le_bytes());
    }
    if let Some(heads) = heads {
        hasher.update(&heads.digest().0);
    }
    let mut fingerprint = [0; 16];
    hasher.finalize_xof().fill(&mut fingerprint);
    data_encoding::HEXLOWER.encode(&fingerprint)
}
