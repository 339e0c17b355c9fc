//! A frame is traced to its writer's key, whole or with sections left out, and nothing else passes.

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Frame, FrameError, FrameFault, Identity, Parent, Section};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, DatasetId, Epoch, Hash, Lineage, Salt, Signature, Tag};
use anabranch_protocol::registration::{Registration, TagSet};
use proptest::prelude::*;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::world::{collection, json, key};

pub fn identity() -> Identity {
    Identity::from_secret(&[7; 32])
}

pub fn entry(index: u32, k: u8, text: &str) -> Entry {
    Entry { index, change: Change::Put { key: key(k), value: json(text).encode() } }
}

/// A commit of two sections, orders and customers.
pub fn commit(dataset: &DatasetId, lineage: Lineage) -> Commit {
    let sections = vec![
        (collection(0), Salt([1; 16]), vec![entry(0, 1, "{\"total\":12.5}"), entry(2, 2, "[1,-1,null,true]")]),
        (collection(1), Salt([2; 16]), vec![Entry { index: 1, change: Change::Delete { key: key(3) } }]),
    ];
    let previous = Hash([9; 32]);
    let draft = Draft { dataset, lineage, epoch: Epoch([3; 16]), seq: 2, previous, parent: None, hlc: Hlc(77 << 16), sections };
    draft.seal(&identity())
}

pub fn primary_commit() -> Commit {
    commit(&DatasetId::primary(), Lineage::ZERO)
}

pub fn orders_only() -> TagSet {
    Registration::of([collection(0)]).tags(&DatasetId::primary(), Lineage::ZERO)
}

fn verify(bytes: &[u8]) -> Result<Commit, FrameError> {
    Frame::decode(bytes)?.verify(&DatasetId::primary(), Lineage::ZERO)
}

#[test]
fn a_frame_verifies_as_the_commit_that_was_sealed() {
    let commit = primary_commit();
    assert_eq!(verify(&commit.to_bytes()), Ok(commit.clone()));
    assert_eq!(Commit::from_verified(&commit.to_bytes(), Lineage::ZERO), Ok(commit));
}

#[test]
fn sections_left_out_differ_in_nothing_else() {
    let whole = primary_commit();
    let bytes = whole.bytes_for(&orders_only());
    let cut = verify(&bytes).unwrap();
    assert_eq!(
        (cut.hash(), cut.header(), cut.head(), cut.writer()),
        (whole.hash(), whole.header(), whole.head(), whole.writer())
    );
    assert_eq!(cut, whole.clone().keep_only(&orders_only()));
    assert_eq!(cut.to_bytes(), bytes);
    let sections: Vec<&Section> = whole.sections().filter(|section| section.collection == collection(0)).collect();
    assert_eq!(cut.sections().collect::<Vec<_>>(), sections);
    let tag = collection(1).tag(&DatasetId::primary(), Lineage::ZERO);
    assert_eq!(cut.left_out().collect::<Vec<_>>(), [tag]);
    assert_eq!(cut.missing_for(&TagSet::All), [tag]);
    assert!(cut.missing_for(&orders_only()).is_empty());
    let nothing = verify(&whole.bytes_for(&TagSet::Some([].into()))).unwrap();
    assert_eq!((nothing.sections().count(), nothing.hash()), (0, whole.hash()));
    // A section can't be made up from a copy that lacks it.
    assert_eq!(cut.bytes_for(&TagSet::All), bytes);
}

#[test]
fn another_dataset_or_lineage_is_refused() {
    let other = DatasetId::new("other").unwrap();
    let frame = |dataset: &DatasetId, lineage| Frame::decode(&commit(dataset, lineage).to_bytes()).unwrap();
    let (open, own) = (Lineage::ZERO, Lineage([1; 16]));
    assert_eq!(frame(&other, open).verify(&DatasetId::primary(), open), Err(FrameError::OtherDataset));
    assert_eq!(frame(&DatasetId::primary(), open).verify(&other, open), Err(FrameError::OtherDataset));
    assert_eq!(frame(&other, own).verify(&other, open), Err(FrameError::Signature));
    assert_eq!(frame(&other, open).verify(&other, own), Err(FrameError::Signature));
    assert!(frame(&other, own).verify(&other, own).is_ok());
}

