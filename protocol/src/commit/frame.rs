//! The bytes of a commit, whole or with sections left out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::header::VERSION;
use super::section::digest;
use super::{Entry, FrameError, FrameFault, Header, Identity, Parent, Section, SectionRef, commit_hash, signature_holds};
use crate::codec;
use crate::hlc::Hlc;
use crate::id::{Collection, DatasetId, Epoch, Hash, Lineage, Salt, Signature, Tag, WriterId};
use crate::limits::{COMMIT_SECTIONS_MAX, FRAME_BYTES_MAX};
use crate::registration::TagSet;
use crate::vector::Head;

/// A frame as received: well-formed, its sections match the header, its signature not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    header_bytes: Vec<u8>,
    header: Header,
    signature: Signature,
    bodies: Vec<Body>,
}

/// What a frame holds of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Its bytes and what they say.
    Here { bytes: Vec<u8>, section: Section },
    /// Left out.
    LeftOut,
}

#[derive(Serialize, Deserialize)]
struct RawFrame(
    ByteBuf,
    Signature,
    #[serde(deserialize_with = "codec::at_most::<Option<ByteBuf>, _, _, COMMIT_SECTIONS_MAX>")] Vec<Option<ByteBuf>>,
);

impl Frame {
    /// Decodes and checks everything but the signature.
    ///
    /// # Errors
    /// [`FrameError`] with the first thing that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let RawFrame(header_bytes, signature, sections) = codec::decode(bytes, FRAME_BYTES_MAX)?;
        let header = Header::decode(&header_bytes)?;
        let bodies = bodies(&header, sections)?;
        Ok(Self { header_bytes: header_bytes.into_vec(), header, signature, bodies })
    }

    /// The header; not vouched for before [`Frame::verify`].
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks that the commit is of this dataset and signed by its writer.
    ///
    /// # Errors
    /// [`FrameError::OtherDataset`], [`FrameError::Signature`] (also for another lineage), [`FrameError::Inconsistent`] where
    /// a section's name is not what its tag says.
    pub fn verify(self, dataset: &DatasetId, lineage: Lineage) -> Result<Commit, FrameError> {
        let hash = signed_hash(&self.header_bytes, &self.header, &self.signature, dataset, lineage)?;
        self.named_right(dataset, lineage)?;
        Ok(Commit { frame: self, hash })
    }

    fn named_right(&self, dataset: &DatasetId, lineage: Lineage) -> Result<(), FrameError> {
        let named_right = |(listed, body): (&SectionRef, &Body)| match body {
            Body::Here { section, .. } => section.collection.tag(dataset, lineage) == listed.tag,
            Body::LeftOut => true,
        };
        if !self.header.sections.iter().zip(&self.bodies).all(named_right) {
            return Err(FrameError::Inconsistent("a section's collection is the one its tag names"));
        }
        Ok(())
    }
}

/// The hash that the writer signed, if it did, for this dataset.
pub(super) fn signed_hash(
    header_bytes: &[u8],
    header: &Header,
    signature: &Signature,
    dataset: &DatasetId,
    lineage: Lineage,
) -> Result<Hash, FrameError> {
    #[cfg(feature = "planted")]
    let dataset = if crate::planted::is(crate::planted::Bug::AnyDataset) { &header.dataset() } else { dataset };
    if header.dataset() != *dataset {
        return Err(FrameError::OtherDataset);
    }
    let hash = commit_hash(lineage, header_bytes);
    if signature_holds(&header.peer, &hash, signature) { Ok(hash) } else { Err(FrameError::Signature) }
}

fn bodies(header: &Header, sections: Vec<Option<ByteBuf>>) -> Result<Vec<Body>, FrameError> {
    if sections.len() != header.sections.len() {
        return Err(FrameError::Inconsistent("as many sections as the header lists"));
    }
    header.sections.iter().zip(sections).map(|(listed, bytes)| body(listed, bytes)).collect()
}

fn body(listed: &SectionRef, bytes: Option<ByteBuf>) -> Result<Body, FrameError> {
    let Some(bytes) = bytes.map(ByteBuf::into_vec) else { return Ok(Body::LeftOut) };
    if digest(&bytes) != listed.digest {
        return Err(FrameError::SectionDigest);
    }
    let section = Section::decode(&bytes)?;
    if section.entries.len() as u64 != u64::from(listed.entries) {
        return Err(FrameError::Inconsistent("as many entries as the header lists"));
    }
    Ok(Body::Here { bytes, section })
}

