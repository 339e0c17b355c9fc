//! What a drop leaves, counted before it is taken in.
//!
//! A tally is exact in every turn. A drop that is newer than all that is here leaves nothing; one that is older than something leaves
//! rows that have to be looked at, maybe all of a large collection. That is done in slices, between other turns, while the commits
//! wait: rows that are written meanwhile are counted where they were looked at already. All of it is in memory, for what a crash
//! takes with it was not taken in and comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anabranch_protocol::commit::Commit;
use anabranch_protocol::conflict::{Row, Stamp};
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::floor::Floor;
use anabranch_protocol::id::{Collection, Key, KeyHash, WriterId};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::replica::{Line, RowWrite, Rows};

use super::Ledger;
use crate::dataset::layout;
use crate::dataset::view::View;
use crate::store::{Store, StoreError};

/// Rows looked at in one turn.
pub(super) const LOOKED_AT_MAX: usize = 4_096;

/// Collections whose rows are counted or were.
#[derive(Debug, Default)]
pub(super) struct Weighings(BTreeMap<Collection, Weighing>);

/// The live rows of a collection, counted by the floors that leave them.
#[derive(Debug)]
struct Weighing {
    hasher: RowHasher,
    /// In ascending order.
    floors: Vec<Floor>,
    /// Rows above as many of the floors as the place in this list says.
    tallies: Vec<Tally>,
    /// The first key that was not looked at.
    from: Vec<u8>,
    done: bool,
}

impl Weighing {
    fn new(hasher: RowHasher, collection: &Collection, floors: BTreeSet<Floor>) -> Self {
        let tallies = vec![Tally::default(); floors.len() + 1];
        Self { hasher, floors: floors.into_iter().collect(), tallies, from: layout::row_prefix(collection), done: false }
    }

    fn above(&self, floor: &Floor) -> Option<Tally> {
        let at = self.floors.binary_search(floor).ok().filter(|_| self.done)?;
        let mut above = Tally::default();
        self.tallies[at + 1..].iter().for_each(|tally| above.add_all(tally));
        Some(above)
    }

    fn tally_of(&mut self, stamp: &Stamp) -> &mut Tally {
        let below = self.floors.partition_point(|floor| !floor.hides(stamp));
        &mut self.tallies[below]
    }

