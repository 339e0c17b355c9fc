//! The ledger: a replica and its store, moved together.
//!
//! The commit is the atom, rows are its redo. A turn goes: (1) its records into the log, (2) barrier: now it is durable, (3) rows,
//! vector and indexes, in one step for readers, (4) memory. Rows ride on the next barrier; after a crash the records past the
//! applied mark are taken in again, which changes nothing where it was done already.
//!
//! The ledger blocks on the disk, so it lives on its dataset's own store thread ([`super::store_thread`]).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Commit, ForkError, ForkProof};
use anabranch_protocol::conflict::Row;
use anabranch_protocol::coverage::Coverages;
use anabranch_protocol::fence::{Fences, control_collection};
use anabranch_protocol::fingerprint::Tally;
use anabranch_protocol::floor::Floor;
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Collection, Epoch, Incarnation, Key, KeyHash, Lineage, WriterId};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::replica::{
    Line, ReceiveRefusal, Record, Replica, ReplicaSettings, RowWrite, Saved, Turn, Verdict, WriteRefusal, WriteRequest,
    WriterState, Written,
};
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::Kind;

pub use self::forks::Parted;
use self::held::Holding;
pub use self::rebuild::{RebuildError, Rebuilt};
use self::remembered::Remembering;
pub use self::rows::RowAudit;
use self::rows::Rows;
use self::sweep::Sweeps;
pub(super) use self::weigh::count_above;
use self::weigh::{Weighings, dropped_in};
use self::widen::Moves;
pub use self::widen::Widened;
use super::enrolment::Enrolments;
use super::identity::directory_identity;
use super::layout;
use super::lineage::LineageChoice;
use super::log::{self, Found};
use super::view::{View, local_writer, record_index_keys};
use crate::store::{OpenError, Store, StoreEngine, StoreError};

/// What a new store is written in.
const FORMAT_VERSION: u64 = 1;
/// What it is written in from its first drop on: who does not know of drops would show again what they removed.
const FORMAT_WITH_DROPS: u64 = 2;
/// What it is written in from its first write under an idempotency key on: who does not know of those would take the record for
/// damaged, and write twice.
const FORMAT_WITH_KEYS: u64 = 3;

const META_FORMAT: &str = "format";
const META_INCARNATION: &str = "incarnation";
const META_DIRECTORY: &str = "directory";
const META_KIND: &str = "kind";
const META_LINEAGE: &str = "lineage";
const META_MARK: &str = "mark";
const META_CLOCK: &str = "clock";
const META_EPOCH: &str = "epoch";
const META_ACCEPTED: &str = "accepted";
const META_LARGE_ROWS: &str = "large_rows";
const META_REGISTRATION: &str = "registration";

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store opened, but failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was written by a newer version.
    #[error("the store has format {found}, this version reads up to {FORMAT_WITH_KEYS}: upgrade the node")]
    NewerFormat { found: u64 },
    /// The store holds another kind of dataset.
    #[error("the store holds a dataset of kind {stored}, but {configured} is configured")]
    OtherKind { stored: String, configured: Kind },
    /// The store has another lineage, which what it holds was signed under.
    #[error(
        "the store has {}, but {configured} is configured; nothing was changed: configure the lineage it has, or move its \
         directory away to start without what it holds",
        if *stored == Lineage::ZERO { "the open lineage".to_owned() } else { format!("lineage {stored}") }
    )]
    OtherLineage { stored: Lineage, configured: &'static str },
}

/// What a turn changed, for those who are told.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The commits, in the order in which they became durable, each once whole in memory.
    pub commits: Vec<Arc<Commit>>,
    /// The vector after them.
    pub vector: Arc<VersionVector>,
    /// Forks that are known by now.
    pub parted: Arc<Parted>,
    /// Whether some of them are new.
    pub newly_parted: bool,
    /// Whether the registration is another one now.
    pub registered_anew: bool,
    /// Whether collections that are imported got on without a peer, or one of them is complete now.
    pub got_on: bool,
    /// Up to where commits of peers that may no longer write count.
    pub fences: Arc<Fences>,
    /// Whether rows that were dropped are still to be removed.
    pub to_sweep: bool,
}