type Parts = (ByteBuf, Signature, Vec<Option<ByteBuf>>);

fn parts(commit: &Commit) -> Parts {
    codec::decode(&commit.to_bytes(), 1 << 20).unwrap()
}

#[test]
fn tampered_swapped_and_forged_parts_are_refused() {
    let commit = primary_commit();
    let refused = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts(&commit);
        change(&mut parts);
        verify(&codec::encode(&parts)).unwrap_err()
    };
    assert_eq!(refused(&|p| p.2.swap(0, 1)), FrameError::SectionDigest);
    assert_eq!(refused(&|p| p.2[0] = p.2[1].clone()), FrameError::SectionDigest);
    assert!(matches!(refused(&|p| drop(p.2.pop())), FrameError::Inconsistent(_)));
    assert!(matches!(refused(&|p| p.2.push(None)), FrameError::Inconsistent(_)));
    assert_eq!(refused(&|p| p.2[0].as_mut().unwrap()[3] ^= 1), FrameError::SectionDigest);
    assert_eq!(refused(&|p| p.1.0[0] ^= 1), FrameError::Signature);
    // Signed by another key than the header names.
    let forger = Identity::from_secret(&[8; 32]);
    assert_eq!(refused(&|p| p.1 = forger.sign(&commit.hash())), FrameError::Signature);
    // Under lax rules the neutral point verifies with itself whatever is signed: 0·B = R + k·A.
    let neutral = [&[1][..], &[0; 31]].concat();
    let mut raw = raw_header(&commit);
    raw.p = ByteBuf::from(neutral.clone());
    let signature = Signature([neutral, vec![0; 32]].concat().try_into().unwrap());
    assert_eq!(refused(&|p| (p.0, p.1) = (ByteBuf::from(codec::encode(&raw)), signature)), FrameError::Signature);
}

/// A header as a stranger may write it, whatever the rules say.
#[derive(Debug, Clone, Serialize)]
struct RawHeader {
    v: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    p: ByteBuf,
    e: ByteBuf,
    n: u64,
    h: ByteBuf,
    t: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<Parent>,
    s: Vec<(Tag, u64, Hash)>,
}

fn raw_header(commit: &Commit) -> RawHeader {
    let header = commit.header();
    RawHeader {
        v: 1,
        d: None,
        p: ByteBuf::from(commit.writer().peer.0),
        e: ByteBuf::from(commit.writer().epoch.0),
        n: header.seq,
        h: ByteBuf::from(header.previous.0),
        t: header.hlc.0,
        o: header.parent,
        s: header.sections.iter().map(|s| (s.tag, u64::from(s.entries), s.digest)).collect(),
    }
}

type Meddle<'a> = &'a dyn Fn(&mut RawHeader);

/// Signs whatever header it is given, with every section left out.
fn sealed(header_bytes: Vec<u8>, sections: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 commit");
    hasher.update(&[0; 16]).update(&(header_bytes.len() as u64).to_le_bytes()).update(&header_bytes);
    let signature = identity().sign(&Hash(*hasher.finalize().as_bytes()));
    codec::encode(&(ByteBuf::from(header_bytes), signature, vec![None::<ByteBuf>; sections]))
}

