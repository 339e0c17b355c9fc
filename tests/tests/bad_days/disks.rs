//! A full disk and a failing fsync: never acknowledged and lost, and the dataset opens again by itself.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anabranch_tests::process::{Node, converged, document, wait_for};
use serde_json::json;

use crate::world::Place;

/// Writes until `rounds` writes were acknowledged after at least one was not; what was acknowledged and the other answers.
fn write_through(node: &Node, prefix: &str, rounds: usize) -> (BTreeSet<String>, BTreeSet<(u16, String)>) {
    let (mut acked, mut others, mut since) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut number = 0;
    wait_for("the dataset serves again", || {
        number += 1;
        let key = format!("{prefix}-{number}");
        let (status, body) = node.ask("PUT", &document("orders", &key), "1");
        if status == 201 {
            acked.insert(key);
            since += usize::from(!others.is_empty());
        } else {
            others.insert((status, body["type"].as_str().unwrap_or_default().to_owned()));
            since = 0;
        }
        (since >= rounds).then_some(())
    });
    (acked, others)
}

fn survives(plan: &str, expected: (u16, &str), restarts: u64) {
    let place = Place::new();
    let peer = place.node("peer").start();
    let node = place.faulty_node("node", 0).peer(&peer).start();
    node.put("orders", "first", &json!(1));
    place.set_faults("node", plan);
    let (acked, others) = write_through(&node, "k", 5);
    // Beside the failed write itself only a dataset that says that it is restarting.
    assert!(others.iter().any(|(status, kind)| *status == expected.0 && kind.ends_with(expected.1)), "{others:?}");
    assert!(others.iter().all(|(status, _)| *status == expected.0 || *status == 503), "{others:?}");
    assert!(node.dataset("primary")["restarts"].as_u64() >= Some(restarts));

    let documents = converged(&[&node, &peer], "primary", "orders");
    let keys: BTreeSet<String> = documents.iter().map(|document| document["key"].as_str().unwrap().to_owned()).collect();
    assert!(acked.is_subset(&keys), "acknowledged and lost: {:?}", acked.difference(&keys));

    // And it is on the disk, not only in memory.
    let node = node.kill().start();
    let documents = converged(&[&node, &peer], "primary", "orders");
    assert_eq!(documents.len(), keys.len());
}

#[test]
fn a_failing_fsync_is_answered_unknown() {
    survives("barrier:error:after=5:count=2", (500, "outcome-unknown"), 1);
}

#[test]
fn an_fsync_that_fails_after_it_happened_is_answered_unknown() {
    survives("barrier:error:when=after:after=5", (500, "outcome-unknown"), 1);
}

#[test]
fn a_full_disk_is_answered_as_such() {
    survives("put:enospc:after=40:count=2", (507, "no-space"), 0);
}

#[test]
fn a_panic_in_the_store_is_answered_unknown() {
    survives("barrier:panic:after=5", (500, "outcome-unknown"), 1);
}

/// What a full disk is, as a user sees it: reads go on, writes are told, and nothing needs to be started again.
fn is_read_while_full(node: &Node) {
    let (status, body) = wait_for("a write is told", || {
        let answer = node.ask("PUT", &document("orders", "too-much"), &json!("x".repeat(4_096)).to_string());
        (answer.0 != 201 && answer.0 != 200).then_some(answer)
    });
    assert_eq!((status, body["type"].as_str()), (507, Some("urn:anabranch:problem/no-space")), "{body}");
    for _ in 0..20 {
        assert_eq!(node.get("orders", "first"), Some(json!(1)));
        assert!(node.list("primary", "orders").len() > 1);
        let (status, body) = node.ask("PUT", &document("orders", "too-much"), "1");
        assert_eq!(status, 507, "{body}");
    }
    let info = node.dataset("primary");
    assert_eq!(info["state"], "running", "{info}");
    assert!(info["reason"].as_str().is_some_and(|reason| reason.contains("no space left")), "{info}");
}

fn is_written_again(node: &Node) {
    wait_for("there is room again", || (node.ask("PUT", &document("orders", "after"), "1").0 == 201).then_some(()));
    assert_eq!(node.dataset("primary")["reason"], json!(null));
    assert_eq!(node.dataset("primary")["set_aside"], json!([]));
}

#[test]
fn a_disk_that_stays_full_is_read_by_a_new_process_too() {
    let place = Place::new();
    let node = place.faulty_node("node", 0).start();
    node.put("orders", "first", &json!(1));
    node.put("orders", "second", &json!(2));
    let full = "put:enospc:count=forever;barrier:enospc:count=forever";
    place.set_faults("node", full);
    place.faults_taken("node");
    is_read_while_full(&node);
    // The plan is read before the first store is opened, so this one never had any room.
    let node = node.kill().start();
    is_read_while_full(&node);
    place.set_faults("node", "");
    is_written_again(&node);
    assert_eq!(node.dataset("primary")["restarts"], 0);
}

/// A file system of its own, gone with the test; none where the test may not mount.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &std::path::Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a directory");
        let arguments = ["-t", "tmpfs", "-o", &format!("size={size}"), "none"];
        let mounted = Command::new("mount").args(arguments).arg(path).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut filler = std::fs::File::options().create(true).append(true).open(self.0.join("filler")).expect("a file");
        for block in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![1; block]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_file_system_that_is_really_full_is_read() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place.path("node"), "96m") else {
        return eprintln!("skipped: this user may not mount a file system");
    };
    let node = place.node("node").start();
    node.put("orders", "first", &json!(1));
    for n in 0..200 {
        node.put("orders", &format!("k-{n}"), &json!("x".repeat(8_192)));
    }
    disk.fill();
    is_read_while_full(&node);
    let documents = node.list("primary", "orders").len();
    // A new process finds the disk full from the start.
    let node = node.kill();
    disk.fill();
    let node = node.start();
    is_read_while_full(&node);
    assert!(node.list("primary", "orders").len() >= documents);
    disk.make_room();
    is_written_again(&node);
    drop(node);
}
