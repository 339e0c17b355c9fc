//! Rows that a floor hides are removed in the background, some in each turn. Nobody sees them meanwhile, and no tally counts them, so
//! it makes no difference to anybody how far that got. What a crash leaves is removed after the next start.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anabranch_protocol::codec;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::fingerprint::Tally;
use anabranch_protocol::floor::Floor;
use anabranch_protocol::id::{Collection, Key};

use super::weigh::dropped_in;
use super::{Committed, Ledger};
use crate::dataset::layout;
use crate::store::{Store, StoreError};

/// Rows looked at in one turn.
const LOOKED_AT_MAX: usize = 4_096;
/// Rows removed in one turn.
pub(super) const REMOVED_MAX: usize = 512;

/// How far the rows below each floor are removed.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// Below these nothing is left.
    swept: BTreeMap<Collection, Floor>,
    /// What is left to do: the floor, and from which key on.
    under_way: BTreeMap<Collection, (Floor, Vec<u8>)>,
}

impl Sweeps {
    /// What a store says.
    pub fn load(store: &dyn Store, tallies: &BTreeMap<Collection, Tally>) -> Result<Self, StoreError> {
        let mut sweeps = Self::default();
        store.scan(b"d", b"e", &mut |key, value| {
            // One that is damaged costs a sweep.
            let collection = std::str::from_utf8(&key[1..]).ok().and_then(|name| Collection::new(name).ok());
            let floor = layout::unsealed(value).and_then(|bytes| codec::decode(bytes, layout::TALLY_BYTES_MAX).ok());
            sweeps.swept.extend(collection.zip(floor));
            ControlFlow::Continue(())
        })?;
        for (collection, tally) in tallies {
            tally.floor.into_iter().for_each(|floor| sweeps.raise(collection, floor));
        }
        Ok(sweeps)
    }

    /// A collection has a floor.
    pub fn raise(&mut self, collection: &Collection, floor: Floor) {
        let below = |known: Option<&Floor>| known < Some(&floor);
        if below(self.swept.get(collection)) && below(self.under_way.get(collection).map(|(floor, _)| floor)) {
            self.under_way.insert(collection.clone(), (floor, layout::row_prefix(collection)));
        }
    }

    /// A commit is taken in again, and before it may be others whose rows it removes.
    pub fn again(&mut self, commit: &Commit) {
        for collection in dropped_in([commit]) {
            self.swept.remove(&collection);
        }
    }

    /// Whether something is left to do.
    pub fn any(&self) -> bool {
        !self.under_way.is_empty()
    }
}

/// A row to be removed, and whether it has further parts.
type Hidden = (Key, bool);

impl Ledger {
    /// Removes some rows below a floor; whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`]: the ledger must be opened again.
    pub fn sweep(&mut self) -> Result<(Committed, bool), StoreError> {
        if let Some((collection, (floor, from))) = self.sweeps.under_way.pop_first() {
            let (hidden, next) = self.hidden_rows(&collection, &floor, &from)?;
            for (key, parted) in hidden {
                // The head last: without it nothing would lead to what is left.
                if parted {
                    self.drop_parts(&collection, &key, 0)?;
                }
                self.store.delete(&layout::row_key(&collection, &key))?;
            }
            match next {
                Some(next) => drop(self.sweeps.under_way.insert(collection, (floor, next))),
                None => self.swept(collection, floor)?,
            }
        }
        Ok((self.nothing_committed(), self.sweeps.any()))
    }

    fn hidden_rows(
        &self,
        collection: &Collection,
        floor: &Floor,
        from: &[u8],
    ) -> Result<(Vec<Hidden>, Option<Vec<u8>>), StoreError> {
        let base = layout::row_prefix(collection);
        let (mut hidden, mut next, mut looked) = (Vec::new(), None, 0);
        self.store.scan(from, &layout::after_prefix(&base), &mut |at, head| {
            if looked == LOOKED_AT_MAX || hidden.len() == REMOVED_MAX {
                next = Some(at.to_vec());
                return ControlFlow::Break(());
            }
            looked += 1;
            // Damage is the business of whoever reads it.
            let key = std::str::from_utf8(&at[base.len()..]).ok().and_then(|key| Key::new(key).ok());
            let found = key.zip(layout::decode_row_head(head)).filter(|(_, (row, _))| floor.hides(&row.stamp));
            hidden.extend(found.map(|(key, (_, missing))| (key, missing > 0)));
            ControlFlow::Continue(())
        })?;
        Ok((hidden, next))
    }

    fn swept(&mut self, collection: Collection, floor: Floor) -> Result<(), StoreError> {
        // Of what passed no barrier a crash may keep any part: this must not outlive what it says is gone.
        self.store.barrier()?;
        self.store.put(&layout::swept_key(&collection), &layout::sealed(codec::encode(&floor)))?;
        self.sweeps.swept.insert(collection, floor);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
