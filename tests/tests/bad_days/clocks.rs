//! Clocks that disagree: minutes change who wins, not that all agree; a year is held back, counted and said.

use std::process::Command;

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::{Place, shipped};

const MINUTE: i64 = 60_000;

#[test]
fn clocks_three_minutes_apart_agree_on_the_winner() {
    let place = Place::new();
    let early = place.faulty_node("early", -3 * MINUTE).start();
    // Before it hears of the other's clock: its stamps lie three minutes back.
    early.put("orders", "k", &json!("early"));
    let late = place.faulty_node("late", 0).start();
    late.put("orders", "k", &json!("late"));
    early.put("orders", "k", &json!("early, but last by the wall"));
    let right = place.node("right").peer(&early).peer(&late).start();
    let documents = converged(&[&early, &late, &right], "primary", "orders");
    assert_eq!(documents[0]["value"], "late");
    // Having heard of the later stamp, the early clock goes on from there.
    early.put("orders", "k", &json!("after"));
    let documents = converged(&[&early, &late, &right], "primary", "orders");
    assert_eq!(documents[0]["value"], "after");
}

#[test]
fn a_stamp_a_year_ahead_is_held_counted_and_said_and_its_writer_is_told() {
    let place = Place::new();
    let right = place.node("right").start();
    let ahead = place.faulty_node("ahead", 365 * 24 * 60 * MINUTE).peer(&right).start();
    ahead.put("orders", "from-the-future", &json!(1));
    right.put("orders", "from-now", &json!(1));
    wait_for("the writer is held", || right.dataset("primary")["held"].as_array().filter(|held| held.len() == 1).cloned());
    let info = right.dataset("primary");
    assert_eq!(info["documents"], 1, "not applied");
    assert!(
        info["reason"].as_str().is_some_and(|reason| reason.contains("held back") && reason.contains("days ahead")),
        "{info}"
    );
    assert!(info["refused_commits"].as_u64() >= Some(1), "counted: {info}");
    wait_for("the writer is told", || {
        let info = ahead.dataset("primary");
        info["reason"]
            .as_str()
            .filter(|reason| reason.contains("holds back") && reason.contains("set the clock right"))
            .map(str::to_owned)
    });
    wait_for("the other way goes on", || ahead.get("orders", "from-now"));
    assert_eq!(right.get("orders", "from-the-future"), None);
}

const YEAR: i64 = 365 * 24 * 60 * MINUTE;
const REPAIR: &str = "/v1/datasets/primary/repair-clock";

fn reason(node: &Node) -> String {
    node.dataset("primary")["reason"].as_str().unwrap_or_default().to_owned()
}

fn holds_back(node: &Node) -> bool {
    node.dataset("primary")["held"].as_array().is_some_and(|held| !held.is_empty())
}

fn repair(node: &Node) -> (String, Option<i32>) {
    let done = Command::new(shipped()).args(["repair", "clock", "--node", &node.url]).output().expect("it runs");
    (format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)), done.status.code())
}

fn put_all(node: &Node, documents: &[(&str, &str)]) {
    documents.iter().for_each(|(key, value)| node.put("orders", key, &json!(value)));
}

fn of(documents: &[Value]) -> Vec<(&str, &str)> {
    documents.iter().map(|document| (document["key"].as_str().unwrap(), document["value"].as_str().unwrap())).collect()
}

