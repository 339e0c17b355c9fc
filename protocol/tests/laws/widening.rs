//! A replica that registered its collections one after the other ends where one that registered them at once is; what was written
//! before is said to everybody, once.

use std::collections::BTreeMap;

use anabranch_protocol::commit::{Commit, Frame};
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{DatasetId, Lineage, WriterId};
use anabranch_protocol::registration::{Registration, TagSet};
use anabranch_protocol::replica::{LocalRecord, ReceiveRefusal, Verdict, Widening};
use anabranch_protocol::wire::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::frames::{orders_only, primary_commit};
use crate::world::{NOON, Node, append, collection, delete, put, request, settings, truncate};

fn tags(of: &[u8]) -> TagSet {
    Registration::of(of.iter().map(|n| collection(*n))).tags(&DatasetId::primary(), Lineage::ZERO)
}

fn verified(bytes: &[u8]) -> Commit {
    Frame::decode(bytes).unwrap().verify(&DatasetId::primary(), Lineage::ZERO).unwrap()
}

#[test]
fn copies_join_to_the_union_of_their_sections_and_other_commits_do_not() {
    let whole = primary_commit();
    let orders = whole.clone().keep_only(&orders_only());
    let customers = whole.clone().keep_only(&tags(&[1]));
    let (wider, new) = orders.widen(&customers).unwrap();
    assert_eq!((&wider, new.len()), (&whole, 1));
    assert_eq!(wider.to_bytes(), whole.to_bytes());
    assert_eq!(orders.widen(&orders), Some((orders.clone(), [].into())));
    let mut other = Node::new(9);
    other.write(NOON, &[request(vec![put(0, 1, "1")])]);
    assert_eq!(orders.widen(&verified(&other.frames()[0])), None);
    // What a node has but no longer registers is not served.
    assert!(whole.unservable(&tags(&[0, 1]), &TagSet::All).is_empty());
    assert_eq!(whole.unservable(&tags(&[0, 1]), &tags(&[0])).len(), 1);
    assert_eq!(orders.unservable(&tags(&[0, 1]), &TagSet::All).len(), 1);
    assert!(orders.unservable(&tags(&[0]), &tags(&[0])).is_empty());
}

/// Widens `node`'s commits by copies that `source` has, as a pull of the past would; the verdicts.
fn widen(node: &mut Node, source: &[Commit]) -> Vec<Verdict> {
    let here = |came: &Commit| {
        let same = |commit: &Commit| commit.writer() == came.writer() && commit.header().seq == came.header().seq;
        let found = node.log.iter().enumerate().filter_map(|(at, record)| Some((at, record.commit.as_ref()?)));
        found.rev().find(|(_, commit)| same(commit)).map(|(at, commit)| (at as u64 + 1, commit.clone()))
    };
    let widening =
        |came: &Commit| here(came).map(|(arrival, here)| Widening { line: came.writer(), here, arrival, came: came.clone() });
    let widenings = source.iter().filter_map(widening).collect();
    let (turn, verdicts) = node.replica.widen(widenings, &node.rows).unwrap();
    assert!(turn.records.iter().all(|record| record.effects.widens.is_some()));
    node.take(turn);
    verdicts
}

fn written(kind: Kind, groups: &[Vec<(u8, u8, u8)>]) -> Vec<Commit> {
    let mut writers: Vec<Node> = (1..3).map(|n| Node::with(settings(n, kind, Registration::all()))).collect();
    for (at, group) in groups.iter().enumerate() {
        let op = |(c, k, what): &(u8, u8, u8)| match (kind, what % 4) {
            (Kind::Append, _) => append(c % 3, &what.to_string()),
            (_, 0) if *what > 220 => truncate(c % 3),
            (_, 0) => delete(c % 3, *k % 4),
            _ => put(c % 3, *k % 4, &what.to_string()),
        };
        writers[at % 2].write(NOON + at as u64, &[request(group.iter().map(op).collect())]);
    }
    let frames = writers.iter().flat_map(Node::frames);
    frames.map(|bytes| verified(&bytes)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn registering_one_after_the_other_leads_to_the_same_state(
        groups in vec(vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..5), 1..12),
        append_only in any::<bool>(), order in Just(vec![0_u8, 1, 2]).prop_shuffle(), again in any::<bool>(), seen in 0_usize..12,
    ) {
        let kind = if append_only { Kind::Append } else { Kind::Documents };
        let commits = written(kind, &groups);
        let mut at_once = Node::with(settings(100, kind, Registration::of([0, 1, 2].map(collection))));
        at_once.receive(NOON, &commits.iter().map(Commit::to_bytes).collect::<Vec<_>>());
        let mut late = Node::with(settings(100, kind, Registration::of([])));
        let bytes = |commit: &Commit| commit.to_bytes();
        late.receive(NOON, &commits.iter().take(seen).map(bytes).collect::<Vec<_>>());
        let mut registered = Vec::new();
        for next in order {
            registered.push(next);
            late.replica.set_registration(Registration::of(registered.iter().map(|n| collection(*n))));
            late.receive(NOON, &commits.iter().map(bytes).collect::<Vec<_>>());
            // As a peer would send it: just the sections that were asked for.
            let asked: Vec<Commit> = commits.iter().map(|commit| commit.clone().keep_only(&tags(&[next]))).collect();
            let head = late.replica.vector().clone();
            widen(&mut late, &asked);
            if again {
                prop_assert!(widen(&mut late, &asked).iter().all(|verdict| *verdict == Verdict::Duplicate));
            }
            prop_assert_eq!(late.replica.vector(), &head);
        }
        prop_assert_eq!(late.state(), at_once.state());
        late.sweep(|_| true);
        // What the log says after a crash is the same once more, whatever rows survived.
        let mut redone = Node::with(late.replica.settings().clone());
        for record in &late.log {
            let rows = redone.replica.redo(record, &redone.rows).unwrap();
            redone.rows.0.extend(rows.into_iter().map(|write| ((write.collection, write.key), write.row)));
        }
        prop_assert_eq!(redone.state(), at_once.state());
    }
}

