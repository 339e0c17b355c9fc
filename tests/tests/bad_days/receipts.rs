//! Receipts over several hops, waits for writes, and conditional writes: what a client is told is what is true.

use anabranch_tests::process::{Node, document, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

/// Peers that a receipt names, sorted.
fn confirmed(answer: &Value) -> Vec<String> {
    let names = answer["confirmed_by"].as_array().expect("a receipt").iter();
    let mut names: Vec<_> = names.map(|name| name.as_str().expect("a peer id").to_owned()).collect();
    names.sort();
    names
}

fn ids(nodes: &[&Node]) -> Vec<String> {
    let mut ids: Vec<_> = nodes.iter().map(|node| node.peer_id.clone()).collect();
    ids.sort();
    ids
}

fn put(node: &Node, key: &str, query: &str) -> (u16, Value) {
    node.ask("PUT", &format!("{}{query}", document("orders", key)), "{}")
}

#[test]
fn a_receipt_counts_peers_that_have_the_write_however_many_hops_away() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    let c = place.node("c").peer(&b).start();
    let (status, answer) = put(&a, "first", "?ack=2&timeout_ms=60000");
    assert_eq!((status, confirmed(&answer)), (201, ids(&[&b, &c])), "{answer}");
    // A never met C: all is B alone.
    let (status, answer) = put(&a, "second", "?ack=all&timeout_ms=60000");
    assert!(status == 201 && confirmed(&answer).contains(&b.peer_id), "{answer}");

    // What C confirmed it can be read from at once, or after a wait that ends by the write's arrival.
    let (status, answer) = put(&a, "third", "");
    assert_eq!((status, confirmed(&answer)), (201, Vec::new()), "nobody is asked unless told to");
    let token = answer["token"].as_str().expect("a token");
    let read = c.ask("GET", &format!("{}?after={token}&timeout_ms=60000", document("orders", "third")), "");
    assert_eq!(read, (200, json!({})));
    let listing = format!("/v1/datasets/primary/collections/orders/docs?after_token={token}&timeout_ms=60000");
    assert_eq!(c.ask("GET", &listing, "").1["docs"].as_array().map(Vec::len), Some(3));

    // C goes away: the write stands, and says who has it.
    let c = c.stop();
    let (status, answer) = put(&a, "fourth", "?ack=2&timeout_ms=300");
    assert_eq!((status, confirmed(&answer)), (202, ids(&[&b])), "{answer}");
    let token = answer["token"].as_str().expect("a token").to_owned();
    let c = c.peer(&b).start();
    let path = format!("{}?after={token}&timeout_ms=60000", document("orders", "fourth"));
    assert_eq!(c.ask("GET", &path, ""), (200, json!({})));
}

#[test]
fn every_enrolled_peer_is_waited_for_also_after_a_restart() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    wait_for("A knows B", || (put(&a, "k", "?ack=1&timeout_ms=60000").0 < 202).then_some(()));
    let b = b.stop();
    let a = a.stop().start();
    let (status, answer) = put(&a, "k", "?ack=all&timeout_ms=300");
    assert_eq!((status, confirmed(&answer)), (202, Vec::new()), "B was accepted once: {answer}");
    let b = b.peer(&a).start();
    let (status, answer) = put(&a, "k", "?ack=all&timeout_ms=60000");
    assert_eq!((status, confirmed(&answer)), (200, ids(&[&b])), "{answer}");
}

