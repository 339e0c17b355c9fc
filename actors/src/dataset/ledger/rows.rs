//! The rows of an open store, walked over in the background: together they are what their tallies say, or the store is damaged.
//!
//! An engine may come up with a page as it once was, whose rows all pass their checksums. A store that is read as a whole when it is
//! opened does not get further than that; this finds it in the others, and what goes wrong later in all of them.

use std::ops::ControlFlow;

use anabranch_protocol::audit::{RowWalk, Step, WalkedRows};
use anabranch_protocol::codec;
use anabranch_protocol::conflict::Row;
use anabranch_protocol::fingerprint::Tally;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, Key};
use anabranch_protocol::replica::RowWrite;
use anabranch_protocol::wire::Kind;

use super::Ledger;
use crate::dataset::layout;
use crate::store::StoreError;

/// Rows that one slice reads; a collection counts for one more.
pub(super) const SLICE_ROWS_MAX: usize = 1_024;
/// Payload that one slice reads, bytes; a larger row is read alone.
const SLICE_BYTES_MAX: usize = 1 << 20;

/// What the background audit of an open store came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowAudit {
    /// Rows that the walk in progress has read.
    pub rows: u64,
    /// Walks that came to their end and found no damage since the store was opened.
    pub walks: u64,
    /// When the last of them did.
    pub finished: Option<WallClock>,
}

/// The walk in progress, and those before it.
#[derive(Debug, Default)]
pub(super) struct Rows {
    walk: Option<RowWalk>,
    walks: u64,
    finished: Option<WallClock>,
    /// Everything was read and checked when the store was opened.
    pub read_at_open: bool,
}

impl Ledger {
    /// Reads the next slice of rows, from the first again after the last; whether the walk over all of them came to its end.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a row or tally is damaged; it was reported.
    pub fn audit_on(&mut self, now: WallClock) -> Result<bool, StoreError> {
        self.audit_slice(now, SLICE_ROWS_MAX)
    }

    pub(super) fn audit_slice(&mut self, now: WallClock, rows_max: usize) -> Result<bool, StoreError> {
        let begun = || RowWalk::new(self.replica.settings().dataset.clone());
        let mut walk = self.rows.walk.take().unwrap_or_else(begun);
        let mut slice = Slice { ledger: self, rows_left: rows_max, bytes_left: SLICE_BYTES_MAX };
        let differ = |collection| StoreError::Corrupt(format!("the rows of {collection} are not what their tally says"));
        let step = walk.go_on(&mut slice).and_then(|step| match step {
            Step::Differs(collection) => Err(differ(collection)),
            Step::More | Step::Done => Ok(step),
        });
        if self.view.noting(step)? == Step::More {
            self.rows.walk = Some(walk);
            return Ok(false);
        }
        self.rows.walks += 1;
        self.rows.finished = Some(now);
        tracing::info!(dataset = %self.replica.settings().dataset, rows = walk.rows(), walks = self.rows.walks, "all rows were read in the background: none is damaged");
        Ok(true)
    }

    /// How the background audit stands.
    #[must_use]
    pub fn row_audit(&self) -> RowAudit {
        let Rows { walk, walks, finished, .. } = &self.rows;
        RowAudit { rows: walk.as_ref().map_or(0, RowWalk::rows), walks: *walks, finished: *finished }
    }

    /// Everything the store holds was read and checked.
    pub(in crate::dataset) fn was_read_as_a_whole(&mut self) {
        self.rows.read_at_open = true;
    }

    /// Whether that was so when the store was opened.
    pub(in crate::dataset) fn is_read_as_a_whole(&self) -> bool {
        self.rows.read_at_open
    }

