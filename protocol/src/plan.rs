//! Who pulls what: from two vectors to the ranges worth asking for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, PeerId, WriterId};
use crate::limits::{PULL_WANTS_MAX, SEQ_MAX};
use crate::vector::VersionVector;

/// Commits of one writer from a number on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(PeerId, Epoch, u64)", into = "(PeerId, Epoch, u64)")]
pub struct Want {
    /// Whose commits.
    pub writer: WriterId,
    /// The first one that is missing.
    pub from_seq: u64,
}

impl From<(PeerId, Epoch, u64)> for Want {
    fn from((peer, epoch, from_seq): (PeerId, Epoch, u64)) -> Self {
        Self { writer: WriterId { peer, epoch }, from_seq }
    }
}

impl From<Want> for (PeerId, Epoch, u64) {
    fn from(want: Want) -> Self {
        (want.writer.peer, want.writer.epoch, want.from_seq)
    }
}

impl Want {
    /// Whether the number can be one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (1..=SEQ_MAX).contains(&self.from_seq)
    }
}

/// What to pull from a peer that has `theirs`: every writer it is ahead on, but those that another peer is being asked for or
/// that are held here. At most [`PULL_WANTS_MAX`]; the rest comes with the next round.
#[must_use]
pub fn plan_pull(mine: &VersionVector, theirs: &VersionVector, left_alone: &BTreeSet<WriterId>) -> Vec<Want> {
    let ahead = |(writer, head): (&WriterId, &crate::vector::Head)| {
        let have = mine.seq(writer);
        (head.seq > have && !left_alone.contains(writer)).then_some(Want { writer: *writer, from_seq: have + 1 })
    };
    theirs.iter().filter_map(ahead).take(PULL_WANTS_MAX).collect()
}

/// How two replicas stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Both have the same commits.
    InSync,
    /// The peer has commits that this node lacks.
    Behind,
    /// This node has commits that the peer lacks.
    Ahead,
    /// Each has commits that the other lacks; also where two commits have one number.
    Diverged,
}

/// Compares this node's vector with a peer's.
#[must_use]
pub fn standing(mine: &VersionVector, theirs: &VersionVector) -> Standing {
    let forked = |(writer, head): (&WriterId, &crate::vector::Head)| {
        theirs.head(writer).is_some_and(|other| other.seq == head.seq && other.hash != head.hash)
    };
    if mine.iter().any(forked) {
        return Standing::Diverged;
    }
    match (mine.covers(theirs), theirs.covers(mine)) {
        (true, true) => Standing::InSync,
        (false, true) => Standing::Behind,
        (true, false) => Standing::Ahead,
        (false, false) => Standing::Diverged,
    }
}
