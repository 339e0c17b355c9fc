//! Writes that wait for others, writes with a condition, reads that wait for a write.

use serde_json::Value;

use crate::{Running, ask};

#[test]
fn a_write_that_too_few_confirm_stands_and_ends_with_four() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str]| ask(dir.path(), arguments, "");
    let (code, out, error) = ask(&["put", "orders", "k", "1", "--ack", "2", "--timeout", "100ms"]);
    assert!(code == 4 && out.is_empty(), "{out}");
    for said in ["wrote orders/k", "no other node has", "within 100ms", "asked for: 2", "the write stands"] {
        assert!(error.contains(said), "{said}: {error}");
    }
    assert_eq!(ask(&["get", "orders", "k"]).1, "1\n");
    // Nobody is enrolled: everybody who is has it.
    assert_eq!(ask(&["put", "orders", "k", "2", "--ack", "all"]).0, 0);
    let (code, out, _) = ask(&["patch", "orders", "k", "{}", "--ack", "1", "--timeout", "50ms", "--json"]);
    let body: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, body["confirmed_by"].as_array().map(Vec::len)), (4, Some(0)));
    assert_eq!(ask(&["delete", "orders", "k", "--ack", "1", "--timeout", "50ms"]).0, 4);
    assert_eq!(ask(&["get", "orders", "k"]).0, 1);
    assert_eq!(ask(&["put", "orders", "k", "1", "--ack", "some"]).0, 2);
}

#[test]
fn conditions_hold_and_say_what_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str]| ask(dir.path(), arguments, "");
    let (code, out, _) = ask(&["put", "orders", "k", "1", "--if-none-match", "--json"]);
    let first: Value = serde_json::from_str(&out).expect("JSON");
    let stamp = first["stamp"].as_str().expect("a stamp");
    assert_eq!(code, 0);
    let (code, _, error) = ask(&["put", "orders", "k", "2", "--if-none-match"]);
    assert!(code == 1 && error.contains("412"), "{error}");
    assert_eq!(ask(&["put", "orders", "k", "3", "--if-match", stamp]).0, 0);
    assert_eq!(ask(&["delete", "orders", "k", "--if-match", stamp]).0, 1, "the stamp is a new one");
    assert_eq!(ask(&["patch", "orders", "k", "{\"a\":1}", "--if-match", "*"]).0, 0);
    assert_eq!(ask(&["delete", "orders", "none", "--if-match", "*"]).0, 1);
}

#[test]
fn a_write_under_a_key_is_answered_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str]| ask(dir.path(), arguments, "");
    let once = ["put", "orders", "k", "1", "--if-none-match", "--idempotency-key", "order-1", "--json"];
    let (code, first, _) = ask(&once);
    assert_eq!(code, 0);
    assert_eq!(ask(&["put", "orders", "k", "2"]).0, 0);
    assert_eq!(ask(&once), (0, first, String::new()));
    assert!(ask(&["get", "orders", "k"]).1.contains('2'), "it did not happen again");
    let (code, _, error) = ask(&["put", "orders", "k", "3", "--idempotency-key", "order-1"]);
    assert!(code == 1 && error.contains("another request") && error.contains("422"), "{error}");
    let (code, _, error) = ask(&["put", "orders", "k", "3", "--idempotency-key", "two words"]);
    assert!(code == 2 && error.contains("visible ASCII"), "{error}");
}

#[test]
fn a_read_waits_for_a_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str]| ask(dir.path(), arguments, "");
    let written: Value = serde_json::from_str(&ask(&["put", "orders", "k", "1", "--json"]).1).expect("JSON");
    let token = written["token"].as_str().expect("a token");
    assert_eq!(ask(&["get", "orders", "k", "--after", token, "--timeout", "10s"]).1, "1\n");
    assert_eq!(ask(&["list", "orders", "--after-token", token, "--json"]).1.lines().count(), 1);
    let (code, _, error) = ask(&["get", "orders", "k", "--after", "nonsense"]);
    assert!(code == 1 && error.contains("after"), "{error}");
    assert_eq!(ask(&["get", "orders", "k", "--timeout", "1s"]).0, 2, "a timeout of nothing");
}

#[test]
fn peers_are_ordered_by_their_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str]| ask(dir.path(), arguments, "");
    let peer = "12D3KooWK9YALYEs75MFFSZKeiUg9UDaBiivfdquGn9fk5RC6Jfu";
    let (code, out, _) = ask(&["peers", "disable", peer]);
    assert!(code == 0 && out.contains("disabled"), "{out}");
    assert!(ask(&["peers"]).1.contains(&format!("{peer}  disabled")));
    let (_, status, _) = ask(&["status"]);
    assert!(status.contains("is disabled: `anabranch peers enrol`"), "{status}");
    let (code, out, _) = ask(&["peers", "demote", peer, "--dataset", "primary", "--json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["demoted"][0]), (0, &"primary".into()));
    assert!(ask(&["peers", "enrol", peer]).1.contains("enrolled in primary"));
    assert_eq!(ask(&["peers", "remove", peer]).0, 0);
    assert_eq!(ask(&["peers", "enrol", "bob"]).0, 2);
    let (code, _, error) = ask(&["peers", "enrol", peer, "--dataset", "none"]);
    assert!(code == 1 && error.contains("none"), "{error}");
}
