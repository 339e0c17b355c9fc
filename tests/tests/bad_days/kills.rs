//! `kill -9` of a writer under load: acknowledged means durable, and no commit shows by half.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::Value;

use crate::world::Place;

const ROUNDS: usize = 20;
const WRITERS: usize = 4;
/// Acknowledged writes of a round before the kill.
const ACKS: usize = 25;

#[test]
fn a_writer_killed_twenty_times_under_load_loses_nothing_it_acknowledged() {
    let place = Place::new();
    let peer = place.node("peer").start();
    let options = place.node("writer").peer(&peer);
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let numbers = Arc::new(AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        let writer = Arc::new(options.start());
        let before = acked.lock().unwrap().len();
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (writer, acked, numbers, stop) = (writer.clone(), acked.clone(), numbers.clone(), stop.clone());
                std::thread::spawn(move || write_pairs(&writer, &acked, &numbers, &stop))
            })
            .collect();
        wait_for("writes are acknowledged", || (acked.lock().unwrap().len() >= before + ACKS).then_some(()));
        // In the middle of it: the threads go on until their connections break.
        writer.kill_now();
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    let writer = options.start();
    let documents = converged(&[&writer, &peer], "primary", "pairs");
    let keys: BTreeSet<String> = documents.iter().map(|document| document["key"].as_str().unwrap().to_owned()).collect();
    for number in acked.lock().unwrap().iter() {
        assert!(keys.contains(&format!("left-{number}")), "acknowledged write {number} is gone");
    }
    for document in &documents {
        let (side, number) = document["key"].as_str().unwrap().split_once('-').unwrap();
        let other = if side == "left" { "right" } else { "left" };
        assert!(keys.contains(&format!("{other}-{number}")), "batch {number} shows by half");
    }
}

/// Writes batches of two documents until told to stop, and notes which were acknowledged.
fn write_pairs(writer: &Node, acked: &Mutex<BTreeSet<usize>>, numbers: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let op = |side: &str| serde_json::json!({"op": "put", "collection": "pairs", "key": format!("{side}-{number}"), "value": number});
        let batch = Value::from(vec![op("left"), op("right")]).to_string();
        // Any other outcome is unknown, as it is when a process dies.
        if let Ok((200, _)) = writer.send("POST", "/v1/datasets/primary/batch", &batch) {
            acked.lock().unwrap().insert(number);
        }
    }
}
