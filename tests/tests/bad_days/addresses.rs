//! The address book: who was accepted once is found again without being told, by whichever side still runs.

use anabranch_tests::process::{converged, wait_for};
use serde_json::json;

use crate::world::Place;

#[test]
fn peers_find_each_other_again_without_being_told() {
    let place = Place::new();
    let a = place.node("a").start();
    let told = place.node("b").peer(&a).start();
    a.put("orders", "first", &json!(1));
    converged(&[&a, &told], "primary", "orders");
    told.stop();

    // Nobody tells b now: it knows a from its address book.
    let b = place.node("b").start();
    a.put("orders", "second", &json!(2));
    wait_for("b found a", || b.get("orders", "second"));

    // a comes back on another port, which b can't know: a knows where b told that it listens.
    let listens = b.listen[0].split("/p2p/").next().expect("an address").to_owned();
    wait_for("a wrote down where b listens now", || {
        let book = std::fs::read_to_string(place.path("a/peers.json")).ok()?;
        book.contains(&listens).then_some(())
    });
    let options = a.kill();
    b.put("orders", "third", &json!(3));
    let a = options.start();
    wait_for("a found b", || a.get("orders", "third"));
    converged(&[&a, &b], "primary", "orders");
}
