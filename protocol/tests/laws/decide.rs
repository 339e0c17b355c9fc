//! Local writes: all or nothing, bounded, and their keys and tokens.

use anabranch_protocol::commit::{Change, Frame};
use anabranch_protocol::conflict::Stamp;
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::Key;
use anabranch_protocol::limits::{FRAME_BYTES_MAX, VALUE_BYTES_MAX};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Expected, Op, WriteOp, WriteRefusal, parse_record_key, record_key, record_key_prefix};
use anabranch_protocol::token::Token;
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use crate::lattice::writer;
use crate::world::{NOON, Node, append, collection, delete, json, key, merge, put, request, settings};

fn must_delete(k: u8) -> WriteOp {
    WriteOp { collection: collection(0), op: Op::Delete { key: key(k), must_exist: true } }
}

fn put_bytes(value: Vec<u8>) -> WriteOp {
    WriteOp { collection: collection(0), op: Op::Put { key: key(9), value } }
}

fn value_of(node: &Node, c: u8, k: u8) -> Option<String> {
    let row = node.rows.0.get(&(collection(c), key(k)))?;
    Some(anabranch_protocol::value::decode(row.value.as_ref()?).unwrap().to_json())
}

#[test]
fn a_batch_whose_last_operation_fails_leaves_nothing_behind() {
    let mut node = Node::new(1);
    node.write(NOON, &[request(vec![put(0, 0, "1")])]);
    let before = (node.state(), node.replica.clock(), node.replica.writer());
    let outcomes = node.write(NOON + 5, &[request(vec![put(0, 0, "2"), delete(0, 0), must_delete(7)])]);
    assert_eq!(outcomes, [Err(WriteRefusal::NotFound { collection: collection(0), key: key(7) })]);
    assert_eq!((node.state(), node.replica.clock(), node.replica.writer()), before);
    assert_eq!(node.log.len(), 1);
}

#[test]
fn a_request_happens_only_where_documents_are_as_it_expects() {
    let mut node = Node::new(1);
    let expect = |k: u8, expected| WriteOp { collection: collection(0), op: Op::Expect { key: key(k), expected } };
    let ask = |node: &mut Node, ops| node.write(NOON, &[request(ops)]).remove(0);
    let first = ask(&mut node, vec![expect(0, Expected::Absent), put(0, 0, "1")]).unwrap();
    let stamp = first.stamp.unwrap();
    let refused = |current| Err(WriteRefusal::NotAsExpected { collection: collection(0), key: key(0), current });
    assert_eq!(ask(&mut node, vec![expect(0, Expected::Absent), put(0, 0, "2")]), refused(Some(stamp)));
    let other = Stamp { index: 9, ..stamp };
    assert_eq!(ask(&mut node, vec![put(1, 1, "2"), expect(0, Expected::AnyOf(vec![other]))]), refused(Some(stamp)));
    assert_eq!(value_of(&node, 1, 1), None, "nothing of a refused request happens");
    assert!(ask(&mut node, vec![expect(0, Expected::AnyOf(vec![other, stamp])), delete(0, 0)]).is_ok());
    // A tombstone is no document.
    assert_eq!(ask(&mut node, vec![expect(0, Expected::Present), put(0, 0, "3")]), refused(None));
    let again = ask(&mut node, vec![expect(0, Expected::Absent), put(0, 0, "3")]).unwrap();
    assert!(again.created && again.stamp > Some(stamp));
    // What an earlier operation of the same request made does not count.
    assert_eq!(ask(&mut node, vec![delete(0, 0), expect(0, Expected::Absent)]), refused(again.stamp));
    // Only looking makes no commit.
    let before = node.log.len();
    assert_eq!(ask(&mut node, vec![expect(0, Expected::Present)]).unwrap().token, None);
    assert_eq!(node.log.len(), before);
}

#[test]
fn a_refused_request_between_others_is_as_if_it_was_never_asked() {
    let (mut with, mut without) = (Node::new(1), Node::new(1));
    let first = request(vec![put(0, 0, "1")]);
    let refused = request(vec![put(0, 0, "666"), put(1, 1, "666"), must_delete(7)]);
    let last = request(vec![merge(0, 0, "{\"a\":1}"), put(2, 2, "2")]);
    let outcomes = with.write(NOON, &[first.clone(), refused, last.clone()]);
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    without.write(NOON, &[first, last]);
    assert_eq!(with.frames(), without.frames());
    assert_eq!(with.state(), without.state());
}

