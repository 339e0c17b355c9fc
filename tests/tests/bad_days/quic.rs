//! Nodes that reach each other by nothing but QUIC.

use std::process::Command;

use anabranch_tests::process::{converged, wait_for};
use serde_json::json;

use crate::world::{Place, shipped};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

#[test]
fn nodes_sync_by_quic_alone_with_a_network_key_and_find_each_other_again() {
    let place = Place::new();
    let [ours, other] = ["ours.key", "other.key"].map(|name| {
        let file = place.path(name);
        let made = Command::new(shipped()).arg("network-key").arg("--out").arg(&file).output().expect("the program runs");
        assert!(made.status.success(), "{made:?}");
        file.to_str().expect("a path in UTF-8").to_owned()
    });
    let start = |name: &str, key: &str| place.node(name).listen(QUIC).arguments(&["--network-key", key]);
    let a = start("a", &ours).start();
    assert!(a.listen.len() == 1 && a.listen[0].contains("/quic-v1/p2p/"), "{:?}", a.listen);
    let b = start("b", &ours).peer(&a).start();
    for n in 0..200 {
        a.put("orders", &format!("a-{n}"), &json!({ "text": "x".repeat(1_000) }));
    }
    b.put("orders", "b", &json!(1));
    assert_eq!(converged(&[&a, &b], "primary", "orders").len(), 201);

    // A late node pulls all of it.
    let late = start("late", &ours).peer(&b).start();
    assert_eq!(converged(&[&a, &b, &late], "primary", "orders").len(), 201);
    let stranger = start("stranger", &other).peer(&a).start();
    wait_for("a stranger is refused", || {
        let (_, rows) = stranger.ask("GET", "/v1/peers", "");
        rows.as_array()?.iter().any(|row| row["refused"].as_str().is_some_and(|why| why.contains("network_key"))).then_some(())
    });

    // On another port, which only the address book of the other side can help with.
    let again = a.kill();
    b.put("orders", "meanwhile", &json!(1));
    let a = again.start();
    wait_for("they find each other", || a.get("orders", "meanwhile"));
    assert_eq!(stranger.get("orders", "b"), None);
}
