//! Options of a dataset have their effect, each in its own dataset: two datasets of one node, a hasty and a calm one.
//!
//! The others are shown where what they are for is: `collections_max` in `collections`, `enabled` in `hosting`, `lineage` in
//! `lineage`, `readers` and `writers` in `strangers`, `sync.max_peers` in `stalls`, `sync.anti_entropy_interval` in
//! `actors/tests/replicas/rounds.rs`.

use anabranch_tests::process::{Node, Options, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

const PAGE: &str = "\
[datasets.hasty]
kind = 'append'
collections = ['*']
sync = { announce_interval = '0ms', maintenance_interval = '100ms' }
[datasets.calm]
kind = 'append'
collections = ['*']
sync = { announce_interval = '12h', anti_entropy_interval = '24h', maintenance_interval = '24h' }
";

fn node(place: &Place, name: &str) -> Options {
    let file = place.path("options.toml");
    std::fs::write(&file, PAGE).expect("a file");
    place.node(name).arguments(&["--config", file.to_str().expect("a path in UTF-8")])
}

fn append(node: &Node, dataset: &str) {
    let path = format!("/v1/datasets/{dataset}/collections/app/docs");
    let (status, body) = node.ask("POST", &path, &json!({ "line": 1 }).to_string());
    assert_eq!(status, 201, "{body}");
}

fn in_sync(node: &Node, dataset: &str) -> bool {
    let peers = node.ask("GET", "/v1/peers", "").1;
    peers[0]["connected"] == true && peers[0]["datasets"][dataset]["state"] == "in_sync"
}

/// How much of a kind of message went out for a dataset.
fn sent(node: &Node, dataset: &str, kind: &str) -> Value {
    node.dataset(dataset)["counters"]["messages"][kind].clone()
}

#[test]
fn intervals_of_a_dataset_are_its_own() {
    let place = Place::new();
    let a = node(&place, "a").start();
    let b = node(&place, "b").peer(&a).start();
    wait_for("both are in sync", || (in_sync(&a, "hasty") && in_sync(&a, "calm")).then_some(()));

    // Announced at once, and not before the interval is over; who is connected hears of it from a signed statement as well.
    append(&a, "calm");
    for _ in 0..3 {
        let announced = sent(&a, "hasty", "announce");
        append(&a, "hasty");
        wait_for("a hasty record is announced", || (sent(&a, "hasty", "announce") != announced).then_some(()));
    }
    wait_for("the calm record arrives", || (b.dataset("calm")["documents"] == 1).then_some(()));
    assert_eq!(sent(&a, "calm", "announce"), Value::Null);

    // Its rows are read time and again, and not before the interval is over.
    let walks = |dataset: &str| a.dataset(dataset)["row_audit"]["walks"].as_u64().expect("a number");
    let (calm, hasty) = (walks("calm"), walks("hasty"));
    wait_for("the hasty dataset's rows are read twice", || (walks("hasty") >= hasty + 2).then_some(()));
    assert_eq!(walks("calm"), calm);
}
