//! The signed part of a commit.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::FrameError;
use crate::codec;
use crate::hlc::Hlc;
use crate::id::{DatasetId, Epoch, Hash, PeerId, Tag, WriterId};
use crate::limits::{COMMIT_ENTRIES_MAX, COMMIT_SECTIONS_MAX, FRAME_BYTES_MAX, HEADER_BYTES_MAX, SEQ_MAX};

/// The format this version writes.
pub(super) const VERSION: u64 = 1;

/// What a commit's signature covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    #[serde(rename = "v")]
    pub(super) version: u64,
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) dataset: Option<DatasetId>,
    #[serde(rename = "p")]
    pub(super) peer: PeerId,
    #[serde(rename = "e")]
    pub(super) epoch: Epoch,
    /// Contiguous from 1 per writer.
    #[serde(rename = "n")]
    pub seq: u64,
    /// Hash of the writer's previous commit; zero for its first.
    #[serde(rename = "h")]
    pub previous: Hash,
    /// Clock reading; grows with `seq`.
    #[serde(rename = "t")]
    pub hlc: Hlc,
    /// Where this writer's peer left off before, in a first commit.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The section table, in ascending order of tags.
    #[serde(rename = "s")]
    pub sections: Vec<SectionRef>,
}

/// The last commit of a peer's earlier epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent(pub Epoch, pub u64, pub Hash);

/// A line of the section table: which collection, how many entries, which bytes. Travels as a tuple: there may be 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Tag, u32, Hash)", into = "(Tag, u32, Hash)")]
pub struct SectionRef {
    /// Names the collection.
    pub tag: Tag,
    /// Entries in the section.
    pub entries: u32,
    /// Digest of the section's bytes.
    pub digest: Hash,
}

impl Header {
    /// Who made the commit.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        WriterId { peer: self.peer, epoch: self.epoch }
    }

    /// The dataset the commit belongs to.
    #[must_use]
    pub fn dataset(&self) -> DatasetId {
        self.dataset.clone().unwrap_or_else(DatasetId::primary)
    }

    /// Entries in all sections.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.sections.iter().map(|section| u64::from(section.entries)).sum()
    }

    /// What the header of a frame says that was checked when it came in; nothing else of the frame is decoded.
    ///
    /// # Errors
    /// [`FrameError`] where that is no header.
    pub fn in_frame(frame: &[u8]) -> Result<Self, FrameError> {
        let (header, _, _): (ByteBuf, IgnoredAny, IgnoredAny) = codec::decode_loose(frame, FRAME_BYTES_MAX)?;
        Ok(codec::decode_loose(&header, HEADER_BYTES_MAX)?)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let header: Self = match codec::decode(bytes, HEADER_BYTES_MAX) {
            Ok(header) => header,
            Err(error) => return Err(newer_version(bytes).unwrap_or(FrameError::Decode(error))),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), FrameError> {
        let rule = |holds: bool, name| if holds { Ok(()) } else { Err(FrameError::Inconsistent(name)) };
        if self.version != VERSION {
            return Err(FrameError::NeedsUpgrade { what: "commit version", number: self.version });
        }
        rule(self.dataset.as_ref().is_none_or(|id| !id.is_primary()), "`primary` is spelled by leaving it out")?;
        rule((1..=SEQ_MAX).contains(&self.seq), "seq out of range")?;
        rule((self.seq == 1) == (self.previous == Hash::ZERO), "the first commit, and it alone, has no predecessor")?;
        rule(self.seq == 1 || self.parent.is_none(), "only a first commit names a parent")?;
        rule(self.parent.is_none_or(|p| p.0 != self.epoch && (1..=SEQ_MAX).contains(&p.1)), "a parent is an earlier epoch")?;
        rule((1..=COMMIT_SECTIONS_MAX).contains(&self.sections.len()), "a commit has 1 to 64 sections")?;
        rule(self.sections.is_sorted_by(|a, b| a.tag < b.tag), "sections are in ascending order of tags")?;
        rule(self.sections.iter().all(|s| s.entries > 0), "a section has entries")?;
        rule(self.entries() <= COMMIT_ENTRIES_MAX as u64, "too many entries")
    }
}

/// A header that doesn't decode may be of a newer version: read only that.
fn newer_version(bytes: &[u8]) -> Option<FrameError> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    let probe: Version = codec::decode_loose(bytes, HEADER_BYTES_MAX).ok()?;
    (probe.v > VERSION).then_some(FrameError::NeedsUpgrade { what: "commit version", number: probe.v })
}

/// The writer that a header names, though it may not decode otherwise.
pub(super) fn claimed_writer(bytes: &[u8]) -> Option<WriterId> {
    #[derive(Deserialize)]
    struct Claim {
        p: PeerId,
        e: Epoch,
    }
    let claim: Claim = codec::decode_loose(bytes, HEADER_BYTES_MAX).ok()?;
    Some(WriterId { peer: claim.p, epoch: claim.e })
}

impl From<(Tag, u32, Hash)> for SectionRef {
    fn from((tag, entries, digest): (Tag, u32, Hash)) -> Self {
        Self { tag, entries, digest }
    }
}

impl From<SectionRef> for (Tag, u32, Hash) {
    fn from(section: SectionRef) -> Self {
        (section.tag, section.entries, section.digest)
    }
}
