//! A walk over log and index of an `append` dataset, a slice at a time between turns: every record is found in its index, and the index
//! names nothing else.
//!
//! First the log is read in order of arrival. Each record is looked up under its keys, and the keys that lead to it are summed up. Then
//! the index is read in key order, and what it leads to is summed up too: in the end both sums are the same. What turns do to index
//! rows meanwhile moves the sum of the log where it was read already, and that of the index up to its cursor. So they differ by exactly
//! what the index was off by when the walk came by, and by the same if such a row is written over. What goes wrong behind a cursor is
//! left to the next walk.
//!
//! Records that were local lose their index rows when they are issued, by a later record that says so: those without a row and those
//! that were issued are summed up too. Nothing but sums and cursors is kept, however long the log is.

use crate::fingerprint::Tally;
use crate::id::Collection;

/// What the index says of one record of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexed {
    /// Keys that lead to it; not those that lead to a later copy of its commit.
    pub keys: Vec<Vec<u8>>,
    /// Collections in which what it kept local is in no index.
    pub unindexed: Vec<Collection>,
    /// Earlier records, and the collections in which this one says to everybody what they kept local.
    pub issues: Vec<(u64, Collection)>,
}

/// What the walk needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// What the index says of the record with this arrival, or the end of the log.
    Record(u64),
    /// The first row behind this key, or behind none, or the end of the index.
    Row(Option<&'a [u8]>),
}

/// What does not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Differs {
    /// Something that was local and never issued has no index row.
    #[error("local records are not in their index")]
    Local,
    /// Rows of the index are missing, or lead to what the log does not have there.
    #[error("the index of records is not what the log says")]
    Index,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct PlaceWalk {
    /// The last record that was read.
    logged: u64,
    /// Its end was seen: from then on turns say what the log holds.
    log_ended: bool,
    expected: Tally,
    unindexed: Tally,
    issued: Tally,
    /// The last index row that was read.
    cursor: Option<Vec<u8>>,
    found: Tally,
    read: u64,
}

impl PlaceWalk {
    /// Log records and index rows read so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }

    /// What to read next.
    #[must_use]
    pub fn next(&self) -> Next<'_> {
        if self.log_ended { Next::Row(self.cursor.as_deref()) } else { Next::Record(self.logged + 1) }
    }

    /// The next record was read.
    pub fn read_record(&mut self, indexed: &Indexed) {
        self.logged += 1;
        self.read += 1;
        indexed.keys.iter().for_each(|key| self.expected.add(hash(key, self.logged)));
        for collection in &indexed.unindexed {
            self.unindexed.add(hash(collection.as_str().as_bytes(), self.logged));
        }
        for (local, collection) in &indexed.issues {
            self.issued.add(hash(collection.as_str().as_bytes(), *local));
        }
    }

    /// There is no further record.
    ///
    /// # Errors
    /// [`Differs::Local`]. The walk is over.
    pub fn log_ends(&mut self) -> Result<(), Differs> {
        self.log_ended = true;
        if self.unindexed.counts_as(&self.issued) { Ok(()) } else { Err(Differs::Local) }
    }

    /// The next index row was read, which leads to these records.
    pub fn read_row(&mut self, key: &[u8], places: &[u64]) {
        self.read += 1;
        places.iter().for_each(|place| self.found.add(hash(key, *place)));
        self.cursor = Some(key.to_vec());
    }

    /// There is no further row. Call it in the slice that saw the end.
    ///
    /// # Errors
    /// [`Differs::Index`]. The walk is over in any case.
    pub fn index_ends(&self) -> Result<(), Differs> {
        if self.found.counts_as(&self.expected) { Ok(()) } else { Err(Differs::Index) }
    }

    /// A turn puts an index row, or removes it: it leads to `new` now, and not to `old`.
    pub fn replaced(&mut self, key: &[u8], old: &[u64], new: &[u64]) {
        let behind = self.cursor.as_ref().is_some_and(|cursor| key <= &cursor[..]);
        let logged = if self.log_ended { u64::MAX } else { self.logged };
        for place in old {
            if *place <= logged {
                self.expected.remove(hash(key, *place));
            }
            if behind {
                self.found.remove(hash(key, *place));
            }
        }
        for place in new {
            if *place <= logged {
                self.expected.add(hash(key, *place));
            }
            if behind {
                self.found.add(hash(key, *place));
            }
        }
    }

    /// A turn issues what the record with this arrival kept local in a collection, whose index row it [removes](Self::replaced).
    pub fn issued(&mut self, local: u64, collection: &Collection) {
        // One that was not read yet will be without a row when it is, and the record that issues it comes behind all of them.
        if !self.log_ended && local <= self.logged {
            self.unindexed.add(hash(collection.as_str().as_bytes(), local));
        }
    }
}

/// Sums are kept in memory only: they find faults, not lies.
fn hash(key: &[u8], place: u64) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.to_le_bytes());
    hasher.update(key);
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    u128::from_le_bytes(hash)
}