/// A place in the log, and the bytes of all records up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark {
    arrival: u64,
    log_bytes: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<dyn Store>,
    view: Arc<View>,
    replica: Replica,
    incarnation: Incarnation,
    /// The newest arrival in the log.
    arrival: u64,
    /// The newest arrival whose record passed a barrier.
    durable: u64,
    /// Up to where rows were put; they are durable after the next barrier.
    applied: Mark,
    /// Up to where rows passed a barrier; what the stored mark may say.
    settled: Mark,
    /// What the stored mark says.
    mark: Mark,
    log_bytes: u64,
    accepted: bool,
    enrolments: Enrolments,
    large_rows: bool,
    parted: Arc<Parted>,
    /// The disk is full: nothing is taken in.
    read_only: bool,
    /// What was there before the log was taken in past the mark.
    settled_vector: VersionVector,
    /// Where it is noted how far the log is.
    reached: Option<PathBuf>,
    /// What is registered, and how much of its past is here.
    coverages: Coverages,
    /// Where that is remembered beside the store.
    memory: Option<PathBuf>,
    moves: Moves,
    issue_from: Option<Vec<u8>>,
    /// What the store is written in.
    format: u64,
    weighings: Weighings,
    sweeps: Sweeps,
    rows: Rows,
    held: Holding,
    remembering: Remembering,
}