/// A commit whose writer's signature was verified, or that this node made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    frame: Frame,
    hash: Hash,
}

/// What a writer puts into a commit.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The dataset and its lineage.
    pub dataset: &'a DatasetId,
    pub lineage: Lineage,
    /// The writer's epoch; its peer is the identity that seals.
    pub epoch: Epoch,
    pub seq: u64,
    /// Hash of the writer's previous commit; zero for its first.
    pub previous: Hash,
    pub parent: Option<Parent>,
    pub hlc: Hlc,
    /// Entries per collection, each with the salt of its section.
    pub sections: Vec<(Collection, Salt, Vec<Entry>)>,
}

impl Draft<'_> {
    /// Encodes, hashes and signs.
    #[must_use]
    pub fn seal(self, identity: &Identity) -> Commit {
        let mut parts: Vec<(SectionRef, Body)> =
            self.sections.into_iter().map(|section| part(self.dataset, self.lineage, section)).collect();
        parts.sort_by_key(|(listed, _)| listed.tag);
        let (sections, bodies) = parts.into_iter().unzip();
        let header = Header {
            version: VERSION,
            dataset: self.dataset.to_wire(),
            peer: identity.peer(),
            epoch: self.epoch,
            seq: self.seq,
            previous: self.previous,
            hlc: self.hlc,
            parent: self.parent,
            sections,
        };
        let header_bytes = codec::encode(&header);
        let hash = commit_hash(self.lineage, &header_bytes);
        Commit { frame: Frame { header_bytes, header, signature: identity.sign(&hash), bodies }, hash }
    }
}

fn part(
    dataset: &DatasetId,
    lineage: Lineage,
    (collection, salt, entries): (Collection, Salt, Vec<Entry>),
) -> (SectionRef, Body) {
    let tag = collection.tag(dataset, lineage);
    let section = Section { salt, collection, entries };
    let bytes = section.encode();
    let count = u32::try_from(section.entries.len()).expect("a commit's entries are bounded");
    (SectionRef { tag, entries: count, digest: digest(&bytes) }, Body::Here { bytes, section })
}

impl Commit {
    /// Opens a frame of a stranger: the signature is looked at before the sections, so that what they say is the writer's word.
    /// Takes exactly what [`Frame::decode`] and [`Frame::verify`] take.
    ///
    /// # Errors
    /// [`FrameFault`]: what is wrong, and who is known to be at fault.
    pub fn open(bytes: &[u8], dataset: &DatasetId, lineage: Lineage) -> Result<Self, FrameFault> {
        let unproven = |claimed, error: FrameError| FrameFault::Unproven { claimed, error };
        let RawFrame(header_bytes, signature, sections) =
            codec::decode(bytes, FRAME_BYTES_MAX).map_err(|error| unproven(None, error.into()))?;
        let header = Header::decode(&header_bytes).map_err(|error| FrameFault::of_header(&header_bytes, error))?;
        let writer = header.writer();
        let hash = signed_hash(&header_bytes, &header, &signature, dataset, lineage);
        let hash = hash.map_err(|error| unproven(Some(writer), error))?;
        let bodies = bodies(&header, sections).map_err(|error| FrameFault::of_sections(&header, error))?;
        let frame = Frame { header_bytes: header_bytes.into_vec(), header, signature, bodies };
        frame.named_right(dataset, lineage).map_err(|error| unproven(Some(writer), error))?;
        Ok(Self { frame, hash })
    }

    /// Reads back a frame that this node verified before it stored it and whose bytes a checksum covers since.
    ///
    /// # Errors
    /// As [`Frame::decode`]: damage that the checksum missed.
    pub fn from_verified(bytes: &[u8], lineage: Lineage) -> Result<Self, FrameError> {
        let frame = Frame::decode(bytes)?;
        let hash = commit_hash(lineage, &frame.header_bytes);
        Ok(Self { frame, hash })
    }

    /// The header's bytes, and the writer's signature over them.
    pub(super) fn signed_parts(&self) -> (&[u8], Signature) {
        (&self.frame.header_bytes, self.frame.signature)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.frame.header
    }

