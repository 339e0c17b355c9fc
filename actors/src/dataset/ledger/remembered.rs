//! What writes under idempotency keys came to. A row is put with its record's other rows and is redone with them after a crash,
//! so a key is remembered exactly if its write happened.
//!
//! How many there are is bounded: the one that would be forgotten first makes room. What is over goes in slices in the background.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::KeyHash;
use anabranch_protocol::replica::Record;

use super::Ledger;
use crate::dataset::layout;
use crate::store::{Store, StoreError};

/// Keys that one dataset remembers. In memory they take some 4 MB.
const KEYS_MAX: usize = 100_000;
/// Keys forgotten in one slice: in the time for which keys last, slices of a minute forget many times what there may be.
const FORGOTTEN_MAX: usize = 1_024;

/// Which keys there are, and when each is forgotten: what the rows say, sorted by time.
#[derive(Debug)]
pub(super) struct Remembering {
    by_time: BTreeSet<(WallClock, KeyHash)>,
    pub(super) max: usize,
}

impl Remembering {
    /// What a store says.
    pub fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let (mut by_time, mut whole) = (BTreeSet::new(), true);
        store.scan(b"w", b"x", &mut |key, value| {
            match layout::parse_remembered(key, value) {
                Some((key, remembered)) => drop(by_time.insert((remembered.until, key))),
                None => whole = false,
            }
            ControlFlow::Continue(())
        })?;
        let damaged = || StoreError::Corrupt("what is remembered of an idempotency key fails its checksum".to_owned());
        if whole { Ok(Self { by_time, max: KEYS_MAX }) } else { Err(damaged()) }
    }
}

impl Ledger {
    /// Puts what a record's writes were answered. The record is durable.
    pub(super) fn remember_answers(&mut self, record: &Record) -> Result<(), StoreError> {
        for (key, remembered) in &record.effects.remembered {
            // One that is over, or this very one if the record is taken in again.
            if let Some(before) = self.view.load_remembered(key)? {
                self.remembering.by_time.remove(&(before.until, *key));
            }
            self.store.put(&layout::remembered_key(key), &layout::encode_remembered(remembered))?;
            self.remembering.by_time.insert((remembered.until, *key));
        }
        while self.remembering.by_time.len() > self.remembering.max {
            self.forget_first()?;
        }
        Ok(())
    }

    /// Forgets keys that are over, a slice of them. Rows ride on the next barrier: nobody is answered by one that is over.
    ///
    /// # Errors
    /// [`StoreError`]: the ledger must be opened again.
    pub fn forget_answers(&mut self, now: WallClock) -> Result<(), StoreError> {
        for _ in 0..FORGOTTEN_MAX {
            if self.remembering.by_time.first().is_none_or(|(until, _)| *until > now) {
                break;
            }
            self.forget_first()?;
        }
        Ok(())
    }

    fn forget_first(&mut self) -> Result<(), StoreError> {
        match self.remembering.by_time.pop_first() {
            Some((_, key)) => self.store.delete(&layout::remembered_key(&key)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