impl Ledger {
    /// Opens or creates the ledger in `directory`.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed but what an interrupted turn left behind.
    pub fn open(
        engine: &dyn StoreEngine,
        directory: &Path,
        cache_bytes: u64,
        settings: ReplicaSettings,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Self, LedgerError> {
        let remembered = (settings.lineage != Lineage::ZERO).then_some(settings.lineage);
        let lineage = LineageChoice { remembered, ..LineageChoice::default() };
        Self::open_as(engine, directory, cache_bytes, settings, &lineage, entropy)
    }

    /// As [`Ledger::open`], where `lineage` decides which one it has; what the settings say of it does not count.
    ///
    /// # Errors
    /// As [`Ledger::open`], and [`LedgerError::OtherLineage`].
    pub fn open_as(
        engine: &dyn StoreEngine,
        directory: &Path,
        cache_bytes: u64,
        mut settings: ReplicaSettings,
        lineage: &LineageChoice,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Self, LedgerError> {
        let store = engine.open(directory, cache_bytes)?;
        let identity = directory_identity(directory, entropy)?;
        let known = check_format(&*store, settings.kind)?;
        // Before anything is made of what is missing.
        if known.is_some() {
            held::compare(&*store)?;
        }
        settings.lineage = settle_lineage(&*store, known.is_some(), lineage, entropy)?;
        let incarnation = known.map_or_else(|| write_format(&*store, &settings, entropy), Ok)?;
        let view = Arc::new(View::new(store.clone(), &settings));
        let forks = forks::stored(&*store, &settings.dataset, settings.lineage)?;
        let saved = Saved { forks, control: control_rows(&*store, &view)?, ..saved(&*store)? };
        for (collection, floor) in saved.tallies.iter().filter_map(|(collection, tally)| Some((collection, tally.floor?))) {
            view.raise_floor(collection, floor);
        }
        let mut ledger = Self {
            format: number(&*store, META_FORMAT)?,
            weighings: Weighings::default(),
            sweeps: Sweeps::load(&*store, &saved.tallies)?,
            remembering: Remembering::load(&*store)?,
            mark: stored_mark(&*store)?,
            log_bytes: 0,
            accepted: store.get(&layout::meta(META_ACCEPTED))?.is_some(),
            enrolments: enrolment::stored(&*store)?,
            large_rows: store.get(&layout::meta(META_LARGE_ROWS))?.is_some(),
            replica: Replica::load(settings, saved),
            store,
            view,
            incarnation,
            arrival: 0,
            durable: 0,
            applied: Mark::default(),
            settled: Mark::default(),
            parted: Arc::default(),
            read_only: false,
            settled_vector: VersionVector::new(),
            reached: None,
            coverages: Coverages::default(),
            memory: memory::path_of(directory),
            moves: Moves::default(),
            issue_from: None,
            rows: Rows::default(),
            held: Holding::default(),
        };
        let saved_epoch = fact::<Option<Epoch>>(&*ledger.store, META_EPOCH)?.flatten();
        let epoch = ledger.recover()?.unwrap_or(saved_epoch);
        ledger.start_writer(identity, epoch)?;
        ledger.load_registration()?;
        ledger.part_again()?;
        ledger.start_registration()?;
        ledger.look_at_held()?;
        Ok(ledger)
    }

    /// Takes in what the log has past the mark; the epoch that its last record says, if there was one.
    fn recover(&mut self) -> Result<Option<Option<Epoch>>, LedgerError> {
        self.applied = self.mark;
        self.arrival = self.mark.arrival;
        self.log_bytes = self.mark.log_bytes;
        self.settled_vector = self.replica.vector().clone();
        let last = self.last_arrival()?;
        #[cfg(feature = "planted")]
        let last = if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SkipRedo) { self.arrival } else { last };
        let mut epoch = None;
        let mut at = self.mark.arrival + 1;
        while at <= last {
            let Found::Record(stored) = log::read(&*self.store, at)? else { break };
            let record = stored.decode(self.replica.settings().lineage)?;
            let rows = self.replica.redo(&record, &Lenient(&self.view))?;
            // What was written after the last good barrier is written again: after a failed fsync the system may hold pages
            // for clean that never reached the disk.
            self.log_bytes += stored.len() as u64;
            log::write_again(&*self.store, at, self.mark.arrival, stored)?;
            epoch = Some(record.effects.epoch);
            self.moves.add(record.effects.widens, at);
            self.arrival = at;
            record.commit.iter().for_each(|commit| self.sweeps.again(commit));
            self.apply(std::slice::from_ref(&record), at, &rows)?;
            at += 1;
        }
        if at <= last {
            self.drop_unfinished(at)?;
        }
        self.store.barrier()?;
        self.durable = self.arrival;
        self.settled = self.applied;
        self.write_mark()?;
        self.store.barrier()?;
        Ok(epoch)
    }

    fn last_arrival(&self) -> Result<u64, StoreError> {
        let last = self.store.last(b"l", b"m")?;
        Ok(last.and_then(|(key, _)| layout::parse_log_part(&key)).map_or(0, |(arrival, _)| arrival).max(self.mark.arrival))
    }

    /// Removes records that a crash cut short; they were never acknowledged. A later record that says they were durable makes it
    /// damage.
    fn drop_unfinished(&mut self, from: u64) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.store.scan(&layout::log_part(from, 0), b"m", &mut |key, _| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
        // What there is, not every number up to the last: a damaged key may say any.
        let later: BTreeSet<u64> = keys.iter().filter_map(|key| layout::parse_log_part(key)).map(|(at, _)| at).collect();
        for at in later {
            if let Found::Record(later) = log::read(&*self.store, at)?
                && later.durable() >= from
            {
                return Err(StoreError::Corrupt(format!("log record {from} is broken, but was durable")));
            }
        }
        keys.iter().try_for_each(|key| self.store.delete(key))
    }

    /// Decides whether the old epoch may go on, and records whose directory this is.
    fn start_writer(&mut self, identity: [u8; 16], epoch: Option<Epoch>) -> Result<(), StoreError> {
        let key = layout::meta(META_DIRECTORY);
        let known = self.store.get(&key)?;
        let same = known.as_ref().is_none_or(|known| *known == identity);
        let state = WriterState::after_start(epoch, same, self.accepted);
        self.replica.start_writer(state);
        if state.epoch() != epoch {
            // Durable before the directory counts as ours: a crash between the two must not leave an old line in a new place.
            self.put_epoch(None)?;
            self.store.barrier()?;
        }
        if known.as_deref() != Some(&identity) {
            self.store.put(&key, &identity)?;
            self.store.barrier()?;
        }
        Ok(())
    }

    /// Decides a group of local writes and makes them durable: outcomes of the first requests, as many as fit one commit.
    ///
    /// # Errors
    /// [`StoreError`]: the outcome of the group is unknown, and the ledger must be opened again.
    pub fn write(
        &mut self,
        now: WallClock,
        requests: &[WriteRequest],
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(Outcomes, Committed), StoreError> {
        let (turn, outcomes) = self.replica.decide(now, requests, &self.counted_rows(), entropy)?;
        Ok((outcomes, self.commit(turn)?))
    }

    /// Takes in verified commits and makes them durable, all behind one barrier.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn receive(&mut self, now: WallClock, commits: Vec<Commit>) -> Result<(Vec<Verdict>, Committed), StoreError> {
        self.receive_with(now, commits, Vec::new()).map(|(verdicts, committed, _)| (verdicts, committed))
    }

    /// As [`Ledger::receive`], after proofs of forks were taken in; what was wrong with the first bad one of them comes with it.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn receive_with(
        &mut self,
        now: WallClock,
        commits: Vec<Commit>,
        proofs: Vec<ForkProof>,
    ) -> Result<(Vec<Verdict>, Committed, Option<ForkError>), StoreError> {
        let (learned, wrong) = self.learn_forks(proofs)?;
        let writers: Vec<WriterId> = commits.iter().map(Commit::writer).collect();
        let dropped = dropped_in(&commits);
        let (turn, verdicts) = self.replica.receive(now, commits, &self.counted_rows())?;
        let committed = Committed { newly_parted: learned > 0, ..self.commit(turn)? };
        self.weighed(&dropped);
        let forked = |(writer, verdict): (&WriterId, &Verdict)| {
            matches!(verdict, Verdict::Refused(ReceiveRefusal::Fork { .. })) && self.writes_under(writer)
        };
        if writers.iter().zip(&verdicts).any(forked) {
            self.close_writer()?;
        }
        Ok((verdicts, committed, wrong))
    }

