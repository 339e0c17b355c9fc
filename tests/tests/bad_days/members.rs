//! Peers that are enrolled, demoted, disabled and removed while nodes run.

use anabranch_tests::process::{Node, converged, document, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

/// What `node` says of `peer`.
fn row(node: &Node, peer: &str) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    rows.as_array()?.iter().find(|row| row["peer_id"] == peer).cloned()
}

fn order(node: &Node, method: &str, peer: &str, order: &str, body: &str) -> Value {
    let (status, answer) = node.ask(method, &format!("/v1/peers/{peer}{order}"), body);
    assert_eq!(status, 200, "{order}: {answer}");
    answer
}

fn put(node: &Node, key: &str, query: &str) -> (u16, Value) {
    node.ask("PUT", &(document("orders", key) + query), "1")
}

/// A long wait that only a confirmation ends, and a short one that always ends.
const LONG: &str = "?ack=all&timeout_ms=60000";
const SHORT: &str = "?ack=all&timeout_ms=300";

fn enrolled(node: &Node, peer: &str) -> bool {
    row(node, peer).is_some_and(|row| row["enrolled"] == json!(["primary"]))
}

#[test]
fn a_demoted_peer_is_not_waited_for_whatever_comes_back() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    wait_for("b is enrolled", || enrolled(&a, &b.peer_id).then_some(()));
    assert_eq!(put(&a, "with-b", LONG).0, 201);
    let id = b.peer_id.clone();
    let b = b.stop();
    assert_eq!(put(&a, "b-is-away", SHORT).0, 202, "b is waited for");

    // Who waits for it alone is let go of at once.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&a, "waits", LONG).0);
        wait_for("it waits", || a.get("orders", "waits"));
        let answer = order(&a, "POST", &id, "/demote", "{\"dataset\": \"primary\"}");
        assert_eq!((&answer["enrolled"], &answer["demoted"]), (&json!([]), &json!(["primary"])));
        assert_eq!(waiting.join().expect("an answer"), 201);
    });

    // Neither a restart nor its return enrols it again.
    let a_listens = a.listen[0].split("/p2p/").next().unwrap_or_default().to_owned();
    let a = a.stop().listen(&a_listens).start();
    assert_eq!(put(&a, "after-a-restart", SHORT).0, 201);
    let b = b.start();
    converged(&[&a, &b], "primary", "orders");
    let shown = row(&a, &id).expect("a row");
    assert_eq!((&shown["enrolled"], &shown["demoted"], &shown["connected"]), (&json!([]), &json!(["primary"]), &json!(true)));
    let b = b.stop();
    assert_eq!(put(&a, "it-came-and-went", SHORT).0, 201);

    // By hand it is.
    assert_eq!(order(&a, "POST", &id, "/enrol", "")["enrolled"], json!(["primary"]));
    assert_eq!(put(&a, "waited-for-again", SHORT).0, 202);
    let a = a.stop().start();
    assert_eq!(put(&a, "also-after-a-restart", SHORT).0, 202);
    drop(b.start());
}

#[test]
fn a_disabled_peer_is_not_talked_to_until_it_is_enrolled_again() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    a.put("orders", "first", &json!(1));
    converged(&[&a, &b], "primary", "orders");
    assert_eq!(order(&a, "POST", &b.peer_id, "/disable", "")["disabled"], true);
    let apart = |a: &Node, b: &Node, round: &str| {
        wait_for("b is not connected, and told why", || {
            let there = row(b, &a.peer_id)?;
            let here = row(a, &b.peer_id)?;
            let told = there["refused"].as_str().is_some_and(|why| why.contains("disabled"));
            (told && here["disabled"] == true && here["connected"] == false).then_some(())
        });
        a.put("orders", round, &json!(1));
        b.put("orders", &format!("{round}-b"), &json!(1));
        assert_eq!((b.get("orders", round), a.get("orders", &format!("{round}-b"))), (None, None));
    };
    apart(&a, &b, "second");
    let (status, answer) = a.ask("POST", "/v1/peers", &json!({ "address": b.listen[0] }).to_string());
    assert_eq!((status, answer["type"].as_str().is_some_and(|kind| kind.contains("peer-disabled"))), (409, true), "{answer}");

    // Also after a restart, whoever dials.
    let listens = a.listen[0].split("/p2p/").next().unwrap_or_default().to_owned();
    let (a, b) = (a.stop().listen(&listens), b.stop());
    let (a, b) = (a.start(), b.start());
    apart(&a, &b, "third");
    assert_eq!(order(&a, "POST", &b.peer_id, "/enrol", "")["disabled"], false);
    // Both leave each other alone for a while by themselves; a word ends that.
    assert_eq!(b.ask("POST", "/v1/peers", &json!({ "address": a.listen[0] }).to_string()).0, 202);
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 5);
}

