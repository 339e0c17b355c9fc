//! No (writer, seq) ever names two commits, whatever backup comes back.

use std::collections::BTreeMap;

use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Epoch, ShortHash, WriterId};
use anabranch_protocol::replica::{Replica, Saved, Turn, WriterState};
use anabranch_protocol::vector::{Head, VersionVector};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{NOON, Node, put, request};

const EPOCH: Epoch = Epoch([5; 16]);

#[test]
fn the_standing_after_a_start() {
    use WriterState::{Closed, Open, Unproven};
    for (saved, same_directory, peer_ever_accepted, standing) in [
        (None, true, false, Closed),
        (None, true, true, Closed),
        (None, false, false, Closed),
        (Some(EPOCH), true, false, Open(EPOCH)),
        (Some(EPOCH), true, true, Unproven(EPOCH)),
        (Some(EPOCH), false, false, Closed),
        (Some(EPOCH), false, true, Closed),
    ] {
        assert_eq!(WriterState::after_start(saved, same_directory, peer_ever_accepted), standing);
    }
}

/// A node that wrote two commits, and its writer.
fn two_commits() -> (Node, WriterId) {
    let mut node = Node::new(1);
    node.write(NOON, &[request(vec![put(0, 0, "1")])]);
    node.write(NOON, &[request(vec![put(0, 0, "2")])]);
    let writer = *node.replica.vector().iter().next().unwrap().0;
    (node, writer)
}

fn seen(writer: WriterId, head: Option<Head>) -> VersionVector {
    head.map(|head| (writer, head)).into_iter().collect()
}

#[test]
fn what_a_peer_has_of_our_line_decides_whether_it_goes_on() {
    let (node, writer) = two_commits();
    let ours = node.replica.vector().head(&writer).unwrap();
    let (open, unproven) = (WriterState::Open(writer.epoch), WriterState::Unproven(writer.epoch));
    let forked = Head { hash: ShortHash([0; 8]), ..ours };
    let (older, newer) = (Head { seq: 1, ..ours }, Head { seq: 3, ..ours });
    for (start, theirs, standing) in [
        (unproven, Some(ours), open),
        (unproven, None, unproven),
        (unproven, Some(older), unproven),
        (unproven, Some(newer), WriterState::Closed),
        (unproven, Some(forked), WriterState::Closed),
        (open, Some(ours), open),
        (open, None, open),
        (open, Some(older), open),
        (open, Some(newer), WriterState::Closed),
        (open, Some(forked), WriterState::Closed),
        (WriterState::Closed, Some(ours), WriterState::Closed),
    ] {
        let mut replica = node.replica.clone();
        replica.start_writer(start);
        replica.learn_own_line(&seen(writer, theirs));
        assert_eq!(replica.writer(), standing, "{start:?} {theirs:?}");
    }
}

#[test]
fn a_write_before_proof_opens_an_epoch_that_names_its_parent() {
    let (mut node, writer) = two_commits();
    node.replica.start_writer(WriterState::Unproven(writer.epoch));
    node.write(NOON, &[request(vec![put(0, 1, "3")])]);
    let commit = node.log[2].commit.as_ref().unwrap();
    let last = node.log[1].commit.as_ref().unwrap();
    assert_ne!(commit.writer().epoch, writer.epoch);
    assert_eq!(node.replica.writer(), WriterState::Open(commit.writer().epoch));
    let parent = commit.header().parent.unwrap();
    assert_eq!((parent.0, parent.1, parent.2), (writer.epoch, 2, last.hash()));
    assert_eq!(node.log[2].effects.epoch, Some(commit.writer().epoch));
    assert!(commit.header().hlc > last.header().hlc);
}

#[test]
fn our_own_commits_from_elsewhere_close_the_epoch() {
    let (mut ahead, writer) = two_commits();
    let mut older = ahead.clone();
    ahead.write(NOON + 1, &[request(vec![put(0, 2, "3")])]);
    for standing in [WriterState::Open(writer.epoch), WriterState::Unproven(writer.epoch)] {
        older.replica.start_writer(standing);
        let mut restored = older.clone();
        restored.receive(NOON, &ahead.frames());
        assert_eq!(restored.replica.writer(), WriterState::Closed);
        assert_eq!(restored.log.last().unwrap().effects.epoch, None, "also after a restart");
        assert_eq!(restored.replica.vector(), ahead.replica.vector());
    }
}

