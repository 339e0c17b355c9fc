//! Floors: what a drop removes is gone in whatever order commits arrive, and nothing else is.

use std::collections::BTreeMap;

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Frame, FrameError};
use anabranch_protocol::conflict::{ConflictPolicy, LastWriterWins, Row, Stamp};
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::floor::Floor;
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Collection, DatasetId, Epoch, Hash, Lineage, Salt};
use anabranch_protocol::registration::{CONTROL_COLLECTION, Registration};
use anabranch_protocol::replica::{Op, ReceiveRefusal, Verdict, WriteOp, WriteRefusal};
use anabranch_protocol::wire::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::convergence::{feed, observer, run, steps};
use crate::frames::{entry, identity};
use crate::lattice::writer;
use crate::world::{NOON, Node, RowMap, append, collection, delete, drop_all, key, merge, put, request, settings, truncate};

/// What the commits of a log say, from their entries alone: the greatest floor of each collection, and of each document the greatest
/// entry above it.
fn said_by(log: &[Commit]) -> (RowMap, BTreeMap<Collection, Tally>) {
    let entries = || {
        log.iter().flat_map(|commit| {
            let stamp = |index| Stamp { hlc: commit.header().hlc, writer: commit.writer(), index };
            commit.sections().flat_map(move |section| {
                section.entries.iter().map(move |entry| (&section.collection, stamp(entry.index), &entry.change))
            })
        })
    };
    let (mut rows, mut tallies) = (RowMap::new(), BTreeMap::<Collection, Tally>::new());
    for (of, stamp, change) in entries() {
        let tally = tallies.entry(of.clone()).or_default();
        tally.floor = tally.floor.max(change.floor(stamp));
    }
    for (of, stamp, change) in entries().filter(|(of, stamp, _)| tallies[of].floor.is_none_or(|floor| *stamp > floor.stamp)) {
        let Some((key, row)) = change.key().zip(LastWriterWins.state(stamp, change)) else { continue };
        let place = (of.clone(), key.clone());
        if rows.get(&place).is_none_or(|known: &Row| known.stamp < stamp) {
            rows.insert(place, row);
        }
    }
    for ((of, key), row) in rows.iter().filter(|(_, row)| row.value.is_some()) {
        let hash = RowHasher::new(&DatasetId::primary(), of).hash(key, &row.stamp, &row.content);
        tallies.get_mut(of).unwrap().add(hash);
    }
    (rows, tallies)
}

fn commits(node: &Node) -> Vec<Commit> {
    node.log.iter().filter_map(|record| record.commit.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// In any order, in any parts, and whatever of the rows below a floor is removed in between.
    #[test]
    fn rows_and_tallies_are_what_the_entries_above_the_floors_say(
        (frames, shuffled) in steps().prop_flat_map(|steps| {
            let frames = run(&steps, Kind::Documents).0;
            let twice = [frames.clone(), frames.clone()].concat();
            (Just(frames), Just(twice).prop_shuffle())
        }),
        part in 1_usize..9, sweeps in vec(any::<u8>(), 1..8),
    ) {
        let (mut plain, mut swept) = (observer(Kind::Documents), observer(Kind::Documents));
        feed(&mut plain, frames, 1);
        let (rows, tallies) = said_by(&commits(&plain));
        prop_assert_eq!(&plain.visible(), &rows);
        prop_assert_eq!(plain.replica.tallies(), &tallies);
        let mut rest = shuffled;
        for some in sweeps {
            let later = rest.split_off(rest.len().min(usize::from(some)));
            // What has a gap now comes again below.
            let verdicts = swept.receive(NOON, &rest);
            let gaps = rest.into_iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Refused(_)));
            rest = later.into_iter().chain(gaps.map(|(frame, _)| frame)).collect();
            swept.sweep(|key| key.as_str().len().is_multiple_of(2) || some % 2 == 0);
        }
        feed(&mut swept, rest, part);
        swept.sweep(|_| true);
        prop_assert_eq!(swept.state(), plain.state());
        prop_assert_eq!(swept.rows.0, rows);
    }

    /// A floor joins like a row state, and distributes over the join of rows.
    #[test]
    fn floors_join(stamps in vec((0_u64..4, 0_u8..3, 0_u32..3, any::<bool>()), 4)) {
        let stamp = |n: usize| Stamp { hlc: Hlc(stamps[n].0), writer: writer(stamps[n].1), index: stamps[n].2 };
        let floor = |n: usize| Floor { stamp: stamp(n), dropped: stamps[n].3 };
        let (a, b, c) = (floor(0), floor(1), floor(2));
        prop_assert_eq!(a.max(b).max(c), c.max(a).max(b));
        prop_assert_eq!(a.max(b).max(a), a.max(b));
        let (x, y) = (Row::new(stamp(1), Some(vec![1])), Row::new(stamp(3), None));
        let above = |row: Row| LastWriterWins.above(row, &a);
        let joined = match (above(x.clone()), above(y.clone())) {
            (Some(x), Some(y)) => Some(LastWriterWins.join(x, y)),
            (x, y) => x.or(y),
        };
        prop_assert_eq!(above(LastWriterWins.join(x.clone(), y)), joined);
        // Two floors leave what the greater one leaves.
        let both = above(x.clone()).and_then(|row| LastWriterWins.above(row, &b));
        prop_assert_eq!(both, LastWriterWins.above(x, &a.max(b)));
    }
}

