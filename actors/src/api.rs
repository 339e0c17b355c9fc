//! What a running node is asked and answers: plain values, so that HTTP, command line, simulations and embedders share them.

use std::time::Duration;

use anabranch_protocol::clock_repair::RepairRefusal;
use anabranch_protocol::conflict::Stamp;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Key, Lineage, PeerId, WriterId};
use anabranch_protocol::replica::WriteRefusal;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::Kind;

pub use anabranch_protocol::coverage::{RegistrationRefusal, Standing as Coverage};

pub use crate::dataset::aside::{DropAsideError, SetAside};
pub use crate::dataset::counters::{Counts, MessageBytes};
pub use crate::dataset::enrolment::Enrolments;
pub use crate::dataset::histogram::{BOUNDS_MICROS, Distribution, Histogram};
pub use crate::dataset::ledger::RowAudit;
pub use crate::dataset::lineage::LineageSetting;
pub use crate::dataset::measures::{Measured, Queue};
pub use crate::dataset::sample::{DatasetSample, PeerSample, Peers, RESTARTS_WINDOW, Waiting};
pub use crate::dataset::supervisor::Order;

/// Where a write has to be durable before it is answered, beside here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// On so many other nodes, however many hops away, whose registration covers the write.
    Peers(u16),
    /// On every enrolled peer: each whose `Hello` for the dataset was ever accepted, until it is demoted.
    All,
}

/// Who has a write on stable storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// Beside this node.
    pub by: Vec<PeerId>,
    /// Whether they are as many as were asked for.
    pub enough: bool,
}

/// Why a read that waits for a write was not answered. Nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AfterError {
    /// The dataset can't answer.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The write did not arrive in time.
    #[error("this node has {have} commits of that writer, the token names commit {want}; it did not arrive within {waited:?}")]
    Late { have: u64, want: u64, waited: Duration },
    /// The token's commit is not the one that is here under its number.
    #[error("the token names a commit of another history: of another dataset, a replaced one, or the other side of a fork")]
    OtherHistory,
    /// The past of the collection is still being pulled.
    #[error("collection {0:?} is still being imported on this node: its part of the write may not be here yet")]
    Importing(Collection),
    /// The collection does not replicate here, so the write would never arrive.
    #[error("collection {0:?} is not registered on this node: the write will not arrive here")]
    NotRegistered(Collection),
}

/// A document or record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its key.
    pub key: Key,
    /// Its value, deterministic CBOR.
    pub value: Vec<u8>,
    /// The entry that made it.
    pub stamp: Stamp,
}

/// Which documents of a collection to list, in key order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Keys that begin with this.
    pub prefix: String,
    /// Keys after this one.
    pub after: Option<String>,
    /// At most this many; the page may also end earlier by bytes, and later where records of two branches share a key.
    pub limit: usize,
    /// `append` datasets: records of this time or later.
    pub from: Option<WallClock>,
    /// `append` datasets: records before this time.
    pub to: Option<WallClock>,
}

/// A page of documents: one consistent view, no commit half of which shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In key order.
    pub documents: Vec<Document>,
    /// The value for `after` that continues; none at the end.
    pub next: Option<String>,
}

/// A dataset as status pages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetInfo {
    /// Its name.
    pub dataset: DatasetId,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is meant to run.
    pub enabled: bool,
    /// Whether it runs.
    pub state: DatasetState,
    /// Why it doesn't run, or what is wrong though it runs.
    pub reason: Option<String>,
    /// How often its actors were rebuilt.
    pub restarts: u64,
    /// What it holds and where it stands; none while it can't tell.
    pub contents: Option<DatasetContents>,
    /// What it did since the node started.
    pub counts: Counts,
    /// Damaged stores that were set aside and are kept until they are dropped.
    pub set_aside: Vec<SetAside>,
}

/// What a running dataset holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetContents {
    /// Live documents, or records of an `append` dataset.
    pub documents: u64,
    /// Commits in the log.
    pub commits: u64,
    /// Bytes of the log's frames.
    pub oplog_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Registered collections; `*` where all are.
    pub collections: Vec<String>,
    /// The writer of this node's next commits; none before its first.
    pub writer: Option<WriterId>,
    /// What is applied and durable here.
    pub vector: VersionVector,
    /// Equal on replicas with the same registration and vector.
    pub fingerprint: String,
    /// Writers held back here because their clock is too far ahead.
    pub held: Vec<HeldWriter>,
    /// Commits taken in from peers since the dataset was opened.
    pub received_commits: u64,
    /// Commits refused since the dataset was opened.
    pub refused_commits: u64,
    /// What it has in common with those it syncs with; zero while it is open to all.
    pub lineage: Lineage,
    /// How the audit of its rows in the background stands.
    pub row_audit: RowAudit,
}

/// A writer whose commits wait for this node's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldWriter {
    /// Whose commits.
    pub writer: WriterId,
    /// The first one held.
    pub seq: u64,
    /// How far ahead its clock reading is.
    pub ahead: Duration,
}

/// Whether a dataset runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasetState {
    /// It serves.
    Running,
    /// It is being opened or rebuilt.
    Restarting,
    /// It failed too often, or its store can't be opened; it is tried again slowly.
    Failed,
    /// It was paused.
    Paused,
    /// It serves, and the past of collections that were registered is still being pulled.
    Importing,
}

