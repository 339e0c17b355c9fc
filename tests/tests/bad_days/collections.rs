//! An unregistered collection's payload is on no peer's disk, whatever path its commits take; who registered more than its neighbours
//! says so, and heals when a better one appears.
//!
//! Packets are encrypted between processes, so what travels is looked at where messages are bytes, in
//! `actors/tests/replicas/collections.rs`; here it is what arrives: every file of a node is searched.

use std::fs;
use std::path::Path;

use anabranch_tests::process::{Node, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

/// What nobody else writes. No part of it is compressed or encoded on its way to the disk.
const MARKER: &str = "4f1d-a-payload-that-stays-where-it-is-registered-9c07";

fn holds(directory: &Path, marker: &[u8]) -> bool {
    let entries = fs::read_dir(directory).expect("a data directory").flatten();
    entries.into_iter().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, marker);
        }
        fs::read(&path).unwrap_or_default().windows(marker.len()).any(|window| window == marker)
    })
}

fn collection(node: &Node, name: &str) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/datasets/primary/collections", "");
    rows.as_array()?.iter().find(|row| row["collection"] == name).cloned()
}

fn path(name: &str) -> String {
    format!("/v1/datasets/primary/collections/{name}")
}

fn has(node: &Node, name: &str, key: &str) {
    wait_for(&format!("{key} of {name} arrives"), || node.get(name, key));
}

fn is_complete(node: &Node, name: &str) {
    wait_for(&format!("{name} is complete"), || collection(node, name).filter(|row| row["coverage"] == "complete"));
}

#[test]
fn what_is_not_registered_is_on_no_disk_and_who_needs_it_heals() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).arguments(&["--dataset", "primary=orders"]).start();
    // It knows only b, which has less than it wants.
    let c = place.node("c").peer(&b).start();

    // Pushed while connected, pulled after a restart, relayed towards c.
    a.put("orders", "pushed", &json!(1));
    a.put("secrets", "pushed", &json!(MARKER));
    a.put("orders", "after", &json!(1));
    has(&b, "orders", "after");
    let b = b.stop();
    a.put("secrets", "pulled", &json!(MARKER));
    a.put("orders", "pulled", &json!(1));
    let b = b.start();
    has(&b, "orders", "pulled");
    assert!(!holds(&place.path("b"), MARKER.as_bytes()) && holds(&place.path("a"), MARKER.as_bytes()));
    // b has another port now.
    let dial = |node: &Node, peer: &Node| {
        let body = json!({ "address": peer.listen[0] }).to_string();
        assert_eq!(node.ask("POST", "/v1/peers", &body).0, 202);
    };
    dial(&c, &b);
    wait_for("c says that nobody has what it needs", || {
        c.dataset("primary")["reason"].as_str().filter(|reason| reason.contains("no_source")).map(drop)
    });
    assert!(!holds(&place.path("c"), MARKER.as_bytes()));

    // A better peer appears.
    dial(&c, &a);
    has(&c, "secrets", "pulled");
    wait_for("c has nothing to say any more", || c.dataset("primary")["reason"].is_null().then_some(()));

    // Widened by another collection, it still gets only that.
    a.put("notes", "n", &json!("a note"));
    assert_eq!(b.ask("PUT", &path("notes"), "").0, 201);
    assert_eq!(b.ask("PUT", &path("notes"), "").0, 200);
    has(&b, "notes", "n");
    is_complete(&b, "notes");
    assert!(!holds(&place.path("b"), MARKER.as_bytes()));
    assert!(b.get("secrets", "pushed").is_none());

    // Narrowed, it gets no more; what it has it keeps, across restarts too.
    assert_eq!(b.ask("DELETE", &path("notes"), "").0, 200);
    assert_eq!(b.ask("DELETE", &path("notes"), "").0, 204);
    let later = format!("{MARKER}-later");
    a.put("notes", "later", &json!(later));
    a.put("orders", "last", &json!(1));
    has(&b, "orders", "last");
    let b = b.stop().start();
    assert_eq!(collection(&b, "notes").expect("it is remembered")["coverage"], "frozen");
    assert_eq!(b.dataset("primary")["collections"], json!(["orders"]));
    a.put("notes", "later", &json!(format!("{later}-again")));
    a.put("orders", "very-last", &json!(1));
    dial(&b, &a);
    has(&b, "orders", "very-last");
    assert!(b.get("notes", "n").is_some() && !holds(&place.path("b"), MARKER.as_bytes()));

    // Registered, it gets all of it; written here before, it reaches the others.
    b.put("drafts", "d", &json!("mine"));
    assert_eq!(b.ask("PUT", &path("notes"), "").0, 201);
    assert_eq!(b.ask("PUT", &path("drafts"), "").0, 201);
    is_complete(&b, "notes");
    has(&b, "notes", "later");
    has(&a, "drafts", "d");
    assert!(holds(&place.path("b"), later.as_bytes()));
    wait_for("b is ready", || (b.ask("GET", "/readyz", "").0 == 200).then_some(()));
}

#[test]
fn a_registration_that_may_not_be_changed_is_refused_and_says_what_to_do() {
    let place = Place::new();
    let file = place.path("node.toml");
    fs::write(&file, "[datasets.primary]\ncollections = [\"orders\"]\ncollections_max = [\"orders\", \"notes\"]\n")
        .expect("a file");
    let file = file.to_str().expect("a path in UTF-8").to_owned();
    let node = place.node("a").arguments(&["--config", &file]).start();
    let (status, problem) = node.ask("PUT", &path("secrets"), "");
    assert!(status == 403 && problem["detail"].as_str().is_some_and(|text| text.contains("collections_max")), "{problem}");
    assert_eq!(node.ask("PUT", &path("notes"), "").0, 201);
    assert_eq!(node.ask("PUT", &path("_control"), "").0, 400);
    assert_eq!(node.ask("PUT", "/v1/datasets/nobody/collections/notes", "").0, 404);
    let all = place.node("b").start();
    let (status, problem) = all.ask("DELETE", &path("orders"), "");
    assert!(status == 403 && problem["detail"].as_str().is_some_and(|text| text.contains("configuration")), "{problem}");
    assert_eq!(all.ask("PUT", &path("orders"), "").0, 200);
}

#[test]
fn a_lost_store_does_not_take_with_it_what_was_unregistered() {
    let place = Place::new();
    let datasets = ["--dataset", "primary=orders,notes"];
    let a = place.node("a").arguments(&datasets).start();
    let b = place.node("b").arguments(&datasets).peer(&a).start();
    b.put("orders", "o", &json!(1));
    has(&a, "orders", "o");
    assert_eq!(b.ask("DELETE", &path("notes"), "").0, 200);
    assert_eq!(b.ask("PUT", &path("drafts"), "").0, 201);
    let b = b.stop();
    fs::remove_dir_all(place.path("b").join("datasets/primary")).expect("a store to lose");
    a.put("notes", "n", &json!(MARKER));
    a.put("orders", "later", &json!(1));
    let b = b.peer(&a).start();
    has(&b, "orders", "later");
    assert_eq!(b.dataset("primary")["collections"], json!(["drafts", "orders"]));
    assert!(b.get("notes", "n").is_none() && !holds(&place.path("b"), MARKER.as_bytes()));
}
