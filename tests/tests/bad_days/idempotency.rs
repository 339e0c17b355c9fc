//! A write that is sent again under its idempotency key happens once: over `kill -9`, a failed fsync, and for a day.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anabranch_tests::process::{Answer, Node, document, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

const RECORDS: &str = "/v1/datasets/logs/collections/app/docs";
const BATCH: &str = "/v1/datasets/primary/batch";
const DATASETS: [&str; 4] = ["--dataset", "primary=*", "--dataset", "logs:append=*"];
const HOUR: i64 = 60 * 60 * 1_000;
const WRITERS: usize = 4;

fn send(node: &Node, method: &str, path: &str, key: &str, body: &str) -> Answer {
    node.ask_with(method, path, &[("Idempotency-Key", key)], body)
}

fn kind(answer: &Answer) -> (u16, String) {
    let kind = answer.1["type"].as_str().unwrap_or_default();
    (answer.0, kind.trim_start_matches("urn:anabranch:problem/").to_owned())
}

fn commits(node: &Node, dataset: &str) -> u64 {
    node.dataset(dataset)["commits"].as_u64().expect("a number of commits")
}

/// The path and body of write `n`: by turns a record, and a document that may be made only once.
fn write(n: usize) -> (&'static str, String, String) {
    match n % 2 {
        0 => ("POST", RECORDS.to_owned(), n.to_string()),
        _ => ("PUT", document("orders", &format!("k{n}")), n.to_string()),
    }
}

fn try_write(node: &Node, n: usize) -> Option<Answer> {
    let (method, path, body) = write(n);
    let key = format!("\"write-{n}\"");
    let conditions: &[(&str, &str)] = if method == "PUT" { &[("If-None-Match", "*")] } else { &[] };
    node.send_with(method, &path, &[&[("Idempotency-Key", key.as_str())], conditions].concat(), &body).ok()
}

#[test]
fn sent_again_after_a_kill_it_happened_once() {
    let place = Place::new();
    let options = place.node("node").arguments(&DATASETS);
    let acked = Mutex::new(BTreeMap::<usize, Value>::new());
    let (sent, mut node) = (AtomicUsize::new(0), options.start());
    for _ in 0..5 {
        let before = acked.lock().unwrap().len();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let n = sent.fetch_add(1, Ordering::Relaxed);
                        if let Some((201, answer)) = try_write(&node, n) {
                            acked.lock().unwrap().insert(n, answer);
                        }
                    }
                });
            }
            wait_for("writes are acknowledged", || (acked.lock().unwrap().len() >= before + 25).then_some(()));
            node.kill_now();
            stop.store(true, Ordering::Relaxed);
        });
        node = options.start();
        let before = (commits(&node, "primary"), commits(&node, "logs"));
        for (n, answer) in acked.lock().unwrap().iter() {
            assert_eq!(try_write(&node, *n), Some((201, answer.clone())), "{n}");
        }
        assert_eq!((commits(&node, "primary"), commits(&node, "logs")), before, "what was acknowledged is not written again");
    }
    let sent = sent.into_inner();
    for n in 0..sent {
        // 201 also where the first one made the document: its condition holds as it did then.
        assert_eq!(try_write(&node, n).map(|answer| answer.0), Some(201), "{n}");
    }
    let mut records: Vec<u64> = node.list("logs", "app").iter().map(|record| record["value"].as_u64().unwrap()).collect();
    records.sort_unstable();
    assert_eq!(records, (0..sent as u64).step_by(2).collect::<Vec<_>>(), "each once");
    assert_eq!(node.list("primary", "orders").len(), sent / 2);
}

#[test]
fn sent_again_after_an_unknown_outcome_it_happened_once() {
    for when in ["before", "after"] {
        let place = Place::new();
        let node = place.faulty_node("node", 0).arguments(&DATASETS).start();
        assert_eq!(send(&node, "POST", RECORDS, "first", "1").0, 201);
        place.set_faults("node", &format!("barrier:error:when={when}:count=1"));
        place.faults_taken("node");
        assert_eq!(kind(&send(&node, "POST", RECORDS, "second", "2")), (500, "outcome-unknown".to_owned()));
        let again = || send(&node, "POST", RECORDS, "second", "2");
        let (_, answer) = wait_for("it is answered", || Some(again()).filter(|answer| answer.0 == 201));
        assert_eq!(again(), (201, answer));
        assert_eq!((node.list("logs", "app").len(), commits(&node, "logs")), (2, 2), "{when}");
    }
}

