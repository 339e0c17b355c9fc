//! Any order, repetition and partition of the same commits gives the same rows, vectors, tallies and fingerprints.

use std::collections::BTreeMap;

use anabranch_protocol::commit::Commit;
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::id::{Collection, DatasetId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{ReceiveRefusal, Replica, Saved, Verdict, WriteOp};
use anabranch_protocol::wire::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{NOON, Node, append, collection, delete, drop_all, merge, put, request, settings, truncate};

const WRITERS: u8 = 3;

#[derive(Debug, Clone)]
pub enum Step {
    /// A writer writes a group of one request per list.
    Write { node: u8, clock_off: u64, group: Vec<Vec<(u8, u8, u8)>> },
    /// A writer takes in all that another has.
    Exchange { from: u8, to: u8 },
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = (0_u8..3, 0_u8..4, any::<u8>());
    let write = (0..WRITERS, 0_u64..50_000, vec(vec(op, 1..4), 1..4)).prop_map(|(node, clock_off, group)| Step::Write {
        node,
        clock_off,
        group,
    });
    let exchange = (0..WRITERS, 0..WRITERS).prop_map(|(from, to)| Step::Exchange { from, to });
    vec(prop_oneof![3 => write, 1 => exchange], 1..14)
}

fn documents_op((c, k, what): (u8, u8, u8)) -> WriteOp {
    // A drop now and then, or nothing would be left to look at.
    match what {
        250.. => truncate(c),
        244.. => drop_all(c),
        _ if what % 4 == 0 => delete(c, k),
        _ if what % 4 == 1 => merge(c, k, &format!("{{\"m{}\":{what}}}", what % 3)),
        _ => put(c, k, &what.to_string()),
    }
}

fn append_op((c, _, what): (u8, u8, u8)) -> WriteOp {
    append(c, &what.to_string())
}

/// Runs the steps; every frame that was made, in the order of making, and the writers.
pub fn run(steps: &[Step], kind: Kind) -> (Vec<Vec<u8>>, Vec<Node>) {
    let mut nodes: Vec<Node> = (0..WRITERS).map(|n| Node::with(settings(n + 1, kind, Registration::all()))).collect();
    let mut made = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Write { node, clock_off, group } => {
                let op = if kind == Kind::Append { append_op } else { documents_op };
                let requests: Vec<_> = group.iter().map(|ops| request(ops.iter().copied().map(op).collect())).collect();
                let node = &mut nodes[usize::from(*node)];
                let before = node.frames().len();
                node.write(NOON + at as u64 + clock_off, &requests);
                made.extend_from_slice(&node.frames()[before..]);
            }
            Step::Exchange { from, to } => {
                let frames = nodes[usize::from(*from)].frames();
                nodes[usize::from(*to)].receive(NOON, &frames);
            }
        }
    }
    (made, nodes)
}

pub fn observer(kind: Kind) -> Node {
    Node::with(settings(200, kind, Registration::all()))
}

/// Feeds frames as they come, in parts, and again what had a gap, until nothing is left.
pub fn feed(node: &mut Node, mut frames: Vec<Vec<u8>>, part: usize) {
    while !frames.is_empty() {
        let mut again = Vec::new();
        let before = frames.len();
        for part in frames.chunks(part) {
            for (verdict, frame) in node.receive(NOON, part).into_iter().zip(part) {
                match verdict {
                    Verdict::Applied | Verdict::Duplicate => {}
                    Verdict::Refused(ReceiveRefusal::Gap { .. }) => again.push(frame.clone()),
                    Verdict::Refused(other) => panic!("refused: {other}"),
                }
            }
        }
        assert!(again.len() < before, "no progress");
        frames = again;
    }
}