fn live(node: &Node, c: u8) -> u64 {
    node.replica.tallies().get(&collection(c)).map_or(0, |tally| tally.live)
}

#[test]
fn what_was_written_before_a_drop_is_gone_also_where_it_arrives_later() {
    let (mut early, mut dropper, mut late) = (Node::new(1), Node::new(2), Node::new(3));
    early.write(NOON, &[request(vec![put(0, 0, "1"), put(0, 1, "1"), put(1, 0, "1")])]);
    dropper.write(NOON + 10, &[request(vec![put(0, 2, "2")])]);
    let outcome = dropper.write(NOON + 20, &[request(vec![drop_all(0)])]).remove(0).unwrap();
    assert!(outcome.token.is_some() && outcome.replicated && !outcome.created);
    late.write(NOON + 30, &[request(vec![put(0, 0, "3")])]);
    let all: Vec<_> = [&early, &dropper, &late].iter().flat_map(|node| node.frames()).collect();
    for order in [[0, 1, 2, 3], [1, 2, 0, 3], [3, 1, 2, 0], [3, 0, 1, 2]] {
        let mut node = observer(Kind::Documents);
        for at in order {
            assert_eq!(node.receive(NOON + 40, &all[at..=at]), [Verdict::Applied], "{order:?}");
        }
        assert_eq!((live(&node, 0), live(&node, 1)), (1, 1), "{order:?}");
        assert_eq!(node.visible()[&(collection(0), key(0))].value, Some(crate::world::json("3").encode()), "{order:?}");
        assert_eq!(node.replica.tallies(), &said_by(&commits(&node)).1, "{order:?}");
    }
}

#[test]
fn replicas_whose_floors_differ_differ_though_their_rows_do_not() {
    let (mut one, mut other) = (Node::new(1), Node::new(1));
    for node in [&mut one, &mut other] {
        node.write(NOON, &[request(vec![put(1, 0, "1")])]);
    }
    let before = one.replica.fingerprint();
    assert_eq!(other.replica.fingerprint(), before);
    one.write(NOON + 1, &[request(vec![drop_all(0)])]);
    other.write(NOON + 1, &[request(vec![truncate(0)])]);
    let (dropped, truncated) = (one.replica.fingerprint(), other.replica.fingerprint());
    assert!(dropped != before && truncated != before && dropped != truncated);
    other.write(NOON + 2, &[request(vec![truncate(0)])]);
    assert_ne!(other.replica.fingerprint(), truncated);
    // Of a collection that is not replicated here it says nothing.
    let mut narrow = Node::with(settings(1, Kind::Documents, Registration::of([collection(1)])));
    narrow.write(NOON, &[request(vec![put(1, 0, "1")])]);
    assert_eq!(narrow.replica.fingerprint(), before);
}