#[test]
fn headers_outside_the_rules_are_refused_even_if_signed() {
    let good = raw_header(&primary_commit());
    let outcome = |change: &dyn Fn(&mut RawHeader)| {
        let mut raw = good.clone();
        change(&mut raw);
        verify(&sealed(codec::encode(&raw), raw.s.len()))
    };
    assert!(outcome(&|_| ()).is_ok(), "the stranger's encoding is ours");
    assert_eq!(outcome(&|h| h.v = 2), Err(FrameError::NeedsUpgrade { what: "commit version", number: 2 }));
    let digest = Hash([0; 32]);
    let many = |n: u64, entries| (0..n).map(|i| (Tag(i.to_be_bytes()), entries, digest)).collect::<Vec<_>>();
    let parent = |epoch, seq| Some(Parent(Epoch([epoch; 16]), seq, Hash([1; 32])));
    let first = |h: &mut RawHeader| (h.n, h.h) = (1, ByteBuf::from([0; 32]));
    assert!(outcome(&first).is_ok());
    assert!(
        outcome(&|h| {
            first(h);
            h.o = parent(4, 1)
        })
        .is_ok()
    );
    assert!(outcome(&|h| h.s = many(64, 64)).is_ok());
    let bad: [(&str, Meddle); 17] = [
        ("version 0", &|h| h.v = 0),
        ("primary spelled out", &|h| h.d = Some("primary".into())),
        ("no dataset name", &|h| h.d = Some("Not A Name".into())),
        ("seq 0", &|h| h.n = 0),
        ("seq 2^63", &|h| h.n = 1 << 63),
        ("a first commit with a predecessor", &|h| h.n = 1),
        ("a second one without", &|h| h.h = ByteBuf::from([0; 32])),
        ("a parent in a second commit", &|h| h.o = parent(4, 1)),
        ("its own parent", &|h| {
            first(h);
            h.o = parent(3, 1)
        }),
        ("a parent of seq 0", &|h| {
            first(h);
            h.o = parent(4, 0)
        }),
        ("no sections", &|h| h.s.clear()),
        ("sections out of order", &|h| h.s.reverse()),
        ("a section twice", &|h| h.s[1] = h.s[0]),
        ("an empty section", &|h| h.s[0].1 = 0),
        ("too many sections", &|h| h.s = many(65, 1)),
        ("too many entries", &|h| h.s = many(2, 2_049)),
        ("more entries than 32 bits", &|h| h.s[0].1 = 1 << 33),
    ];
    for (why, change) in bad {
        assert!(outcome(change).is_err(), "{why}");
    }
    // A newer version may have fields that this one can't read.
    let newer = codec::encode(&std::collections::BTreeMap::from([("new", 5), ("v", 9)]));
    assert_eq!(verify(&sealed(newer, 1)), Err(FrameError::NeedsUpgrade { what: "commit version", number: 9 }));
}

fn open(bytes: &[u8]) -> Result<Commit, FrameFault> {
    Commit::open(bytes, &DatasetId::primary(), Lineage::ZERO)
}

/// A signed frame with one section of these bytes.
fn signed_section(bytes: Vec<u8>) -> Parts {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 section");
    let digest = Hash(*hasher.update(&bytes).finalize().as_bytes());
    let mut raw = raw_header(&primary_commit());
    raw.s = vec![(collection(0).tag(&DatasetId::primary(), Lineage::ZERO), 1, digest)];
    let (header, signature, _): Parts = codec::decode(&sealed(codec::encode(&raw), 1), 1 << 20).unwrap();
    (header, signature, vec![Some(ByteBuf::from(bytes))])
}

#[test]
fn only_what_a_signature_covers_is_laid_to_the_writer() {
    let writer = primary_commit().writer();
    let unknown_op = codec::encode(&(Salt::ZERO, collection(0), [(0_u64, 9_u64, "k", ByteBuf::from([0]))]));
    let mut frame = signed_section(unknown_op.clone());
    let held = FrameFault::NeedsUpgrade { writer, seq: 2, what: "operation", number: 9 };
    assert_eq!(open(&codec::encode(&frame)), Err(held.clone()));
    assert!(!held.blames_sender());
    // The same section under a signature that does not hold, or that the writer never digested, says nothing of the writer.
    frame.1.0[0] ^= 1;
    let unproven = |error| Err(FrameFault::Unproven { claimed: Some(writer), error });
    assert_eq!(open(&codec::encode(&frame)), unproven(FrameError::Signature));
    let mut swapped =
        signed_section(Section { salt: Salt::ZERO, collection: collection(0), entries: vec![entry(0, 1, "1")] }.encode());
    swapped.2 = vec![Some(ByteBuf::from(unknown_op))];
    assert_eq!(open(&codec::encode(&swapped)), unproven(FrameError::SectionDigest));
    // Nothing about a header of another version can be checked, but its number and, if it still has one there, its writer.
    let mut raw = raw_header(&primary_commit());
    raw.v = 2;
    let newer = FrameFault::NewerHeader { claimed: Some(writer), number: 2 };
    assert_eq!(open(&sealed(codec::encode(&raw), 2)), Err(newer.clone()));
    assert!(!newer.blames_sender());
    let strange = codec::encode(&std::collections::BTreeMap::from([("new", 5), ("v", 9)]));
    assert_eq!(open(&sealed(strange, 1)), Err(FrameFault::NewerHeader { claimed: None, number: 9 }));
    assert!(matches!(open(b"nonsense"), Err(FrameFault::Unproven { claimed: None, .. })));
}