#[test]
fn a_removed_peer_is_gone_and_comes_back_only_by_itself() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    wait_for("b is enrolled", || enrolled(&a, &b.peer_id).then_some(()));
    let id = b.peer_id.clone();
    let b = b.stop();
    wait_for("b is gone", || (row(&a, &id)?["connected"] == false).then_some(()));
    let answer = order(&a, "DELETE", &id, "", "");
    assert_eq!((&answer["enrolled"], &answer["demoted"]), (&json!([]), &json!(["primary"])));
    let book = std::fs::read_to_string(place.path("a/peers.json")).unwrap_or_default();
    assert!(!book.contains(&id), "it is forgotten durably when that is said: {book}");
    wait_for("nothing is shown of it", || row(&a, &id).is_none().then_some(()));
    assert_eq!(put(&a, "nobody-is-waited-for", SHORT).0, 201);
    let listens = a.listen[0].split("/p2p/").next().unwrap_or_default().to_owned();
    let a = a.stop().listen(&listens).start();
    assert!(row(&a, &id).is_none(), "it is not dialed");

    // It knows where this node is, and syncs; but nobody counts on it.
    let b = b.start();
    converged(&[&a, &b], "primary", "orders");
    assert_eq!(row(&a, &id).map(|row| (row["enrolled"].clone(), row["demoted"].clone())), Some((json!([]), json!(["primary"]))));
    // Removed while it is connected.
    order(&a, "DELETE", &id, "", "");
    let slip = "12D3KooWK9YALYEs75MFFSZKeiUg9UDaBiivfdquGn9fk5RC6Jfu";
    assert_eq!(a.ask("DELETE", &format!("/v1/peers/{slip}"), "").0, 404);
    assert_eq!(a.ask("POST", &format!("/v1/peers/{slip}/demote"), "").0, 404);
    assert_eq!(a.ask("POST", &format!("/v1/peers/{id}/enrol"), "{\"dataset\": \"none\"}").0, 404);
    assert_eq!(a.ask("DELETE", &format!("/v1/peers/{}", a.peer_id), "").0, 400);
    assert_eq!(a.ask("DELETE", "/v1/peers/bob", "").0, 400);
}

/// In a dataset that does not run nobody can see whether the peer is demoted: that is said, and an order that left it out is not
/// called done.
#[test]
fn an_order_is_not_done_while_a_dataset_does_not_run() {
    let place = Place::new();
    let datasets = ["--dataset", "primary=orders", "--dataset", "logs:append=app"];
    let a = place.node("a").arguments(&datasets).start();
    let b = place.node("b").arguments(&datasets).peer(&a).start();
    let both = json!(["logs", "primary"]);
    let is_in_both = || wait_for("b is enrolled", || (row(&a, &b.peer_id)?["enrolled"] == both).then_some(()));
    is_in_both();
    assert_eq!(order(&a, "POST", &b.peer_id, "/demote", "")["demoted"], both);
    let of_logs = |order: &str| a.ask("POST", &format!("/v1/datasets/logs/{order}"), "").0;
    let asked = |peer: &str, order: &str| {
        let (status, answer) = a.ask("POST", &format!("/v1/peers/{peer}/{order}"), "");
        let kind = answer["type"].as_str().and_then(|kind| kind.rsplit('/').next()).unwrap_or_default().to_owned();
        (status, kind, answer)
    };
    assert_eq!(of_logs("pause"), 202);
    wait_for("logs is paused", || (a.dataset("logs")["state"] == "paused").then_some(()));
    let (status, kind, answer) = asked(&b.peer_id, "enrol");
    assert_eq!((status, kind.as_str(), &answer["datasets"]), (503, "not-in-every-dataset", &json!(["logs"])), "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("logs is paused")), "{answer}");
    assert_eq!(row(&a, &b.peer_id).expect("a row")["enrolled"], json!(["primary"]), "done where it can be");
    // Whether the dataset that is silent knows a peer can't be said either; nothing is done on a guess.
    let slip = "12D3KooWK9YALYEs75MFFSZKeiUg9UDaBiivfdquGn9fk5RC6Jfu";
    for order in ["enrol", "demote"] {
        let (status, _, answer) = asked(slip, order);
        assert_eq!((status, &answer["datasets"]), (503, &json!(["logs"])), "{answer}");
    }
    assert_eq!(of_logs("resume"), 202);
    wait_for("logs runs", || (a.dataset("logs")["state"] == "running").then_some(()));
    assert_eq!(order(&a, "POST", &b.peer_id, "/enrol", "")["enrolled"], both);
    assert_eq!((asked(slip, "enrol").0, asked(slip, "demote").0), (404, 404));
    assert!(row(&a, slip).is_none());
}

/// Where a dataset is stuck, an order about it waits; a peer is disabled all the same.
#[test]
fn a_dataset_that_is_stuck_does_not_keep_a_peer_from_being_disabled() {
    let place = Place::new();
    let datasets = ["--dataset", "primary=orders", "--dataset", "logs:append=app"];
    let a = place.faulty_node("a", 0).environment("TEST_DISK_PATIENCE", "600000").arguments(&datasets).start();
    let peers = ["12D3KooWK9YALYEs75MFFSZKeiUg9UDaBiivfdquGn9fk5RC6Jfu", "12D3KooWEBUiR8AtH2h9E8vXA28MzdeophpeSTVArkDam7Th6GDp"];
    place.set_faults("a", "barrier:hang:count=forever:dataset=logs");
    place.faults_taken("a");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| order(&a, "POST", peers[0], "/demote", "{\"dataset\": \"logs\"}"));
        wait_for("the order is stuck", || a.dataset("logs").get("documents").is_none().then_some(()));
        assert_eq!(order(&a, "POST", peers[1], "/disable", "")["disabled"], true);
        // It waited for the disk until now, and is done in time.
        place.set_faults("a", "");
        assert_eq!(waiting.join().expect("an answer")["demoted"], json!(["logs"]));
    });
}
