//! A machine that was rolled back to a snapshot while its node believed in its line: the one thing that forks a history.

use std::path::Path;

use anabranch_tests::process::{Node, converged, copy_directory, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

/// Rolls a data directory back to a copy of it, in place: every file keeps its inode, as on a disk that was rolled back, so that
/// nothing tells the node.
fn roll_back(directory: &Path, snapshot: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let old = snapshot.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            roll_back(&entry.path(), &old);
        } else if !old.exists() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    for entry in std::fs::read_dir(snapshot).unwrap().map(Result::unwrap) {
        let current = directory.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&current).unwrap();
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        // Written over, not replaced; what is equal is not touched at all, for its time of change is looked at too.
        if std::fs::read(&current).ok().as_deref() != Some(&bytes[..]) {
            std::fs::write(&current, bytes).unwrap();
        }
    }
}

fn writer(node: &Node) -> String {
    node.dataset("primary")["writer"].as_str().unwrap_or_default().to_owned()
}

fn reason(node: &Node) -> String {
    node.dataset("primary")["reason"].as_str().unwrap_or_default().to_owned()
}

/// How a node's peers page shows another node.
fn shown(node: &Node, peer: &str) -> Value {
    let peers = node.ask("GET", "/v1/peers", "").1;
    let entry = peers.as_array().into_iter().flatten().find(|entry| entry["peer_id"] == peer).cloned();
    entry.map_or(Value::Null, |entry| entry["datasets"]["primary"].clone())
}

#[test]
fn a_machine_that_was_rolled_back_forks_its_history_and_all_ends_equal() {
    let place = Place::new();
    let alone = place.node("owner").arguments(&["--dataset", "primary=*"]);
    let owner = alone.start();
    for n in 0..3 {
        owner.put("orders", &format!("common-{n}"), &json!(0));
    }
    owner.stop();
    copy_directory(&place.path("owner"), &place.path("snapshot"));

    // One future of the owner, beside `left`.
    let left = place.node("left").start();
    let owner = alone.start();
    owner.put("orders", "left", &json!(1));
    owner.put("orders", "both", &json!(1));
    let line = writer(&owner);
    owner.stop();
    let owner = alone.clone().peer(&left).start();
    converged(&[&owner, &left], "primary", "orders");
    owner.stop();

    // The other one, beside `right`: nothing in the directory says that there was a first.
    roll_back(&place.path("owner"), &place.path("snapshot"));
    let right = place.node("right").start();
    let owner = alone.start();
    owner.put("orders", "right", &json!(2));
    owner.put("orders", "both", &json!(2));
    assert_eq!(writer(&owner), line, "the rollback shows: it forks nothing");
    owner.stop();
    let owner = alone.clone().peer(&right).start();
    converged(&[&owner, &right], "primary", "orders");
    owner.stop();

    // The two who hold a branch each meet.
    let right = right.stop();
    let right = right.peer(&left).start();
    assert_eq!(converged(&[&left, &right], "primary", "orders").len(), 6);
    for node in [&left, &right] {
        wait_for("the fork shows", || reason(node).contains(&format!("two commits of {line} have the number 4")).then_some(()));
    }
    // And the owner hears of it, stays with neither branch, and goes on.
    let owner = alone.clone().peer(&right).start();
    wait_for("the owner knows", || reason(&owner).contains("this node's own history forked").then_some(()));
    owner.put("orders", "after", &json!(3));
    assert_ne!(writer(&owner), line);
    assert_eq!(converged(&[&owner, &left, &right], "primary", "orders").len(), 7);
    assert_eq!(shown(&right, &owner.peer_id)["state"], "diverged");
    wait_for("the others are in sync", || (shown(&right, &left.peer_id)["state"] == "in_sync").then_some(()));

    // It is known after kill -9 too, and nothing was set aside.
    let right = right.kill().start();
    wait_for("the fork is remembered", || reason(&right).contains("have the number 4").then_some(()));
    assert_eq!(converged(&[&owner, &left, &right], "primary", "orders").len(), 7);
    assert_eq!(right.dataset("primary")["set_aside"].as_array().map_or(0, Vec::len), 0);
}
