//! A–B–C in a line: what C has of A came through B, with A's signature.

use anabranch_tests::process::{converged, wait_for};
use serde_json::json;

use crate::world::Place;

#[test]
fn commits_reach_the_end_of_a_line_through_the_middle() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    let c = place.node("c").peer(&b).start();
    for n in 0..50 {
        a.put("orders", &format!("a{n}"), &json!(n));
        c.put("orders", &format!("c{n}"), &json!(n));
    }
    let documents = converged(&[&a, &b, &c], "primary", "orders");
    assert_eq!(documents.len(), 100);
    // There is no peer exchange: C never met A, so what it has of A is vouched for by A's signature alone.
    let peers = c.ask("GET", "/v1/peers", "").1;
    assert!(peers.as_array().unwrap().iter().all(|peer| peer["peer_id"] != a.peer_id.as_str()), "{peers}");
    let vector = c.dataset("primary")["vector"].clone();
    assert!(vector.as_object().unwrap().keys().any(|writer| writer.starts_with(&a.peer_id)), "{vector}");

    // The middle goes away and comes back: what was written meanwhile arrives.
    let options = b.stop();
    a.put("orders", "meanwhile", &json!(true));
    let b = options.start();
    // Free ports change with every start, so C is told where B is now; B still knows A.
    let c = c.stop().peer(&b).start();
    converged(&[&a, &b, &c], "primary", "orders");
    wait_for("C has what A wrote meanwhile", || c.get("orders", "meanwhile"));
}

#[test]
fn records_of_an_append_dataset_travel_beside_documents() {
    let place = Place::new();
    let datasets = ["--dataset", "primary=*", "--dataset", "logs:append=*"];
    let a = place.node("a").arguments(&datasets).start();
    let b = place.node("b").arguments(&datasets).peer(&a).start();
    let lines: String =
        (0..500).map(|n| format!("{{\"op\":\"append\",\"collection\":\"app\",\"value\":{{\"line\":{n}}}}}\n")).collect();
    let (status, answer) = a.ask("POST", "/v1/datasets/logs/ingest", &lines);
    assert_eq!((status, answer["accepted"].as_u64()), (200, Some(500)), "{answer}");
    a.put("orders", "k", &json!(1));
    let records = converged(&[&a, &b], "logs", "app");
    assert_eq!(records.len(), 500);
    assert!(records.is_sorted_by_key(|record| record["value"]["line"].as_u64()), "keys sort by time");
    converged(&[&a, &b], "primary", "orders");
}
