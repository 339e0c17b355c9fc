//! Who gets in: peers without the network key, on no list, or without the right to read or write; both sides say why.

use std::path::PathBuf;
use std::process::Command;

use anabranch_tests::process::{Node, converged, document, wait_for};
use serde_json::{Value, json};

use crate::world::{Place, identity, shipped};

/// A new network key.
fn network_key(place: &Place, name: &str) -> PathBuf {
    let file = place.path(name);
    let made = Command::new(shipped()).arg("network-key").arg("--out").arg(&file).output().expect("the program runs");
    assert!(made.status.success(), "{made:?}");
    file
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// What `node` says of `peer`.
fn row(node: &Node, peer: &str) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    rows.as_array()?.iter().find(|row| row["peer_id"] == peer).cloned()
}

/// Waits until `node` shows `peer` as refused, with `word` in the reason.
fn refuses(node: &Node, peer: &str, word: &str) {
    let mut last = None;
    let shown = || {
        last = row(node, peer);
        let primary = &last.as_ref()?["datasets"]["primary"];
        (primary["state"] == "refused" && primary["reason"].as_str()?.contains(word)).then_some(())
    };
    wait_for(&format!("{} shows {peer} as refused for {word}", node.url), shown);
}

/// Both sides name the reason, and neither has anything of the other.
fn apart(a: &Node, b: &Node, word: &str) {
    refuses(a, &b.peer_id, word);
    refuses(b, &a.peer_id, word);
    for node in [a, b] {
        assert_eq!(node.dataset("primary")["vector"].as_object().map(serde_json::Map::len), Some(1), "only its own writer");
    }
}

/// Writes a configuration of `primary` with everything registered and these further lines.
fn config(place: &Place, name: &str, top: &str, primary: &str) -> PathBuf {
    let file = place.path(&format!("{name}.toml"));
    std::fs::write(&file, format!("{top}\n[datasets.primary]\ncollections = [\"*\"]\n{primary}\n")).expect("a file");
    file
}

#[test]
fn only_who_proves_the_network_key_is_synced_with() {
    let place = Place::new();
    let (ours, other) = (network_key(&place, "ours.key"), network_key(&place, "other.key"));
    let keyed = |name: &str, key: &PathBuf| place.node(name).arguments(&["--network-key", text(key)]);
    let a = keyed("a", &ours).start();
    a.put("orders", "a", &json!(1));

    let friend = keyed("friend", &ours).peer(&a).start();
    friend.put("orders", "friend", &json!(1));
    assert_eq!(converged(&[&a, &friend], "primary", "orders").len(), 2);
    drop(friend.kill());

    // Each writes before and after it was refused.
    let a = a.stop();
    std::fs::remove_dir_all(place.path("a/datasets")).expect("a dataset to drop");
    let a = a.start();
    a.put("orders", "a", &json!(2));
    let stranger = keyed("stranger", &other).peer(&a).start();
    stranger.put("orders", "stranger", &json!(1));
    apart(&a, &stranger, "network_key");
    let keyless = place.node("keyless").peer(&a).start();
    keyless.put("orders", "keyless", &json!(1));
    apart(&a, &keyless, "network_key");
    // And where the node with the key is the one that dials.
    let open = place.node("open").start();
    open.put("orders", "open", &json!(1));
    let (status, _) = a.ask("POST", "/v1/peers", &json!({ "address": open.listen[0] }).to_string());
    assert_eq!(status, 202);
    apart(&a, &open, "network_key");
    assert!(!a.log().contains("anabranch-network-key-1:"));
}

#[test]
fn a_key_is_rotated_without_a_pause() {
    let place = Place::new();
    let (old, new) = (network_key(&place, "old.key"), network_key(&place, "new.key"));
    let start = |name: &str, keys: &[&PathBuf], peer: Option<&Node>| {
        let options = keys.iter().fold(place.node(name), |options, key| options.arguments(&["--network-key", text(key)]));
        peer.into_iter().fold(options, anabranch_tests::process::Options::peer).start()
    };
    let a = start("a", &[&old], None);
    let both = start("both", &[&new, &old], Some(&a));
    a.put("orders", "a", &json!(1));
    let done = start("done", &[&new], Some(&both));
    done.put("orders", "done", &json!(1));
    assert_eq!(converged(&[&a, &both, &done], "primary", "orders").len(), 2);
    let late = start("late", &[&new], Some(&a));
    refuses(&a, &late.peer_id, "network_key");
    refuses(&late, &a.peer_id, "network_key");
}

