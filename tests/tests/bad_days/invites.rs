//! Invites: an empty directory and one string are enough to join, once and for all.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anabranch_tests::process::{Node, converged};
use serde_json::json;

use crate::world::{Place, shipped};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn network_key(place: &Place, name: &str) -> PathBuf {
    let file = place.path(name);
    let made = Command::new(shipped()).arg("network-key").arg("--out").arg(&file).output().expect("the program runs");
    assert!(made.status.success(), "{made:?}");
    file
}

/// What a user pipes on.
fn invite(node: &Node, arguments: &[&str]) -> String {
    let made = Command::new(shipped()).arg("invite").args(["--node", &node.url]).args(arguments).output().expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let invite = String::from_utf8(made.stdout).expect("text");
    assert!(invite.starts_with("anabranch1") && invite.lines().count() == 1, "{invite}");
    invite.trim().to_owned()
}

/// `run --join` with an invite in a file that ends by itself.
fn refused_join(place: &Place, dir: &str, invite: &str) -> String {
    let file = place.path("refused.invite");
    std::fs::write(&file, invite).expect("a file");
    let arguments = ["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--join", text(&file)];
    let output: Output =
        Command::new(shipped()).args(arguments).arg("--data-dir").arg(place.path(dir)).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!said.contains(&invite[10..40]), "an invite is never quoted: {said}");
    said
}

/// Every file of a directory and what is in it.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push((path.clone(), std::fs::read(path).expect("a file"))),
        }
    }
    found.sort();
    found
}

#[test]
fn a_node_joins_by_standard_input_and_needs_no_invite_afterwards() {
    let place = Place::new();
    let key = network_key(&place, "ours.key");
    let a = place.node("a").arguments(&["--network-key", text(&key)]).start();
    a.put("orders", "first", &json!(1));
    let invite = invite(&a, &["--expires", "1h"]);

    let b = place.node("b").arguments(&["--join", "-"]).input(&format!("{}\n{}\n", &invite[..50], &invite[50..])).start();
    b.put("orders", "second", &json!(2));
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 2);

    // The secret is in one file that only the user reads, and nowhere else.
    let stored = place.path("b/network.key");
    assert_eq!(std::fs::read_to_string(&stored).expect("a key"), std::fs::read_to_string(&key).expect("a key"));
    assert_eq!(std::fs::metadata(&stored).expect("a key").permissions().mode() & 0o777, 0o600);
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", b.pid())).expect("a command line");
    let secret = std::fs::read_to_string(&key).expect("a key").trim().rsplit(':').next().unwrap_or_default().to_owned();
    for (what, said) in [("the process list", String::from_utf8_lossy(&cmdline).into_owned()), ("a log", a.log() + &b.log())] {
        assert!(!said.contains(&invite[10..40]) && !said.contains(&secret), "{what} shows the invite: {said}");
    }

    // Neither side is told again, and only one of them goes on where it was: the other one has to be found.
    let a_listens = a.listen[0].split("/p2p/").next().unwrap_or_default().to_owned();
    let (a, b) = (a.stop().listen(&a_listens), b.stop().without_join());
    std::fs::remove_file(place.path("a/peers.json")).expect("an address book to lose");
    let b = b.start();
    let a = a.start();
    b.put("orders", "third", &json!(3));
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 3);
}