#[test]
fn later_operations_see_earlier_ones() {
    let mut node = Node::new(1);
    let ops = vec![put(0, 0, "{\"a\":1}"), merge(0, 0, "{\"b\":2}"), delete(0, 0), merge(0, 0, "{\"c\":3}"), must_delete(0)];
    assert!(node.write(NOON, &[request(ops[..4].to_vec())])[0].is_ok());
    assert_eq!(value_of(&node, 0, 0).as_deref(), Some("{\"c\":3}"));
    assert!(node.write(NOON, &[request(ops)])[0].is_ok());
    assert_eq!(value_of(&node, 0, 0), None);
    assert!(node.write(NOON, &[request(vec![put(0, 1, "{\"a\":1}"), merge(0, 1, "{\"b\":2}")])])[0].is_ok());
    assert_eq!(value_of(&node, 0, 1).as_deref(), Some("{\"a\":1,\"b\":2}"));
    assert!(node.write(NOON, &[request(vec![put(0, 2, "1"), must_delete(2)])])[0].is_ok());
}

#[test]
fn a_value_that_peers_would_refuse_is_never_signed() {
    let mut node = Node::new(1);
    let deep = (0..80).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let patch = WriteOp { collection: collection(0), op: Op::Merge { key: key(1), patch: deep.clone(), must_exist: false } };
    for op in [put_bytes(vec![0xff]), put_bytes(vec![]), put_bytes(vec![0x18, 0]), put_bytes(deep.encode()), patch] {
        let outcomes = node.write(NOON, &[request(vec![op])]);
        assert!(matches!(outcomes[0], Err(WriteRefusal::InvalidValue(_))), "{outcomes:?}");
    }
    let large = Value::Text("x".repeat(VALUE_BYTES_MAX)).encode();
    let outcomes = node.write(NOON, &[request(vec![put_bytes(large)])]);
    assert!(matches!(outcomes[0], Err(WriteRefusal::ValueTooLarge { .. })));
    assert!(node.log.is_empty());
}

#[test]
fn frames_stay_within_their_limit_even_with_many_large_merges() {
    let mut node = Node::new(1);
    let large = Value::Text("x".repeat(VALUE_BYTES_MAX - 100_000)).encode();
    let documents = 12;
    for k in 0..documents {
        let document = [&[0xa1, 0x61, b'd'][..], &large].concat();
        let op = WriteOp { collection: collection(0), op: Op::Put { key: key(k), value: document } };
        assert!(node.write(NOON, &[request(vec![op])])[0].is_ok());
    }
    // Each patch is small, each result is a MiB: the group is cut, a request that can't be cut is refused.
    let group: Vec<_> = (0..documents).map(|k| request(vec![merge(0, k, "{\"n\":1}")])).collect();
    let mut at = 0;
    while at < group.len() {
        let outcomes = node.write(NOON, &group[at..]);
        assert!(!outcomes.is_empty() && outcomes.iter().all(Result::is_ok));
        at += outcomes.len();
    }
    let batch = request((0..documents).map(|k| merge(0, k, "{\"n\":2}")).collect());
    assert!(matches!(node.write(NOON, &[batch])[0], Err(WriteRefusal::TooLarge(_))));
    for frame in node.frames() {
        assert!(frame.len() <= (3 << 20) + (16 << 10) && frame.len() <= FRAME_BYTES_MAX);
        Frame::decode(&frame).unwrap();
    }
}

#[test]
fn a_group_is_cut_where_a_commit_is_full() {
    let mut node = Node::new(1);
    let one = |k: usize| put(u8::try_from(k % 3).unwrap(), u8::try_from(k % 200).unwrap(), "1");
    let group: Vec<_> = (0..5_000).map(|k| request(vec![one(k)])).collect();
    assert_eq!(node.write(NOON, &group).len(), 4_096);
    Frame::decode(&node.frames()[0]).unwrap();
    let too_many = request((0..4_097).map(one).collect());
    assert!(matches!(node.write(NOON, &[too_many])[0], Err(WriteRefusal::TooLarge(_))));
    let collections = |n: usize| {
        let op = |c| WriteOp { collection: anabranch_protocol::id::Collection::new(&format!("c{c}")).unwrap(), ..one(0) };
        request((0..n).map(op).collect())
    };
    assert!(matches!(node.write(NOON, &[collections(65)])[0], Err(WriteRefusal::TooLarge(_))));
    assert_eq!(node.write(NOON, &[collections(64), request(vec![one(0)])]).len(), 1);
    Frame::decode(node.frames().last().unwrap()).unwrap();
}