    /// The commit's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Who made it.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.frame.header.writer()
    }

    /// What a vector says of it.
    #[must_use]
    pub fn head(&self) -> Head {
        let header = &self.frame.header;
        Head { seq: header.seq, hlc: header.hlc, hash: self.hash.short() }
    }

    /// The sections that are here.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.frame.bodies.iter().filter_map(|body| match body {
            Body::Here { section, .. } => Some(section),
            Body::LeftOut => None,
        })
    }

    /// Bytes of the frame, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let body = |body: &Body| if let Body::Here { bytes, .. } = body { bytes.len() + 8 } else { 1 };
        self.frame.header_bytes.len() + 80 + self.frame.bodies.iter().map(body).sum::<usize>()
    }

    /// Tags of the sections that were left out of this copy.
    pub fn left_out(&self) -> impl Iterator<Item = Tag> {
        let missing = |(listed, body): (&SectionRef, &Body)| matches!(body, Body::LeftOut).then_some(listed.tag);
        self.frame.header.sections.iter().zip(&self.frame.bodies).filter_map(missing)
    }

    /// The frame's bytes, with what is here.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes_for(&TagSet::All)
    }

    /// The frame's bytes for a peer that registered `tags`: the other sections are left out.
    #[must_use]
    pub fn bytes_for(&self, tags: &TagSet) -> Vec<u8> {
        #[cfg(feature = "planted")]
        let tags = {
            use crate::planted::{Bug, is};
            if is(Bug::LeakCollection) || is(Bug::SendAllSections) { &TagSet::All } else { tags }
        };
        let listed = self.frame.header.sections.iter().zip(&self.frame.bodies);
        let kept: Vec<Option<&serde_bytes::Bytes>> = listed
            .map(|(listed, body)| match body {
                Body::Here { bytes, .. } if tags.contains(&listed.tag) => Some(serde_bytes::Bytes::new(bytes)),
                _ => None,
            })
            .collect();
        let weight: usize = kept.iter().flatten().map(|bytes| bytes.len() + 16).sum();
        let header = serde_bytes::Bytes::new(&self.frame.header_bytes);
        codec::encode_with_capacity(&(header, self.frame.signature, kept), weight + header.len() + 128)
    }

    /// This commit without the sections outside `tags`.
    #[must_use]
    pub fn keep_only(mut self, tags: &TagSet) -> Self {
        for (listed, body) in self.frame.header.sections.iter().zip(&mut self.frame.bodies) {
            if !tags.contains(&listed.tag) {
                *body = Body::LeftOut;
            }
        }
        self
    }

    /// Whether a peer that registered `tags` can be served from this copy; else the tags that are missing.
    #[must_use]
    pub fn missing_for(&self, tags: &TagSet) -> Vec<Tag> {
        self.left_out().filter(|tag| tags.contains(tag)).collect()
    }

    /// Tags of sections that this commit has by its header, that a peer which registered `asked` needs, and that a node which
    /// registered `ours` can't serve from this copy: left out, or not registered any more.
    #[must_use]
    pub fn unservable(&self, asked: &TagSet, ours: &TagSet) -> Vec<Tag> {
        let listed = self.frame.header.sections.iter().zip(&self.frame.bodies);
        let lacking = |(listed, body): (&SectionRef, &Body)| {
            let here = matches!(body, Body::Here { .. }) && ours.contains(&listed.tag);
            (asked.contains(&listed.tag) && !here).then_some(listed.tag)
        };
        listed.filter_map(lacking).collect()
    }

    /// This copy with the sections that `other`, another copy of the same commit, has and this one lacks, and the tags of those;
    /// `None` if they are not copies of one commit.
    #[must_use]
    pub fn widen(&self, other: &Self) -> Option<(Self, BTreeSet<Tag>)> {
        if self.hash != other.hash {
            return None;
        }
        // One hash, one header: the bodies stand side by side, and each was checked against its digest.
        let mut wider = self.clone();
        let mut new = BTreeSet::new();
        let bodies = wider.frame.bodies.iter_mut().zip(&other.frame.bodies);
        for (listed, (mine, theirs)) in self.frame.header.sections.iter().zip(bodies) {
            if let (Body::LeftOut, Body::Here { .. }) = (&*mine, theirs) {
                *mine = theirs.clone();
                new.insert(listed.tag);
            }
        }
        Some((wider, new))
    }
}
