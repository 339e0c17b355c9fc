//! Damaged stores are set aside and rebuilt from peers, and nobody else notices; datasets are paused, resumed and restarted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anabranch_tests::process::{Node, Options, converged, copy_directory, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

const DATASETS: [&str; 6] = ["--dataset", "primary=*", "--dataset", "logs:append=*", "--dataset", "notes=*"];
/// Seeded flips of the ordinary test; `DAMAGE_FLIPS` asks for more.
const FLIPS: u64 = 12;

/// A peer that has everything, and a stopped node that had the same.
struct Pair {
    place: Place,
    peer: Node,
    node: Options,
    notes: Vec<Value>,
    logs: Vec<Value>,
}

fn append(node: &Node, record: &Value) -> u16 {
    node.ask("POST", "/v1/datasets/logs/collections/app/docs", &record.to_string()).0
}

fn fill(node: &Node, rounds: usize) {
    for n in 0..rounds {
        let op = |i: usize| json!({"op": "append", "collection": "app", "value": {"n": n, "i": i, "text": "x".repeat(i * 37)}});
        let batch = Value::from((0..20).map(op).collect::<Vec<_>>()).to_string();
        assert_eq!(node.ask("POST", "/v1/datasets/logs/batch", &batch).0, 200);
        let op = |i: usize| json!({"op": "put", "collection": "notes", "key": format!("{n}-{i}"), "value": "y".repeat(n * i)});
        let batch = Value::from((0..10).map(op).collect::<Vec<_>>()).to_string();
        assert_eq!(node.ask("POST", "/v1/datasets/notes/batch", &batch).0, 200);
    }
}

impl Pair {
    fn new() -> Self {
        let place = Place::new();
        let peer = place.node("peer").arguments(&DATASETS).start();
        let node = place.faulty_node("node", 0).arguments(&DATASETS).peer(&peer).start();
        peer.put("orders", "o", &json!(1));
        fill(&peer, 15);
        fill(&node, 15);
        converged(&[&node, &peer], "primary", "orders");
        let logs = converged(&[&node, &peer], "logs", "app");
        let notes = converged(&[&node, &peer], "notes", "notes");
        assert_eq!((logs.len(), notes.len()), (600, 150));
        let node = node.stop();
        Self { place, peer, node, notes, logs }
    }

    fn directory(&self, dataset: &str) -> PathBuf {
        self.place.path("node").join("datasets").join(dataset)
    }

    /// Starts the damaged node and waits until it equals its peer; how many stores of the dataset are set aside then.
    fn heals(&self, dataset: &str) -> usize {
        let started = Instant::now();
        let node = self.node.start();
        assert_eq!(node.get("orders", "o"), Some(json!(1)));
        // Far from what it takes, and before a caller who waits for the damaged dataset would have been answered.
        assert!(started.elapsed() < Duration::from_secs(20), "primary served after {:?}", started.elapsed());
        for (dataset, collection, known) in [("logs", "app", &self.logs), ("notes", "notes", &self.notes)] {
            self.serves_nothing_wrong(&node, dataset, collection, known);
            assert_eq!(converged(&[&node, &self.peer], dataset, collection), *known);
        }
        let aside = node.dataset(dataset)["set_aside"].as_array().expect("a list").clone();
        for aside in &aside {
            assert!(Path::new(aside["path"].as_str().unwrap()).is_dir() && aside["at"].is_string(), "{aside}");
            assert!(!aside["reason"].as_str().unwrap().is_empty(), "{aside}");
        }
        node.stop();
        aside.len()
    }