#[test]
fn a_peer_that_does_not_replicate_a_collection_confirms_nothing_of_it() {
    let place = Place::new();
    let a = place.node("a").arguments(&["--dataset", "primary=orders,customers"]).start();
    let b = place.node("b").arguments(&["--dataset", "primary=customers"]).peer(&a).start();
    let customers = |query: &str| a.ask("PUT", &format!("{}{query}", document("customers", "k")), "{}");
    assert_eq!(confirmed(&customers("?ack=1&timeout_ms=60000").1), ids(&[&b]));
    let (status, answer) = put(&a, "k", "?ack=1&timeout_ms=300");
    assert_eq!((status, confirmed(&answer)), (202, Vec::new()), "{answer}");
    assert_eq!(put(&a, "k", "?ack=all&timeout_ms=60000").0, 200, "no enrolled peer covers it");
    // What stays on this node is confirmed by nobody, and nobody is waited for.
    let (status, answer) = a.ask("PUT", &format!("{}?ack=1&timeout_ms=60000", document("drafts", "k")), "{}");
    assert_eq!((status, &answer["replicated"]), (202, &json!(false)), "{answer}");
    let (_, answer) = put(&a, "k", "");
    let token = answer["token"].as_str().expect("a token");
    let read = b.ask("GET", &format!("{}?after={token}", document("orders", "k")), "");
    assert_eq!((read.0, read.1["type"].as_str()), (409, Some("urn:anabranch:problem/not-registered")));
}

#[test]
fn a_token_that_can_not_be_waited_for_says_why() {
    let place = Place::new();
    let a = place.node("a").start();
    let stranger = place.node("stranger").start();
    let (_, answer) = put(&stranger, "k", "");
    let token = answer["token"].as_str().expect("a token").to_owned();
    let read = |token: &str| a.ask("GET", &format!("{}?after={token}&timeout_ms=100", document("orders", "k")), "");
    let (status, answer) = read(&token);
    assert!(status == 504 && answer["detail"].as_str().is_some_and(|detail| detail.contains("0 commits")), "{answer}");
    assert_eq!(read("nonsense").0, 400);
    put(&a, "k", "");
    let (_, answer) = put(&a, "k", "");
    let own = answer["token"].as_str().expect("a token");
    // The last letters hold the hash.
    let forged = format!("{}AAAA", &own[..own.len() - 4]);
    assert_eq!(read(own).0, 200);
    assert_eq!(read(&forged).0, 409, "another history");
}

#[test]
fn a_write_happens_only_where_the_document_is_as_expected() {
    let place = Place::new();
    let a = place.node("a").start();
    let path = document("orders", "k");
    let put = |header: (&str, &str), body: &str| a.ask_with("PUT", &path, &[header], body);
    assert_eq!(put(("If-Match", "*"), "1").0, 412);
    let (status, answer) = put(("If-None-Match", "*"), "1");
    let first = format!("\"{}\"", answer["stamp"].as_str().expect("a stamp"));
    assert_eq!(status, 201);
    let (status, answer) = put(("If-None-Match", "*"), "2");
    assert_eq!((status, answer["current"].as_str().map(|stamp| format!("\"{stamp}\""))), (412, Some(first.clone())));
    assert_eq!(put(("If-Match", &first), "3").0, 200);
    assert_eq!(put(("If-Match", &first), "4").0, 412, "the stamp is a new one");
    assert_eq!(a.get("orders", "k"), Some(json!(3)));
    assert_eq!(a.ask_with("DELETE", &path, &[("If-Match", &first)], "").0, 412);
    assert_eq!(a.ask_with("PATCH", &path, &[("If-Match", "*")], "{}").0, 200);
    assert_eq!(a.ask_with("POST", "/v1/datasets/primary/batch", &[("If-Match", "*")], "[]").0, 400);
    assert_eq!(a.ask_with("DELETE", &path, &[("If-Match", "*")], "").0, 200);

    // Many at once: one wins.
    let winners = std::thread::scope(|scope| {
        let race = |n: usize| {
            let (a, path) = (&a, document("orders", "race"));
            scope.spawn(move || a.ask_with("PUT", &path, &[("If-None-Match", "*")], &n.to_string()).0 == 201)
        };
        let racers: Vec<_> = (0..8).map(race).collect();
        racers.into_iter().map(|racer| racer.join().expect("an answer")).filter(|won| *won).count()
    });
    assert_eq!(winners, 1);
}
