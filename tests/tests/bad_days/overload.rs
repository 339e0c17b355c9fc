//! More than the disk takes: clients are told to come again, memory stays flat, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_tests::process::wait_for;
use serde_json::json;

use crate::world::Place;

const CLIENTS: usize = 96;
const MIB: usize = 1 << 20;

#[test]
fn overload_is_answered_429_and_memory_stays_flat() {
    let place = Place::new();
    place.set_faults("node", "barrier:delay:ms=100:count=forever");
    let node = Arc::new(place.faulty_node("node", 0).start());
    node.put("orders", "small", &json!(1));
    let value = format!("\"{}\"", "x".repeat(MIB - 64));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (node, value) = (node.clone(), value.clone());
            std::thread::spawn(move || {
                let path = format!("/v1/datasets/primary/collections/orders/docs/large-{n}");
                let (status, headers) = node.put_with_headers(&path, &value);
                (n, status, headers)
            })
        })
        .collect();
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    let mut acked = Vec::new();
    for client in clients {
        let (n, status, retry_after) = client.join().unwrap();
        *counts.entry(status).or_default() += 1;
        assert_eq!(retry_after.is_some(), status == 429, "{status}: {retry_after:?}");
        if status == 201 {
            acked.push(n);
        }
    }
    assert!(counts.keys().all(|status| *status == 201 || *status == 429), "{counts:?}");
    assert!(counts[&429] > 0 && counts[&201] > 0, "{counts:?}");
    let memory = node.peak_memory_mib();
    println!("{counts:?}, {memory} MiB at the peak");
    assert!(memory < 400, "{memory} MiB at the peak");

    place.set_faults("node", "");
    wait_for("writes are taken again", || {
        let (status, _) = node.ask("PUT", "/v1/datasets/primary/collections/orders/docs/after", "1");
        (status == 201).then_some(())
    });
    for n in acked {
        assert!(node.get("orders", &format!("large-{n}")).is_some(), "acknowledged and lost: {n}");
    }
}
