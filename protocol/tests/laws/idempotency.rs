//! A write under an idempotency key happens once, however often it is sent, and is answered as it was.

use std::collections::BTreeMap;

use anabranch_protocol::id::RequestHash;
use anabranch_protocol::idempotency::{Idempotency, IdempotencyKey};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Op, WriteOp, WriteRefusal, WriteRequest, Written};
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use crate::world::{NOON, Node, append, collection, delete, key, merge, put, settings};

const DAY: u64 = 24 * 60 * 60 * 1_000;

fn keyed(name: &str, ops: Vec<WriteOp>) -> WriteRequest {
    WriteRequest::once(ops, &name.parse().unwrap())
}

fn one(node: &mut Node, at: u64, request: &WriteRequest) -> Result<Written, WriteRefusal> {
    node.write(at, std::slice::from_ref(request)).remove(0)
}

#[test]
fn the_same_request_is_answered_as_it_was_and_happens_once() {
    let mut node = Node::new(1);
    let request = keyed("a", vec![put(0, 0, "1")]);
    let first = one(&mut node, NOON, &request).unwrap();
    assert!(first.created && first.token.is_some());
    node.write(NOON + 1, &[WriteRequest::new(vec![put(0, 0, "2")])]);
    let before = (node.state(), node.log.len());
    assert_eq!(one(&mut node, NOON + 2, &request), Ok(first.clone()), "also where the document changed since");
    assert_eq!((node.state(), node.log.len()), before);
    // Twice in one turn: one commit, one answer.
    let request = keyed("b", vec![merge(0, 1, "{\"n\":1}")]);
    let outcomes = node.write(NOON + 3, &[request.clone(), WriteRequest::new(vec![put(0, 2, "1")]), request.clone()]);
    assert_eq!(outcomes[0], outcomes[2]);
    assert_eq!(outcomes[0].as_ref().unwrap().token, outcomes[1].as_ref().unwrap().token);
    assert_eq!(
        node.log.last().unwrap().commit.as_ref().unwrap().sections().map(|section| section.entries.len()).sum::<usize>(),
        2
    );
    assert_eq!(one(&mut node, NOON + 4, &request), outcomes[0]);
}

#[test]
fn a_key_serves_one_request() {
    let mut node = Node::new(1);
    one(&mut node, NOON, &keyed("a", vec![put(0, 0, "1")])).unwrap();
    let before = (node.state(), node.log.len());
    for other in [vec![put(0, 0, "2")], vec![put(0, 1, "1")], vec![put(1, 0, "1")], vec![put(0, 0, "1"), put(0, 1, "1")]] {
        assert_eq!(one(&mut node, NOON + 1, &keyed("a", other)), Err(WriteRefusal::KeyReused));
    }
    assert_eq!((node.state(), node.log.len()), before);
    // Also within one turn, where the second one is the wrong one.
    let outcomes = node.write(NOON + 2, &[keyed("b", vec![put(0, 5, "1")]), keyed("b", vec![put(0, 5, "2")])]);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(WriteRefusal::KeyReused));
}

#[test]
fn what_was_refused_is_not_remembered() {
    let mut node = Node::new(1);
    let must_delete = WriteOp { collection: collection(0), op: Op::Delete { key: key(0), must_exist: true } };
    let request = keyed("a", vec![must_delete]);
    assert!(matches!(one(&mut node, NOON, &request), Err(WriteRefusal::NotFound { .. })));
    assert!(node.log.is_empty());
    // In one turn with what makes it possible, and behind one that refused it: the key is free for whatever comes.
    let outcomes = node.write(NOON, &[request.clone(), WriteRequest::new(vec![put(0, 0, "1")]), request]);
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(one(&mut node, NOON, &keyed("b", vec![put(0, 3, "1")])).map(|written| written.created), Ok(true));
}

#[test]
fn nothing_to_do_is_remembered_too() {
    let mut node = Node::new(1);
    let request = keyed("a", vec![delete(0, 0)]);
    let nothing = one(&mut node, NOON, &request).unwrap();
    assert_eq!((nothing.token, nothing.stamp), (None, None));
    assert_eq!((node.log.len(), node.frames().len()), (1, 0), "a record, and no commit");
    one(&mut node, NOON + 1, &WriteRequest::new(vec![put(0, 0, "1")])).unwrap();
    // Sent again, it must not delete what came after it.
    assert_eq!(one(&mut node, NOON + 2, &request), Ok(nothing));
    assert!(node.rows.0[&(collection(0), key(0))].value.is_some());
}

#[test]
fn a_key_is_free_again_after_a_day() {
    let mut node = Node::new(1);
    let request = keyed("a", vec![put(0, 0, "1")]);
    let first = one(&mut node, NOON, &request).unwrap();
    assert_eq!(one(&mut node, NOON + DAY - 1, &request), Ok(first.clone()), "that it was asked for does not prolong it");
    let again = one(&mut node, NOON + DAY, &request).unwrap();
    assert!(again.token != first.token && !again.created);
    assert_eq!(one(&mut node, NOON + DAY + 1, &request), Ok(again));
    assert_eq!(node.frames().len(), 2);
}

#[test]
fn records_are_appended_once_under_the_key_that_was_chosen_first() {
    let mut node = Node::with(settings(1, Kind::Append, Registration::all()));
    let request = keyed("a", vec![append(0, "1")]);
    let first = one(&mut node, NOON, &request).unwrap();
    assert!(first.key.is_some());
    assert_eq!(one(&mut node, NOON + 5, &request), Ok(first));
    assert_eq!(node.replica.documents(), 1);
}

/// A request of the property below: which key, and which of its two bodies.
fn request_of(name: u8, body: u8) -> WriteRequest {
    let idempotency_key: IdempotencyKey = format!("key-{name}").parse().unwrap();
    // Every one changes what the next one finds: a second time would show.
    let op = WriteOp { collection: collection(0), op: Op::Append { value: vec![name] } };
    let idempotency = Some(Idempotency::new(&idempotency_key, [&[name, body][..]]));
    WriteRequest { ops: vec![op], idempotency }
}

proptest! {
    /// However requests come, in whatever turns, and however often: each key has the one answer of its first request for a day.
    #[test]
    fn however_often_it_is_sent(turns in proptest::collection::vec((0_u64..DAY / 4, proptest::collection::vec((0_u8..6, 0_u8..8), 1..6)), 1..24)) {
        let mut node = Node::with(settings(1, Kind::Append, Registration::all()));
        let mut model: BTreeMap<u8, (RequestHash, u64, Written)> = BTreeMap::new();
        let (mut now, mut happened) = (NOON, 0);
        for (pause, sent) in turns {
            now += pause;
            // One in eight is another request under the key.
            let requests: Vec<_> = sent.iter().map(|(name, body)| request_of(*name, u8::from(*body == 7))).collect();
            for ((name, _), (request, outcome)) in sent.iter().zip(requests.iter().zip(node.write(now, &requests))) {
                let asked = request.idempotency.unwrap().request;
                match model.get(name).filter(|(_, at, _)| now < at + DAY) {
                    Some((known, _, _)) if *known != asked => prop_assert_eq!(outcome, Err(WriteRefusal::KeyReused)),
                    Some((_, _, written)) => prop_assert_eq!(outcome.as_ref(), Ok(written)),
                    None => {
                        happened += 1;
                        model.insert(*name, (asked, now, outcome.unwrap()));
                    }
                }
            }
            prop_assert_eq!(node.replica.documents(), happened);
        }
    }
}
