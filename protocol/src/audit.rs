//! A walk over all rows of a dataset that finds what their tallies contradict, a slice at a time, between turns that write rows.
//!
//! A tally moves with each write, by the row that was there and the one that takes its place. The walk keeps the same sum over the
//! rows up to its cursor and moves it with each write there. So at a collection's end sum and tally differ by exactly what the rows
//! were off when the walk came by: by nothing if each of them is what was last written, whatever was written meanwhile, and by the
//! same if a row that was off is written over. What goes wrong behind the cursor is left to the next walk.
//!
//! Tombstones are in no tally: one that is older than it should be, or gone, is not found.

use crate::conflict::Row;
use crate::fingerprint::{RowHasher, Tally};
use crate::id::{Collection, DatasetId, Key};

/// Rows and tallies as they are now.
pub trait WalkedRows {
    /// Why they can't be read.
    type Error;

    /// The first collection after one, in order, that has rows or a tally.
    ///
    /// # Errors
    /// When it can't be looked up.
    fn collection_after(&self, before: Option<&Collection>) -> Result<Option<Collection>, Self::Error>;

    /// Rows of a collection in key order from the first after a key, each once checked, as many as this slice has room for; and
    /// whether these were all.
    ///
    /// # Errors
    /// When one can't be read or is damaged.
    fn rows_after(&mut self, collection: &Collection, after: Option<&Key>) -> Result<(Vec<(Key, Row)>, bool), Self::Error>;

    /// What a collection's rows should add up to.
    ///
    /// # Errors
    /// When it can't be read.
    fn tally(&self, collection: &Collection) -> Result<Tally, Self::Error>;
}

/// How far a slice came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The slice has no more room.
    More,
    /// The rows of a collection are not what its tally says.
    Differs(Collection),
    /// Every collection was walked over.
    Done,
}

/// See the module documentation.
#[derive(Debug)]
pub struct RowWalk {
    dataset: DatasetId,
    /// The collection it is in; none before its first step.
    stretch: Option<Stretch>,
    rows: u64,
}

/// A walk within one collection.
#[derive(Debug)]
struct Stretch {
    collection: Collection,
    hasher: RowHasher,
    /// The last row that was read.
    cursor: Option<Key>,
    sum: Tally,
}

impl Stretch {
    fn new(dataset: &DatasetId, collection: Collection) -> Self {
        Self { hasher: RowHasher::new(dataset, &collection), collection, cursor: None, sum: Tally::default() }
    }

    fn hash(&self, key: &Key, row: &Row) -> Option<u128> {
        row.value.is_some().then(|| self.hasher.hash(key, &row.stamp, &row.content))
    }

    fn read(&mut self, key: Key, row: &Row) {
        self.hash(&key, row).into_iter().for_each(|hash| self.sum.add(hash));
        self.cursor = Some(key);
    }
}

impl RowWalk {
    /// A walk that begins.
    #[must_use]
    pub fn new(dataset: DatasetId) -> Self {
        Self { dataset, stretch: None, rows: 0 }
    }

    /// Rows read so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Goes on where it was, for one slice. Nothing may be written while it lasts.
    ///
    /// # Errors
    /// As [`WalkedRows`]. The walk is over.
    pub fn go_on<R: WalkedRows>(&mut self, rows: &mut R) -> Result<Step, R::Error> {
        loop {
            let mut stretch = match self.stretch.take() {
                Some(stretch) => stretch,
                None => match rows.collection_after(None)? {
                    Some(first) => Stretch::new(&self.dataset, first),
                    None => return Ok(Step::Done),
                },
            };
            let (found, ended) = rows.rows_after(&stretch.collection, stretch.cursor.as_ref())?;
            self.rows += found.len() as u64;
            found.into_iter().for_each(|(key, row)| stretch.read(key, &row));
            if !ended {
                self.stretch = Some(stretch);
                return Ok(Step::More);
            }
            // In the slice that saw its end: a row written past the cursor after that would be in the tally alone.
            if stretch.sum != rows.tally(&stretch.collection)? {
                return Ok(Step::Differs(stretch.collection));
            }
            match rows.collection_after(Some(&stretch.collection))? {
                Some(next) => self.stretch = Some(Stretch::new(&self.dataset, next)),
                None => return Ok(Step::Done),
            }
        }
    }

    /// Whether a row lies at or before the cursor, in the collection that the walk is in: then a write of it is to be [`replaced`].
    ///
    /// [`replaced`]: Self::replaced
    #[must_use]
    pub fn is_past(&self, collection: &Collection, key: &Key) -> bool {
        let stretch = self.stretch.as_ref().filter(|stretch| stretch.collection == *collection);
        stretch.and_then(|stretch| stretch.cursor.as_ref()).is_some_and(|cursor| key <= cursor)
    }

    /// A row takes the place of what the store had under its key. Nothing where the walk [is not past] it.
    ///
    /// [is not past]: Self::is_past
    pub fn replaced(&mut self, collection: &Collection, key: &Key, old: Option<&Row>, new: &Row) {
        if !self.is_past(collection, key) {
            return;
        }
        if let Some(stretch) = &mut self.stretch {
            let (removed, added) = (old.and_then(|old| stretch.hash(key, old)), stretch.hash(key, new));
            removed.into_iter().for_each(|hash| stretch.sum.remove(hash));
            added.into_iter().for_each(|hash| stretch.sum.add(hash));
        }
    }
}
