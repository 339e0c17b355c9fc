//! A turn in the making: what a group of inputs changes, before anything is durable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Line, Replica, ReplicaSettings};
use crate::commit::{Change, Commit, Entry};
use crate::conflict::{ConflictPolicy, LastWriterWins, Row, Stamp};
use crate::fingerprint::{RowHasher, Tally};
use crate::floor::Floor;
use crate::hlc::Hlc;
use crate::id::{Collection, Epoch, Key, KeyHash, WriterId};
use crate::idempotency::Remembered;

/// Reads the rows that are durable now.
pub trait Rows {
    /// Why a read fails.
    type Error;
    /// The state of a document, tombstones included.
    ///
    /// # Errors
    /// When the store can't be read.
    /// What the collection's floor hides may be left out.
    fn row(&self, collection: &Collection, key: &Key) -> Result<Option<Row>, Self::Error>;

    /// Counts the live rows of a collection that a floor leaves, as they are stored. Its own floor says nothing.
    ///
    /// # Errors
    /// When the store can't be read.
    fn above(&self, collection: &Collection, floor: &Floor) -> Result<Tally, Self::Error>;

    /// The commit `seq` of a line, if the log has it: what a commit with that number is compared with.
    ///
    /// # Errors
    /// When the store can't be read.
    fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, Self::Error>;

    /// What a write under this key came to; one that is over may be left out.
    ///
    /// # Errors
    /// When the store can't be read.
    fn remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, Self::Error>;
}

/// What a turn is made of.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// To be logged, in this order, before anything else.
    pub records: Vec<Record>,
    /// To be written once the records are durable.
    pub rows: Vec<RowWrite>,
}

impl Turn {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// One record of the log: a commit, or writes to collections that don't replicate, with what they lead to. One that has neither
/// remembers what was answered.
#[derive(Debug, Clone)]
pub struct Record {
    /// The commit, as it is kept here.
    pub commit: Option<Commit>,
    /// Writes to collections that are not registered.
    pub local: Option<LocalBatch>,
    /// What holds after the record, as absolute results: taking a record in twice changes nothing.
    pub effects: Effects,
}

/// Writes that stay on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBatch {
    /// Their clock reading.
    pub hlc: Hlc,
    /// Entries and their collections.
    pub entries: Vec<(Collection, Entry)>,
}

/// Absolute results of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effects {
    /// The clock after it.
    #[serde(rename = "c")]
    pub clock: Hlc,
    /// Tallies of the collections it touched.
    #[serde(rename = "t")]
    pub tallies: Vec<(Collection, Tally)>,
    /// The epoch this node writes under after it.
    #[serde(rename = "e")]
    pub epoch: Option<Epoch>,
    /// The branch that the commit is a part of; none where it is a part of its writer's line.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<WriterId>,
    /// The record holds a commit that the log had with fewer sections, under this arrival: it takes that one's place.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub widens: Option<u64>,
    /// The record's commit says to everybody what the record under this arrival kept local, in the collections of its sections.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub issues: Option<u64>,
    /// What the writes in it that came under idempotency keys were answered.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    pub remembered: Vec<(KeyHash, Remembered)>,
}

impl Record {
    /// The line that the commit is a part of.
    #[must_use]
    pub fn line(&self) -> Option<WriterId> {
        self.commit.as_ref().map(|commit| self.effects.branch.unwrap_or(commit.writer()))
    }
}

/// A row to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// Where.
    pub collection: Collection,
    /// Which document.
    pub key: Key,
    /// Its new state.
    pub row: Row,
}

/// The writer that stamps rows of collections which don't replicate.
pub(super) fn local_writer(settings: &ReplicaSettings) -> WriterId {
    WriterId { peer: settings.identity.peer(), epoch: Epoch::ZERO }
}

/// State on top of a replica while a turn is made.
pub(super) struct Working<'a, R> {
    pub replica: &'a Replica,
    rows: &'a R,
    pub lines: BTreeMap<WriterId, Line>,
    pub clock: Hlc,
    pub epoch: Option<Epoch>,
    tallies: BTreeMap<Collection, Tally>,
    touched: Vec<Collection>,
    hashers: BTreeMap<Collection, RowHasher>,
    /// Rows read or made in this turn, and whether they were made.
    overlay: BTreeMap<(Collection, Key), (Option<Row>, bool)>,
    records: Vec<Record>,
}