impl DatasetState {
    /// The word status pages use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Importing => "importing",
        }
    }
}

/// A peer as status pages show it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// Whether a connection stands.
    pub connected: bool,
    /// Round trip time by ping.
    pub rtt: Option<Duration>,
    /// Addresses it was seen at or told, as multiaddrs.
    pub addresses: Vec<String>,
    /// Why nothing at all is synced with it.
    pub refused: Option<String>,
    /// How each shared dataset stands.
    pub datasets: Vec<(DatasetId, PeerDataset)>,
}

/// How a dataset stands to a peer's.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerDataset {
    /// Where it stands.
    pub state: PeerState,
    /// Commits that one side has and the other lacks.
    pub lag_commits: u64,
    /// Age of the oldest such commit, as far as clocks tell.
    pub lag: Duration,
    /// Why it was refused, or what is wrong.
    pub reason: Option<String>,
}

/// Where a peer's replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Same commits.
    InSync,
    /// The peer lacks commits of ours.
    Behind,
    /// The peer has commits that we lack.
    Ahead,
    /// Each lacks commits of the other.
    Diverged,
    /// The peer has commits that need a newer version of this node.
    NeedsUpgrade,
    /// One side refused the other.
    Refused,
}

impl PeerState {
    /// The word status pages use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::Diverged => "diverged",
            Self::NeedsUpgrade => "needs_upgrade",
            Self::Refused => "refused",
        }
    }
}

/// A dataset that can't answer now. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// No such dataset on this node.
    #[error("no dataset {0} on this node")]
    Unknown(DatasetId),
    /// It is restarting, failed or paused.
    #[error("dataset {dataset} is {}: {reason}", state.as_str())]
    Unavailable { dataset: DatasetId, state: DatasetState, reason: String, retry_after: Duration },
    /// Too many requests wait already.
    #[error("dataset {dataset} has {waiting} requests waiting: try again")]
    Overloaded { dataset: DatasetId, waiting: usize, retry_after: Duration },
    /// Its store failed to read.
    #[error("dataset {dataset} can't read its store: {reason}")]
    Storage { dataset: DatasetId, reason: String },
}

/// Why a dataset was not created. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// There is one of that name, running or not.
    #[error("dataset {0} exists on this node")]
    Exists(DatasetId),
    /// More than a `Hello` can name.
    #[error("a node has at most {limit} datasets")]
    TooMany { limit: usize },
    /// The operating system refuses another thread.
    #[error("the system refuses another thread")]
    NoThread,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Why a write was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The dataset can't take it now; nothing was written.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The request breaks a rule; nothing was written.
    #[error(transparent)]
    Refused(#[from] WriteRefusal),
    /// The disk is full; nothing was acknowledged, and the dataset opens its store again.
    #[error("dataset {dataset}: no space left on the disk; the write was not acknowledged")]
    NoSpace { dataset: DatasetId },
    /// The store failed while it was written: it may or may not have happened.
    #[error(
        "dataset {dataset}: the outcome of the write is unknown ({reason}): read it back before writing again, or send it again under its idempotency key if it has one"
    )]
    Unknown { dataset: DatasetId, reason: String },
}

/// Why a peer was not enrolled or demoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// The dataset can't do it now; nothing was changed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// There is no space on the disk; nothing was changed.
    #[error("dataset {0}: no space left on the disk; nothing was changed")]
    NoSpace(DatasetId),
    /// Too many peers are remembered; nothing was changed.
    #[error("dataset {0} remembers as many peers as it may; nothing was changed")]
    TooMany(DatasetId),
    /// The store failed meanwhile: it may or may not have happened.
    #[error("dataset {0}: it is not known whether that was changed: look at `peers` again")]
    Unknown(DatasetId),
}

/// What repairing a dataset's clock came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Commits of this node that were issued again.
    pub commits: u64,
    /// Records of writes that don't replicate, which got new stamps.
    pub local: u64,
    /// The store as it was before; none where nothing was to be done.
    pub aside: Option<SetAside>,
}

/// Why a dataset's clock was not repaired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// The dataset can't answer; nothing was changed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// It may not be done; nothing was changed.
    #[error("dataset {0}: {1}")]
    Refused(DatasetId, RepairRefusal),
    /// It did not come to an end.
    #[error("dataset {dataset}: its clock was not repaired: {reason}")]
    Failed { dataset: DatasetId, reason: String },
}

/// A collection as status pages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its name.
    pub collection: Collection,
    /// Whether it replicates.
    pub registered: bool,
    /// Live documents or records.
    pub documents: u64,
    /// How much of its past is here.
    pub coverage: Coverage,
    /// Why it is not complete.
    pub reason: Option<String>,
}

/// Why a collection was not registered or unregistered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The dataset can't do it now; nothing was changed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// It may not be; nothing was changed.
    #[error(transparent)]
    Refused(#[from] RegistrationRefusal),
    /// The store failed meanwhile: it may or may not have happened.
    #[error("dataset {0}: it is not known whether the registration was changed: look at the collections again")]
    Unknown(DatasetId),
}