    /// Sets the fences that are missing: commits here of peers that may no longer write stay valid everywhere. Nothing once they
    /// are set, or where this node may not write itself.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn set_fences(&mut self, now: WallClock, entropy: &mut dyn FnMut(&mut [u8])) -> Result<Committed, StoreError> {
        let mut all = self.commit(Turn::default())?;
        loop {
            let requests = self.replica.fences_to_set();
            if requests.is_empty() {
                return Ok(all);
            }
            let (outcomes, committed) = self.write(now, &requests, entropy)?;
            all = Committed { commits: all.commits.into_iter().chain(committed.commits).collect(), ..committed };
            if let Some(refusal) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
                tracing::error!(%refusal, "a fence can't be set");
                return Ok(all);
            }
        }
    }

    fn writes_under(&self, writer: &WriterId) -> bool {
        writer.peer == self.replica.settings().identity.peer() && self.replica.writer().epoch() == Some(writer.epoch)
    }

    /// Our own line was found to go on elsewhere: the next write opens a new one, after a restart too.
    fn close_writer(&mut self) -> Result<(), StoreError> {
        self.replica.start_writer(WriterState::Closed);
        // Records past the mark name the line as ours: taken in again after a crash, they would open it.
        self.settle()?;
        self.put_epoch(None)?;
        self.store.barrier()
    }

    fn commit(&mut self, turn: Turn) -> Result<Committed, StoreError> {
        if !turn.is_empty() {
            if self.read_only {
                return Err(StoreError::NoSpace);
            }
            self.settle_format(&turn)?;
            self.write_mark()?;
            self.write_held()?;
            for record in &turn.records {
                self.arrival += 1;
                self.log_bytes += log::write(&*self.store, self.arrival, self.durable, record)? as u64;
                self.moves.add(record.effects.widens, self.arrival);
            }
            #[cfg(not(feature = "planted"))]
            self.store.barrier()?;
            #[cfg(feature = "planted")]
            if !anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::AckBeforeFlush) {
                self.store.barrier()?;
            }
            self.durable = self.arrival;
            self.settled = self.applied;
            self.clear_moved()?;
            let first = self.arrival + 1 - turn.records.len() as u64;
            self.apply(&turn.records, first, &turn.rows)?;
            #[cfg(feature = "planted")]
            if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::MarkAhead) {
                self.settled = self.applied;
            }
            self.replica.evolve(&turn);
        }
        let commits = turn.records.into_iter().filter_map(|record| record.commit).map(Arc::new).collect();
        Ok(Committed { commits, ..self.nothing_committed() })
    }

    /// Says in the store that it has drops or keys, before it has the first.
    fn settle_format(&mut self, turn: &Turn) -> Result<(), StoreError> {
        let needed = turn.records.iter().map(format_of).max().unwrap_or(FORMAT_VERSION);
        if needed > self.format {
            self.store.put(&layout::meta(META_FORMAT), &layout::sealed(needed.to_be_bytes().to_vec()))?;
            self.store.barrier()?;
            self.format = needed;
        }
        Ok(())
    }

    /// Vector, forks and fences as they are now: what a turn without commits says.
    pub(in crate::dataset) fn nothing_committed(&self) -> Committed {
        Committed {
            commits: Vec::new(),
            vector: Arc::new(self.replica.vector().clone()),
            parted: self.parted_now(false),
            newly_parted: false,
            registered_anew: false,
            got_on: false,
            fences: self.replica.fences().clone(),
            to_sweep: self.sweeps.any(),
        }
    }

    /// Puts rows, vector and indexes of durable records. `first` is the arrival of the first.
    fn apply(&mut self, records: &[Record], first: u64, rows: &[RowWrite]) -> Result<(), StoreError> {
        let view = self.view.clone();
        let mut applying = view.applying();
        for write in rows {
            self.put_row(write)?;
        }
        for (arrival, record) in (first..).zip(records) {
            self.put_indexes(arrival, record)?;
            self.remember_answers(record)?;
            let tallies = record.effects.tallies.iter();
            for (collection, floor) in tallies.filter_map(|(collection, tally)| Some((collection, tally.floor?))) {
                if view.raise_floor(collection, floor) {
                    self.rows.dropped(collection);
                }
                self.sweeps.raise(collection, floor);
            }
        }
        if let Some(last) = records.last() {
            self.store.put(&layout::meta(META_CLOCK), &layout::sealed(last.effects.clock.0.to_be_bytes().to_vec()))?;
            self.put_epoch(last.effects.epoch)?;
        }
        self.applied = Mark { arrival: self.arrival, log_bytes: self.log_bytes };
        applying.done();
        Ok(())
    }

    fn put_row(&mut self, write: &RowWrite) -> Result<(), StoreError> {
        let key = layout::row_key(&write.collection, &write.key);
        self.weigh_again(&key, write)?;
        self.walk_is_told(&key, write)?;
        let (head, parts) = layout::encode_row(&write.row);
        if !parts.is_empty() && !self.large_rows {
            self.store.put(&layout::meta(META_LARGE_ROWS), &[1])?;
            self.large_rows = true;
        }
        if self.large_rows {
            self.drop_parts(&write.collection, &write.key, parts.len())?;
        }
        for (part, chunk) in (0_u16..).zip(parts) {
            self.store.put(&layout::row_part(&write.collection, &write.key, part), chunk)?;
        }
        self.store.put(&key, &head)
    }

    /// Removes the parts of a larger earlier value that the new one does not overwrite.
    fn drop_parts(&self, collection: &Collection, key: &Key, keep: usize) -> Result<(), StoreError> {
        let part_of = |part| layout::row_part(collection, key, part);
        let keep = u16::try_from(keep).expect("a value has at most 150 parts");
        let mut stale = Vec::new();
        self.store.scan(&part_of(keep), &part_of(u16::MAX), &mut |key, _| {
            stale.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
        stale.iter().try_for_each(|key| self.store.delete(key))
    }

    fn put_indexes(&mut self, arrival: u64, record: &Record) -> Result<(), StoreError> {
        let place = arrival.to_be_bytes();
        if let (Some(id), Some(commit)) = (record.line(), &record.commit) {
            self.store.put(&layout::seq_index(&id, commit.header().seq), &place)?;
            // An old commit with more sections is not its line's newest.
            if record.effects.widens.is_none() {
                self.store.put(&layout::line_key(&id), &layout::encode_line(&Line::of(commit)))?;
            }
        }
        for (collection, tally) in &record.effects.tallies {
            self.store.put(&layout::tally_key(collection), &layout::sealed(codec::encode(tally)))?;
        }
        if self.replica.settings().kind == Kind::Append {
            for key in record_index_keys(record, local_writer(self.replica.settings().identity.peer())) {
                let places = self.places(&key, arrival, record)?;
                self.walk_is_told_of_places(&key, &places)?;
                self.store.put(&key, &places)?;
            }
            self.drop_issued(record)?;
        }
        Ok(())
    }

    fn put_epoch(&self, epoch: Option<Epoch>) -> Result<(), StoreError> {
        self.store.put(&layout::meta(META_EPOCH), &layout::sealed(codec::encode(&epoch)))
    }

    /// Says in the store up to where rows are durable. It rides on the next barrier.
    fn write_mark(&mut self) -> Result<(), StoreError> {
        if self.mark != self.settled {
            self.store
                .put(&layout::meta(META_MARK), &layout::sealed(codec::encode(&(self.settled.arrival, self.settled.log_bytes))))?;
            self.mark = self.settled;
        }
        Ok(())
    }

    /// Makes rows and mark durable, so that the next start has nothing to take in again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is lost: the log has it.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.store.barrier()?;
        self.settled = self.applied;
        self.write_mark()?;
        if !self.read_only {
            self.look_at_held()?;
            self.write_held()?;
        }
        self.store.barrier()?;
        while self.moves.any_settled(self.mark.arrival) {
            self.clear_moved()?;
            self.store.barrier()?;
        }
        self.note_reached();
        Ok(())
    }

    /// Learns what a peer has of our own line.
    ///
    /// # Errors
    /// [`StoreError`], where our line ends by it and that could not be made durable.
    pub fn learn_own_line(&mut self, peer_has: &VersionVector) -> Result<(), StoreError> {
        let before = self.replica.writer().epoch();
        self.replica.learn_own_line(peer_has);
        if self.replica.writer().epoch() == before { Ok(()) } else { self.close_writer() }
    }

    /// From now on nothing is taken in: there is no space left on the disk.
    pub(super) fn read_only(&mut self) {
        self.read_only = true;
    }

    /// What is certain to be on the disk where it is full: all but what the log has past the mark. That may be with the operating
    /// system alone, and there is no space to write it again.
    pub(super) fn stable_while_full(&self) -> Option<&VersionVector> {
        self.read_only.then_some(&self.settled_vector)
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// For readers on any thread.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The life of this store.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Bytes of the log's records.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }
}

/// One outcome per decided request.
pub type Outcomes = Vec<Result<Written, WriteRefusal>>;

/// Rows while the log is taken in again: one that a crash tore is taken for absent, the record that wrote it comes again.
struct Lenient<'a>(&'a View);

