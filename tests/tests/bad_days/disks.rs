//! A full disk and a failing fsync: never acknowledged and lost, and the dataset opens again by itself.

use std::collections::BTreeSet;

use anabranch_tests::process::{Node, converged, document, wait_for};
use serde_json::json;

use crate::world::Place;

/// Writes until `rounds` writes were acknowledged after at least one was not; what was acknowledged and the other answers.
fn write_through(node: &Node, prefix: &str, rounds: usize) -> (BTreeSet<String>, BTreeSet<(u16, String)>) {
    let (mut acked, mut others, mut since) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut number = 0;
    wait_for("the dataset serves again", || {
        number += 1;
        let key = format!("{prefix}-{number}");
        let (status, body) = node.ask("PUT", &document("orders", &key), "1");
        if status == 201 {
            acked.insert(key);
            since += usize::from(!others.is_empty());
        } else {
            others.insert((status, body["type"].as_str().unwrap_or_default().to_owned()));
            since = 0;
        }
        (since >= rounds).then_some(())
    });
    (acked, others)
}

fn survives(plan: &str, expected: (u16, &str)) {
    let place = Place::new();
    let peer = place.node("peer").start();
    let node = place.faulty_node("node", 0).peer(&peer).start();
    node.put("orders", "first", &json!(1));
    place.set_faults("node", plan);
    let (acked, others) = write_through(&node, "k", 5);
    // Beside the failed write itself only a dataset that says that it is restarting.
    assert!(others.iter().any(|(status, kind)| *status == expected.0 && kind.ends_with(expected.1)), "{others:?}");
    assert!(others.iter().all(|(status, _)| *status == expected.0 || *status == 503), "{others:?}");
    assert!(node.dataset("primary")["restarts"].as_u64() >= Some(1));

    let documents = converged(&[&node, &peer], "primary", "orders");
    let keys: BTreeSet<String> = documents.iter().map(|document| document["key"].as_str().unwrap().to_owned()).collect();
    assert!(acked.is_subset(&keys), "acknowledged and lost: {:?}", acked.difference(&keys));

    // And it is on the disk, not only in memory.
    let node = node.kill().start();
    let documents = converged(&[&node, &peer], "primary", "orders");
    assert_eq!(documents.len(), keys.len());
}

#[test]
fn a_failing_fsync_is_answered_unknown() {
    survives("barrier:error:after=5:count=2", (500, "outcome-unknown"));
}

#[test]
fn an_fsync_that_fails_after_it_happened_is_answered_unknown() {
    survives("barrier:error:when=after:after=5", (500, "outcome-unknown"));
}

#[test]
fn a_full_disk_is_answered_as_such() {
    survives("put:enospc:after=40:count=2", (507, "no-space"));
}

#[test]
fn a_panic_in_the_store_is_answered_unknown() {
    survives("barrier:panic:after=5", (500, "outcome-unknown"));
}