#[test]
fn a_turn_in_flight_does_not_open_what_a_peer_closed() {
    let (mut node, writer) = two_commits();
    let ours = node.replica.vector().head(&writer).unwrap();
    let newer = seen(writer, Some(Head { seq: 7, hlc: Hlc(ours.hlc.0 + 9), hash: ShortHash([1; 8]) }));
    let mut other = Node::new(2);
    other.write(NOON, &[request(vec![put(0, 3, "4")])]);
    let decided: Turn = node.decide(NOON, &[request(vec![put(0, 3, "5")])]).0;
    let mut beside = node.clone();
    beside.receive(NOON, &other.frames());
    assert_eq!(beside.replica.writer(), WriterState::Open(writer.epoch), "others' commits change nothing");

    node.replica.learn_own_line(&newer);
    node.take(decided);
    assert_eq!(node.replica.writer(), WriterState::Closed);
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    /// The peer takes in what a copy has.
    Sync(u8),
    Back(u8),
    Restart(u8),
    Snapshot(u8),
    /// A copy is put in place of a running one, in a directory of its own.
    Restore(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let copy = 0_u8..3;
    vec(
        prop_oneof![
            4 => copy.clone().prop_map(Step::Write),
            2 => copy.clone().prop_map(Step::Sync),
            2 => copy.clone().prop_map(Step::Back),
            1 => copy.clone().prop_map(Step::Restart),
            1 => copy.clone().prop_map(Step::Snapshot),
            1 => copy.prop_map(Step::Restore),
        ],
        1..40,
    )
}

/// A directory: what is durable in it, and what was recorded of peers.
#[derive(Clone)]
struct Directory {
    node: Node,
    epoch: Option<Epoch>,
    peer_ever_accepted: bool,
}

impl Directory {
    /// Starts a node in this directory from what is durable.
    fn start(&mut self, same_directory: bool, seed: u64) {
        let mut saved = Saved { clock: self.node.replica.clock(), ..Saved::default() };
        saved.tallies = self.node.replica.tallies().clone();
        let commits = self.node.log.iter().filter_map(|record| record.commit.as_ref());
        saved.lines = commits.map(|c| (c.writer(), anabranch_protocol::replica::Line::of(c))).collect();
        self.node.replica = Replica::load(self.node.replica.settings().clone(), saved);
        let standing = WriterState::after_start(self.epoch, same_directory, self.peer_ever_accepted);
        // A directory that was found to be another one must not be trusted at its second start either.
        self.epoch = standing.epoch();
        self.node.replica.start_writer(standing);
        self.node.seed = seed;
    }

    fn after(&mut self, records_before: usize) {
        if self.node.log.len() > records_before {
            self.epoch = self.node.log.last().unwrap().effects.epoch;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_number_is_used_twice(steps in steps()) {
        let first = Directory { node: Node::new(1), epoch: None, peer_ever_accepted: false };
        let mut copies = vec![first.clone()];
        let mut snapshots: Vec<Directory> = Vec::new();
        let mut peer = Node::new(2);
        let mut made: BTreeMap<(WriterId, u64), anabranch_protocol::id::Hash> = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            let millis = NOON + at as u64;
            let of = |n: u8, copies: &Vec<Directory>| usize::from(n) % copies.len();
            match step {
                Step::Write(n) => {
                    let at = of(*n, &copies);
                    let before = copies[at].node.log.len();
                    copies[at].node.write(millis, &[request(vec![put(0, *n, "1")])]);
                    copies[at].after(before);
                    for commit in copies[at].node.log[before..].iter().filter_map(|record| record.commit.as_ref()) {
                        let hash = *made.entry((commit.writer(), commit.header().seq)).or_insert(commit.hash());
                        prop_assert_eq!(hash, commit.hash(), "one number, two commits");
                    }
                }
                Step::Sync(n) => {
                    let at = of(*n, &copies);
                    copies[at].peer_ever_accepted = true;
                    peer.receive(millis, &copies[at].node.frames());
                    copies[at].node.replica.learn_own_line(peer.replica.vector());
                }
                Step::Back(n) => {
                    let at = of(*n, &copies);
                    copies[at].peer_ever_accepted = true;
                    copies[at].node.replica.learn_own_line(peer.replica.vector());
                    let before = copies[at].node.log.len();
                    copies[at].node.receive(millis, &peer.frames());
                    copies[at].after(before);
                }
                Step::Restart(n) => { let i = of(*n, &copies); copies[i].start(true, 1_000 * at as u64); }
                Step::Snapshot(n) => snapshots.push(copies[of(*n, &copies)].clone()),
                Step::Restore(n) => {
                    let Some(snapshot) = snapshots.get(usize::from(*n) % snapshots.len().max(1)) else { continue };
                    let mut copy = snapshot.clone();
                    copy.start(false, 7_000_000 + 1_000 * at as u64);
                    if copies.len() < 3 { copies.push(copy) } else { copies[usize::from(*n)] = copy }
                }
            }
        }
    }
}
