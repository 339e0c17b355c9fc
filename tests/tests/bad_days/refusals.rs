//! Two peers that differ in all they can: each dataset is refused for its own reason on both sides, and the others sync on.
//! Network keys and lists are in `strangers.rs`, policies in `old_peer.rs`.

use std::path::PathBuf;
use std::process::Command;

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::{Place, shipped};

fn identity(place: &Place, name: &str) -> String {
    let dir = place.path(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    let made = Command::new(shipped()).arg("keygen").arg("--out").arg(dir.join("identity.key")).output().expect("keygen");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).expect("a peer id").trim().to_owned()
}

fn config(place: &Place, name: &str, datasets: &[(&str, String)]) -> PathBuf {
    let tables = datasets.iter().map(|(dataset, keys)| format!("[datasets.{dataset}]\ncollections = [\"*\"]\n{keys}\n"));
    let file = place.path(&format!("{name}.toml"));
    std::fs::write(&file, tables.collect::<String>()).expect("a file");
    file
}

fn start(place: &Place, name: &str, datasets: &[(&str, String)], peer: Option<&Node>) -> Node {
    let file = config(place, name, datasets);
    let options = place.node(name).arguments(&["--config", file.to_str().expect("a path in UTF-8")]);
    peer.into_iter().fold(options, anabranch_tests::process::Options::peer).start()
}

/// What `node` says of a dataset of `peer`.
fn standing(node: &Node, peer: &Node, dataset: &str) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    let row = rows.as_array()?.iter().find(|row| row["peer_id"] == peer.peer_id.as_str())?.clone();
    Some(row["datasets"][dataset].clone()).filter(Value::is_object)
}

fn says(node: &Node, peer: &Node, dataset: &str, state: &str, word: &str) {
    wait_for(&format!("{} says of {dataset} that it is {state} for {word}", node.url), || {
        let shown = standing(node, peer, dataset)?;
        (shown["state"] == state && shown["reason"].as_str()?.contains(word)).then_some(())
    });
}

#[test]
fn each_difference_is_its_own_refusal_on_both_sides() {
    let place = Place::new();
    let a_id = identity(&place, "a");
    let lineage = |digits: &str| format!("lineage = \"{}\"", digits.repeat(16));
    let append = || "kind = \"append\"".to_owned();
    let none = String::new;
    let a = [
        ("primary", none()),
        ("only-a", none()),
        ("off", none()),
        ("kinds", append()),
        ("lines", lineage("0a")),
        ("read", format!("readers = [\"{a_id}\"]")),
        ("write", format!("writers = [\"{a_id}\"]")),
    ];
    let b = [
        ("primary", none()),
        ("only-b", none()),
        ("off", "enabled = false".to_owned()),
        ("kinds", none()),
        ("lines", lineage("0b")),
        ("read", none()),
        ("write", none()),
    ];
    let a = start(&place, "a", &a, None);
    a.put("orders", "a", &json!(1));
    let b = start(&place, "b", &b, Some(&a));
    for (dataset, word) in [
        ("only-a", "unknown_dataset: "),
        ("only-b", "unknown_dataset: "),
        ("off", "disabled"),
        ("kinds", "kind: "),
        ("lines", "lineage: "),
        ("read", "forbidden: "),
    ] {
        says(&a, &b, dataset, "refused", word);
        says(&b, &a, dataset, "refused", word);
    }

    // Who may not write may read; its commits are what is refused.
    for (node, key) in [(&a, "a"), (&b, "b")] {
        assert_eq!(node.ask("PUT", &format!("/v1/datasets/write/collections/c/docs/{key}"), "1").0, 201);
    }
    wait_for("b may read", || (b.list("write", "c").len() == 2).then_some(()));
    says(&a, &b, "write", "ahead", "not among the dataset's `writers`");
    says(&b, &a, "write", "behind", "`writers`");
    assert_eq!(a.list("write", "c").len(), 1);

    // All of that is about those datasets only, on one connection.
    b.put("orders", "b", &json!(1));
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 2);
    for dataset in ["only-a", "kinds", "lines", "read"] {
        let info = a.dataset(dataset);
        assert_eq!((&info["state"], &info["reason"]), (&json!("running"), &Value::Null), "{info}");
    }
}

/// What one side changes is seen by the other without a new connection.
#[test]
fn a_refusal_ends_when_its_cause_does() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    let create = |node: &Node, body: Value| {
        let (status, answer) = node.ask("POST", "/v1/datasets", &body.to_string());
        assert_eq!(status, 201, "{answer}");
    };
    create(&a, json!({ "dataset_id": "logs", "kind": "append", "collections": ["*"] }));
    create(&b, json!({ "dataset_id": "logs", "collections": ["*"] }));
    says(&a, &b, "logs", "refused", "kind: ");
    says(&b, &a, "logs", "refused", "kind: ");
    assert_eq!(b.ask("DELETE", "/v1/datasets/logs", "").0, 200);
    create(&b, json!({ "dataset_id": "logs", "kind": "append", "collections": ["*"] }));
    assert_eq!(b.ask("POST", "/v1/datasets/logs/collections/app/docs", "1").0, 201);
    assert_eq!(converged(&[&a, &b], "logs", "app").len(), 1);
    wait_for("both say so", || {
        let in_sync = |shown: Value| (shown["state"] == "in_sync").then_some(());
        in_sync(standing(&a, &b, "logs")?).and(in_sync(standing(&b, &a, "logs")?))
    });
}