    /// Tells the walk of a row that is about to be written. Every writer of rows comes by here.
    pub(super) fn walk_is_told(&mut self, at: &[u8], write: &RowWrite) -> Result<(), StoreError> {
        let Some(walk) = self.rows.walk.as_mut().filter(|walk| walk.is_past(&write.collection, &write.key)) else {
            return Ok(());
        };
        // Its head says all that is added up.
        let damaged = || StoreError::Corrupt(format!("row {:?} of {:?} fails its checksum", write.key, write.collection));
        let head = self.store.get(at)?;
        let old = head.map(|head| layout::decode_row_head(&head).ok_or_else(damaged)).transpose();
        let old = self.view.noting(old)?;
        walk.replaced(&write.collection, &write.key, old.as_ref().map(|(row, _)| row), &write.row);
        Ok(())
    }
}

/// What one slice sees, and the room that it has.
struct Slice<'a> {
    ledger: &'a Ledger,
    rows_left: usize,
    bytes_left: usize,
}

impl Slice<'_> {
    /// An `append` dataset has rows of the reserved collection only.
    fn has_rows(&self, collection: &Collection) -> bool {
        self.ledger.replica.settings().kind == Kind::Documents || collection.is_reserved()
    }

    /// The collection of the first row that lies behind all of one collection.
    fn with_rows_after(&self, before: Option<&Collection>) -> Result<Option<Collection>, StoreError> {
        let start = before.map_or_else(|| b"r".to_vec(), |before| layout::after_prefix(&layout::row_prefix(before)));
        let mut found = Ok(None);
        self.ledger.store.scan(&start, b"s", &mut |key, _| {
            let damaged = || StoreError::Corrupt("a row's key is no key".to_owned());
            found = layout::parse_row_key(key).map(|(collection, _)| Some(collection)).ok_or_else(damaged);
            ControlFlow::Break(())
        })?;
        found
    }
}

impl WalkedRows for Slice<'_> {
    type Error = StoreError;

    fn collection_after(&self, before: Option<&Collection>) -> Result<Option<Collection>, StoreError> {
        let after = |name: &&Collection| before.is_none_or(|before| *name > before) && self.has_rows(name);
        let with_tally = self.ledger.replica.tallies().keys().find(after).cloned();
        Ok(self.with_rows_after(before)?.into_iter().chain(with_tally).min())
    }

    fn rows_after(&mut self, collection: &Collection, after: Option<&Key>) -> Result<(Vec<(Key, Row)>, bool), StoreError> {
        let Some(left) = self.rows_left.checked_sub(1).filter(|_| self.bytes_left > 0) else { return Ok((Vec::new(), false)) };
        let base = layout::row_prefix(collection);
        let start = after.map_or_else(|| base.clone(), |after| [&layout::row_key(collection, after)[..], &[0]].concat());
        let (mut rows, mut bytes, mut failed) = (Vec::new(), 0, None);
        let (rows_max, bytes_max) = (left, self.bytes_left);
        self.ledger.store.scan(&start, &layout::after_prefix(&base), &mut |key, head| {
            if rows.len() >= rows_max || bytes >= bytes_max {
                failed = Some(None);
                return ControlFlow::Break(());
            }
            match self.ledger.view.checked_row(collection, &key[base.len()..], head) {
                Ok((key, row)) => {
                    bytes += row.value.as_ref().map_or(0, Vec::len) + key.as_str().len();
                    rows.push((key, row));
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(Some(error));
                    ControlFlow::Break(())
                }
            }
        })?;
        (self.rows_left, self.bytes_left) = (left - rows.len(), bytes_max.saturating_sub(bytes));
        match failed {
            Some(Some(error)) => Err(error),
            stopped => Ok((rows, stopped.is_none())),
        }
    }

    fn tally(&self, collection: &Collection) -> Result<Tally, StoreError> {
        let tally = self.ledger.replica.tallies().get(collection).copied();
        let stored = self.ledger.store.get(&layout::tally_key(collection))?;
        let stored = stored.map(|stored| layout::unsealed(&stored).and_then(|bytes| codec::decode::<Tally>(bytes, 64).ok()));
        if stored != tally.map(Some) {
            return Err(StoreError::Corrupt(format!("the tally of {collection} is not what its last turn left")));
        }
        Ok(tally.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