#[test]
fn an_invite_that_does_not_fit_is_refused_and_nothing_is_changed() {
    let place = Place::new();
    let (ours, other) = (network_key(&place, "ours.key"), network_key(&place, "other.key"));
    let a = place.node("a").arguments(&["--network-key", text(&ours)]).start();
    let invite_a = invite(&a, &[]);

    // In another network by a key that is configured, or one that an invite brought.
    let c = place.node("c").arguments(&["--network-key", text(&other)]).start();
    let joined = place.node("joined").arguments(&["--join", "-"]).input(&invite(&c, &[])).start();
    drop((c, joined.stop()));
    let before = files(&place.path("joined"));
    let said = refused_join(&place, "joined", &invite_a);
    assert!(said.contains("another network key") && said.contains("joined/network.key"), "{said}");
    assert!(files(&place.path("joined")) == before, "nothing was changed");

    // Its own, cut short, with a wrong letter, or none at all: no directory comes of it.
    let said = refused_join(&place, "a-copy", &invite_a[..invite_a.len() - 9]);
    assert!(said.contains("cut short"), "{said}");
    let mut damaged = invite_a.clone().into_bytes();
    damaged[60] = if damaged[60] == b'q' { b'r' } else { b'q' };
    assert!(refused_join(&place, "none", &String::from_utf8(damaged).expect("text")).contains("damaged"));
    assert!(refused_join(&place, "none", &invite_a.replacen('1', "2", 1)).contains("version 2"));
    assert!(refused_join(&place, "none", "a line of text that is about something else").contains("not an invite"));
    assert!(!place.path("none").exists() && !place.path("a-copy").exists());
    // Nor does a node join that can't serve.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let http = taken.local_addr().expect("an address").to_string();
    let file = place.path("late.invite");
    std::fs::write(&file, &invite_a).expect("a file");
    let arguments = ["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", &http, "--join", text(&file), "--data-dir"];
    let output = Command::new(shipped()).args(arguments).arg(place.path("late")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(["network.key", "peers.json"].iter().all(|file| !place.path("late").join(file).exists()), "it did not join");

    drop(a.stop());
    assert!(refused_join(&place, "a", &invite_a).contains("made the invite itself"));
}

/// The lineage comes with the invite: a dataset that is begun while nobody else is there is the right one from its first commit on.
#[test]
fn a_dataset_begun_alone_has_the_lineage_of_the_invite() {
    let place = Place::new();
    let file = place.path("a.toml");
    std::fs::write(&file, "[datasets.primary]\ncollections = ['*']\nlineage = 'new'\n").expect("a file");
    let a = place.node("a").arguments(&["--config", text(&file)]).start();
    let (lineage, listens) = (a.dataset("primary")["lineage"].clone(), a.listen[0].clone());
    a.put("orders", "of-a", &json!(1));
    let invite = invite(&a, &[]);
    let a = a.stop().listen(listens.split("/p2p/").next().unwrap_or_default());

    let b = place.node("b").arguments(&["--join", "-"]).input(&invite).start();
    b.put("orders", "of-b", &json!(2));
    assert_eq!(b.dataset("primary")["lineage"], lineage);
    let a = a.start();
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 2);
    assert_eq!(a.peer_id, a.listen[0].rsplit('/').next().unwrap_or_default());
}

/// By the clock of who joins; and a clock that can't know is no judge.
#[test]
fn an_expired_invite_is_refused_by_the_joiners_clock() {
    let place = Place::new();
    let a = place.faulty_node("a", -3 * 3_600_000).start();
    let two_hours_old = invite(&a, &["--expires", "1h"]);
    let said = refused_join(&place, "b", &two_hours_old);
    assert!(said.contains("expired") && said.contains("ago") && said.contains("clock"), "{said}");
    assert!(!place.path("b").exists());
    let a = a.stop();
    let a = a.environment("TEST_CLOCK", "7200000").start();
    let of_tomorrow = invite(&a, &["--expires", "1h"]);
    let said = refused_join(&place, "b", &of_tomorrow);
    assert!(said.contains("before the invite was made") && said.contains("Set the clock right"), "{said}");
    // Without an end it is taken whatever the clock says.
    let endless = invite(&a, &["--expires", "never"]);
    let b = place.node("b").arguments(&["--join", "-"]).input(&endless).start();
    assert!(!b.log().contains("WARN anabranch_node::joining"), "it did not come by the process list");

    // One that expired meanwhile hinders nobody who joined by it: a unit file may go on naming it.
    let a = a.stop().environment("TEST_CLOCK", "0").start();
    let short = invite(&a, &["--expires", "1h"]);
    let c = place.faulty_node("c", 0).arguments(&["--join", "-"]).input(&short).start();
    drop(c.stop().environment("TEST_CLOCK", "7200000").start());
}

/// The address book is not what says that a node joined: the node that invited may have been removed, or the book lost.
#[test]
fn an_expired_invite_hinders_nobody_who_has_its_key() {
    let place = Place::new();
    let key = network_key(&place, "ours.key");
    let three_hours = "-10800000";
    let a = place.faulty_node("a", -3 * 3_600_000).arguments(&["--network-key", text(&key)]).start();
    let short = invite(&a, &["--expires", "1h"]);
    drop(a.stop());
    let b = place.faulty_node("b", 0).environment("TEST_CLOCK", three_hours).arguments(&["--join", "-"]).input(&short);
    let b = b.start().stop().environment("TEST_CLOCK", "0");
    std::fs::remove_file(place.path("b/peers.json")).expect("an address book to lose");
    drop(b.start());
    // It is the key that says so.
    assert!(refused_join(&place, "c", &short).contains("expired"));
}
