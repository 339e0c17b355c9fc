//! One replica of one dataset: from inputs to commits, and from commits to state.
//!
//! [`Replica::decide`] and [`Replica::receive`] look at inputs and propose a [`Turn`]; they change nothing. The caller makes the
//! turn durable, and only then [`Replica::evolve`] takes it in. So memory is never ahead of disk, and a refused input leaves
//! nothing behind. After a crash [`Replica::redo`] takes in what the log says.

mod branches;
mod decide;
mod issue;
mod keyed;
mod rebuild;
mod receive;
mod request;
mod turn;
mod widen;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use branches::{Cut, Parting};
pub use issue::LocalRecord;
pub use rebuild::{Past, Stray};
pub use receive::{ReceiveRefusal, Verdict};
pub use request::{Expected, Op, WriteOp, WriteRefusal, WriteRequest, Written, parse_record_key, record_key, record_key_prefix};
pub use turn::{Effects, LocalBatch, Record, RowWrite, Rows, Turn};
pub use widen::Widening;
pub use writer::WriterState;

use crate::access::Peers;
use crate::commit::{Commit, Forks, Identity};
use crate::conflict::{ConflictPolicy as _, LastWriterWins, Row, Stamp};
use crate::fence::{Fences, control_collection};
use crate::fingerprint::{Tally, dataset_fingerprint};
use crate::hlc::Hlc;
use crate::id::{Collection, DatasetId, Hash, Key, Lineage, PeerId, WriterId};
use crate::registration::{Registration, TagSet};
use crate::vector::{Head, VersionVector};
use crate::wire::Kind;

/// What a replica is told when it starts. All but the registration it keeps for its life.
#[derive(Debug, Clone)]
pub struct ReplicaSettings {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its lineage.
    pub lineage: Lineage,
    /// What it holds.
    pub kind: Kind,
    /// Who signs its commits.
    pub identity: Identity,
    /// What it replicates.
    pub registration: Registration,
    /// How far ahead of this node's wall clock a remote stamp may be.
    pub max_clock_skew: Duration,
    /// Whose commits count. All nodes of a dataset have to share the list, or they don't converge.
    pub writers: Peers,
}

/// What was applied and durable when a replica stopped.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    /// Newest commit of each writer.
    pub lines: BTreeMap<WriterId, Line>,
    /// The clock.
    pub clock: Hlc,
    /// Live rows and fingerprints.
    pub tallies: BTreeMap<Collection, Tally>,
    /// Forks that were proven.
    pub forks: Forks,
    /// Documents of the reserved collection, deleted ones included.
    pub control: Vec<(Key, Row)>,
}

/// A writer's newest commit: what a vector says, and its whole hash, which the next commit must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// For vectors.
    pub head: Head,
    /// For the chain.
    pub hash: Hash,
}

impl Line {
    /// The line that ends in `commit`.
    #[must_use]
    pub fn of(commit: &Commit) -> Self {
        Self { head: commit.head(), hash: commit.hash() }
    }
}

/// The state of one replica. See the module documentation.
#[derive(Debug, Clone)]
pub struct Replica {
    settings: ReplicaSettings,
    tags: TagSet,
    lines: BTreeMap<WriterId, Line>,
    vector: VersionVector,
    clock: Hlc,
    writer: WriterState,
    tallies: BTreeMap<Collection, Tally>,
    forks: Forks,
    /// Shared with whoever asks peers for commits.
    fences: Arc<Fences>,
}

impl Replica {
    /// A replica as it was saved. It writes under no epoch until [`Replica::start_writer`].
    #[must_use]
    pub fn load(settings: ReplicaSettings, saved: Saved) -> Self {
        let tags = settings.registration.tags(&settings.dataset, settings.lineage);
        let vector = saved.lines.iter().map(|(writer, line)| (*writer, line.head)).collect();
        let mut fences = Fences::default();
        for (key, row) in saved.control {
            fences.take_in(&key, row, &settings.writers);
        }
        Self {
            settings,
            tags,
            lines: saved.lines,
            vector,
            clock: saved.clock,
            writer: WriterState::Closed,
            tallies: saved.tallies,
            forks: saved.forks,
            fences: Arc::new(fences),
        }
    }

    /// What it was started with.
    #[must_use]
    pub fn settings(&self) -> &ReplicaSettings {
        &self.settings
    }