#[test]
fn commits_of_a_wrong_clock_are_issued_again_once_it_is_right() {
    let place = Place::new();
    let right = place.node("right").start();
    let wrong = place.faulty_node("wrong", 0).peer(&right).start();
    put_all(&wrong, &[("early", "sane"), ("gone", "sane"), ("kept", "sane")]);
    converged(&[&wrong, &right], "primary", "orders");
    wrong.stop();

    // A year ahead: what it writes stays with it, and wins there over all that comes.
    let wrong = place.faulty_node("wrong", YEAR).peer(&right).start();
    put_all(&wrong, &[("early", "ahead"), ("new", "ahead"), ("both", "ahead"), ("new", "ahead, again")]);
    assert_eq!(wrong.ask("DELETE", "/v1/datasets/primary/collections/orders/docs/gone", "").0, 200);
    put_all(&right, &[("both", "right"), ("right", "right")]);
    wait_for("the other way goes on", || wrong.get("orders", "right"));
    wait_for("it is held", || holds_back(&right).then_some(()));
    assert_eq!(right.get("orders", "new"), None);
    let shown = wrong.ask("GET", "/v1/datasets/primary/collections/orders/docs", "").1["docs"].as_array().unwrap().clone();

    // Nothing is repaired while the clock is wrong.
    wait_for("it suspects its own clock", || reason(&wrong).starts_with("own_clock_suspect: 1 of 1").then_some(()));
    assert!(wrong.ask("GET", "/healthz", "").1["why"].to_string().contains("own_clock_suspect"));
    let metrics = wrong.ask("GET", "/metrics", "").1;
    assert!(metrics.as_str().is_some_and(|text| text.contains("anabranch_dataset_own_clock_suspect{dataset=\"primary\"} 1")));
    let (status, problem) = wrong.ask("POST", REPAIR, "");
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:anabranch:problem/clock-not-repaired")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("own_clock_suspect")), "{problem}");
    wrong.stop();

    // Nor before every peer said that it holds them back.
    let right = right.stop();
    let alone = place.faulty_node("wrong", 0).start();
    let (status, problem) = alone.ask("POST", REPAIR, "");
    assert!(
        status == 409 && problem["detail"].as_str().is_some_and(|why| why.contains("does not say that it holds them back")),
        "{problem}"
    );
    alone.stop();

    let right = right.start();
    let wrong = place.faulty_node("wrong", 0).peer(&right).start();
    wait_for("it is told what to do", || reason(&wrong).contains("run `anabranch repair clock`").then_some(()));
    assert!(!reason(&wrong).contains("own_clock_suspect"));
    let (said, code) = repair(&wrong);
    assert!(code == Some(0) && said.starts_with("repaired 5 commits in dataset primary: "), "{said}");

    // Everybody sees what it showed all along; nothing is there twice, and nobody holds anything back.
    let documents = converged(&[&wrong, &right], "primary", "orders");
    assert_eq!(of(&documents), of(&shown));
    assert_eq!(
        of(&documents),
        [("both", "ahead"), ("early", "ahead"), ("kept", "sane"), ("new", "ahead, again"), ("right", "right")]
    );
    wait_for("nothing is wrong any more", || (reason(&wrong) + &reason(&right)).is_empty().then_some(()));
    assert!(!holds_back(&right) && !holds_back(&wrong));
    for node in [&wrong, &right] {
        assert_eq!(node.dataset("primary")["commits"], 3 + 5 + 2, "each commit once");
    }
    let aside = wrong.dataset("primary")["set_aside"].clone();
    assert!(aside.as_array().is_some_and(|aside| aside.len() == 1) && aside[0]["reason"].to_string().contains("not damaged"));

    // Whoever writes later wins, on either side.
    put_all(&right, &[("early", "later"), ("gone", "back")]);
    converged(&[&wrong, &right], "primary", "orders");
    put_all(&wrong, &[("both", "later")]);
    let documents = converged(&[&wrong, &right], "primary", "orders");
    let later =
        [("both", "later"), ("early", "later"), ("gone", "back"), ("kept", "sane"), ("new", "ahead, again"), ("right", "right")];
    assert_eq!(of(&documents), later);

    // Once is enough, also after a crash; and who comes later gets the same.
    assert_eq!(repair(&wrong).1, Some(0));
    assert!(repair(&wrong).0.starts_with("nothing to repair in dataset primary"));
    let wrong = wrong.kill().start();
    let third = place.node("third").peer(&wrong).start();
    assert_eq!(of(&converged(&[&wrong, &right, &third], "primary", "orders")), later);
    assert!(!holds_back(&third));
}
