//! Forks: two commits of one writer that both follow the same commit.
//!
//! Two signed headers prove it to anybody. The line then parts: it ends before the fork, and each commit that follows there begins a
//! *branch*, a line of its own under an id that follows from the commit. So what a commit counts for still depends on nothing but
//! commits and proofs, whoever heard of which of them first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::frame::signed_hash;
use super::{Commit, FrameError, Header};
use crate::codec::{self, DecodeError};
use crate::id::{DatasetId, Epoch, Hash, Lineage, Signature, WriterId};
use crate::limits::{FORK_PROOF_BYTES_MAX, FORKS_MAX, FORKS_PER_PEER_MAX, HEADER_BYTES_MAX};

/// A header as it was signed; also the shape it travels in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHeader(#[serde(with = "serde_bytes")] Vec<u8>, Signature);

/// Two headers of one writer with one number and one predecessor, in ascending order of their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkProof(SignedHeader, SignedHeader);

/// A fork that was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Whose history forked.
    pub writer: WriterId,
    /// The number that two commits have.
    pub seq: u64,
    /// The commit that both follow; zero where they are first commits.
    pub previous: Hash,
    proof: ForkProof,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// Not a proof of ours.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A header that is none, of another dataset or lineage, or not signed by its writer.
    #[error("{0}")]
    Header(#[from] FrameError),
    /// The headers don't contradict each other.
    #[error("no fork: {0}")]
    NoFork(&'static str),
}

impl ForkProof {
    /// What two commits prove, if they are a fork.
    #[must_use]
    pub fn of(one: &Commit, other: &Commit) -> Option<Self> {
        let same = |header: &Header| (header.writer(), header.seq, header.previous);
        if same(one.header()) != same(other.header()) || one.hash() == other.hash() {
            return None;
        }
        let (first, second) = if one.hash() < other.hash() { (one, other) } else { (other, one) };
        Some(Self(first.signed_header(), second.signed_header()))
    }

    /// The fork, if both headers are of this dataset, signed by one writer, and follow the same commit.
    ///
    /// # Errors
    /// [`ForkError`] with the first thing that is wrong.
    pub fn verify(self, dataset: &DatasetId, lineage: Lineage) -> Result<Fork, ForkError> {
        let (first, second) = (self.0.header()?, self.1.header()?);
        let rule = |holds: bool, name| if holds { Ok(()) } else { Err(ForkError::NoFork(name)) };
        rule(first.writer() == second.writer(), "two writers")?;
        rule(first.seq == second.seq, "two numbers")?;
        rule(first.previous == second.previous, "they follow different commits: it is below them that the line parts")?;
        let hash = |signed: &SignedHeader, header| signed_hash(&signed.0, header, &signed.1, dataset, lineage);
        rule(hash(&self.0, &first)? < hash(&self.1, &second)?, "one commit, or not in the order of hashes")?;
        if codec::encode(&self).len() > FORK_PROOF_BYTES_MAX {
            return Err(ForkError::NoFork("larger than any"));
        }
        Ok(Fork { writer: first.writer(), seq: first.seq, previous: first.previous, proof: self })
    }

    /// Reads back a proof's bytes; it still has to be verified.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, FORK_PROOF_BYTES_MAX)
    }

    /// Whether it may travel: nothing else is looked at.
    pub(crate) fn is_bounded(&self) -> bool {
        self.0.0.len() <= HEADER_BYTES_MAX && self.1.0.len() <= HEADER_BYTES_MAX
    }
}

impl SignedHeader {
    fn header(&self) -> Result<Header, FrameError> {
        Header::decode(&self.0)
    }
}

impl Commit {
    fn signed_header(&self) -> SignedHeader {
        let (bytes, signature) = self.signed_parts();
        SignedHeader(bytes.to_vec(), signature)
    }

    /// The branch that this commit begins where its writer's line parts before it.
    #[must_use]
    pub fn branch(&self) -> WriterId {
        branch(&self.writer(), &self.hash())
    }
}

/// The line that begins with the commit `first` of `writer`, where the line before it parts.
#[must_use]
pub fn branch(writer: &WriterId, first: &Hash) -> WriterId {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 branch");
    hasher.update(&writer.peer.0).update(&writer.epoch.0).update(&first.0);
    let mut epoch = [0; 16];
    hasher.finalize_xof().fill(&mut epoch);
    epoch[0] = Epoch::BRANCH;
    WriterId { peer: writer.peer, epoch: Epoch(epoch) }
}

impl Fork {
    /// What proves it.
    #[must_use]
    pub fn proof(&self) -> &ForkProof {
        &self.proof
    }
}

/// All forks that are known, per writer in ascending order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forks(BTreeMap<WriterId, Vec<Fork>>);

impl Forks {
    /// Takes a fork in; `false` if it is known, or if there are too many: [`FORKS_MAX`], and [`FORKS_PER_PEER_MAX`] of one peer.
    pub fn insert(&mut self, fork: Fork) -> bool {
        let of_peer = self.iter().filter(|known| known.writer.peer == fork.writer.peer).count();
        let full = self.iter().count() >= FORKS_MAX || of_peer >= FORKS_PER_PEER_MAX;
        if full || self.parts(&fork.writer, fork.seq, &fork.previous) {
            return false;
        }
        let forks = self.0.entry(fork.writer).or_default();
        let at = forks.partition_point(|known| (known.seq, known.previous) < (fork.seq, fork.previous));
        forks.insert(at, fork);
        true
    }

    /// Whether the writer's history parts before its commits `seq` that follow `previous`.
    #[must_use]
    pub fn parts(&self, writer: &WriterId, seq: u64, previous: &Hash) -> bool {
        self.of(writer).iter().any(|fork| fork.seq == seq && fork.previous == *previous)
    }

    /// The forks of a writer.
    #[must_use]
    pub fn of(&self, writer: &WriterId) -> &[Fork] {
        self.0.get(writer).map_or(&[], Vec::as_slice)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Fork> {
        self.0.values().flatten()
    }

    /// The lowest fork of each writer.
    pub fn lowest(&self) -> impl Iterator<Item = &Fork> {
        self.0.values().filter_map(|forks| forks.first())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
