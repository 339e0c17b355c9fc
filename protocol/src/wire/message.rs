//! Requests, responses and announcements.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::hello::{Hello, HelloReply};
use crate::codec::{self, DecodeError};
use crate::commit::ForkProof;
use crate::confirmation::SignedStatement;
use crate::hlc::Hlc;
use crate::id::{DatasetId, Epoch, PeerId, ShortHash, Tag, WriterId};
use crate::limits::{
    COMMIT_SECTIONS_MAX, FORKS_MAX, PAGE_BYTES_MAX, PAGE_FRAMES_MAX, PULL_WANTS_MAX, REASON_BYTES_MAX, VECTOR_WRITERS_MAX,
};
use crate::plan::Want;
use crate::registration::Registration;
use crate::vector::VersionVector;

/// What a node asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Who I am and which datasets I have.
    Hello(Hello),
    /// What I have; what have you?
    Heads(Heads),
    /// Send me commits.
    Pull(Pull),
    /// Here are fresh commits.
    Push(Push),
    /// Here is what I, or a peer I know, have on stable storage.
    Confirm(Confirm),
    /// What I have of all that we both sync; what have you?
    Round(Round),
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// To `Hello`.
    Hello(HelloReply),
    /// To `Heads`.
    Heads(HeadsReply),
    /// To `Pull`.
    Page(Page),
    /// To `Push`.
    Pushed(Pushed),
    /// To `Confirm`.
    Confirmed,
    /// To `Round`.
    Round(Round),
    /// To anything that is not done, and why.
    Refused(Refusal),
}

/// One digest of all datasets that both sync ([`crate::round`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// The sender's.
    #[serde(rename = "g")]
    pub digest: ShortHash,
}

/// Compares vectors, cheapest first: by digest, and only where it differs by heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Digest of the sender's vector.
    #[serde(rename = "g")]
    pub digest: ShortHash,
}

/// The answerer's heads; absent where its digest is the asker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsReply {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// The answerer's vector, where it differs.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<VersionVector>,
    /// Writers the answerer holds back, so that they learn of it.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// Forks the answerer knows of, where vectors differ.
    #[serde(
        rename = "f",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "codec::at_most::<ForkProof, _, _, FORKS_MAX>"
    )]
    pub forks: Vec<ForkProof>,
}

/// A writer whose commits a node holds back because their clock is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(PeerId, Epoch, u64, Hlc)", into = "(PeerId, Epoch, u64, Hlc)")]
pub struct Held {
    /// Whose commits.
    pub writer: WriterId,
    /// The first one held.
    pub seq: u64,
    /// Its clock reading.
    pub hlc: Hlc,
}

impl From<(PeerId, Epoch, u64, Hlc)> for Held {
    fn from((peer, epoch, seq, hlc): (PeerId, Epoch, u64, Hlc)) -> Self {
        Self { writer: WriterId { peer, epoch }, seq, hlc }
    }
}

impl From<Held> for (PeerId, Epoch, u64, Hlc) {
    fn from(held: Held) -> Self {
        (held.writer.peer, held.writer.epoch, held.seq, held.hlc)
    }
}

/// Asks for commits of some writers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// The asker's registration: sections outside it are left out.
    #[serde(rename = "r")]
    pub registration: Registration,
    /// From where on, per writer.
    #[serde(rename = "w")]
    pub wants: Vec<Want>,
    /// Payload that the asker wants in one page, bytes; at least one frame comes.
    #[serde(rename = "b")]
    pub bytes_max: u64,
}

/// Commits, in seq order per writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Frames.
    #[serde(rename = "f", deserialize_with = "codec::at_most::<ByteBuf, _, _, PAGE_FRAMES_MAX>")]
    pub frames: Vec<ByteBuf>,
    /// Whether the answerer has more of what was asked for.
    #[serde(rename = "m")]
    pub more: bool,
    /// Frames that the answerer can't serve whole enough.
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<Incomplete>,
}

/// A frame that lacks sections which the asker registered: another peer has to serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(PeerId, Epoch, u64, Vec<Tag>)", into = "(PeerId, Epoch, u64, Vec<Tag>)")]
pub struct Incomplete {
    /// Whose commit.
    pub writer: WriterId,
    /// Its number.
    pub from_seq: u64,
    /// The collections that are missing.
    pub tags: Vec<Tag>,
}

impl From<(PeerId, Epoch, u64, Vec<Tag>)> for Incomplete {
    fn from((peer, epoch, from_seq, tags): (PeerId, Epoch, u64, Vec<Tag>)) -> Self {
        Self { writer: WriterId { peer, epoch }, from_seq, tags }
    }
}

impl From<Incomplete> for (PeerId, Epoch, u64, Vec<Tag>) {
    fn from(i: Incomplete) -> Self {
        (i.writer.peer, i.writer.epoch, i.from_seq, i.tags)
    }
}

/// Fresh commits for a peer that is in sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Frames, in seq order per writer.
    #[serde(rename = "f", deserialize_with = "codec::at_most::<ByteBuf, _, _, PAGE_FRAMES_MAX>")]
    pub frames: Vec<ByteBuf>,
}

/// What became of a push, after the receiver's own barrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pushed {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// What the receiver has on stable storage now, signed.
    #[serde(rename = "c")]
    pub confirmation: SignedStatement,
    /// Whether everything that was pushed is in it; else the receiver pulls.
    #[serde(rename = "o")]
    pub complete: bool,
    /// Writers the receiver holds back.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
}