    /// Looks at more rows; how many it may still look at.
    fn go_on(&mut self, store: &dyn Store, collection: &Collection, mut left: usize) -> Result<usize, StoreError> {
        let (base, from) = (layout::row_prefix(collection), std::mem::take(&mut self.from));
        let mut outcome = Ok(true);
        store.scan(&from, &layout::after_prefix(&base), &mut |at, head| {
            if left == 0 {
                self.from = at.to_vec();
                outcome = Ok(false);
                return ControlFlow::Break(());
            }
            left -= 1;
            match live_row(&self.hasher, &at[base.len()..], head) {
                Ok(Some((stamp, hash))) => self.tally_of(&stamp).add(hash),
                Ok(None) => {}
                Err(error) => {
                    outcome = Err(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        self.done = outcome?;
        Ok(left)
    }
}

/// Stamp and hash of a row, if it is live, by what its key ends in and by its head.
fn live_row(hasher: &RowHasher, key: &[u8], head: &[u8]) -> Result<Option<(Stamp, u128)>, StoreError> {
    let damaged = || StoreError::Corrupt("a row's head or key fails its checksum".to_owned());
    let key = std::str::from_utf8(key).ok().and_then(|key| Key::new(key).ok()).ok_or_else(damaged)?;
    let (row, _) = layout::decode_row_head(head).ok_or_else(damaged)?;
    Ok(row.value.is_some().then(|| (row.stamp, hasher.hash(&key, &row.stamp, &row.content))))
}

/// Counts all that a floor leaves, at once.
pub(in crate::dataset) fn count_above(
    store: &dyn Store,
    hasher: RowHasher,
    collection: &Collection,
    floor: &Floor,
) -> Result<Tally, StoreError> {
    let mut weighing = Weighing::new(hasher, collection, BTreeSet::from([*floor]));
    weighing.go_on(store, collection, usize::MAX)?;
    Ok(weighing.above(floor).unwrap_or_default())
}

impl Ledger {
    /// Counts what drops in received commits leave, for one turn; whether all is counted, so that the commits can be taken in. Whoever
    /// does not wait for that has it counted at once.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed.
    pub fn weigh(&mut self, commits: &[Commit]) -> Result<bool, StoreError> {
        let mut left = LOOKED_AT_MAX;
        for (collection, mut floors) in self.to_be_weighed(commits) {
            let known = self.weighings.0.get(&collection);
            if known.is_none_or(|known| floors.iter().any(|floor| known.floors.binary_search(floor).is_err())) {
                // With those that others wait for, lest they undo each other's work for ever.
                floors.extend(known.iter().flat_map(|known| &known.floors));
                let hasher = RowHasher::new(&self.replica.settings().dataset, &collection);
                self.weighings.0.insert(collection.clone(), Weighing::new(hasher, &collection, floors));
            }
            let Some(weighing) = self.weighings.0.get_mut(&collection).filter(|weighing| !weighing.done) else { continue };
            left = weighing.go_on(&*self.store, &collection, left)?;
            if !weighing.done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Floors that would be raised by drops which are older than something here.
    fn to_be_weighed(&self, commits: &[Commit]) -> BTreeMap<Collection, BTreeSet<Floor>> {
        let (mut wanted, mut clock) = (BTreeMap::<_, BTreeSet<_>>::new(), self.replica.clock());
        for commit in commits {
            let hlc = commit.header().hlc;
            for (collection, floor) in floors_of(commit).filter(|_| hlc <= clock) {
                let known = self.replica.tallies().get(collection).and_then(|tally| tally.floor);
                if known < Some(floor) && self.replica.registration().contains(collection) {
                    wanted.entry(collection.clone()).or_default().insert(floor);
                }
            }
            clock = clock.receive(hlc);
        }
        wanted
    }

    /// Forgets what was counted for commits that were decided about.
    pub(super) fn weighed(&mut self, collections: &BTreeSet<Collection>) {
        self.weighings.0.retain(|collection, _| !collections.contains(collection));
    }

    /// Counts a row that is about to be written where that was looked at already.
    pub(super) fn weigh_again(&mut self, at: &[u8], write: &RowWrite) -> Result<(), StoreError> {
        let weighing = self.weighings.0.get_mut(&write.collection);
        let Some(weighing) = weighing.filter(|weighing| weighing.done || at < weighing.from.as_slice()) else { return Ok(()) };
        if let Some(head) = self.store.get(at)?
            && let Some((stamp, hash)) = live_row(&weighing.hasher, write.key.as_str().as_bytes(), &head)?
        {
            weighing.tally_of(&stamp).remove(hash);
        }
        let Row { stamp, value, content } = &write.row;
        if value.is_some() {
            let hash = weighing.hasher.hash(&write.key, stamp, content);
            weighing.tally_of(stamp).add(hash);
        }
        Ok(())
    }

    /// The rows that are durable now, and what was counted of them.
    pub(super) fn counted_rows(&self) -> WeighedRows<'_> {
        WeighedRows { view: &self.view, weighings: &self.weighings }
    }
}

/// Each drop in a commit.
fn floors_of(commit: &Commit) -> impl Iterator<Item = (&Collection, Floor)> {
    let (hlc, writer) = (commit.header().hlc, commit.writer());
    commit.sections().flat_map(move |section| {
        let floor = move |index, change: &anabranch_protocol::commit::Change| change.floor(Stamp { hlc, writer, index });
        section.entries.iter().filter_map(move |entry| Some((&section.collection, floor(entry.index, &entry.change)?)))
    })
}

/// Collections that a commit drops or truncates.
pub(super) fn dropped_in<'a>(commits: impl IntoIterator<Item = &'a Commit>) -> BTreeSet<Collection> {
    commits.into_iter().flat_map(floors_of).map(|(collection, _)| collection.clone()).collect()
}

/// See [`Ledger::counted_rows`].
pub(super) struct WeighedRows<'a> {
    view: &'a View,
    weighings: &'a Weighings,
}

impl Rows for WeighedRows<'_> {
    type Error = StoreError;
    fn row(&self, collection: &Collection, key: &Key) -> Result<Option<Row>, StoreError> {
        self.view.row(collection, key)
    }
    fn above(&self, collection: &Collection, floor: &Floor) -> Result<Tally, StoreError> {
        let counted = self.weighings.0.get(collection).and_then(|weighing| weighing.above(floor));
        counted.map_or_else(|| self.view.above(collection, floor), Ok)
    }
    fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, StoreError> {
        Rows::commit(self.view, line, seq)
    }
    fn remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, StoreError> {
        Rows::remembered(self.view, key)
    }
}
