//! Peers apart while both write, update and delete the same keys.

use anabranch_tests::process::{Node, converged, document};
use serde_json::json;

use crate::world::Place;

#[test]
fn peers_that_wrote_the_same_keys_apart_end_equal() {
    let place = Place::new();
    let a = place.node("a").start();
    let b_options = place.node("b").peer(&a);
    let b = b_options.start();
    for n in 0..30 {
        a.put("orders", &format!("k{n}"), &json!({"n": n, "by": "both"}));
    }
    converged(&[&a, &b], "primary", "orders");

    let b_options = b.stop();
    change_everything(&a, "a");
    let a_options = a.stop();
    // The peer that is dialed is gone: this one writes alone, too.
    let b = b_options.start();
    change_everything(&b, "b");
    let a = a_options.start();
    // Free ports change with every start: b is told where a is now.
    let b = b.stop().peer(&a).start();

    let documents = converged(&[&a, &b], "primary", "orders");
    let found = |key: &str| documents.iter().find(|document| document["key"] == key).map(|document| document["value"].clone());
    // b wrote later, by the clock: what both touched is as b left it.
    assert_eq!(found("k0"), Some(json!({"n": 100, "by": "b"})));
    assert_eq!(found("k1"), None, "deleted on both sides");
    assert_eq!(found("k2"), Some(json!({"n": 2, "by": "b"})), "patched on both sides");
    assert_eq!(found("only-a"), Some(json!(1)));
    assert_eq!(found("only-b"), Some(json!(1)));
    assert_eq!(found("k4"), None, "b deleted what a had updated before");
}

fn change_everything(node: &Node, by: &str) {
    node.put("orders", "k0", &json!({"n": 100, "by": by}));
    assert_eq!(node.ask("DELETE", &document("orders", "k1"), "").0, 200);
    assert_eq!(node.ask("PATCH", &document("orders", "k2"), &json!({"by": by}).to_string()).0, 200);
    node.put("orders", &format!("only-{by}"), &json!(1));
    if by == "a" {
        node.put("orders", "k4", &json!("updated"));
    } else {
        assert_eq!(node.ask("DELETE", &document("orders", "k4"), "").0, 200);
    }
    for n in 5..30 {
        node.put("orders", &format!("k{n}"), &json!({"n": n, "by": by}));
    }
}
