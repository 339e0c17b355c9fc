//! Data directories that were restored from a backup, restored twice, or cloned: no seq is used twice, nothing is lost.

use std::collections::BTreeMap;

use anabranch_tests::process::{Node, converged, copy_directory, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

/// The epochs of a peer in a node's vector, with their newest numbers.
fn lines_of(node: &Node, peer: &str) -> BTreeMap<String, u64> {
    let info = node.dataset("primary");
    let vector = info["vector"].as_object().cloned().unwrap_or_default();
    vector
        .into_iter()
        .filter(|(writer, _)| writer.starts_with(peer))
        .map(|(writer, seq)| (writer, seq.as_u64().unwrap()))
        .collect()
}

fn writer(node: &Node) -> Value {
    node.dataset("primary")["writer"].clone()
}

fn refused(node: &Node) -> u64 {
    node.dataset("primary")["refused_commits"].as_u64().unwrap()
}

#[test]
fn a_directory_restored_from_an_older_copy_twice_loses_nothing_and_never_forks() {
    let place = Place::new();
    let peer = place.node("peer").start();
    let options = place.node("node").peer(&peer);

    let node = options.start();
    node.put("orders", "before", &json!(1));
    converged(&[&node, &peer], "primary", "orders");
    node.stop();
    copy_directory(&place.path("node"), &place.path("backup"));

    let node = options.start();
    wait_until_proven(&node, &peer);
    for n in 0..10 {
        node.put("orders", &format!("after-backup-{n}"), &json!(n));
    }
    converged(&[&node, &peer], "primary", "orders");
    let line = writer(&node);
    let peer_id = node.peer_id.clone();
    node.stop();

    let mut written = 11;
    for round in 0..2 {
        std::fs::rename(place.path("node"), place.path(&format!("lost-{round}"))).unwrap();
        copy_directory(&place.path("backup"), &place.path("node"));
        // Alone: nobody can tell it that its line went on.
        let node = place.node("node").arguments(&["--dataset", "primary=*"]).start();
        node.put("orders", &format!("restored-{round}"), &json!(round));
        assert_ne!(writer(&node), line, "a restored directory must not go on with its old line");
        written += 1;
        node.stop();
        let node = options.start();
        let documents = converged(&[&node, &peer], "primary", "orders");
        assert_eq!(documents.len(), written, "round {round}");
        assert_eq!((refused(&node), refused(&peer)), (0, 0));
        node.stop();
    }
    // The old line, and one per restore.
    assert!(lines_of(&peer, &peer_id).len() >= 3);
}

/// A peer confirmed the head: the next write goes on with the line.
fn wait_until_proven(node: &Node, peer: &Node) {
    wait_for("the peer is in sync", || {
        let peers = node.ask("GET", "/v1/peers", "").1;
        let entry = peers.as_array()?.iter().find(|entry| entry["peer_id"] == peer.peer_id.as_str())?.clone();
        (entry["datasets"]["primary"]["state"] == "in_sync").then_some(())
    });
}

#[test]
fn a_restart_beside_its_peer_goes_on_with_the_same_line() {
    let place = Place::new();
    let peer = place.node("peer").start();
    let options = place.node("node").peer(&peer);
    let node = options.start();
    node.put("orders", "k", &json!(1));
    converged(&[&node, &peer], "primary", "orders");
    let line = writer(&node);
    node.stop();
    let node = options.start();
    wait_until_proven(&node, &peer);
    node.put("orders", "k", &json!(2));
    assert_eq!(writer(&node), line);
    assert_eq!(lines_of(&node, &node.peer_id), BTreeMap::from([(line.as_str().unwrap().to_owned(), 2)]));
}

#[test]
fn a_directory_cloned_and_both_started_loses_nothing_on_either_side() {
    let place = Place::new();
    let peer = place.node("peer").start();
    let options = place.node("node").peer(&peer);
    let node = options.start();
    node.put("orders", "common", &json!(1));
    converged(&[&node, &peer], "primary", "orders");
    node.stop();
    copy_directory(&place.path("node"), &place.path("clone"));

    let original = options.start();
    wait_until_proven(&original, &peer);
    let clone = options.clone().data_dir(&place.path("clone")).start();
    assert_eq!(original.peer_id, clone.peer_id);
    for n in 0..10 {
        original.put("orders", &format!("original-{n}"), &json!(n));
        clone.put("orders", &format!("clone-{n}"), &json!(n));
    }
    assert_ne!(writer(&original), writer(&clone), "two live directories must not write one line");
    wait_for("the original's writes are on the peer", || peer.get("orders", "original-9"));
    original.stop();
    // Only now that the other one is gone is the clone let in.
    let documents = converged(&[&clone, &peer], "primary", "orders");
    assert_eq!(documents.len(), 21);
    clone.stop();
    let original = options.start();
    assert_eq!(converged(&[&original, &peer], "primary", "orders").len(), 21);
    assert_eq!((refused(&original), refused(&peer)), (0, 0));
}