type RawEntry = (u64, u64, String, ByteBuf);

fn section(entries: &[RawEntry]) -> Result<Section, FrameError> {
    Section::decode(&codec::encode(&(Salt::ZERO, collection(0), entries)))
}

#[test]
fn sections_outside_the_rules_are_refused() {
    let raw = |index, op, key: &str, value: &[u8]| (index, op, key.to_owned(), ByteBuf::from(value));
    assert!(section(&[raw(0, 1, "k", &[0]), raw(4_095, 2, "k", &[])]).is_ok());
    assert_eq!(section(&[raw(0, 9, "k", &[0])]), Err(FrameError::NeedsUpgrade { what: "operation", number: 9 }));
    for (why, entries) in [
        ("index out of order", vec![raw(1, 1, "k", &[0]), raw(0, 1, "k", &[0])]),
        ("index twice", vec![raw(1, 1, "k", &[0]), raw(1, 1, "k", &[0])]),
        ("index too high", vec![raw(4_096, 1, "k", &[0])]),
        ("a put without key", vec![raw(0, 1, "", &[0])]),
        ("a key with NUL", vec![raw(0, 1, "\0", &[0])]),
        ("a key too long", vec![raw(0, 1, &"k".repeat(1_025), &[0])]),
        ("a put without value", vec![raw(0, 1, "k", &[])]),
        ("a value not deterministic", vec![raw(0, 1, "k", &[0x18, 0])]),
        ("a value nested too deep", vec![raw(0, 1, "k", &[0x81; 100])]),
        ("a delete with a value", vec![raw(0, 2, "k", &[0])]),
        ("a record with a key", vec![raw(0, 3, "k", &[0])]),
        ("a value over a MiB", vec![raw(0, 1, "k", &json(&format!("\"{}\"", "x".repeat(1 << 20))).encode())]),
    ] {
        assert!(section(&entries).is_err(), "{why}");
    }
}

#[test]
fn a_section_whose_name_is_not_its_tag_is_refused() {
    let lineage = Lineage::ZERO;
    let wrong = Collection::new("secrets").unwrap();
    let bytes = Section { salt: Salt::ZERO, collection: wrong, entries: vec![entry(0, 1, "1")] }.encode();
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 section");
    let digest = Hash(*hasher.update(&bytes).finalize().as_bytes());
    let mut raw = raw_header(&primary_commit());
    raw.s = vec![(collection(0).tag(&DatasetId::primary(), lineage), 1, digest)];
    let (header, signature, _): Parts = codec::decode(&sealed(codec::encode(&raw), 1), 1 << 20).unwrap();
    let frame = codec::encode(&(header, signature, vec![Some(ByteBuf::from(bytes))]));
    assert!(matches!(verify(&frame), Err(FrameError::Inconsistent(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_never_passes(at: prop::sample::Index, bit in 0..8_u32, cut: bool) {
        let commit = primary_commit();
        let mut bytes = if cut { commit.bytes_for(&orders_only()) } else { commit.to_bytes() };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(verify(&bytes).is_err());
        // No stranger can have a writer held by meddling with its frames.
        let fault = open(&bytes).unwrap_err();
        prop_assert!(!matches!(fault, FrameFault::NeedsUpgrade { .. }), "{fault:?}");
    }

    #[test]
    fn opening_takes_exactly_what_decoding_and_verifying_take(at: prop::sample::Index, byte: u8, cut: bool, lineage: bool) {
        let commit = commit(&DatasetId::primary(), if lineage { Lineage([1; 16]) } else { Lineage::ZERO });
        let mut bytes = if cut { commit.bytes_for(&orders_only()) } else { commit.to_bytes() };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(open(&bytes).ok(), verify(&bytes).ok());
    }

    #[test]
    fn a_cut_or_longer_frame_never_passes(at: prop::sample::Index, more in proptest::collection::vec(any::<u8>(), 1..4)) {
        let bytes = primary_commit().to_bytes();
        prop_assert!(verify(&bytes[..at.index(bytes.len())]).is_err());
        prop_assert!(verify(&[&bytes[..], &more].concat()).is_err());
    }
}
