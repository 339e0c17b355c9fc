//! When a node may take back commits of its own whose stamps come from a wrong clock, and whether it is its own clock that is wrong.
//!
//! A commit can be taken back only as long as nobody else has it: whoever has it goes on with it, and passes it on. So every peer
//! has to hold back what is taken back, and none may have said that it has one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::hlc::{Hlc, WallClock};
use crate::id::{PeerId, WriterId};
use crate::vector::VersionVector;
use crate::wire::Held;

/// Peers that a refusal names; the others are counted.
const NAMED_MAX: usize = 3;

/// A line of this node whose newest commits lie too far ahead of its wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AheadLine {
    /// Which.
    pub writer: WriterId,
    /// The first such commit.
    pub first: u64,
    /// The newest one.
    pub last: u64,
}

/// What lies too far ahead of this node's wall clock, in one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AheadOfWall {
    /// The replica's clock does, and drags every further write along.
    pub clock: bool,
    /// Lines of this node.
    pub own: Vec<AheadLine>,
    /// Those of others.
    pub others: Vec<WriterId>,
    /// Lines of this node that forked, or branches of those.
    pub forked: bool,
}

impl AheadOfWall {
    /// How many commits of this node that is.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.own.iter().map(|line| line.last + 1 - line.first).sum()
    }
}

/// What is known of peers.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// What each said that it has, to whomever.
    pub has: BTreeMap<PeerId, VersionVector>,
    /// What each holds back, of whomever, as it said on its connection.
    pub holds: BTreeMap<PeerId, Vec<Held>>,
    /// Peers that may have got something from this node: all that were ever accepted, but those that an operator demoted.
    pub enrolled: BTreeSet<PeerId>,
    /// Connected peers, and how many of them disagree with this node's wall clock.
    pub connected: usize,
    /// See [`disagrees`].
    pub disagreeing: usize,
}

/// Why nothing is taken back. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepairRefusal {
    /// The wall clock is still wrong, as far as most peers tell.
    #[error(
        "own_clock_suspect: {disagreeing} of {connected} connected peers disagree with this node's clock as it is now; set it right first (compare it with a time server), then repair"
    )]
    OwnClockSuspect { disagreeing: usize, connected: usize },
    /// Some peer has some of them.
    #[error(
        "{commits} of {all} commits with stamps too far ahead can't be taken back, for {} confirmed them; they count everywhere once clocks get there",
        named(.peers)
    )]
    Confirmed { commits: u64, all: u64, peers: Vec<PeerId> },
    /// Others' commits are as far ahead, and were taken in while this node's clock was wrong.
    #[error(
        "commits of {} other writers are here whose stamps are as far ahead, the first of them {}: they were taken in while this node's clock was wrong, and new writes have to be later than they are",
        writers.len(), writers.first().map(ToString::to_string).unwrap_or_default()
    )]
    OtherWriters { writers: Vec<WriterId> },
    /// A peer may have some of them, for it does not say that it holds them back.
    #[error(
        "{} may have some of the {commits} commits, and does not say that it holds them back: wait until it is connected and has compared, or demote it (`anabranch peers demote PEER`) if it never got them",
        named(.peers)
    )]
    Silent { commits: u64, peers: Vec<PeerId> },
    /// Two stories are known of this node's past.
    #[error("this node's own history forked, and what is ahead lies on a forked line: it can't be told what peers have of it")]
    Forked,
}

fn named(peers: &[PeerId]) -> String {
    let first: Vec<String> = peers.iter().take(NAMED_MAX).map(|peer| format!("peer {peer}")).collect();
    let more = peers.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{} and {more} more", first.join(", ")) } else { first.join(", ") }
}

/// Whether the commits of this node that are too far ahead may be taken back: how many they are.
///
/// # Errors
/// [`RepairRefusal`].
pub fn may_take_back(ahead: &AheadOfWall, heard: &Heard) -> Result<u64, RepairRefusal> {
    let Heard { connected, disagreeing, .. } = *heard;
    if is_suspect(disagreeing, connected) {
        return Err(RepairRefusal::OwnClockSuspect { disagreeing, connected });
    }
    if !ahead.clock {
        return Ok(0);
    }
    // With these here every write would be ahead again, whatever was taken back.
    if !ahead.others.is_empty() {
        return Err(RepairRefusal::OtherWriters { writers: ahead.others.clone() });
    }
    let all = ahead.commits();
    if all == 0 {
        return Ok(0);
    }
    if ahead.forked {
        return Err(RepairRefusal::Forked);
    }
    let (commits, peers) = confirmed(ahead, &heard.has);
    if commits > 0 {
        return Err(RepairRefusal::Confirmed { commits, all, peers });
    }
    let silent: Vec<PeerId> = heard.enrolled.iter().filter(|peer| !holds_all(ahead, heard.holds.get(peer))).copied().collect();
    if silent.is_empty() { Ok(all) } else { Err(RepairRefusal::Silent { commits: all, peers: silent }) }
}

/// Whether a peer holds back each of the lines from its first commit on: then none of it is on its way there either.
fn holds_all(ahead: &AheadOfWall, holds: Option<&Vec<Held>>) -> bool {
    let holds = |line: &AheadLine| {
        holds.is_some_and(|holds| holds.iter().any(|held| held.writer == line.writer && held.seq <= line.first))
    };
    ahead.own.iter().all(holds)
}

/// How many of the commits somebody has, and who.
fn confirmed(ahead: &AheadOfWall, has: &BTreeMap<PeerId, VersionVector>) -> (u64, Vec<PeerId>) {
    let of = |vector: &VersionVector, line: &AheadLine| (vector.seq(&line.writer).min(line.last) + 1).saturating_sub(line.first);
    let most = |line: &AheadLine| has.values().map(|vector| of(vector, line)).max().unwrap_or(0);
    let peers = has.iter().filter(|(_, vector)| ahead.own.iter().any(|line| of(vector, line) > 0));
    (ahead.own.iter().map(most).sum(), peers.map(|(peer, _)| *peer).collect())
}

/// Whether a connected peer's clock and this node's can't both be right: one of them holds back the other's commits. What a peer
/// holds back of ours counts only if our own clock, as it is now, does not call it too far ahead as well, and if it is still here.
pub fn disagrees(
    peer: &PeerId,
    me: &PeerId,
    (held_there, held_here): (&[Held], &[Held]),
    ours: &VersionVector,
    now: WallClock,
    skew: Duration,
) -> bool {
    let not_ahead = |hlc: Hlc| !hlc.is_ahead_of(now, skew);
    let ours_there = |held: &Held| held.writer.peer == *me && still_here(held, ours) && not_ahead(held.hlc);
    held_there.iter().any(ours_there) || held_here.iter().any(|held| held.writer.peer == *peer)
}

/// Whether a commit of ours that a peer holds back was not taken back since.
#[must_use]
pub fn still_here(held: &Held, ours: &VersionVector) -> bool {
    ours.seq(&held.writer) >= held.seq
}

/// Whether so many peers disagree with this node's clock that it is the likely culprit.
#[must_use]
pub fn is_suspect(disagreeing: usize, connected: usize) -> bool {
    disagreeing > 0 && disagreeing * 2 > connected
}
