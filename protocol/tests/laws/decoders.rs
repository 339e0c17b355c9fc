//! No decoder panics, and what decodes encodes to the bytes it came from.

use anabranch_protocol::codec::{self, DecodeError};
use anabranch_protocol::commit::{Frame, FrameError, Section};
use anabranch_protocol::confirmation::{SignedStatement, Statement};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Epoch, Lineage, PeerId, ShortHash, WriterId};
use anabranch_protocol::limits::{CONTROL_BYTES_MAX, FRAME_BYTES_MAX, VECTOR_WRITERS_MAX};
use anabranch_protocol::replica::Effects;
use anabranch_protocol::token::Token;
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{Announce, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use crate::golden;

/// Feeds bytes to every decoder.
fn decode_all(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        let header = frame.header().clone();
        assert!(header.seq > 0);
        // Strangers' frames are not signed by anybody, but the bytes have to be the frame's own.
        if let Ok(commit) = frame.verify(&header.dataset(), Lineage::ZERO) {
            assert_eq!(commit.to_bytes(), bytes);
        }
    }
    if let Ok(section) = Section::decode(bytes) {
        assert_eq!(section.encode(), bytes);
    }
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(response) = Response::decode(bytes) {
        assert_eq!(response.encode(), bytes);
    }
    if let Ok(announce) = Announce::decode(bytes) {
        assert_eq!(announce.encode(), bytes);
    }
    if let Ok(signed) = codec::decode::<SignedStatement>(bytes, CONTROL_BYTES_MAX) {
        assert_eq!(codec::encode(&signed), bytes);
        let _ = signed.verify(&DatasetId::primary(), Lineage::ZERO);
    }
    for limit in [1 << 20, 8] {
        let _ = codec::decode::<Statement>(bytes, limit);
        let _ = codec::decode::<VersionVector>(bytes, limit);
        let _ = codec::decode::<Effects>(bytes, limit);
    }
    if let Ok(value) = anabranch_protocol::value::decode(bytes) {
        assert_eq!(value.encode(), bytes);
    }
    let _ = PeerId::from_multihash(bytes).map(|peer| assert_eq!(peer.to_multihash(), bytes));
}

fn parse_all(text: &str) {
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string(), text);
    }
    if let Ok(writer) = text.parse::<WriterId>() {
        assert_eq!(writer.to_string(), text);
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string(), text);
    }
    if let Ok(epoch) = text.parse::<Epoch>() {
        assert_eq!(epoch.to_string(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    #[test]
    fn damaged_messages(which: prop::sample::Index, at: prop::sample::Index, byte: u8, how in 0..4, other: prop::sample::Index) {
        let shapes = golden::shapes();
        let mut bytes = shapes[which.index(shapes.len())].1.clone();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, byte),
            _ => {
                let tail = &shapes[other.index(shapes.len())].1;
                bytes.truncate(at);
                bytes.extend_from_slice(&tail[at.min(tail.len())..]);
            }
        }
        decode_all(&bytes);
    }

    #[test]
    fn any_text(text in any::<String>(), ascii in "[ -~]{0,90}") {
        parse_all(&text);
        parse_all(&ascii);
    }

    #[test]
    fn writers_and_tokens_have_one_spelling(peer: [u8; 32], epoch: [u8; 16], seq in 1..=1_u64 << 48, at: prop::sample::Index, with in "[ -~]") {
        let writer = WriterId { peer: PeerId(peer), epoch: Epoch(epoch) };
        let token = Token { writer, seq, hash: [1, 2, 3, 4] };
        prop_assert_eq!(writer.to_string().parse(), Ok(writer));
        prop_assert_eq!(token.to_string().parse(), Ok(token));
        for text in [writer.to_string(), token.to_string()] {
            let at = at.index(text.len());
            parse_all(&format!("{}{with}{}", &text[..at], &text[at + 1..]));
            parse_all(&format!("{text}{with}"));
            parse_all(&text.to_ascii_uppercase());
        }
    }
}

#[test]
fn absurd_heads_are_refused() {
    let vector = |seq| (0..1).map(|_| (PeerId([1; 32]), Epoch([2; 16]), seq, Hlc(1), ShortHash([0; 8]))).collect::<Vec<_>>();
    assert!(codec::decode::<VersionVector>(&codec::encode(&vector(1 << 48)), 1 << 20).is_ok());
    for seq in [0, (1 << 48) + 1, 1 << 63, u64::MAX] {
        assert!(codec::decode::<VersionVector>(&codec::encode(&vector(seq)), 1 << 20).is_err(), "{seq}");
    }
    let twice = [vector(1), vector(1)].concat();
    assert!(codec::decode::<VersionVector>(&codec::encode(&twice), 1 << 20).is_err());
}

