//! A peer that may no longer write keeps its history, on every path and for nodes that join later, and gets nothing further in.

use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::{ForkProof, Identity};
use anabranch_protocol::id::{PeerId, WriterId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{ReceiveRefusal, Replica, Saved, Verdict};
use anabranch_protocol::wire::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{NOON, Node, append, put, request, settings};

const REMOVED: u8 = 9;

fn peer(secret: u8) -> PeerId {
    Identity::from_secret(&[secret; 32]).peer()
}

/// A node that takes commits of the first `writers` of these nodes, and of the removed one while `also_removed`.
fn node(secret: u8, kind: Kind, also_removed: bool) -> Node {
    let mut writers = vec![peer(1), peer(2)];
    writers.extend(also_removed.then(|| peer(REMOVED)));
    let mut settings = settings(secret, kind, Registration::all());
    settings.writers = Peers::Only(writers.into_iter().collect());
    Node::with(settings)
}

/// The same node after a restart with the removed peer taken out of its list; it sets the fences that it has to.
fn shortened(before: &Node, kind: Kind) -> Node {
    let mut after = Node { seed: before.seed + 1_000, ..node_like(before, kind) };
    let missing = after.replica.fences_to_set();
    assert!(after.write(NOON + 50_000, &missing).iter().all(Result::is_ok));
    assert!(after.replica.fences_to_set().is_empty(), "once");
    after
}

/// Loaded again from what it saved, under the short list.
fn node_like(before: &Node, kind: Kind) -> Node {
    let settings = anabranch_protocol::replica::ReplicaSettings {
        writers: Peers::Only([peer(1), peer(2)].into()),
        kind,
        ..before.replica.settings().clone()
    };
    let mut lines = std::collections::BTreeMap::new();
    for record in &before.log {
        if let Some(commit) = &record.commit {
            lines.insert(record.line().expect("it has a commit"), anabranch_protocol::replica::Line::of(commit));
        }
    }
    let control = anabranch_protocol::fence::control_collection();
    let rows = before.rows.0.iter().filter(|((collection, _), _)| *collection == control);
    let control = rows.map(|((_, key), row)| (key.clone(), row.clone())).collect();
    let saved = Saved {
        lines,
        clock: before.replica.clock(),
        tallies: before.replica.tallies().clone(),
        control,
        forks: before.replica.forks().clone(),
    };
    Node { replica: Replica::load(settings, saved), rows: before.rows.clone(), log: before.log.clone(), seed: before.seed }
}

fn write(node: &mut Node, kind: Kind, n: u8) {
    let op = if kind == Kind::Append { append(0, &n.to_string()) } else { put(0, n % 4, &n.to_string()) };
    assert!(node.write(NOON + u64::from(n), &[request(vec![op])])[0].is_ok());
}

/// Gives a node all frames, in the order that `order` says, until nothing moves any more.
fn settle(node: &mut Node, frames: &[Vec<u8>], order: &[usize]) {
    loop {
        let before = node.replica.vector().clone();
        for at in order {
            node.receive(NOON + 60_000, &frames[at % frames.len()..][..1]);
        }
        node.receive(NOON + 60_000, frames);
        if *node.replica.vector() == before {
            return;
        }
    }
}

proptest! {
    #[test]
    fn all_converge_on_the_greatest_fence_and_nothing_gets_past_it(
        one_has in 0_usize..6,
        other_has in 0_usize..6,
        order in vec(0_usize..64, 0..40),
        appends: bool,
    ) {
        let kind = if appends { Kind::Append } else { Kind::Documents };
        let mut removed = node(REMOVED, kind, true);
        for n in 0..6 {
            write(&mut removed, kind, n);
        }
        let history = removed.frames();
        let (mut one, mut other) = (node(1, kind, true), node(2, kind, true));
        one.receive(NOON + 100, &history[..one_has]);
        other.receive(NOON + 100, &history[..other_has]);
        write(&mut one, kind, 20);
        let (mut one, mut other) = (shortened(&one, kind), shortened(&other, kind));
        write(&mut other, kind, 21);

        // Everything there is, the removed peer's later commits among it, in any order and from anybody.
        let mut frames = history.clone();
        frames.extend(one.frames());
        frames.extend(other.frames());
        let mut late = node(4, kind, false);
        for node in [&mut one, &mut other, &mut late] {
            settle(node, &frames, &order);
        }
        let end = one_has.max(other_has) as u64;
        let line = WriterId { peer: peer(REMOVED), epoch: removed.replica.writer().epoch().unwrap() };
        prop_assert_eq!(late.replica.vector().seq(&line), end);
        prop_assert_eq!(one.state(), late.state());
        prop_assert_eq!(other.state(), late.state());
        if appends {
            prop_assert_eq!(late.replica.documents(), end + 2, "records of users only");
        }
        for beyond in &history[one_has.max(other_has)..] {
            let refused = Verdict::Refused(ReceiveRefusal::Forbidden { peer: peer(REMOVED) });
            prop_assert_eq!(late.receive(NOON + 60_000, std::slice::from_ref(beyond)), [refused]);
        }
        // What is set is set: a restart writes nothing, and knows the fences from the rows.
        let again = node_like(&one, kind);
        prop_assert!(again.replica.fences_to_set().is_empty());
        prop_assert_eq!(again.replica.fences().end(&line), end);
    }
}

#[test]
fn a_chain_that_does_not_lead_to_the_fence_is_refused_there() {
    let kind = Kind::Documents;
    let mut removed = node(REMOVED, kind, true);
    write(&mut removed, kind, 1);
    // Its directory was cloned: another second commit under the same epoch.
    let mut clone = Node { seed: removed.seed + 99, ..removed.clone() };
    write(&mut removed, kind, 2);
    write(&mut clone, kind, 3);
    let mut one = node(1, kind, true);
    one.receive(NOON + 100, &removed.frames());
    let one = shortened(&one, kind);
    let mut late = node(4, kind, false);
    late.receive(NOON + 60_000, &one.frames());
    let verdicts = late.receive(NOON + 60_000, &clone.frames());
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Refused(ReceiveRefusal::Fork { seq: 2 })]);
    assert_eq!(late.receive(NOON + 60_000, &removed.frames()), [Verdict::Duplicate, Verdict::Applied]);
}