    /// What it replicates now.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.settings.registration
    }

    /// Replicates something else from now on. What was decided under the old registration has to be taken in before.
    pub fn set_registration(&mut self, registration: Registration) {
        self.tags = registration.tags(&self.settings.dataset, self.settings.lineage);
        self.settings.registration = registration;
    }

    /// The registration as headers name collections.
    #[must_use]
    pub fn tags(&self) -> &TagSet {
        &self.tags
    }

    /// What is applied and durable here.
    #[must_use]
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The newest commit of a line.
    #[must_use]
    pub fn line(&self, line: &WriterId) -> Option<Line> {
        self.lines.get(line).copied()
    }

    /// The newest clock reading seen or made.
    #[must_use]
    pub fn clock(&self) -> Hlc {
        self.clock
    }

    /// The writer's standing.
    #[must_use]
    pub fn writer(&self) -> WriterState {
        self.writer
    }

    /// Live rows and fingerprints per collection.
    #[must_use]
    pub fn tallies(&self) -> &BTreeMap<Collection, Tally> {
        &self.tallies
    }

    /// Live documents or records of users, all collections together.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.tallies
            .iter()
            .filter(|(collection, _)| !collection.is_reserved())
            .fold(0, |live, (_, tally)| live.wrapping_add(tally.live))
    }

    /// Up to where commits of peers that may no longer write count.
    #[must_use]
    pub fn fences(&self) -> &Arc<Fences> {
        &self.fences
    }

    /// The fences that this node has to set, as writes of its own. Nothing once they are set.
    #[must_use]
    pub fn fences_to_set(&self) -> Vec<WriteRequest> {
        let to_set = self.fences.to_set(&self.peer(), &self.settings.writers, &self.lines);
        let write = |(key, fence): (Key, crate::fence::Fence)| {
            let op = Op::Put { key, value: fence.to_value().encode() };
            WriteRequest::new(vec![WriteOp { collection: control_collection(), op }])
        };
        to_set.into_iter().map(write).collect()
    }

    /// Equal on replicas with the same registration and vector; hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let replicated = self.tallies.iter().filter(|(collection, _)| self.settings.registration.contains(collection));
        let heads = (self.settings.kind == Kind::Append).then_some(&self.vector);
        dataset_fingerprint(replicated, heads)
    }

    /// Takes in a turn that is durable.
    pub fn evolve(&mut self, turn: &Turn) {
        for record in &turn.records {
            self.take_in(record);
            self.writer = self.writer_after(record);
        }
    }

    /// Only the first commit of an epoch opens it. A record that was decided before a peer taught us that our line goes on
    /// elsewhere, and is durable only now, must not open that line again.
    fn writer_after(&self, record: &Record) -> WriterState {
        let epoch = record.effects.epoch;
        let opens = |commit: &Commit| {
            commit.header().seq == 1 && commit.writer().peer == self.peer() && Some(commit.writer().epoch) == epoch
        };
        match epoch {
            // An old commit with more sections says nothing about where our line is.
            _ if record.effects.widens.is_some() => self.writer,
            None => WriterState::Closed,
            Some(epoch) if record.commit.as_ref().is_some_and(opens) => WriterState::Open(epoch),
            Some(_) => self.writer,
        }
    }

    /// Sets what the rules of epochs say after a start, once the log is taken in.
    pub fn start_writer(&mut self, writer: WriterState) {
        self.writer = writer;
    }

    /// Takes in a record of the log after a crash: the rows it leads to, given what the store has of them. Applying a record
    /// again leads to the same rows.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn redo<R: Rows>(&mut self, record: &Record, rows: &R) -> Result<Vec<RowWrite>, R::Error> {
        let writes = turn::replay(&self.settings, &self.tallies, record, rows)?;
        self.take_in(record);
        Ok(writes)
    }

    fn take_in(&mut self, record: &Record) {
        if let (Some(id), Some(commit), None) = (record.line(), &record.commit, record.effects.widens) {
            let line = Line::of(commit);
            self.lines.insert(id, line);
            self.vector.set(id, line.head);
            self.take_in_fences(commit);
        }
        let effects = &record.effects;
        self.clock = self.clock.receive(effects.clock);
        self.tallies.extend(effects.tallies.iter().cloned());
    }

    fn take_in_fences(&mut self, commit: &Commit) {
        let control = control_collection();
        for section in commit.sections().filter(|section| section.collection == control) {
            for entry in &section.entries {
                let stamp = Stamp { hlc: commit.header().hlc, writer: commit.writer(), index: entry.index };
                if let (Some(key), Some(row)) = (entry.change.key(), LastWriterWins.state(stamp, &entry.change)) {
                    Arc::make_mut(&mut self.fences).take_in(key, row, &self.settings.writers);
                }
            }
        }
    }

    fn peer(&self) -> PeerId {
        self.settings.identity.peer()
    }
}
