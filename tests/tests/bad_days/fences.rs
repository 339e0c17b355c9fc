//! A writer that was removed keeps its history, also for nodes that join later, and gets nothing further in.

use std::path::{Path, PathBuf};

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::{Place, identity};

/// Configurations by name: each lets these peers write.
fn config(place: &Place, name: &str, writers: &[&str]) -> PathBuf {
    let file = place.path(&format!("{name}.toml"));
    let writers: Vec<String> = writers.iter().map(|writer| format!("{writer:?}")).collect();
    let dataset = |name: &str, kind: &str| {
        format!("[datasets.{name}]\nkind = \"{kind}\"\ncollections = [\"*\"]\nwriters = [{}]\n", writers.join(", "))
    };
    std::fs::write(&file, dataset("primary", "documents") + &dataset("logs", "append")).expect("a file");
    file
}

fn start(place: &Place, name: &str, config: &Path, peer: Option<&Node>) -> Node {
    let options = place.node(name).arguments(&["--config", config.to_str().expect("a path in UTF-8")]);
    peer.into_iter().fold(options, anabranch_tests::process::Options::peer).start()
}

fn log(node: &Node, line: &str) {
    let (status, body) = node.ask("POST", "/v1/datasets/logs/collections/lines/docs", &json!(line).to_string());
    assert_eq!(status, 201, "{body}");
}

fn lines(node: &Node) -> Vec<Value> {
    node.list("logs", "lines").into_iter().map(|row| row["value"].clone()).collect()
}

#[test]
fn a_removed_writer_keeps_its_history_and_gets_nothing_further_in() {
    let place = Place::new();
    let [author_id, other_id, removed_id] = ["author", "other", "removed"].map(|name| identity(&place, name));
    let long = config(&place, "long", &[&author_id, &other_id, &removed_id]);
    let short = config(&place, "short", &[&author_id, &other_id]);

    let author = start(&place, "author", &long, None);
    let other = start(&place, "other", &long, Some(&author));
    let removed = start(&place, "removed", &long, Some(&author));
    author.put("orders", "author", &json!(1));
    removed.put("orders", "before", &json!(1));
    log(&removed, "before");
    for node in [&author, &other] {
        wait_for("both have what it wrote", || node.get("orders", "before"));
        wait_for("both have its records", || (lines(node).len() == 1).then_some(()));
    }
    let removed = removed.stop();

    // Both that may write are restarted with the shortened list, one after the other.
    let (author, other) = (author.stop(), other.stop());
    drop((author, other));
    let author = start(&place, "author", &short, None);
    let other = start(&place, "other", &short, Some(&author));
    converged(&[&author, &other], "primary", "orders");
    let set = author.dataset("primary");
    assert_eq!(set["documents"], 2, "documents of users only: {set}");
    let (_, collections) = author.ask("GET", "/v1/datasets/primary/collections", "");
    assert_eq!(collections.as_array().map(Vec::len), Some(1), "{collections}");
    assert_eq!(author.ask("GET", "/v1/datasets/primary/collections/_control/docs", "").0, 400);

    // The removed one does not know, writes on, and is heard by nobody, not by a node that joins now and has nothing of it yet.
    let removed = removed.start();
    removed.put("orders", "after", &json!(2));
    log(&removed, "after");
    let (status, _) = removed.ask("POST", "/v1/peers", &json!({ "address": author.listen[0] }).to_string());
    assert_eq!(status, 202);
    let late = start(&place, "late", &short, Some(&author));
    let (status, _) = late.ask("POST", "/v1/peers", &json!({ "address": removed.listen[0] }).to_string());
    assert_eq!(status, 202);
    wait_for("its history arrives", || late.get("orders", "before"));
    wait_for("and its records", || (lines(&late) == [json!("before")]).then_some(()));
    for node in [&author, &late] {
        let named = || node.dataset("primary")["reason"].as_str()?.contains(&removed.peer_id).then_some(());
        wait_for("it is named", named);
    }
    author.put("orders", "later", &json!(3));
    converged(&[&author, &other, &late], "primary", "orders");
    converged(&[&author, &other, &late], "logs", "lines");
    for node in [&author, &other, &late] {
        assert_eq!((node.get("orders", "after"), lines(node)), (None, vec![json!("before")]));
    }

    // Set once: another start writes nothing.
    let before = author.standing("primary");
    drop(author.stop());
    let author = start(&place, "author", &short, None);
    assert_eq!(author.standing("primary"), before);
}