impl anabranch_protocol::replica::Rows for Lenient<'_> {
    type Error = StoreError;
    fn row(
        &self,
        collection: &Collection,
        key: &anabranch_protocol::id::Key,
    ) -> Result<Option<anabranch_protocol::conflict::Row>, StoreError> {
        match self.0.load_row(collection, key) {
            Err(StoreError::Corrupt(_)) => Ok(None),
            other => other,
        }
    }
    fn above(&self, collection: &Collection, floor: &Floor) -> Result<Tally, StoreError> {
        self.0.above(collection, floor)
    }
    fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, StoreError> {
        anabranch_protocol::replica::Rows::commit(self.0, line, seq)
    }
    fn remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, StoreError> {
        self.0.load_remembered(key)
    }
}

/// The first format whose readers know all that is in a record.
fn format_of(record: &Record) -> u64 {
    if !record.effects.remembered.is_empty() {
        FORMAT_WITH_KEYS
    } else if record.effects.tallies.iter().any(|(_, tally)| tally.floor.is_some()) {
        FORMAT_WITH_DROPS
    } else {
        FORMAT_VERSION
    }
}

/// Checks what the store says of itself; nothing where it is new.
fn check_format(store: &dyn Store, kind: Kind) -> Result<Option<Incarnation>, LedgerError> {
    let Some(incarnation) = fact::<Incarnation>(store, META_INCARNATION)? else { return Ok(None) };
    let found = number(store, META_FORMAT)?;
    if found > FORMAT_WITH_KEYS {
        return Err(LedgerError::NewerFormat { found });
    }
    let stored: String = fact(store, META_KIND)?.unwrap_or_default();
    if stored != kind.to_string() {
        return Err(LedgerError::OtherKind { stored, configured: kind });
    }
    Ok(Some(incarnation))
}

