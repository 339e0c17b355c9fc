//! A collection is dropped on one node while another is cut off: real processes, real stores, a restart.

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

fn path(collection: &str, action: &str) -> String {
    format!("/v1/datasets/primary/collections/{collection}/{action}")
}

fn listed(node: &Node) -> Vec<(String, u64)> {
    let (_, rows) = node.ask("GET", "/v1/datasets/primary/collections", "");
    let row = |row: &Value| Some((row["collection"].as_str()?.to_owned(), row["documents"].as_u64()?));
    rows.as_array().expect("collections").iter().filter_map(row).collect()
}

fn fingerprint(node: &Node) -> Value {
    node.dataset("primary")["fingerprint"].clone()
}

fn keys(documents: &[Value]) -> Vec<&str> {
    documents.iter().filter_map(|document| document["key"].as_str()).collect()
}

#[test]
fn a_drop_while_apart_takes_what_was_written_before_it_on_both_sides() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    for n in 0..50 {
        a.put("orders", &format!("both{n}"), &json!({"n": n, "text": "x".repeat(if n % 10 == 0 { 20_000 } else { 10 })}));
    }
    a.put("customers", "c", &json!(1));
    converged(&[&a, &b], "primary", "orders");

    // b writes alone, stops; a drops and writes on.
    let a_options = a.stop();
    b.put("orders", "b-before", &json!(1));
    b.put("orders", "both1", &json!("b-before"));
    let b_options = b.stop();
    let a = a_options.start();
    a.put("orders", "a-before", &json!(1));
    let (status, answer) = a.ask("POST", &path("orders", "drop"), "");
    assert_eq!(status, 200, "{answer}");
    assert!(answer["token"].is_string() && answer["stamp"].is_string() && answer["confirmed_by"] == json!([]), "{answer}");
    assert_eq!(listed(&a), [("customers".to_owned(), 1)], "gone from the list at once");
    assert!(a.get("orders", "both1").is_none() && a.list("primary", "orders").is_empty());
    let (status, problem) = a.ask("POST", &path("orders", "drop"), "");
    assert_eq!((status, problem["type"].as_str()), (404, Some("urn:anabranch:problem/not-found")));
    let absent = a.ask_with("PUT", &anabranch_tests::process::document("orders", "both1"), &[("If-Match", "*")], "1");
    assert_eq!(absent.0, 412, "a dropped document is not there");
    a.put("orders", "a-after", &json!(1));
    let a_options = a.stop();
    // b does not know yet.
    let b = b_options.start();
    b.put("orders", "b-after", &json!(1));
    assert!(b.get("orders", "b-before").is_some() && b.get("orders", "both1").is_some());

    let a = a_options.peer(&b).start();
    let documents = wait_for("both have what is newer than the drop", || {
        let documents = converged(&[&a, &b], "primary", "orders");
        (keys(&documents) == ["a-after", "b-after"]).then_some(documents)
    });
    let before = fingerprint(&a);
    assert_eq!(before, fingerprint(&b));
    assert_eq!(listed(&b), [("customers".to_owned(), 1), ("orders".to_owned(), 2)]);

    // Neither a stop nor a kill brings anything back.
    let (a, b) = (a.kill().start(), b.stop().start());
    for node in [&a, &b] {
        assert_eq!((node.list("primary", "orders"), fingerprint(node)), (documents.clone(), before.clone()));
    }
    // A node that never saw any of it.
    let c = place.node("c").peer(&a).start();
    assert_eq!(converged(&[&a, &c], "primary", "orders"), documents);
    assert_eq!(fingerprint(&c), before);

    // A truncated collection stays listed; who has it says so.
    let (status, answer) = c.ask("POST", &format!("{}?ack=1&timeout_ms=30000", path("orders", "truncate")), "");
    assert_eq!((status, answer["confirmed_by"].as_array().map(Vec::len)), (200, Some(1)), "{answer}");
    let token = answer["token"].as_str().expect("a token");
    let after = format!("/v1/datasets/primary/collections/orders/docs?after_token={token}&timeout_ms=30000");
    assert_eq!(a.ask("GET", &after, "").1["docs"], json!([]), "a read that comes after it");
    assert_eq!(listed(&a), [("customers".to_owned(), 1), ("orders".to_owned(), 0)]);
}

#[test]
fn what_can_not_be_dropped_is_refused_in_words() {
    let place = Place::new();
    let datasets = ["--dataset", "primary=orders", "--dataset", "logs:append=*"];
    let node = place.node("a").arguments(&datasets).start();
    node.put("drafts", "d", &json!(1));
    let refused = |path: &str, status: u16, word: &str| {
        let (found, problem) = node.ask("POST", path, "");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(found == status && detail.contains(word), "{path}: {problem}");
    };
    refused(&path("drafts", "drop"), 409, "not registered");
    refused(&path("nothing", "truncate"), 404, "nothing");
    refused(&path("_control", "drop"), 400, "reserved");
    refused(&path("orders", "rename"), 501, "not supported");
    assert_eq!(node.ask("POST", &path("orders", "drop"), "").0, 200, "registered, though nothing is in it");
    assert_eq!(listed(&node), [("drafts".to_owned(), 1), ("orders".to_owned(), 0)], "what is registered by name stays listed");
    assert_eq!(node.ask("POST", "/v1/datasets/logs/collections/app/docs", "1").0, 201);
    refused("/v1/datasets/logs/collections/app/drop", 409, "immutable");
}