/// The tallies that the rows call for, counted from nothing.
fn counted(node: &Node) -> BTreeMap<Collection, Tally> {
    let mut tallies: BTreeMap<Collection, Tally> = BTreeMap::new();
    for (collection, tally) in node.replica.tallies().iter().filter(|(_, tally)| tally.floor.is_some()) {
        tallies.entry(collection.clone()).or_default().floor = tally.floor;
    }
    for ((collection, key), row) in &node.visible() {
        let tally = tallies.entry(collection.clone()).or_default();
        if row.value.is_some() {
            tally.add(RowHasher::new(&DatasetId::primary(), collection).hash(key, &row.stamp, &row.content));
        }
    }
    tallies
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_repetition_and_partition_do_not_matter(
        (frames, shuffled) in steps().prop_flat_map(|steps| {
            let frames = run(&steps, Kind::Documents).0;
            let twice = [frames.clone(), frames.clone()].concat();
            (Just(frames), Just(twice).prop_shuffle())
        }),
        part in 1_usize..9,
    ) {
        let (mut plain, mut other) = (observer(Kind::Documents), observer(Kind::Documents));
        feed(&mut plain, frames, 1);
        feed(&mut other, shuffled, part);
        prop_assert_eq!(plain.state(), other.state());
        prop_assert_eq!(plain.replica.tallies(), &counted(&plain));
    }

    #[test]
    fn writers_that_exchange_everything_agree(steps in steps()) {
        let (frames, nodes) = run(&steps, Kind::Documents);
        let mut plain = observer(Kind::Documents);
        feed(&mut plain, frames.clone(), 3);
        for mut node in nodes {
            feed(&mut node, frames.clone(), 4);
            prop_assert_eq!(node.state(), plain.state());
        }
    }

    #[test]
    fn appended_records_converge_too(
        (frames, shuffled) in steps().prop_flat_map(|steps| {
            let frames = run(&steps, Kind::Append).0;
            (Just(frames.clone()), Just(frames).prop_shuffle())
        }),
        part in 1_usize..5,
    ) {
        let (mut plain, mut other) = (observer(Kind::Append), observer(Kind::Append));
        feed(&mut plain, frames, 1);
        feed(&mut other, shuffled, part);
        prop_assert_eq!(plain.state(), other.state());
        prop_assert!(plain.rows.0.is_empty());
    }

    #[test]
    fn a_peer_with_fewer_collections_has_the_same_rows_of_those(steps in steps(), relayed: bool) {
        let (frames, _) = run(&steps, Kind::Documents);
        let some = Registration::of([collection(0), collection(1)]);
        let mut all = observer(Kind::Documents);
        feed(&mut all, frames, 2);
        let mut few = Node::with(settings(201, Kind::Documents, some.clone()));
        let tags = few.replica.tags().clone();
        let commits = all.log.iter().filter_map(|record| record.commit.as_ref());
        // Whether the sections were left out on the way or came along makes no difference.
        let served: Vec<_> = commits.map(|c| if relayed { c.bytes_for(&tags) } else { c.to_bytes() }).collect();
        feed(&mut few, served, 3);
        let registered = |node: &Node| {
            let rows = node.visible().into_iter().filter(|((c, _), _)| some.contains(c));
            rows.collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(few.visible(), registered(&all));
        prop_assert_eq!(few.replica.vector(), all.replica.vector());
        let cut = few.log.iter().filter_map(|record| record.commit.as_ref());
        prop_assert!(cut.flat_map(Commit::sections).all(|section| some.contains(&section.collection)));
    }

    #[test]
    fn a_crash_after_any_mark_is_redone(steps in steps(), mark: prop::sample::Index, lost in vec(any::<bool>(), 64)) {
        let (frames, nodes) = run(&steps, Kind::Documents);
        let mut node = nodes.into_iter().next().unwrap();
        feed(&mut node, frames, 3);
        let mark = mark.index(node.log.len() + 1);

        // What was applied at the mark is on disk, and of what came later any subset of rows.
        let mut restored = Node::with(node.replica.settings().clone());
        let mut saved = Saved::default();
        for (at, record) in node.log.iter().enumerate().take(mark) {
            redo(&mut restored, &node.log[at]);
            saved.lines.extend(record.commit.iter().map(|c| (c.writer(), anabranch_protocol::replica::Line::of(c))));
        }
        saved.clock = restored.replica.clock();
        saved.tallies = restored.replica.tallies().clone();
        restored.replica = Replica::load(node.replica.settings().clone(), saved);
        let survivors = node.rows.0.clone().into_iter().zip(lost.iter().cycle()).filter(|(_, lost)| !**lost);
        restored.rows.0.extend(survivors.map(|(row, _)| row));

        for record in &node.log[mark..] {
            redo(&mut restored, record);
        }
        prop_assert_eq!(restored.state(), node.state());
        prop_assert_eq!(restored.replica.clock(), node.replica.clock());
        // And once more: redo is idempotent.
        for record in &node.log[mark..] {
            redo(&mut restored, record);
        }
        prop_assert_eq!(restored.state(), node.state());
    }
}

fn redo(node: &mut Node, record: &anabranch_protocol::replica::Record) {
    let writes = node.replica.redo(record, &node.rows).expect("memory can be read");
    node.rows.0.extend(writes.into_iter().map(|write| ((write.collection, write.key), write.row)));
}

#[test]
fn a_commit_too_far_ahead_is_held_and_nothing_after_it_passes() {
    let mut ahead = Node::new(1);
    ahead.write(NOON, &[request(vec![put(0, 0, "1")])]);
    ahead.write(NOON + 60_001, &[request(vec![put(0, 0, "2")])]);
    ahead.write(NOON + 60_002, &[request(vec![put(0, 0, "3")])]);
    let mut node = Node::new(2);
    let verdicts = node.receive(NOON, &ahead.frames());
    assert_eq!(verdicts[0], Verdict::Applied);
    assert!(matches!(verdicts[1], Verdict::Refused(ReceiveRefusal::Held { seq: 2, .. })));
    assert_eq!(verdicts[2], Verdict::Refused(ReceiveRefusal::Gap { have: 1 }));
    assert!(node.receive(NOON + 2, &ahead.frames()).iter().all(|v| !matches!(v, Verdict::Refused(_))));
    assert_eq!(node.state(), ahead.state());
}

#[test]
fn a_section_that_is_registered_here_may_not_be_missing() {
    let mut writer = Node::new(1);
    writer.write(NOON, &[request(vec![put(0, 0, "1"), put(1, 0, "1")])]);
    let few = Registration::of([collection(0)]).tags(&DatasetId::primary(), anabranch_protocol::id::Lineage::ZERO);
    let cut = writer.log[0].commit.as_ref().unwrap().bytes_for(&few);
    let verdicts = Node::new(2).receive(NOON, &[cut]);
    assert!(matches!(&verdicts[0], Verdict::Refused(ReceiveRefusal::MissingSections { tags }) if tags.len() == 1));
}

#[test]
fn forks_are_refused() {
    let mut writer = Node::new(1);
    writer.write(NOON, &[request(vec![put(0, 0, "1")])]);
    let mut twin = writer.clone();
    twin.seed += 1_000;
    writer.write(NOON + 1, &[request(vec![put(0, 0, "2")])]);
    twin.write(NOON + 1, &[request(vec![put(0, 0, "3")])]);
    twin.write(NOON + 2, &[request(vec![put(0, 0, "4")])]);
    let mut node = Node::new(2);
    node.receive(NOON, &writer.frames());
    let before = node.state();
    let verdicts = node.receive(NOON, &twin.frames());
    assert_eq!(verdicts[0], Verdict::Duplicate);
    assert_eq!(verdicts[1], Verdict::Refused(ReceiveRefusal::Fork { seq: 2 }));
    assert_eq!(verdicts[2], Verdict::Refused(ReceiveRefusal::Fork { seq: 3 }));
    assert_eq!(node.state(), before);
}

#[test]
fn operations_of_the_other_kind_are_refused() {
    let mut records = Node::with(settings(1, Kind::Append, Registration::all()));
    records.write(NOON, &[request(vec![append(3, "1")])]);
    assert_eq!(Node::new(2).receive(NOON, &records.frames()), [Verdict::Refused(ReceiveRefusal::Kind)]);
}

#[test]
fn only_control_is_registered_without_being_named() {
    let some = Registration::of([collection(0)]);
    let reserved = |name| Collection::new(name).unwrap();
    let tags = some.tags(&DatasetId::primary(), anabranch_protocol::id::Lineage::ZERO);
    for name in ["_control", "_other", "orders", "customers"] {
        let tag = reserved(name).tag(&DatasetId::primary(), anabranch_protocol::id::Lineage::ZERO);
        assert_eq!(some.contains(&reserved(name)), tags.contains(&tag), "{name}");
    }
    assert!(some.contains(&reserved("_control")));
}

#[test]
fn a_write_that_saw_a_commit_wins_over_it_although_its_clock_is_behind() {
    let (mut ahead, mut behind) = (Node::new(1), Node::new(2));
    ahead.write(NOON + 50_000, &[request(vec![put(0, 0, "1")])]);
    behind.receive(NOON, &ahead.frames());
    behind.write(NOON, &[request(vec![put(0, 0, "2")])]);
    ahead.receive(NOON + 50_000, &behind.frames());
    assert_eq!(ahead.state(), behind.state());
    let row = ahead.rows.0.values().next().unwrap();
    assert_eq!(row.value, Some(crate::world::json("2").encode()));
    assert_eq!(behind.replica.clock(), behind.log[1].commit.as_ref().unwrap().header().hlc);
}

#[test]
fn a_commit_whose_clock_stands_is_refused() {
    use anabranch_protocol::commit::Draft;
    use anabranch_protocol::id::{Epoch, Hash, Lineage, Salt};
    let dataset = DatasetId::primary();
    let sealed = |seq, previous, hlc| {
        let sections = vec![(collection(0), Salt([1; 16]), vec![crate::frames::entry(0, 0, "1")])];
        let draft = Draft {
            dataset: &dataset,
            lineage: Lineage::ZERO,
            epoch: Epoch([3; 16]),
            seq,
            previous,
            parent: None,
            hlc,
            sections,
        };
        draft.seal(&crate::frames::identity())
    };
    let at = |n| anabranch_protocol::hlc::Hlc(n);
    let first = sealed(1, Hash::ZERO, at(9));
    for (hlc, verdict) in [
        (at(8), Verdict::Refused(ReceiveRefusal::ClockStands { seq: 2 })),
        (at(9), Verdict::Refused(ReceiveRefusal::ClockStands { seq: 2 })),
        (at(10), Verdict::Applied),
    ] {
        let frames = [first.to_bytes(), sealed(2, first.hash(), hlc).to_bytes()];
        assert_eq!(Node::new(2).receive(NOON, &frames), [Verdict::Applied, verdict]);
    }
}