#[test]
fn collections_that_are_not_registered_stay_here() {
    let mut node = Node::with(settings(1, Kind::Documents, Registration::of([collection(0)])));
    let outcomes = node.write(NOON, &[request(vec![put(1, 0, "1")])]);
    let written = outcomes[0].as_ref().unwrap();
    assert_eq!((written.token, written.replicated), (None, false));
    assert_eq!(value_of(&node, 1, 0).as_deref(), Some("1"));
    assert!(node.replica.vector().is_empty() && node.frames().is_empty());
    // Part of it replicates: the commit has a token, whichever operation came last.
    let outcomes = node.write(NOON, &[request(vec![put(0, 0, "1"), put(1, 0, "2")])]);
    let written = outcomes[0].as_ref().unwrap();
    assert!(written.token.is_some() && !written.replicated);
    let commit = node.log[1].commit.as_ref().unwrap();
    assert!(commit.sections().all(|section| section.collection == collection(0)));
    assert_eq!(written.token.unwrap(), Token::new(commit.writer(), 1, commit.hash()));
}

#[test]
fn equal_sections_have_salts_of_their_own() {
    let mut node = Node::new(1);
    let ops = || request(vec![put(0, 0, "1"), put(1, 0, "1")]);
    node.write(NOON, &[ops()]);
    node.write(NOON, &[ops()]);
    let commits = node.log.iter().filter_map(|record| record.commit.as_ref());
    let salts: std::collections::BTreeSet<_> = commits.flat_map(|commit| commit.sections().map(|section| section.salt)).collect();
    assert_eq!(salts.len(), 4);
}

#[test]
fn kinds_take_their_own_operations() {
    let mut records = Node::with(settings(1, Kind::Append, Registration::all()));
    assert_eq!(records.write(NOON, &[request(vec![append(0, "1"), put(0, 0, "1")])]), [Err(WriteRefusal::AppendOnly)]);
    assert_eq!(Node::new(1).write(NOON, &[request(vec![append(0, "1")])]), [Err(WriteRefusal::DocumentsOnly)]);
    let outcomes = records.write(NOON, &[request(vec![append(0, "1"), append(1, "2")])]);
    let written = outcomes[0].as_ref().unwrap();
    assert_eq!(written.key, written.stamp.as_ref().map(record_key));
    let commit = records.log[0].commit.as_ref().unwrap();
    let indexes: Vec<_> = commit.sections().flat_map(|s| &s.entries).map(|e| (e.index, &e.change)).collect();
    assert_eq!(indexes.len(), 2);
    assert!(indexes.iter().all(|(_, change)| matches!(change, Change::Append { .. })));
    assert_eq!(records.replica.documents(), 2);
}

#[test]
fn what_is_not_there_is_created_and_a_second_put_is_not() {
    let mut node = Node::new(1);
    let outcomes = node.write(NOON, &[request(vec![put(0, 0, "1")]), request(vec![put(0, 0, "2")]), request(vec![delete(0, 5)])]);
    let created: Vec<_> = outcomes.iter().map(|o| o.as_ref().unwrap().created).collect();
    assert_eq!(created, [true, false, false]);
    assert_eq!(outcomes[2].as_ref().unwrap().token, None, "nothing had to be written");
    assert_eq!(json("2").to_json(), value_of(&node, 0, 0).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn record_keys_sort_as_stamps_and_read_back(a in (any::<u64>(), 0_u8..3, 0_u32..4_096), b in (any::<u64>(), 0_u8..3, 0_u32..4_096), same: bool) {
        let stamp = |(hlc, n, index)| Stamp { hlc: Hlc(hlc), writer: writer(n), index };
        let (a, b) = (stamp(a), stamp(if same { (a.0, a.1, b.2) } else { b }));
        let (ka, kb) = (record_key(&a), record_key(&b));
        // Writers of one clock reading are told apart, in the order of a hash of theirs.
        if a.hlc != b.hlc || a.writer == b.writer {
            prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
        } else {
            prop_assert_ne!(&ka, &kb);
        }
        prop_assert_eq!(parse_record_key(&ka), Some((record_key_prefix(&a), a.index)));
        prop_assert_eq!(record_key_prefix(&a) == record_key_prefix(&b), (a.hlc, a.writer) == (b.hlc, b.writer));
    }

    #[test]
    fn only_record_keys_parse_as_record_keys(text in "[0-9a-vA-Z]{30,34}") {
        let key = Key::new(&text).unwrap();
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'));
        prop_assert_eq!(parse_record_key(&key).is_some(), canonical);
    }
}