impl<'a, R: Rows> Working<'a, R> {
    pub fn new(replica: &'a Replica, rows: &'a R) -> Self {
        Self {
            replica,
            rows,
            lines: BTreeMap::new(),
            clock: replica.clock,
            epoch: replica.writer.epoch(),
            tallies: BTreeMap::new(),
            touched: Vec::new(),
            hashers: BTreeMap::new(),
            overlay: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    pub fn line(&self, writer: &WriterId) -> Option<Line> {
        self.lines.get(writer).or_else(|| self.replica.lines.get(writer)).copied()
    }

    /// The commit `seq` of a line that the log had before this turn.
    pub fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, R::Error> {
        self.rows.commit(line, seq)
    }

    /// How many writers have lines as this turn would leave it.
    pub fn writers(&self) -> usize {
        let known = &self.replica.lines;
        known.len() + self.lines.keys().filter(|writer| !known.contains_key(writer)).count()
    }

    /// The state of a document as this turn would leave it.
    pub fn row(&mut self, collection: &Collection, key: &Key) -> Result<Option<&Row>, R::Error> {
        let place = (collection.clone(), key.clone());
        if !self.overlay.contains_key(&place) {
            let row = self.visible(collection, self.rows.row(collection, key)?);
            self.overlay.insert(place.clone(), (row, false));
        }
        Ok(self.overlay[&place].0.as_ref())
    }

    /// What the collection's floor, as this turn would leave it, leaves of a row.
    fn visible(&self, collection: &Collection, row: Option<Row>) -> Option<Row> {
        match self.floor(collection) {
            Some(floor) => row.and_then(|row| LastWriterWins.above(row, &floor)),
            None => row,
        }
    }

    fn floor(&self, collection: &Collection) -> Option<Floor> {
        self.tallies.get(collection).or_else(|| self.replica.tallies.get(collection)).and_then(|tally| tally.floor)
    }

    /// Folds one entry into the state.
    pub fn apply(&mut self, collection: &Collection, stamp: Stamp, change: &Change) -> Result<(), R::Error> {
        if let Some(floor) = change.floor(stamp) {
            return self.raise(collection, floor);
        }
        let policy = LastWriterWins;
        let Some(state) = policy.state(stamp, change) else {
            self.tally(collection).live += 1;
            return Ok(());
        };
        let Some(key) = change.key() else { return Ok(()) };
        let Some(state) = self.visible(collection, Some(state)) else { return Ok(()) };
        let old = self.row(collection, key)?.cloned();
        let new = match &old {
            Some(old) => policy.join(old.clone(), state),
            None => state,
        };
        if old.as_ref() == Some(&new) {
            return Ok(());
        }
        let removed = old.filter(|row| row.value.is_some()).map(|row| self.row_hash(collection, key, &row));
        let added = new.value.is_some().then(|| self.row_hash(collection, key, &new));
        let tally = self.tally(collection);
        removed.into_iter().for_each(|hash| tally.remove(hash));
        added.into_iter().for_each(|hash| tally.add(hash));
        self.overlay.insert((collection.clone(), key.clone()), (Some(new), true));
        Ok(())
    }

    /// Raises the floor of a collection. Its tally is exact at once, however long the rows below are still stored.
    fn raise(&mut self, collection: &Collection, floor: Floor) -> Result<(), R::Error> {
        if self.floor(collection) >= Some(floor) {
            return Ok(());
        }
        // No row is newer than the clock. So of a drop that is newer than all that is here nothing has to be counted.
        let above_all = floor.stamp.hlc > self.clock;
        let mut tally = if above_all { Tally::default() } else { self.rows.above(collection, &floor)? };
        let made = self.overlay.iter().filter(|((of, _), (_, made))| of == collection && *made);
        let made: Vec<(Key, Option<Row>)> = made.map(|((_, key), (row, _))| (key.clone(), row.clone())).collect();
        for (key, row) in made {
            // Counted as it is stored; this turn left it otherwise.
            let stored = if above_all { None } else { self.rows.row(collection, &key)? };
            if let Some(hash) = self.hash_above(collection, &key, stored, &floor) {
                tally.remove(hash);
            }
            if let Some(hash) = self.hash_above(collection, &key, row, &floor) {
                tally.add(hash);
            }
        }
        tally.floor = Some(floor);
        *self.tally(collection) = tally;
        for (_, (row, _)) in self.overlay.iter_mut().filter(|((of, _), _)| of == collection) {
            *row = row.take().and_then(|row| LastWriterWins.above(row, &floor));
        }
        Ok(())
    }

    fn hash_above(&mut self, collection: &Collection, key: &Key, row: Option<Row>, floor: &Floor) -> Option<u128> {
        let row = LastWriterWins.above(row?, floor).filter(|row| row.value.is_some())?;
        Some(self.row_hash(collection, key, &row))
    }

    fn row_hash(&mut self, collection: &Collection, key: &Key, row: &Row) -> u128 {
        if !self.hashers.contains_key(collection) {
            let hasher = RowHasher::new(&self.replica.settings.dataset, collection);
            self.hashers.insert(collection.clone(), hasher);
        }
        self.hashers[collection].hash(key, &row.stamp, &row.content)
    }

    fn tally(&mut self, collection: &Collection) -> &mut Tally {
        if !self.touched.contains(collection) {
            self.touched.push(collection.clone());
        }
        let before = self.replica.tallies.get(collection).copied().unwrap_or_default();
        self.tallies.entry(collection.clone()).or_insert(before)
    }

    /// Names a collection's tally in the effects of the record in the making, changed or not.
    pub fn touch(&mut self, collection: &Collection) {
        self.tally(collection);
    }

    /// Ends a record: what was folded since the last one is its effects.
    pub fn record(&mut self, commit: Option<Commit>, local: Option<LocalBatch>) {
        let line = commit.as_ref().map(Commit::writer);
        self.record_on(line, commit, local);
    }

    /// As [`Working::record`], for a commit that is a part of `line`.
    pub fn record_on(&mut self, line: Option<WriterId>, commit: Option<Commit>, local: Option<LocalBatch>) {
        let branch = branch_of(line, commit.as_ref());
        if let (Some(line), Some(commit)) = (line, &commit) {
            self.lines.insert(line, Line::of(commit));
        }
        let effects = Effects { branch, ..self.effects() };
        self.records.push(Record { commit, local, effects });
    }

    /// Ends a record of an old commit of `line` with more sections than `widened`, which the log has: no line goes on by it.
    pub fn record_widened(&mut self, line: WriterId, commit: Commit, widened: u64) {
        let branch = branch_of(Some(line), Some(&commit));
        let effects = Effects { widens: Some(widened), branch, ..self.effects() };
        self.records.push(Record { commit: Some(commit), local: None, effects });
    }

    /// Says of the last record that it issues what was local.
    pub fn issues(&mut self, local: u64) {
        if let Some(record) = self.records.last_mut() {
            record.effects.issues = Some(local);
        }
    }

    /// Adds answers to the turn's record: they are durable with what they answer, or not at all. Where nothing had to be written
    /// they are a record of their own: what was nothing to do then may be something later.
    pub fn remember(&mut self, remembered: Vec<(KeyHash, Remembered)>) {
        if remembered.is_empty() {
            return;
        }
        if self.records.is_empty() {
            self.record(None, None);
        }
        if let Some(record) = self.records.last_mut() {
            record.effects.remembered = remembered;
        }
    }

    /// Adds answers to the last record, which is durable with them.
    pub fn answered(&mut self, remembered: impl Iterator<Item = (KeyHash, Remembered)>) {
        if let Some(record) = self.records.last_mut() {
            record.effects.remembered = remembered.collect();
        }
    }

    fn effects(&mut self) -> Effects {
        let tallies = std::mem::take(&mut self.touched);
        let tallies = tallies.into_iter().map(|collection| (collection.clone(), self.tallies[&collection])).collect();
        Effects { clock: self.clock, tallies, epoch: self.epoch, ..Effects::default() }
    }

    pub fn finish(self) -> Turn {
        let made = self.overlay.into_iter().filter_map(|((collection, key), (row, made))| match row {
            Some(row) if made => Some(RowWrite { collection, key, row }),
            _ => None,
        });
        Turn { rows: made.collect(), records: self.records }
    }
}

/// The line, where it is a branch and not the line of the commit's writer.
fn branch_of(line: Option<WriterId>, commit: Option<&Commit>) -> Option<WriterId> {
    line.filter(|line| commit.is_some_and(|commit| commit.writer() != *line))
}

/// The rows that a record leads to, given what the store has and the tallies before it.
pub(super) fn replay<R: Rows>(
    settings: &ReplicaSettings,
    before: &BTreeMap<Collection, Tally>,
    record: &Record,
    rows: &R,
) -> Result<Vec<RowWrite>, R::Error> {
    let floor_in = |tally: Option<&Tally>| tally.and_then(|tally| tally.floor);
    let after = |collection: &Collection| record.effects.tallies.iter().find(|(of, _)| of == collection).map(|(_, tally)| tally);
    let floor = |collection: &Collection| floor_in(before.get(collection)).max(floor_in(after(collection)));
    let mut states = BTreeMap::new();
    for (collection, stamp, change) in entries(settings, record) {
        // Records make no rows; an `append` dataset has those of the reserved collection alone.
        let (Some(state), Some(key)) = (LastWriterWins.state(stamp, change), change.key()) else { continue };
        let place = (collection.clone(), key.clone());
        let old = match states.remove(&place) {
            Some(row) => Some(row),
            None => rows.row(collection, key)?,
        };
        let new = old.map_or_else(|| state.clone(), |old| LastWriterWins.join(old, state.clone()));
        states.insert(place, new);
    }
    let left = states.into_iter().filter_map(|((collection, key), row)| {
        let row = match floor(&collection) {
            Some(floor) => LastWriterWins.above(row, &floor)?,
            None => row,
        };
        Some(RowWrite { collection, key, row })
    });
    Ok(left.collect())
}

/// Every entry of a record with its stamp.
fn entries<'a>(settings: &ReplicaSettings, record: &'a Record) -> Vec<(&'a Collection, Stamp, &'a Change)> {
    let mut all = Vec::new();
    if let Some(commit) = &record.commit {
        let (hlc, writer) = (commit.header().hlc, commit.writer());
        for section in commit.sections() {
            let stamp = |entry: &Entry| Stamp { hlc, writer, index: entry.index };
            all.extend(section.entries.iter().map(|entry| (&section.collection, stamp(entry), &entry.change)));
        }
    }
    if let Some(local) = &record.local {
        let writer = local_writer(settings);
        let stamp = |entry: &Entry| Stamp { hlc: local.hlc, writer, index: entry.index };
        all.extend(local.entries.iter().map(|(collection, entry)| (collection, stamp(entry), &entry.change)));
    }
    all
}