/// A confirmation, of the sender or relayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// The statements.
    #[serde(rename = "c")]
    pub statements: Vec<SignedStatement>,
}

/// Gossip: what a peer has, never payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Digest of the announcer's vector.
    #[serde(rename = "g")]
    pub digest: ShortHash,
    /// Heads that changed since the last announcement, as far as they fit.
    #[serde(rename = "h")]
    pub heads: VersionVector,
}

/// Why something was not done. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {reason}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// For programs.
    #[serde(rename = "c")]
    pub code: RefusalCode,
    /// For people.
    #[serde(rename = "r")]
    pub reason: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// A `Hello` for this dataset has to be accepted first.
    HelloFirst,
    /// No protocol version in common.
    Version,
    /// The network key was not proven.
    NetworkKey,
    /// This peer may not connect or read.
    Forbidden,
    /// A second live store of this identity.
    DuplicateIdentity,
    /// No such dataset here, or it is disabled.
    UnknownDataset,
    /// Same name, other lineage.
    Lineage,
    /// Same name, other kind.
    Kind,
    /// A shared collection has another policy there.
    Policy,
    /// The dataset can't answer now; try again later.
    Unavailable,
    /// Too much at once; try again later.
    Busy,
    /// The message breaks the protocol.
    Malformed,
    /// A commit was not accepted.
    Commit,
}

impl std::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HelloFirst => "hello_first",
            Self::Version => "version",
            Self::NetworkKey => "network_key",
            Self::Forbidden => "forbidden",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::UnknownDataset => "unknown_dataset",
            Self::Lineage => "lineage",
            Self::Kind => "kind",
            Self::Policy => "policy",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Malformed => "malformed",
            Self::Commit => "commit",
        })
    }
}

impl Refusal {
    /// A refusal with a reason in words, cut to what may travel.
    #[must_use]
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        Self { code, reason }
    }

    /// As it is shown here when it is the peer's word: `here` and `there` in it are the peer's.
    #[must_use]
    pub fn by_peer(&self) -> Self {
        Self { code: self.code, reason: format!("the peer says: {}", self.reason) }
    }

    /// Whether it ends what was agreed on before, as opposed to asking for another try.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        use RefusalCode::{Forbidden, Kind, Lineage, Policy, UnknownDataset};
        matches!(self.code, Forbidden | Kind | Lineage | Policy | UnknownDataset)
    }

    pub(super) fn check(&self) -> Result<(), DecodeError> {
        bounded(self.reason.len() <= REASON_BYTES_MAX, "a reason of at most 512 bytes")
    }
}

fn bounded(holds: bool, rule: &'static str) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::OutOfBounds(rule)) }
}

pub(super) fn dataset_is_valid(dataset: Option<&DatasetId>) -> Result<(), DecodeError> {
    bounded(dataset.is_none_or(|id| !id.is_primary()), "`primary` is spelled by leaving it out")
}

impl Request {
    /// The dataset a request is about; none for a `Hello` and a `Round`.
    #[must_use]
    pub fn dataset(&self) -> Option<DatasetId> {
        let wire = match self {
            Self::Hello(_) | Self::Round(_) => return None,
            Self::Heads(m) => &m.dataset,
            Self::Pull(m) => &m.dataset,
            Self::Push(m) => &m.dataset,
            Self::Confirm(m) => &m.dataset,
        };
        DatasetId::from_wire(wire.as_ref())
    }

    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Heads(m) => dataset_is_valid(m.dataset.as_ref()),
            Self::Pull(m) => {
                dataset_is_valid(m.dataset.as_ref())?;
                bounded(m.registration.is_valid(), "registration")?;
                bounded(m.wants.len() <= PULL_WANTS_MAX && m.wants.iter().all(Want::is_valid), "wants")?;
                bounded(m.bytes_max <= PAGE_BYTES_MAX as u64, "page size")
            }
            Self::Push(m) => dataset_is_valid(m.dataset.as_ref()),
            Self::Confirm(m) => {
                dataset_is_valid(m.dataset.as_ref())?;
                bounded(m.statements.len() <= 1_024, "statements")
            }
            Self::Round(_) => Ok(()),
        }
    }

    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Push(push) => push.frames.iter().map(|frame| frame.len() + 8).sum(),
            _ => 0,
        }
    }
}

impl Response {
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(reply) => reply.check(),
            Self::Heads(m) => {
                dataset_is_valid(m.dataset.as_ref())?;
                bounded(m.held.len() <= VECTOR_WRITERS_MAX, "held writers")?;
                bounded(m.forks.iter().all(ForkProof::is_bounded), "forks")
            }
            Self::Page(m) => {
                dataset_is_valid(m.dataset.as_ref())?;
                bounded(m.incomplete.len() <= PULL_WANTS_MAX, "incomplete writers")?;
                bounded(m.incomplete.iter().all(|i| i.tags.len() <= COMMIT_SECTIONS_MAX), "tags")
            }
            Self::Pushed(m) => {
                dataset_is_valid(m.dataset.as_ref())?;
                bounded(m.held.len() <= VECTOR_WRITERS_MAX, "held writers")
            }
            Self::Confirmed | Self::Round(_) => Ok(()),
            Self::Refused(refusal) => refusal.check(),
        }
    }

    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Page(page) => page.frames.iter().map(|frame| frame.len() + 8).sum(),
            _ => 0,
        }
    }
}
