//! Version vectors: what a replica has of every writer.
//!
//! A vector maps each writer to its newest commit here. Vectors form a lattice under [`VersionVector::join`] (what either has)
//! and [`VersionVector::meet`] (what both have); property tests hold them to it. Parker et al., *Detection of Mutual
//! Inconsistency in Distributed Systems* (1983).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hlc::Hlc;
use crate::id::{Epoch, PeerId, ShortHash, WriterId};
use crate::limits::{SEQ_MAX, VECTOR_WRITERS_MAX};

/// A writer's newest commit: its number, its clock reading, the first bytes of its hash. Ordered by number first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Contiguous from 1.
    pub seq: u64,
    /// The commit's clock reading.
    pub hlc: Hlc,
    /// The first bytes of its hash.
    pub hash: ShortHash,
}

/// Writer → head. Writers without commits are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector(BTreeMap<WriterId, Head>);

impl VersionVector {
    /// A vector without writers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The head of `writer`, if it has commits here.
    #[must_use]
    pub fn head(&self, writer: &WriterId) -> Option<Head> {
        self.0.get(writer).copied()
    }

    /// The number of `writer`'s newest commit here; 0 without any.
    #[must_use]
    pub fn seq(&self, writer: &WriterId) -> u64 {
        self.0.get(writer).map_or(0, |head| head.seq)
    }

    /// Sets the head of `writer`.
    pub fn set(&mut self, writer: WriterId, head: Head) {
        self.0.insert(writer, head);
    }

    /// Takes `writer` out.
    pub fn remove(&mut self, writer: &WriterId) {
        self.0.remove(writer);
    }

    /// Writers and heads, in the order of writers.
    pub fn iter(&self) -> impl Iterator<Item = (&WriterId, &Head)> {
        self.0.iter()
    }

    /// How many writers have commits here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no writer has commits here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Commits counted by this vector, all writers together.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.values().map(|head| head.seq).sum()
    }

    /// The heads of the writers of one peer: its epochs.
    #[must_use]
    pub fn of_peer(&self, peer: &PeerId) -> Self {
        let range = WriterId { peer: *peer, epoch: Epoch::ZERO }..=WriterId { peer: *peer, epoch: Epoch([0xff; 16]) };
        Self(self.0.range(range).map(|(writer, head)| (*writer, *head)).collect())
    }

    /// What either has: per writer the greater head.
    pub fn join(&mut self, other: &Self) {
        for (writer, head) in &other.0 {
            self.0.entry(*writer).and_modify(|mine| *mine = (*mine).max(*head)).or_insert(*head);
        }
    }

    /// What both have: per writer the smaller head; writers that one lacks are left out.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let both = |(writer, head): (&WriterId, &Head)| other.0.get(writer).map(|theirs| (*writer, *head.min(theirs)));
        Self(self.0.iter().filter_map(both).collect())
    }

    /// Whether this has every commit that `other` has.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(writer, head)| self.seq(writer) >= head.seq)
    }

    /// How many commits `other` has that this lacks.
    #[must_use]
    pub fn missing(&self, other: &Self) -> u64 {
        other.0.iter().map(|(writer, head)| head.seq.saturating_sub(self.seq(writer))).sum()
    }

    /// BLAKE3 over the heads: equal vectors have equal digests.
    #[must_use]
    pub fn digest(&self) -> ShortHash {
        let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 vector digest");
        for (writer, head) in &self.0 {
            hasher.update(&writer.peer.0);
            hasher.update(&writer.epoch.0);
            hasher.update(&head.seq.to_le_bytes());
            hasher.update(&head.hash.0);
        }
        let mut digest = [0; 8];
        hasher.finalize_xof().fill(&mut digest);
        ShortHash(digest)
    }
}

impl FromIterator<(WriterId, Head)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (WriterId, Head)>>(heads: I) -> Self {
        Self(heads.into_iter().collect())
    }
}

type WireHead = (PeerId, Epoch, u64, Hlc, ShortHash);

impl Serialize for VersionVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(w, h)| (w.peer, w.epoch, h.seq, h.hlc, h.hash)))
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Heads;
        impl<'de> de::Visitor<'de> for Heads {
            type Value = VersionVector;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {VECTOR_WRITERS_MAX} heads in the order of their writers")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<VersionVector, A::Error> {
                let mut heads = BTreeMap::new();
                while let Some((peer, epoch, seq, hlc, hash)) = seq.next_element::<WireHead>()? {
                    let writer = WriterId { peer, epoch };
                    let in_order = heads.last_key_value().is_none_or(|(last, _)| *last < writer);
                    if !in_order || heads.len() >= VECTOR_WRITERS_MAX || !(1..=SEQ_MAX).contains(&seq) {
                        return Err(de::Error::custom("heads out of order, too many, or with an absurd number"));
                    }
                    heads.insert(writer, Head { seq, hlc, hash });
                }
                Ok(VersionVector(heads))
            }
        }
        deserializer.deserialize_seq(Heads)
    }
}
