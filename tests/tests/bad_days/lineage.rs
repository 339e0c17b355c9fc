//! Lineages: datasets of one name that were created separately, and empty ones that join.

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

const OPEN: &str = "00000000000000000000000000000000";

fn start(place: &Place, name: &str, lineage: Option<&str>, peer: Option<&Node>) -> Node {
    let file = place.path(&format!("{name}.toml"));
    let lineage = lineage.map(|lineage| format!("lineage = \"{lineage}\"\n")).unwrap_or_default();
    std::fs::write(&file, format!("[datasets.primary]\ncollections = [\"orders\"]\n{lineage}")).expect("a file");
    let options = place.node(name).arguments(&["--config", file.to_str().expect("a path in UTF-8")]);
    peer.into_iter().fold(options, anabranch_tests::process::Options::peer).start()
}

fn lineage(node: &Node) -> String {
    node.dataset("primary")["lineage"].as_str().unwrap_or_default().to_owned()
}

fn refuses(node: &Node, peer: &Node) {
    wait_for(&format!("{} refuses {}", node.url, peer.peer_id), || {
        let (_, rows) = node.ask("GET", "/v1/peers", "");
        let row = rows.as_array()?.iter().find(|row| row["peer_id"] == peer.peer_id.as_str())?.clone();
        let primary = &row["datasets"]["primary"];
        (primary["state"] == "refused" && primary["reason"].as_str()?.starts_with("lineage: ")).then_some(())
    });
}

#[test]
fn an_empty_dataset_takes_on_its_peers_lineage_and_keeps_it() {
    let place = Place::new();
    let founder = start(&place, "founder", Some("new"), None);
    let line = lineage(&founder);
    assert!(line.len() == 32 && line != OPEN, "{line}");
    founder.put("orders", "first", &json!(1));

    // Whichever side dials.
    let joins = start(&place, "joins", None, Some(&founder));
    let joined = start(&place, "joined", None, None);
    let (status, _) = founder.ask("POST", "/v1/peers", &json!({ "address": joined.listen[0] }).to_string());
    assert_eq!(status, 202);
    for node in [&joins, &joined] {
        wait_for("what the founder wrote is there", || node.get("orders", "first"));
        assert_eq!(lineage(node), line);
        node.put("orders", &node.peer_id, &json!(1));
    }
    assert_eq!(converged(&[&founder, &joins, &joined], "primary", "orders").len(), 3);

    // All three keep it, also where the store has to be given up.
    let (founder, joins) = (founder.stop().start(), joins.stop());
    std::fs::remove_dir_all(place.path("joins/datasets/primary")).expect("a store to lose");
    let joins = joins.start();
    assert_eq!((lineage(&founder), lineage(&joins)), (line.clone(), line));
    joins.put("orders", "rebuilt", &json!(1));
    let (status, _) = joins.ask("POST", "/v1/peers", &json!({ "address": founder.listen[0] }).to_string());
    assert_eq!(status, 202);
    assert_eq!(converged(&[&founder, &joins], "primary", "orders").len(), 4);
}

#[test]
fn datasets_that_hold_something_refuse_another_lineage() {
    let place = Place::new();
    let founder = start(&place, "founder", Some("new"), None);
    founder.put("orders", "founder", &json!(1));
    let other = start(&place, "other", Some(&"0b".repeat(16)), Some(&founder));
    assert_eq!(lineage(&other), "0b".repeat(16), "a lineage of its own, though it is empty");
    refuses(&other, &founder);
    refuses(&founder, &other);
    // It has commits, and another one only documents that don't replicate.
    for (name, collection) in [("written", "orders"), ("local", "drafts")] {
        let open = start(&place, name, None, None);
        open.put(collection, "k", &json!(1));
        let (status, _) = open.ask("POST", "/v1/peers", &json!({ "address": founder.listen[0] }).to_string());
        assert_eq!(status, 202);
        refuses(&open, &founder);
        refuses(&founder, &open);
        assert_eq!((lineage(&open).as_str(), open.get("orders", "founder")), (OPEN, None));
        assert_eq!(open.get(collection, "k"), Some(json!(1)));
    }
    assert_eq!(founder.dataset("primary")["vector"].as_object().map(serde_json::Map::len), Some(1));
}

#[test]
fn a_store_of_another_lineage_than_configured_is_left_as_it_is() {
    let place = Place::new();
    let node = start(&place, "node", None, None);
    node.put("orders", "k", &json!(1));
    drop(node.stop());
    for wanted in ["new".to_owned(), "0c".repeat(16)] {
        let node = start(&place, "node", Some(&wanted), None);
        let info = node.dataset("primary");
        assert_ne!(info["state"], "running");
        assert!(info["reason"].as_str().is_some_and(|reason| reason.contains("open lineage")), "{info}");
        assert_eq!(info["set_aside"], Value::Array(Vec::new()));
        drop(node.stop());
    }
    let node = start(&place, "node", None, None);
    assert_eq!((node.get("orders", "k"), lineage(&node).as_str()), (Some(json!(1)), OPEN));
}

#[test]
fn a_dataset_created_at_run_time_keeps_its_new_lineage() {
    let place = Place::new();
    let node = place.node("node").start();
    let body = json!({ "dataset_id": "private", "collections": ["*"], "lineage": "new" });
    let (status, created) = node.ask("POST", "/v1/datasets", &body.to_string());
    assert_eq!(status, 201, "{created}");
    let line = created["lineage"].as_str().expect("a lineage").to_owned();
    assert_ne!(line, OPEN);
    let node = node.stop().start();
    assert_eq!(node.dataset("private")["lineage"], line.as_str());
}