#[test]
fn a_key_lasts_a_day() {
    let place = Place::new();
    let node = place.faulty_node("node", 0).arguments(&DATASETS).start();
    let (status, first) = send(&node, "POST", RECORDS, "k", "1");
    assert_eq!(status, 201);
    node.stop();
    let node = place.faulty_node("node", 23 * HOUR).arguments(&DATASETS).start();
    assert_eq!(send(&node, "POST", RECORDS, "k", "1"), (201, first.clone()));
    node.stop();
    let node = place.faulty_node("node", 25 * HOUR).arguments(&DATASETS).start();
    let (status, again) = send(&node, "POST", RECORDS, "k", "1");
    assert!(status == 201 && again["key"] != first["key"], "{again}");
    assert_eq!(node.list("logs", "app").len(), 2);
}

#[test]
fn every_write_takes_a_key_and_each_key_serves_one_request() {
    let place = Place::new();
    let node = place.node("node").arguments(&DATASETS).start();
    let doc = document("orders", "k");
    let batch =
        json!([{"op": "append", "collection": "notes", "value": 1}, {"op": "delete", "collection": "orders", "key": "x"}]);
    let batch = batch.to_string();
    let drop = "/v1/datasets/primary/collections/notes/drop";
    let writes = [
        ("PUT", doc.as_str(), "{\"a\":1}", 201),
        ("PATCH", doc.as_str(), "{\"b\":2}", 200),
        ("DELETE", doc.as_str(), "", 200),
        ("POST", "/v1/datasets/primary/collections/orders/docs", "1", 201),
        ("POST", BATCH, batch.as_str(), 200),
        ("POST", drop, "", 200),
        ("POST", RECORDS, "1", 201),
    ];
    let first: Vec<_> = writes
        .iter()
        .map(|(method, path, body, _)| send(&node, method, path, &format!("{method} {path}").replace(' ', ":"), body))
        .collect();
    let before = (commits(&node, "primary"), commits(&node, "logs"));
    for ((method, path, body, status), first) in writes.iter().zip(first) {
        let key = format!("{method}:{path}");
        assert_eq!(first.0, *status, "{method} {path}: {}", first.1);
        // Bare or in quotes, as the draft has it.
        for key in [key.clone(), format!("\"{key}\"")] {
            assert_eq!(send(&node, method, path, &key, body), first, "{method} {path}");
        }
        let (other, other_body) = if *method == "POST" { (*path, " 2") } else { (*path, "{\"c\":3}") };
        let (other, other_body) = match (*method, *path) {
            ("DELETE", _) => ("/v1/datasets/primary/collections/orders/docs/other".to_owned(), ""),
            (_, BATCH) => (other.to_owned(), "[{\"op\":\"put\",\"collection\":\"orders\",\"key\":\"x\",\"value\":1}]"),
            (_, path) if path == drop => ("/v1/datasets/primary/collections/orders/drop".to_owned(), ""),
            _ => (other.to_owned(), other_body),
        };
        let refused = send(&node, method, &other, &key, other_body);
        assert_eq!(kind(&refused), (422, "idempotency-key-reused".to_owned()), "{method} {path}");
        assert!(refused.1["detail"].as_str().is_some_and(|detail| detail.contains("nothing was written")), "{}", refused.1);
    }
    assert_eq!((commits(&node, "primary"), commits(&node, "logs")), before);
}

#[test]
fn what_a_key_does_not_do() {
    let place = Place::new();
    let node = place.node("node").arguments(&DATASETS).start();
    let doc = document("orders", "k");
    // Who has it is asked anew; what is asked beside writing is no part of the request.
    let (status, first) = send(&node, "PUT", &doc, "acked", "1");
    assert_eq!(status, 201);
    let (status, again) = send(&node, "PUT", &format!("{doc}?ack=1&timeout_ms=1"), "acked", "1");
    assert_eq!((status, &again["token"]), (202, &first["token"]));
    // What was refused may be sent again under its key, and is looked at anew.
    let delete = || send(&node, "DELETE", &document("orders", "later"), "delete", "");
    assert_eq!(delete().0, 404);
    node.put("orders", "later", &json!(1));
    assert_eq!((delete().0, delete().0), (200, 200));
    assert_eq!(send(&node, "DELETE", &document("orders", "later"), "another", "").0, 404);
    // An ingest is many commits.
    let (status, answer) = send(&node, "POST", "/v1/datasets/primary/ingest", "k", "");
    assert!(status == 400 && answer["detail"].as_str().is_some_and(|detail| detail.contains("batches")), "{answer}");
    for bad in ["a b", "\"a", &"k".repeat(256)] {
        let (status, answer) = send(&node, "PUT", &doc, bad, "9");
        assert!(status == 400 && answer["detail"].as_str().is_some_and(|detail| detail.contains("Idempotency-Key")), "{answer}");
    }
    assert_eq!(node.get("orders", "k"), Some(json!(1)));
    // Many at once under one key: one record, one answer.
    let answers = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| send(&node, "POST", RECORDS, "race", "1"))).collect();
        racers.into_iter().map(|racer| racer.join().expect("an answer")).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| answer == &answers[0] && answer.0 == 201), "{answers:?}");
    assert_eq!(node.list("logs", "app").len(), 1);
}