    /// While it is being rebuilt records may be missing, but none is wrong.
    fn serves_nothing_wrong(&self, node: &Node, dataset: &str, collection: &str, known: &[Value]) {
        let path = format!("/v1/datasets/{dataset}/collections/{collection}/docs?limit=1000");
        let (status, page) = node.ask("GET", &path, "");
        assert!(status == 200 || status == 503, "{status} {page}");
        let wrong: Vec<_> = page["docs"].as_array().into_iter().flatten().filter(|document| !known.contains(document)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The last byte that is not zero: what comes after it was never written.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn garble(directory: &Path) {
    for path in files(directory) {
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().zip(1_u8..=255).for_each(|(byte, noise)| *byte ^= noise);
        fs::write(path, bytes).unwrap();
    }
}

fn truncate(directory: &Path) {
    let db = directory.join("db");
    let bytes = fs::read(&db).unwrap();
    fs::write(db, &bytes[..used(&bytes) / 2]).unwrap();
}

fn empty(directory: &Path) {
    fs::write(directory.join("db"), "").unwrap();
}

fn lose_database(directory: &Path) {
    for name in files(directory).into_iter().filter(|path| !path.ends_with("born") && !path.ends_with("identity")) {
        fs::remove_file(name).unwrap();
    }
}

#[test]
fn garbled_truncated_and_emptied_stores_are_rebuilt() {
    let pair = Pair::new();
    let mut aside = 0;
    for (what, damage) in [("garbled", garble as fn(&Path)), ("truncated", truncate), ("emptied", empty), ("lost", lose_database)]
    {
        for dataset in ["logs", "notes"] {
            damage(&pair.directory(dataset));
            let now = pair.heals(dataset);
            println!("{what} {dataset}: {now} set aside");
            if dataset == "logs" {
                assert!(now > aside, "{what}: nothing was set aside");
                aside = now;
            }
        }
    }
}

/// A small generator, so that a seed gives the same flips everywhere (Steele, Lea and Flood, splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn single_flipped_bits_are_never_served_and_heal() {
    let flips = std::env::var("DAMAGE_FLIPS").ok().and_then(|count| count.parse().ok()).unwrap_or(FLIPS);
    let seed = std::env::var("DAMAGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("DAMAGE_SEED={seed} DAMAGE_FLIPS={flips}");
    let pair = Pair::new();
    let whole = pair.place.path("whole");
    copy_directory(&pair.directory(""), &whole);
    let (mut state, mut aside) = (seed, 0);
    for flip in 0..flips {
        let dataset = if flip % 2 == 0 { "logs" } else { "notes" };
        let db = pair.directory(dataset).join("db");
        let mut bytes = fs::read(&db).unwrap();
        let at = usize::try_from(next(&mut state)).unwrap() % used(&bytes);
        bytes[at] ^= 1 << (next(&mut state) % 8);
        fs::write(&db, bytes).unwrap();
        let before = fs::read_dir(pair.directory("")).unwrap().count();
        pair.heals(dataset);
        let set_aside = fs::read_dir(pair.directory("")).unwrap().count() - before;
        println!("flip {flip} of {dataset} at {at}: {set_aside} set aside");
        aside += set_aside;
    }
    println!("{aside} of {flips} flips were found");
    assert!(aside > 0);
}

#[test]
fn a_store_that_panics_in_open_is_set_aside() {
    let pair = Pair::new();
    pair.place.set_faults("node", "open:panic:dataset=logs");
    assert_eq!(pair.heals("logs"), 1);
}

#[test]
fn a_store_that_hangs_in_open_is_set_aside() {
    let pair = Pair::new();
    pair.place.set_faults("node", "open:hang:dataset=logs");
    let node = pair.node.start();
    assert_eq!(node.get("orders", "o"), Some(json!(1)));
    wait_for("logs is set aside", || (!node.dataset("logs")["set_aside"].as_array()?.is_empty()).then_some(()));
    assert_eq!(converged(&[&node, &pair.peer], "logs", "app"), pair.logs);
}

#[test]
fn other_failures_to_open_set_nothing_aside() {
    let pair = Pair::new();
    pair.place.set_faults("node", "open:enospc:count=2:dataset=logs;open:error:count=2:dataset=notes");
    for dataset in ["logs", "notes"] {
        assert_eq!(pair.heals(dataset), 0, "{dataset}");
    }
}

#[test]
fn damage_found_while_it_runs_sets_the_store_aside() {
    for (plan, path) in [
        ("get:corrupt:dataset=notes", "/v1/datasets/notes/collections/notes/docs/1-1"),
        ("scan:corrupt:dataset=notes", "/v1/datasets/notes/collections/notes/docs?limit=10"),
    ] {
        let pair = Pair::new();
        let node = pair.node.start();
        converged(&[&node, &pair.peer], "notes", "notes");
        let before = node.dataset("notes")["vector"].clone();
        pair.place.set_faults("node", plan);
        wait_for("the fault strikes", || (node.ask("GET", path, "").0 == 503).then_some(()));
        let aside = wait_for("notes is set aside", || node.dataset("notes")["set_aside"].as_array()?.first().cloned());
        assert!(aside["reason"].as_str().unwrap().contains("injected"), "{aside}");
        assert_eq!(converged(&[&node, &pair.peer], "notes", "notes"), pair.notes);
        assert_eq!(node.dataset("notes")["vector"], before);

        // It writes on, under a new epoch.
        let path = "/v1/datasets/notes/collections/notes/docs/after";
        assert_eq!(node.ask("PUT", path, "1").0, 201);
        converged(&[&node, &pair.peer], "notes", "notes");
        let lines = |vector: &Value| vector.as_object().unwrap().len();
        assert_eq!(lines(&node.dataset("notes")["vector"]), lines(&before) + 1);
        is_dropped(&node, &aside);
    }
}

fn is_dropped(node: &Node, aside: &Value) {
    let listed = "/v1/datasets/notes/aside";
    assert_eq!(node.ask("GET", listed, "").1[0]["name"], aside["name"]);
    for bad in ["..", "%2e%2e%2fprimary", "..%2f..", "20261121T042931.123Z", "x"] {
        let (status, body) = node.ask("DELETE", &format!("{listed}/{bad}"), "");
        assert!(status == 404 || status == 405, "{bad}: {status} {body}");
    }
    assert_eq!(node.ask("DELETE", &format!("/v1/datasets/primary/aside/{}", aside["name"].as_str().unwrap()), "").0, 404);
    assert!(Path::new(aside["path"].as_str().unwrap()).is_dir());
    assert_eq!(node.ask("DELETE", &format!("{listed}/{}", aside["name"].as_str().unwrap()), "").0, 204);
    assert!(!Path::new(aside["path"].as_str().unwrap()).exists());
    assert_eq!(node.ask("GET", listed, "").1, json!([]));
    assert!(node.get("orders", "o").is_some());
}

#[test]
fn a_dataset_is_paused_resumed_and_restarted() {
    let place = Place::new();
    let node = place.node("node").arguments(&DATASETS).start();
    fill(&node, 1);
    let order = |word: &str| node.ask("POST", &format!("/v1/datasets/logs/{word}"), "");
    assert_eq!(order("pause").0, 202);
    let (status, body) = node.ask("GET", "/v1/datasets/logs/collections/app/docs", "");
    assert_eq!((status, body["state"].as_str()), (503, Some("paused")), "{body}");
    assert_eq!(append(&node, &json!(1)), 503);
    assert_eq!(node.dataset("logs")["state"], "paused");
    node.put("orders", "meanwhile", &json!(1));
    // Twice is once.
    assert_eq!(order("pause").0, 202);
    assert_eq!(order("resume").0, 202);
    wait_for("logs runs", || (node.dataset("logs")["state"] == "running").then_some(()));
    assert_eq!(append(&node, &json!(1)), 201);
    assert_eq!(order("restart").0, 202);
    wait_for("logs runs", || (append(&node, &json!(2)) == 201).then_some(()));
    assert_eq!(order("resume").0, 202);
    assert_eq!(node.list("logs", "app").len(), 22);
    assert_eq!(node.ask("POST", "/v1/datasets/none/pause", "").0, 404);

    assert_eq!(order("pause").0, 202);
    let node = node.stop().start();
    assert_eq!(append(&node, &json!(3)), 201);
}

#[test]
fn ten_panics_of_logs_fail_no_request_of_primary() {
    let place = Place::new();
    let node = Arc::new(place.faulty_node("node", 0).arguments(&DATASETS).start());
    let stop = Arc::new(AtomicBool::new(false));
    let primary = std::thread::spawn({
        let (node, stop) = (node.clone(), stop.clone());
        move || {
            let (mut writes, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                node.put("orders", &format!("k-{writes}"), &json!(writes));
                slowest = slowest.max(started.elapsed());
                writes += 1;
            }
            (writes, slowest)
        }
    });
    let mut acked = Vec::new();
    let mut number = 0;
    for panics in 1..=10 {
        place.set_faults("node", &format!("barrier:panic:dataset=logs # {panics}"));
        wait_for("logs dies and comes back", || {
            number += 1;
            if append(&node, &json!(number)) == 201 {
                acked.push(json!(number));
            }
            let info = node.dataset("logs");
            (info["restarts"].as_u64() >= Some(panics) && info["state"] == "running").then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    let (writes, slowest) = primary.join().unwrap();
    println!("{writes} writes of primary, the slowest {slowest:?}; {} records of logs", acked.len());
    assert!(writes > 10);
    assert_eq!(node.list("primary", "orders").len(), writes);
    assert_eq!(node.dataset("primary")["restarts"], 0);
    // A panic before the barrier loses what was not acknowledged, at most.
    let records = node.list("logs", "app");
    let there = |number: &Value| records.iter().any(|record| record["value"] == *number);
    assert!(acked.iter().all(there), "acknowledged and lost: {acked:?} of {records:?}");
    assert_eq!(node.dataset("logs")["set_aside"], json!([]));
}

#[test]
fn writes_that_wait_are_served_after_the_restart() {
    let place = Place::new();
    let node = Arc::new(place.faulty_node("node", 0).arguments(&DATASETS).start());
    assert_eq!(append(&node, &json!(0)), 201);
    // The first barrier is slow, so that the others queue up behind it; then it panics.
    place.set_faults("node", "barrier:delay:ms=1500:dataset=logs:count=1;barrier:panic:when=after:dataset=logs");
    place.faults_taken("node");
    let clients: Vec<_> = (1..=20)
        .map(|n| {
            let node = node.clone();
            std::thread::spawn(move || append(&node, &json!(n)))
        })
        .collect();
    let mut statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    statuses.sort_unstable();
    println!("{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 19, "{statuses:?}");
    assert!(node.list("logs", "app").len() >= 20);
}
