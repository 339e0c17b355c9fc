//! Peers that stall, drip and flood: everybody else syncs as if they were not there, and they are left alone by identity.

use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Epoch, PeerId, ShortHash, WriterId};
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_tests::bad_peer::{BadPeer, Manner};
use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

const DOCUMENTS: usize = 300;

/// A vector that says: of `writer` I have more than anybody.
fn more_of(writer: WriterId) -> VersionVector {
    let mut claims = VersionVector::new();
    claims.set(writer, Head { seq: 1_000_000, hlc: Hlc(1 << 16), hash: ShortHash([5; 8]) });
    claims
}

fn writer_of(node: &Node) -> WriterId {
    wait_for("the node wrote", || node.dataset("primary")["writer"].as_str()?.parse().ok())
}

fn row(node: &Node, peer: &str) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    rows.as_array()?.iter().find(|row| row["peer_id"] == peer).cloned()
}

fn more_than(counter: &AtomicU64, least: u64) -> Option<()> {
    (counter.load(Ordering::Relaxed) > least).then_some(())
}

#[test]
fn peers_that_stall_drip_and_flood_hold_up_nobody() {
    let place = Place::new();
    let a = place.node("a").start();
    for n in 0..DOCUMENTS {
        a.put("orders", &format!("before-{n}"), &json!(n));
    }
    // What it wrote before its restart it does not push: `b` has to ask for it.
    let a = a.stop().start();
    // One pull at a time, and one that stalls is never ended by its deadline while this test runs.
    let b = place
        .node("b")
        .environment("ANABRANCH_LIMITS__TRANSFER_TIMEOUT", "10m")
        .environment("ANABRANCH_DATASETS__PRIMARY__COLLECTIONS", "*")
        .environment("ANABRANCH_DATASETS__PRIMARY__SYNC__MAX_PEERS", "1")
        .start();
    // They say that they have what only `a` has, and are asked for it first.
    let claims = more_of(writer_of(&a));
    let stalls = BadPeer::start(Manner::StallMidPage, 101, &b.listen[0], claims.clone());
    wait_for("it is asked for a page", || more_than(&stalls.seen.pulls, 0));
    let drips = BadPeer::start(Manner::ByteASecond, 102, &b.listen[0], claims);
    let floods = BadPeer::start(Manner::FloodHello, 103, &b.listen[0], VersionVector::new());
    wait_for("it is let in", || more_than(&drips.seen.accepted, 0));

    let (status, _) = a.ask("POST", "/v1/peers", &json!({ "address": b.listen[0] }).to_string());
    assert_eq!(status, 202);
    wait_for("b has all that a wrote before", || b.get("orders", &format!("before-{}", DOCUMENTS - 1)));
    for n in 0..DOCUMENTS {
        a.put("orders", &format!("meanwhile-{n}"), &json!(n));
        b.put("orders", &format!("back-{n}"), &json!(n));
    }
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 3 * DOCUMENTS);
    // All the while they stood there.
    for bad in [&stalls, &drips] {
        wait_for("it is asked for a page", || more_than(&bad.seen.pulls, 0));
        assert_eq!(bad.seen.closed.load(Ordering::Relaxed), 0);
    }

    // The flood was answered `busy`, then shut out; it does not get in again under its name.
    wait_for("it is told to slow down", || more_than(&floods.seen.busy, 0));
    wait_for("it is thrown out", || more_than(&floods.seen.closed, 0));
    wait_for("and named", || row(&b, &floods.peer_id)?["refused"].as_str()?.contains("floods").then_some(()));
    wait_for("it comes back in vain", || more_than(&floods.seen.closed, 3));
    assert_eq!(row(&b, &floods.peer_id).expect("shown")["connected"], json!(false));
    a.put("orders", "after", &json!(1));
    wait_for("the others go on", || b.get("orders", "after"));
    assert!(b.peak_memory_mib() < 400, "{} MiB", b.peak_memory_mib());
}

#[test]
fn a_stalled_transfer_ends_by_its_own_deadline_and_its_peer_is_left_alone_by_identity() {
    let place = Place::new();
    let node = place.node("node").environment("ANABRANCH_LIMITS__TRANSFER_TIMEOUT", "300ms").start();
    let claims = more_of(WriterId { peer: PeerId([9; 32]), epoch: Epoch([9; 16]) });
    let left_alone =
        |seconds: u32| wait_for("it is left alone", || node.log().contains(&format!("delay={seconds}s")).then_some(()));
    let first = BadPeer::start(Manner::StallMidPage, 104, &node.listen[0], claims.clone());
    left_alone(2);
    assert!(first.seen.pulls.load(Ordering::Relaxed) >= 1);
    drop(first);
    // It comes back under its name: it is asked again only after a while, and then left alone for longer.
    let second = BadPeer::start(Manner::StallMidPage, 104, &node.listen[0], claims.clone());
    left_alone(4);
    drop(second);
    // A byte a second moves, but not fast enough.
    let drips = BadPeer::start(Manner::ByteASecond, 104, &node.listen[0], claims);
    left_alone(8);
    assert_eq!(drips.seen.pulls.load(Ordering::Relaxed), 1);
}