#[test]
fn the_allow_and_the_deny_list_hold_whoever_dials() {
    let place = Place::new();
    let (friend_id, enemy_id) = (identity(&place, "friend"), identity(&place, "enemy"));
    let allow = config(&place, "allow", &format!("[access]\nallow = [\"{friend_id}\"]"), "");
    let deny = config(&place, "deny", &format!("[access]\ndeny = [\"{enemy_id}\"]"), "");
    for (name, file) in [("allowing", allow), ("denying", deny)] {
        let node = place.node(name).arguments(&["--config", text(&file)]).start();
        node.put("orders", name, &json!(1));
        let enemy = place.node("enemy").peer(&node).start();
        enemy.put("orders", "enemy", &json!(1));
        refuses(&node, &enemy.peer_id, "[access]");
        refuses(&enemy, &node.peer_id, "[access]");
        let (status, _) = node.ask("POST", "/v1/peers", &json!({ "address": enemy.listen[0] }).to_string());
        assert_eq!(status, 202);
        let friend = place.node("friend").peer(&node).start();
        wait_for("the friend has it", || friend.get("orders", name));
        assert_eq!((node.get("orders", "enemy"), enemy.get("orders", name)), (None, None));
        enemy.stop();
        std::fs::remove_dir_all(place.path("enemy/datasets")).expect("a dataset to drop");
    }
}

#[test]
fn who_may_not_read_a_dataset_gets_nothing_of_it() {
    let place = Place::new();
    let (reader_id, curious_id) = (identity(&place, "reader"), identity(&place, "curious"));
    let file = config(&place, "private", "", &format!("readers = [\"{reader_id}\"]"));
    let node = place.node("node").arguments(&["--config", text(&file)]).start();
    node.put("orders", "secret", &json!(1));
    let reader = place.node("reader").peer(&node).start();
    converged(&[&node, &reader], "primary", "orders");
    let curious = place.node("curious").peer(&node).start();
    assert_eq!(curious.peer_id, curious_id);
    curious.put("orders", "curious", &json!(1));
    refuses(&node, &curious.peer_id, "readers");
    refuses(&curious, &node.peer_id, "readers");
    let (status, _) = node.ask("POST", "/v1/peers", &json!({ "address": curious.listen[0] }).to_string());
    assert_eq!(status, 202);
    reader.put("orders", "reader", &json!(1));
    wait_for("readers go on", || node.get("orders", "reader"));
    assert_eq!((curious.get("orders", "secret"), node.get("orders", "curious")), (None, None));
}

#[test]
fn who_may_not_write_is_refused_directly_and_through_a_relay() {
    let place = Place::new();
    let (author_id, relay_id) = (identity(&place, "author"), identity(&place, "relay"));
    let file = config(&place, "guarded", "", &format!("writers = [\"{author_id}\", \"{relay_id}\"]"));
    let strict = ["--config", text(&file)];
    let author = place.node("author").arguments(&strict).start();
    author.put("orders", "author", &json!(1));
    // It takes what anybody wrote: misconfigured, or worse.
    let relay = place.node("relay").peer(&author).start();
    let intruder = place.node("intruder").peer(&author).peer(&relay).start();
    intruder.put("orders", "intruder", &json!(1));
    wait_for("the intruder may read", || intruder.get("orders", "author"));
    wait_for("the relay has it", || relay.get("orders", "intruder"));
    relay.put("orders", "relay", &json!(1));
    wait_for("the relay's own commits count", || author.get("orders", "relay"));
    wait_for("it is named", || author.dataset("primary")["reason"].as_str()?.contains(&intruder.peer_id).then_some(()));

    // Behind the relay, where nobody but the relay is connected.
    let behind = place.node("behind").arguments(&strict).peer(&relay).start();
    wait_for("all that counts arrives", || behind.get("orders", "author").and(behind.get("orders", "relay")));
    wait_for("it is named", || behind.dataset("primary")["reason"].as_str()?.contains(&intruder.peer_id).then_some(()));
    assert_eq!((author.get("orders", "intruder"), behind.get("orders", "intruder")), (None, None));

    // A node that knows it may not write says so before it writes.
    let (status, body) = behind.ask("PUT", &document("orders", "behind"), "1");
    assert_eq!(status, 403, "{body}");
    author.put("orders", "later", &json!(1));
    wait_for("the rest goes on", || behind.get("orders", "later"));
}