#[test]
fn a_fork_is_no_copy_and_what_is_not_registered_stays_out() {
    let (mut honest, mut forked) = (Node::new(1), Node::new(1));
    honest.write(NOON, &[request(vec![put(0, 1, "1"), put(1, 1, "2")])]);
    forked.write(NOON, &[request(vec![put(0, 1, "1"), put(1, 1, "3")])]);
    let mut node = Node::with(settings(3, Kind::Documents, Registration::of([collection(0)])));
    node.receive(NOON, &honest.frames());
    let here = node.log[0].commit.clone().unwrap();
    let widening = |came: &[u8]| Widening { line: here.writer(), here: here.clone(), arrival: 1, came: verified(came) };
    let (turn, verdicts) = node.replica.widen(vec![widening(&honest.frames()[0])], &node.rows).unwrap();
    assert!(turn.records.is_empty() && verdicts == [Verdict::Duplicate], "customers are not registered");
    node.replica.set_registration(Registration::of([0, 1].map(collection)));
    let (turn, verdicts) = node.replica.widen(vec![widening(&forked.frames()[0])], &node.rows).unwrap();
    assert!(turn.records.is_empty());
    assert_eq!(verdicts, [Verdict::Refused(ReceiveRefusal::Fork { seq: 1 })]);
}

fn entropy() -> impl FnMut(&mut [u8]) {
    let mut n = 0;
    move |bytes: &mut [u8]| {
        n += 1;
        bytes.fill(n);
    }
}

#[test]
fn local_documents_are_issued_with_their_tombstones() {
    let mut node = Node::with(settings(1, Kind::Documents, Registration::of([])));
    node.write(NOON, &[request(vec![put(0, 1, "1"), put(0, 2, "2"), put(0, 3, "3")])]);
    node.write(NOON + 1, &[request(vec![delete(0, 2)])]);
    assert!(node.frames().is_empty() && node.rows.0.values().all(|row| node.replica.is_local(row)));
    node.replica.set_registration(Registration::of([collection(0)]));
    // Written again before it is issued: that is a commit by itself.
    node.write(NOON + 2, &[request(vec![put(0, 3, "4")])]);
    let local = node.rows.0.iter().filter(|(_, row)| node.replica.is_local(row));
    let local: Vec<_> = local.map(|((_, key), row)| (key.clone(), row.clone())).collect();
    assert_eq!(local.len(), 2);
    let turn = node.replica.issue_rows(WallClock(NOON + 3), &collection(0), local, &node.rows, &mut entropy()).unwrap();
    node.take(turn);
    assert!(!node.rows.0.values().any(|row| node.replica.is_local(row)));
    let mut peer = Node::new(2);
    peer.receive(NOON + 4, &node.frames());
    assert_eq!(peer.state(), node.state());
    assert_eq!(peer.replica.documents(), 2);
}

#[test]
fn local_records_are_issued_and_counted_once() {
    let mut node = Node::with(settings(1, Kind::Append, Registration::of([])));
    node.write(NOON, &[request(vec![append(0, "1"), append(1, "2"), append(0, "3")])]);
    node.write(NOON + 1, &[request(vec![append(0, "4")])]);
    node.replica.set_registration(Registration::of([collection(0)]));
    let changes = |at: usize| {
        let local = node.log[at].local.as_ref().unwrap();
        let of = local.entries.iter().filter(|(named, _)| *named == collection(0));
        let changes = of.map(|(_, entry)| entry.change.clone()).collect();
        LocalRecord { arrival: at as u64 + 1, collection: collection(0), changes }
    };
    let records = vec![changes(0), changes(1)];
    let turn = node.replica.issue_records(WallClock(NOON + 3), records, &node.rows, &mut entropy()).unwrap();
    assert_eq!(turn.records.iter().map(|record| record.effects.issues).collect::<Vec<_>>(), [Some(1), Some(2)]);
    let before = node.replica.tallies().clone();
    node.take(turn);
    assert_eq!(node.replica.tallies(), &before);
    let mut peer = Node::with(settings(2, Kind::Append, Registration::all()));
    assert_eq!(peer.receive(NOON + 4, &node.frames()), [Verdict::Applied, Verdict::Applied]);
    let live: BTreeMap<_, _> = peer.replica.tallies().iter().map(|(name, tally)| (name.clone(), tally.live)).collect();
    assert_eq!(live, BTreeMap::from([(collection(0), 3)]));
    assert_eq!(peer.replica.fingerprint(), node.replica.fingerprint());
}

#[test]
fn a_first_commit_that_comes_again_opens_no_line() {
    use anabranch_protocol::replica::WriterState;
    let mut node = Node::new(1);
    node.write(NOON, &[request(vec![put(0, 1, "1"), put(1, 1, "2")])]);
    let whole = verified(&node.frames()[0]);
    let writer: WriterId = whole.writer();
    // The same node after its store was set aside: it got its own commit back without the second section.
    let mut later = Node::with(settings(1, Kind::Documents, Registration::of([collection(0)])));
    later.receive(NOON, &[whole.to_bytes()]);
    later.replica.start_writer(WriterState::Unproven(writer.epoch));
    later.replica.set_registration(Registration::all());
    assert_eq!(widen(&mut later, &[whole]), [Verdict::Applied]);
    assert_eq!(later.replica.writer(), WriterState::Unproven(writer.epoch));
}
