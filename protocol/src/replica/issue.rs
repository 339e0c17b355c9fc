//! Issuing: what was written to a collection before it was registered becomes commits like any other.

use super::Replica;
use super::decide::Gathered;
use super::turn::{Rows, Turn, Working, local_writer};
use crate::commit::Change;
use crate::conflict::{Row, Stamp};
use crate::hlc::WallClock;
use crate::id::{Collection, Key, WriterId};

/// The entries of one collection in a log record that kept them local.
#[derive(Debug, Clone)]
pub struct LocalRecord {
    /// The record.
    pub arrival: u64,
    /// Whose entries.
    pub collection: Collection,
    /// Their changes.
    pub changes: Vec<Change>,
}

impl Replica {
    /// Whether a row was written while its collection was not registered, so that nobody else can have it.
    #[must_use]
    pub fn is_local(&self, row: &Row) -> bool {
        row.stamp.writer == local_writer(&self.settings)
    }

    /// Whether this replica may say to others what it wrote.
    #[must_use]
    pub fn may_issue(&self) -> bool {
        self.settings.writers.contains(&self.peer())
    }

    /// Issues local rows of one registered collection as one commit: documents as puts, tombstones as deletes. The caller sees to
    /// it that they fit.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn issue_rows<R: Rows>(
        &self,
        now: WallClock,
        collection: &Collection,
        local: Vec<(Key, Row)>,
        rows: &R,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Turn, R::Error> {
        let mut working = Working::new(self, rows);
        let hlc = self.clock.tick(now);
        let epoch = self.next_epoch(now, entropy);
        let mut gathered = Gathered::default();
        for (key, row) in local {
            let change = match row.value {
                Some(value) => Change::Put { key, value },
                None => Change::Delete { key },
            };
            let index = gathered.push(collection.clone(), change.clone(), true);
            let stamp = Stamp { hlc, writer: WriterId { peer: self.peer(), epoch }, index };
            working.apply(collection, stamp, &change)?;
        }
        self.seal(&mut working, gathered, hlc, epoch, entropy);
        Ok(working.finish())
    }

    /// Issues local records of an `append` dataset, one commit for each. They were counted when they were written.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn issue_records<R: Rows>(
        &self,
        now: WallClock,
        local: Vec<LocalRecord>,
        rows: &R,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Turn, R::Error> {
        let mut working = Working::new(self, rows);
        let epoch = self.next_epoch(now, entropy);
        for LocalRecord { arrival, collection, changes } in local {
            let hlc = working.clock.tick(now);
            let mut gathered = Gathered::default();
            for change in changes {
                gathered.push(collection.clone(), change, true);
            }
            working.touch(&collection);
            self.seal(&mut working, gathered, hlc, epoch, entropy);
            working.issues(arrival);
        }
        Ok(working.finish())
    }
}