/// Decides the store's lineage. One that holds nothing may take it on, durably, before it holds anything.
fn settle_lineage(
    store: &dyn Store,
    known: bool,
    choice: &LineageChoice,
    entropy: &mut dyn FnMut(&mut [u8]),
) -> Result<Lineage, LedgerError> {
    let stored = if known { Some(fact::<Lineage>(store, META_LINEAGE)?.unwrap_or(Lineage::ZERO)) } else { None };
    let empty = stored_mark(store)?.arrival == 0 && store.last(b"l", b"m")?.is_none();
    let settled = choice.of_store(stored, empty, entropy);
    let lineage =
        settled.map_err(|configured| LedgerError::OtherLineage { stored: stored.unwrap_or(Lineage::ZERO), configured })?;
    if stored.is_some_and(|stored| stored != lineage) {
        store.put(&layout::meta(META_LINEAGE), &layout::sealed(codec::encode(&lineage)))?;
        store.barrier()?;
    }
    Ok(lineage)
}

/// Writes what a new store says of itself.
fn write_format(
    store: &dyn Store,
    settings: &ReplicaSettings,
    entropy: &mut dyn FnMut(&mut [u8]),
) -> Result<Incarnation, LedgerError> {
    let mut incarnation = Incarnation::ZERO;
    entropy(&mut incarnation.0);
    let put = |name, value: Vec<u8>| store.put(&layout::meta(name), &layout::sealed(value));
    put(META_FORMAT, FORMAT_VERSION.to_be_bytes().to_vec())?;
    put(META_KIND, codec::encode(&settings.kind.to_string()))?;
    put(META_LINEAGE, codec::encode(&settings.lineage))?;
    // Last, and behind a barrier of its own, for a crash may keep any of these: a store without it is a new one.
    store.barrier()?;
    put(META_INCARNATION, codec::encode(&incarnation))?;
    store.barrier()?;
    Ok(incarnation)
}