#[test]
fn as_many_writers_as_a_vector_may_have_and_no_more() {
    let vector = |writers: usize| -> VersionVector {
        let writer = |n: usize| WriterId { peer: PeerId([1; 32]), epoch: Epoch((n as u128).to_be_bytes()) };
        (0..writers).map(|n| (writer(n), Head { seq: 1, hlc: Hlc(1), hash: ShortHash([0; 8]) })).collect()
    };
    let full = codec::encode(&vector(VECTOR_WRITERS_MAX));
    assert!(codec::decode::<VersionVector>(&full, CONTROL_BYTES_MAX).is_ok());
    assert!(codec::decode::<VersionVector>(&codec::encode(&vector(VECTOR_WRITERS_MAX + 1)), CONTROL_BYTES_MAX).is_err());
}

/// Lists are cut off while they are read: the error is the list's own, not that of a check behind it.
#[test]
fn lists_of_tiny_items_end_at_their_limit() {
    let cut_off = |error: DecodeError| {
        assert!(matches!(&error, DecodeError::Malformed(text) if text.contains("at most")), "{error:?}");
    };
    let many = vec![ByteBuf::new(); 1 << 20];
    cut_off(Request::decode(&codec::encode(&map("push", &[("f", &codec::encode(&many))]))).unwrap_err());
    cut_off(Response::decode(&codec::encode(&map("page", &[("f", &codec::encode(&many)), ("m", &[0xf4])]))).unwrap_err());
    let versions = codec::encode(&vec![1_u64; 1 << 20]);
    cut_off(Request::decode(&codec::encode(&map("hello", &[("v", &versions)]))).unwrap_err());
    let sections = vec![None::<ByteBuf>; 1 << 20];
    let frame = codec::encode(&(ByteBuf::new(), anabranch_protocol::id::Signature::ZERO, sections));
    assert!(matches!(Frame::decode(&frame), Err(FrameError::Decode(DecodeError::Malformed(text))) if text.contains("at most")));
    let entries = vec![(0_u64, 1_u64, "", ByteBuf::new()); 100_000];
    let section = codec::encode(&(anabranch_protocol::id::Salt::ZERO, "c", entries));
    assert!(
        matches!(Section::decode(&section), Err(FrameError::Decode(DecodeError::Malformed(text))) if text.contains("at most"))
    );
}

/// `{variant: {field: raw, …}}`, with fields that are encoded already.
fn map(variant: &str, fields: &[(&str, &[u8])]) -> ciborium::Value {
    let field = |(name, raw): &(&str, &[u8])| (ciborium::Value::from(*name), ciborium::from_reader(*raw).unwrap());
    let message = ciborium::Value::Map(fields.iter().map(field).collect());
    ciborium::Value::Map(vec![(ciborium::Value::from(variant), message)])
}

#[test]
fn oversized_deep_and_claimed_sizes_are_refused_at_once() {
    let huge = vec![0x9f; FRAME_BYTES_MAX + 1];
    assert!(matches!(Frame::decode(&huge), Err(FrameError::Decode(DecodeError::TooLarge { .. }))));
    assert!(matches!(Request::decode(&vec![0; CONTROL_BYTES_MAX + 1]), Err(DecodeError::TooLarge { .. })));
    assert!(matches!(Announce::decode(&vec![0; 40_000]), Err(DecodeError::TooLarge { .. })));
    for byte in [0x81, 0x9f, 0xa1, 0xbf, 0xc1, 0xd8] {
        decode_all(&vec![byte; 1 << 20]);
    }
    // Claims of 2^60 items or bytes, at every place where an item may stand.
    for claim in [0x5b, 0x7b, 0x9b, 0xbb] {
        let claim = [&[claim][..], &(1_u64 << 60).to_be_bytes()].concat();
        decode_all(&claim);
        for (_, bytes) in golden::shapes() {
            for at in 0..bytes.len() {
                decode_all(&[&bytes[..at], &claim].concat());
            }
        }
    }
}

#[test]
fn unknown_fields_and_variants_are_refused() {
    assert!(Request::decode(&codec::encode(&map("heads", &[("g", &[0x48, 0, 0, 0, 0, 0, 0, 0, 0])]))).is_ok());
    assert!(Request::decode(&codec::encode(&map("heads", &[("g", &[0x48, 0, 0, 0, 0, 0, 0, 0, 0]), ("z", &[0])]))).is_err());
    assert!(Request::decode(&codec::encode(&map("headz", &[("g", &[0x48, 0, 0, 0, 0, 0, 0, 0, 0])]))).is_err());
    let spelled = codec::encode(&"primary");
    assert!(Request::decode(&codec::encode(&map("heads", &[("d", &spelled), ("g", &[0x48, 0, 0, 0, 0, 0, 0, 0, 0])]))).is_err());
}
