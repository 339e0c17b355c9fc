//! The oracle: what was asked of the world and answered, and what the state has to be that follows from a set of commits.
//!
//! The fold is written anew, from the specification (`docs/protocol.md`), and shares with the node only the format of a commit.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_protocol::commit::{Change, Commit};
use anabranch_protocol::conflict::Stamp;
use anabranch_protocol::id::{Collection, Key, PeerId};
use anabranch_protocol::token::Token;

/// A request of a client, and what became of it.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its number, in each value that it writes.
    pub number: u64,
    /// Which node was asked.
    pub node: usize,
    /// Which of its lives.
    pub life: u64,
    /// Which dataset, by its place in the plan.
    pub dataset: usize,
    /// When, simulated milliseconds.
    pub at_ms: u64,
    /// What it writes: a put's value, or nothing for a delete.
    pub writes: Vec<(Collection, Option<Key>, Option<Vec<u8>>)>,
    /// Sent under an idempotency key, perhaps more than once.
    pub keyed: bool,
    /// Several writes that have to be seen together.
    pub batch: bool,
    /// Whether it replicates from the node that was asked.
    pub replicates: bool,
    /// The newest stamp that the node showed, when it was asked, of what is written.
    pub saw: Option<Stamp>,
    /// What was answered.
    pub outcome: Outcome,
}

/// What a client was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing yet, or the node died.
    Unknown,
    /// It is durable.
    Acked {
        /// Which commit; none where it stayed local.
        token: Option<Token>,
        /// The stamp of the last thing that it wrote; none where there was nothing to do.
        stamp: Option<Stamp>,
        /// Who else said to have it.
        confirmed_by: Vec<PeerId>,
    },
    /// It was refused: nothing was written.
    Refused(String),
}

/// A commit as the oracle knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId {
    /// Of which line: the writer, or a branch of it.
    pub line: anabranch_protocol::id::WriterId,
    /// Its number.
    pub seq: u64,
}

/// A document, or record, as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The entry that made it.
    pub stamp: Stamp,
    /// Its value; none where it was deleted.
    pub value: Option<Vec<u8>>,
}

/// The state that follows from a set of commits.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    documents: BTreeMap<Collection, BTreeMap<Key, Folded>>,
    records: BTreeMap<Collection, BTreeSet<(Stamp, Vec<u8>)>>,
    floors: BTreeMap<Collection, Stamp>,
}

impl Fold {
    /// Takes a commit in; in whatever order, and however often.
    pub fn take(&mut self, commit: &Commit) {
        for section in commit.sections() {
            for entry in &section.entries {
                let stamp = Stamp { hlc: commit.header().hlc, writer: commit.header().writer(), index: entry.index };
                match &entry.change {
                    Change::Put { key, value } => self.document(&section.collection, key, stamp, Some(value)),
                    Change::Delete { key } => self.document(&section.collection, key, stamp, None),
                    Change::Append { value } => {
                        self.records.entry(section.collection.clone()).or_default().insert((stamp, value.clone()));
                    }
                    Change::Drop | Change::Truncate => {
                        let floor = self.floors.entry(section.collection.clone()).or_insert(stamp);
                        *floor = (*floor).max(stamp);
                    }
                }
            }
        }
    }

    fn document(&mut self, collection: &Collection, key: &Key, stamp: Stamp, value: Option<&Vec<u8>>) {
        let candidate = Folded { stamp, value: value.cloned() };
        let rows = self.documents.entry(collection.clone()).or_default();
        let wins = rows.get(key).is_none_or(|there| order(there) < order(&candidate));
        if wins {
            rows.insert(key.clone(), candidate);
        }
    }

    /// The live documents of a collection.
    #[must_use]
    pub fn documents(&self, collection: &Collection) -> BTreeMap<Key, (Stamp, Vec<u8>)> {
        let floor = self.floors.get(collection);
        let rows = self.documents.get(collection).into_iter().flatten();
        let above = rows.filter(|(_, row)| floor.is_none_or(|floor| row.stamp > *floor));
        above.filter_map(|(key, row)| Some((key.clone(), (row.stamp, row.value.clone()?)))).collect()
    }

    /// The records of a collection.
    #[must_use]
    pub fn records(&self, collection: &Collection) -> BTreeSet<(Stamp, Vec<u8>)> {
        let floor = self.floors.get(collection);
        let records = self.records.get(collection).into_iter().flatten();
        records.filter(|(stamp, _)| floor.is_none_or(|floor| stamp > floor)).cloned().collect()
    }
}

/// By stamp; of one stamp, which only a fork has twice, by the hash of the value.
fn order(row: &Folded) -> (Stamp, [u8; 16]) {
    let mut content = [0; 16];
    if let Some(value) = &row.value {
        content.copy_from_slice(&blake3::hash(value).as_bytes()[..16]);
    }
    (row.stamp, content)
}