/// Documents of the reserved collection. One that a crash tore is left out: the record that wrote it comes again.
fn control_rows(store: &dyn Store, view: &View) -> Result<Vec<(Key, Row)>, StoreError> {
    let control = control_collection();
    let base = layout::row_prefix(&control);
    let mut keys = Vec::new();
    store.scan(&base, &layout::after_prefix(&base), &mut |key, _| {
        keys.extend(std::str::from_utf8(&key[base.len()..]).ok().and_then(|key| Key::new(key).ok()));
        std::ops::ControlFlow::Continue(())
    })?;
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        match view.load_row(&control, &key) {
            Ok(Some(row)) => rows.push((key, row)),
            Ok(None) | Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

fn saved(store: &dyn Store) -> Result<Saved, StoreError> {
    let mut saved = Saved { clock: Hlc(number(store, META_CLOCK)?), ..Saved::default() };
    let mut damaged = None;
    store.scan(b"v", b"w", &mut |key, value| {
        match layout::decode_line(key, value) {
            Some((writer, line)) => drop(saved.lines.insert(writer, line)),
            None => damaged = Some("a vector row fails its checksum"),
        }
        std::ops::ControlFlow::Continue(())
    })?;
    store.scan(b"t", b"u", &mut |key, value| {
        let collection = std::str::from_utf8(&key[1..]).ok().and_then(|name| Collection::new(name).ok());
        let tally = layout::unsealed(value).and_then(|bytes| codec::decode::<Tally>(bytes, layout::TALLY_BYTES_MAX).ok());
        match collection.zip(tally) {
            Some((collection, tally)) => drop(saved.tallies.insert(collection, tally)),
            None => damaged = Some("a tally fails its checksum"),
        }
        std::ops::ControlFlow::Continue(())
    })?;
    damaged.map_or(Ok(saved), |what| Err(StoreError::Corrupt(what.into())))
}

/// Reads a store that a fuzzer made up: damage is an error, never a panic.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz_saved(store: &dyn Store) {
    let _ = saved(store);
    let _ = (stored_mark(store), fact::<Option<Epoch>>(store, META_EPOCH), number(store, META_FORMAT));
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::{forks::fuzz as fuzz_fork, memory::fuzz as fuzz_registration, reached::fuzz as fuzz_reached};

fn fact<T: serde::de::DeserializeOwned + serde::Serialize>(store: &dyn Store, name: &str) -> Result<Option<T>, StoreError> {
    let Some(value) = store.get(&layout::meta(name))? else { return Ok(None) };
    let damaged = || StoreError::Corrupt(format!("{name} fails its checksum"));
    let bytes = layout::unsealed(&value).ok_or_else(damaged)?;
    codec::decode(bytes, 1_024).map(Some).map_err(|_| damaged())
}

fn stored_mark(store: &dyn Store) -> Result<Mark, StoreError> {
    let (arrival, log_bytes) = fact(store, META_MARK)?.unwrap_or_default();
    Ok(Mark { arrival, log_bytes })
}

fn number(store: &dyn Store, name: &str) -> Result<u64, StoreError> {
    let Some(value) = store.get(&layout::meta(name))? else { return Ok(0) };
    let bytes = layout::unsealed(&value).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| StoreError::Corrupt(format!("{name} fails its checksum")))
}

mod enrolment;
mod forks;
mod held;
mod issue;
mod memory;
mod places;
mod reached;
mod rebuild;
mod registration;
mod remembered;
mod rows;
mod scans;
mod sweep;
mod verify;
mod weigh;
mod widen;

#[cfg(test)]
mod flips;
#[cfg(test)]
mod tests;