#[test]
fn later_operations_of_a_request_and_of_a_commit_see_the_drop() {
    let mut node = Node::new(1);
    node.write(NOON, &[request(vec![put(0, 0, "1"), put(0, 1, "{\"a\":1}")])]);
    let must_exist = WriteOp { collection: collection(0), op: Op::Delete { key: key(0), must_exist: true } };
    let refused = node.write(NOON + 1, &[request(vec![drop_all(0), must_exist.clone()])]);
    assert_eq!(refused, [Err(WriteRefusal::NotFound { collection: collection(0), key: key(0) })]);
    assert_eq!(live(&node, 0), 2, "nothing of a refused request happens");
    let ops = vec![put(0, 2, "2"), drop_all(0), merge(0, 1, "{\"b\":2}"), put(1, 0, "1")];
    let outcomes = node.write(NOON + 2, &[request(ops), request(vec![must_exist]), request(vec![put(0, 0, "9")])]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].as_ref().is_ok_and(|written| written.created));
    let values: Vec<_> = node.visible().into_iter().filter(|((of, _), _)| *of == collection(0)).collect();
    let value = |text: &str| Some(crate::world::json(text).encode());
    assert_eq!(values.iter().map(|(_, row)| row.value.clone()).collect::<Vec<_>>(), [value("9"), value("{\"b\":2}")]);
    assert_eq!(node.replica.tallies(), &said_by(&commits(&node)).1);
}

#[test]
fn a_section_has_one_drop_and_a_second_one_waits_for_the_next_commit() {
    let mut node = Node::new(1);
    let twice = node.write(NOON, &[request(vec![drop_all(0), truncate(0)])]);
    assert_eq!(twice, [Err(WriteRefusal::TooLarge("a collection is dropped twice"))]);
    let group = [request(vec![drop_all(0)]), request(vec![truncate(1)]), request(vec![truncate(0)])];
    assert_eq!(node.write(NOON, &group).len(), 2, "the third has to be asked again");
    let sealed = |changes: &[Change]| {
        let entries = (0..).zip(changes).map(|(index, change)| Entry { index, change: change.clone() }).collect();
        seal(collection(0), entries)
    };
    assert!(Frame::decode(&sealed(&[Change::Drop]).to_bytes()).is_ok());
    let decoded = Frame::decode(&sealed(&[Change::Drop, Change::Truncate]).to_bytes());
    assert_eq!(decoded, Err(FrameError::Inconsistent("a section drops its collection at most once")));
}

fn seal(of: Collection, entries: Vec<Entry>) -> Commit {
    let (dataset, sections) = (DatasetId::primary(), vec![(of, Salt([1; 16]), entries)]);
    let draft = Draft {
        dataset: &dataset,
        lineage: Lineage::ZERO,
        epoch: Epoch([3; 16]),
        seq: 1,
        previous: Hash::ZERO,
        parent: None,
        hlc: Hlc::at(WallClock(NOON)),
        sections,
    };
    draft.seal(&identity())
}

/// A node that does not know an op holds its writer: that is how those before drops see them.
#[test]
fn an_op_has_neither_key_nor_value_and_an_unknown_one_needs_an_upgrade() {
    use anabranch_protocol::commit::Section;
    use serde_bytes::ByteBuf;
    type Raw = (Salt, Collection, Vec<(u64, u64, String, ByteBuf)>);
    let raw = |op: u64, key: &str, value: &[u8]| -> Raw {
        (Salt([1; 16]), collection(0), vec![(0, op, key.to_owned(), ByteBuf::from(value.to_vec()))])
    };
    let decoded = |raw: Raw| Section::decode(&codec::encode(&raw)).map(|section| section.entries[0].change.clone());
    assert_eq!([decoded(raw(4, "", b"")), decoded(raw(5, "", b""))], [Ok(Change::Drop), Ok(Change::Truncate)]);
    for op in [4, 5] {
        for (key, value) in [("k", &b""[..]), ("", b"\xf6")] {
            assert!(matches!(decoded(raw(op, key, value)), Err(FrameError::Inconsistent(_))), "{op}");
        }
    }
    assert_eq!(decoded(raw(6, "", b"")), Err(FrameError::NeedsUpgrade { what: "operation", number: 6 }));
}