/// The removed peer's history forked before it was removed: each branch has a fence of its own.
#[test]
fn branches_of_a_removed_peer_stay_and_get_nothing_further_in() {
    let kind = Kind::Documents;
    let mut removed = node(REMOVED, kind, true);
    write(&mut removed, kind, 1);
    let mut clone = Node { seed: removed.seed + 99, ..removed.clone() };
    // One branch is of three commits, of which the last one is heard of too late; the other one is of one.
    for n in 2..5 {
        write(&mut removed, kind, n);
    }
    write(&mut clone, kind, 10);
    write(&mut clone, kind, 11);
    let (history, copy) = (removed.frames(), clone.frames());
    let commits = |node: &Node| node.log.iter().filter_map(|record| record.commit.clone()).collect::<Vec<_>>();
    let (ours, theirs) = (commits(&removed), commits(&clone));
    let proof = ForkProof::of(&ours[1], &theirs[1]).unwrap();

    let mut one = node(1, kind, true);
    one.learn(&proof);
    one.receive(NOON + 100, &history[..3]);
    one.receive(NOON + 100, &copy[1..2]);
    let one = shortened(&one, kind);
    let (line, long, short) = (ours[0].writer(), ours[1].branch(), theirs[1].branch());
    let ends = |node: &Node| [line, long, short].map(|line| node.replica.vector().seq(&line));
    assert_eq!([line, long, short].map(|line| one.replica.fences().end(&line)), [1, 3, 2]);

    // A node that joins later gets both, in whatever order, and nothing past either.
    for clone_first in [false, true] {
        let mut late = node(4, kind, false);
        late.learn(&proof);
        late.receive(NOON + 60_000, &one.frames().split_off(one.frames().len() - 1));
        let mut frames = [&history[..3], &copy[1..2]].concat();
        if clone_first {
            frames = [&history[..1], &copy[1..2], &history[1..3]].concat();
        }
        let verdicts = late.receive(NOON + 60_000, &frames);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied), "{verdicts:?}");
        let refused = Verdict::Refused(ReceiveRefusal::Forbidden { peer: peer(REMOVED) });
        assert_eq!(late.receive(NOON + 60_000, &[history[3].clone(), copy[2].clone()]), [refused.clone(), refused]);
        assert_eq!((ends(&late), late.state()), ([1, 3, 2], one.state()));
    }
}
