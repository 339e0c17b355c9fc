//! Supervisors that panic, disks that hang and datasets that are flooded: nobody else notices.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anabranch_tests::process::{Node, wait_for};
use serde_json::json;

use crate::world::Place;

const DATASETS: [&str; 4] = ["--dataset", "primary=*", "--dataset", "logs:append=*"];

fn append(node: &Node, number: usize) -> u16 {
    node.ask("POST", "/v1/datasets/logs/collections/app/docs", &number.to_string()).0
}

/// Writes to `primary`, one request after the other, none of which may fail.
struct Primary {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Primary {
    fn write(node: &Arc<Node>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, stopped) = (node.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut writes = 0;
            while !stopped.load(Ordering::Relaxed) {
                node.put("orders", &format!("k-{writes}"), &json!(writes));
                writes += 1;
            }
            writes
        });
        Self { stop, thread }
    }

    fn lost_nothing(self, node: &Node) {
        self.stop.store(true, Ordering::Relaxed);
        let writes = self.thread.join().unwrap();
        assert!(writes > 0);
        assert_eq!(node.list("primary", "orders").len(), writes);
        assert_eq!(node.dataset("primary")["restarts"], 0);
    }
}

#[test]
fn a_supervisor_panics_five_times_and_no_request_of_primary_fails() {
    let place = Place::new();
    let node = Arc::new(place.faulty_node("node", 0).arguments(&DATASETS).start());
    let primary = Primary::write(&node);
    let (mut number, mut acked) = (0, 0);
    for panics in 1..=5_u64 {
        place.set_faults("node", &format!("supervisor.timer:panic:dataset=logs # {panics}"));
        wait_for("logs comes back", || {
            number += 1;
            acked += usize::from(append(&node, number) == 201);
            let info = node.dataset("logs");
            (info["restarts"].as_u64() >= Some(panics) && info["state"] == "running").then_some(())
        });
    }
    assert!(node.list("logs", "app").len() >= acked && acked > 0);
    primary.lost_nothing(&node);
}

#[test]
fn a_disk_that_hangs_takes_one_dataset_down_until_it_answers() {
    let place = Place::new();
    let options = place.faulty_node("node", 0).environment("TEST_DISK_PATIENCE", "500");
    let node = Arc::new(options.arguments(&DATASETS).start());
    assert_eq!(append(&node, 0), 201);
    let primary = Primary::write(&node);
    place.set_faults("node", "barrier:hang:count=forever:dataset=logs");
    place.faults_taken("node");
    assert_eq!(append(&node, 1), 500);
    let (status, body) = node.ask("GET", "/v1/datasets/logs/collections/app/docs", "");
    assert_eq!((status, body["state"].as_str()), (503, Some("failed")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("the disk does not answer"), "{body}");
    place.set_faults("node", "");
    wait_for("logs comes back", || (append(&node, 2) == 201).then_some(()));
    let records = node.list("logs", "app").len();
    // The one whose outcome was unknown may be there.
    assert!(records == 2 || records == 3, "{records}");
    assert_eq!(node.dataset("logs")["set_aside"], json!([]));
    primary.lost_nothing(&node);
}

#[test]
fn a_note_of_an_intention_is_acted_on_at_the_next_start() {
    let place = Place::new();
    let peer = place.node("peer").arguments(&DATASETS).start();
    let node = place.node("node").arguments(&DATASETS).peer(&peer).start();
    assert_eq!(append(&node, 1), 201);
    anabranch_tests::process::converged(&[&node, &peer], "logs", "app");
    let node = node.kill();
    // As a process leaves it that ends between finding damage and the rename.
    let note = json!({"at": "2026-11-21T04:29:31.123Z", "reason": "row k fails its checksum"});
    fs::write(place.path("node").join("datasets/logs/set-aside.json"), note.to_string()).unwrap();
    let node = node.start();
    let aside = wait_for("logs is set aside", || node.dataset("logs")["set_aside"].as_array()?.first().cloned());
    assert_eq!(aside["reason"], "row k fails its checksum");
    assert_eq!(anabranch_tests::process::converged(&[&node, &peer], "logs", "app").len(), 1);
    assert_eq!(node.dataset("primary")["set_aside"], json!([]));
    // Once is enough.
    let node = node.stop().start();
    assert_eq!(node.list("logs", "app").len(), 1);
    assert_eq!(node.dataset("logs")["set_aside"].as_array().unwrap().len(), 1);
}

const MANY: usize = 64;
const FLOODERS: usize = 96;
/// For a put and a get of a dataset that nobody floods, on a machine that does much else. Who waits for the flood waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn one_of_64_datasets_is_flooded_and_the_63_others_answer() {
    let place = Place::new();
    let names: Vec<String> = (0..MANY).map(|n| format!("d{n:02}=*")).collect();
    let arguments: Vec<&str> = names.iter().flat_map(|name| ["--dataset", name]).collect();
    // Slow enough a disk that the flood stands: what comes in is more than what is written.
    place.set_faults("node", "barrier:delay:ms=200:count=forever:dataset=d00");
    let node = Arc::new(place.faulty_node("node", 0).arguments(&arguments).start());
    let (stop, refused, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flood: Vec<_> = (0..FLOODERS)
        .map(|client| {
            let (node, stop, refused, taken) = (node.clone(), stop.clone(), refused.clone(), taken.clone());
            std::thread::spawn(move || {
                let value = format!("\"{}\"", "x".repeat((1 << 20) - 64));
                let path = format!("/v1/datasets/d00/collections/c/docs/{client}");
                while !stop.load(Ordering::Relaxed) {
                    match node.put_with_headers(&path, &value).0 {
                        429 => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            // As fast as they go would mean to measure this machine's loopback.
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        200 | 201 => drop(taken.fetch_add(1, Ordering::Relaxed)),
                        other => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    wait_for("the flood is refused", || (refused.load(Ordering::Relaxed) > FLOODERS).then_some(()));
    let before = refused.load(Ordering::Relaxed);
    let mut slowest = Duration::ZERO;
    for n in 1..MANY {
        let started = Instant::now();
        let path = format!("/v1/datasets/d{n:02}/collections/c/docs/k");
        let (status, body) = node.ask("PUT", &path, &n.to_string());
        assert_eq!(status, 201, "d{n:02}: {body}");
        assert_eq!(node.ask("GET", &path, ""), (200, json!(n)));
        slowest = slowest.max(started.elapsed());
    }
    let during = refused.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    flood.into_iter().for_each(|client| client.join().unwrap());
    println!("slowest put and get: {slowest:?}; flood: {} taken, {during} refused", taken.load(Ordering::Relaxed));
    assert!(slowest < PATIENCE, "{slowest:?}");
    assert!(during > before, "the flood was over");
}