#[test]
fn what_can_not_be_dropped_is_refused_here_and_from_others() {
    let mut records = Node::with(settings(1, Kind::Append, Registration::all()));
    records.write(NOON, &[request(vec![append(0, "1")])]);
    assert_eq!(records.write(NOON, &[request(vec![drop_all(0)])]), [Err(WriteRefusal::RecordsStay)]);
    let mut narrow = Node::with(settings(1, Kind::Documents, Registration::of([collection(1)])));
    narrow.write(NOON, &[request(vec![put(0, 0, "1")])]);
    let refusal = WriteRefusal::DropsNothingShared { collection: collection(0) };
    assert_eq!(narrow.write(NOON, &[request(vec![truncate(0)])]), [Err(refusal)]);
    let control = Collection::new(CONTROL_COLLECTION).unwrap();
    let reserved = WriteOp { collection: control.clone(), op: Op::Drop };
    let refusal = WriteRefusal::Reserved { collection: control.clone() };
    assert_eq!(Node::new(1).write(NOON, &[request(vec![reserved])]), [Err(refusal)]);
    let drop = || vec![Entry { index: 0, change: Change::Drop }];
    let kind = [Verdict::Refused(ReceiveRefusal::Kind)];
    assert_eq!(Node::new(2).receive(NOON, &[seal(control, drop()).to_bytes()]), kind);
    let mut records = Node::with(settings(2, Kind::Append, Registration::all()));
    assert_eq!(records.receive(NOON, &[seal(collection(0), drop()).to_bytes()]), kind);
    let put = vec![entry(0, 0, "1"), Entry { index: 1, change: Change::Drop }];
    assert_eq!(Node::new(2).receive(NOON, &[seal(collection(0), put).to_bytes()]), [Verdict::Applied]);
}

/// A document is deleted, dropped, and made again: each time as if there had been none.
#[test]
fn a_dropped_document_is_absent_to_conditions_and_deletes() {
    use anabranch_protocol::replica::Expected;
    let mut node = Node::new(1);
    let stamp = node.write(NOON, &[request(vec![put(0, 0, "1")])]).remove(0).unwrap().stamp.unwrap();
    node.write(NOON + 1, &[request(vec![truncate(0)])]);
    let expect = |expected| WriteOp { collection: collection(0), op: Op::Expect { key: key(0), expected } };
    let refused = Err(WriteRefusal::NotAsExpected { collection: collection(0), key: key(0), current: None });
    for expected in [Expected::Present, Expected::AnyOf(vec![stamp])] {
        assert_eq!(node.write(NOON + 2, &[request(vec![expect(expected), put(0, 0, "2")])]), std::slice::from_ref(&refused));
    }
    assert_eq!(node.write(NOON + 3, &[request(vec![delete(0, 0)])])[0].as_ref().unwrap().token, None, "nothing to delete");
    let made = node.write(NOON + 4, &[request(vec![expect(Expected::Absent), put(0, 0, "2")])]).remove(0).unwrap();
    assert!(made.created);
}

#[test]
fn local_rows_below_a_drop_are_not_issued_rows() {
    // Written before the collection was registered, and dropped by a peer after that.
    let mut peer = Node::new(2);
    peer.write(NOON + 5, &[request(vec![drop_all(0)])]);
    let mut node = Node::with(settings(1, Kind::Documents, Registration::of([])));
    node.write(NOON, &[request(vec![put(0, 0, "1")])]);
    node.replica.set_registration(Registration::of([collection(0)]));
    node.receive(NOON + 6, &peer.frames());
    assert_eq!((live(&node, 0), node.visible().len()), (0, 0));
    assert_eq!(node.replica.fingerprint(), peer.replica.fingerprint());
}
