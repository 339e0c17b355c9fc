//! Clocks that disagree: minutes change who wins, not that all agree; a year is held back, counted and said.

use anabranch_tests::process::{converged, wait_for};
use serde_json::json;

use crate::world::Place;

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
