//! Many datasets on one node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anabranch_protocol::wire::Kind;

use super::nodes::{BenchNode, wait_for};
use super::relay::Relay;
use super::scenarios::{LIMIT, documents, ndjson};

const DATASETS: usize = 50;
/// Of a core, each node.
const IDLE_CPU: f64 = 0.01;
/// Between two nodes, both ways.
const IDLE_BYTES: f64 = 1_024.0;
/// From the start of the process until every dataset serves.
const START: Duration = Duration::from_secs(3);

fn names() -> Vec<String> {
    (0..DATASETS).map(|n| format!("set-{n:02}")).collect()
}

fn flags(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("{name}=*")).collect()
}

fn verdict(holds: bool) -> &'static str {
    if holds { "ok" } else { "MISSED" }
}

/// Two nodes in sync that nobody writes to.
pub fn idle(watched: Duration) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let flags = flags(&names());
    let datasets: Vec<&str> = flags.iter().map(String::as_str).collect();
    let a = BenchNode::start(&place.path().join("a"), &datasets, &[]);
    let (relay, peer) = relayed(&a.listen[0]);
    for name in names() {
        let _ = a.ingest(&name, &ndjson(Kind::Documents, &documents(10)));
    }
    let b = BenchNode::start(&place.path().join("b"), &datasets, &[peer]);
    wait_for(LIMIT, || in_sync(&a).then_some(()));
    wait_for(LIMIT, || in_sync(&b).then_some(()));
    // What a start leaves to do is done by then.
    std::thread::sleep(Duration::from_secs(15));
    let (before, started) = ((a.cpu(), b.cpu(), relay.bytes()), Instant::now());
    std::thread::sleep(watched);
    let seconds = started.elapsed().as_secs_f64();
    let share = |now: Duration, before: Duration| (now - before).as_secs_f64() / seconds;
    let (cpu_a, cpu_b) = (share(a.cpu(), before.0), share(b.cpu(), before.1));
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    let bytes = (relay.bytes() - before.2) as f64 / seconds;
    assert!(in_sync(&a) && relay.bytes() > 0, "they are still connected, through the relay");
    let (a_mib, b_mib) = (a.peak_memory_mib(), b.peak_memory_mib());
    println!(
        "idle, {DATASETS} datasets            {:.2} % and {:.2} % of a core (wanted 1.00 at most) {}  {bytes:.0} B/s between them \
         (wanted {IDLE_BYTES} at most) {}  {a_mib} and {b_mib} MiB",
        cpu_a * 100.0,
        cpu_b * 100.0,
        verdict(cpu_a.max(cpu_b) <= IDLE_CPU),
        verdict(bytes <= IDLE_BYTES)
    );
}

/// A relay before a node, and the multiaddr by which it is dialed.
fn relayed(listen: &str) -> (Relay, String) {
    let parts: Vec<&str> = listen.split('/').collect();
    let [_, _, host, _, port, _, id] = parts[..] else { panic!("{listen} is no /ip4/…/tcp/…/p2p/…") };
    let target: SocketAddr = format!("{host}:{port}").parse().expect("an address");
    let relay = Relay::before(target);
    let peer = format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", relay.address.port());
    (relay, peer)
}

fn in_sync(node: &BenchNode) -> bool {
    let peers = node.get("/v1/peers");
    let Some(datasets) = peers[0]["datasets"].as_object() else { return false };
    datasets.len() == DATASETS && datasets.values().all(|state| state["state"] == "in_sync")
}

/// From the start of the process until every dataset serves, after a clean stop and after `kill -9`.
pub fn start(per_dataset: usize) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let names = names();
    let flags = flags(&names);
    let datasets: Vec<&str> = flags.iter().map(String::as_str).collect();
    let home = place.path().join("a");
    let body = ndjson(Kind::Documents, &documents(per_dataset));
    let node = BenchNode::start(&home, &datasets, &[]);
    for name in &names {
        let _ = node.ingest(name, &body);
    }
    node.stop();
    for after in ["a clean stop", "kill -9"] {
        let started = Instant::now();
        let node = BenchNode::start(&home, &datasets, &[]);
        wait_for(LIMIT, || node.is_ready().then_some(()));
        let took = started.elapsed();
        let held: u64 = names.iter().map(|name| node.documents(name)).sum();
        assert_eq!(held, (DATASETS * per_dataset) as u64);
        let memory = node.peak_memory_mib();
        println!(
            "start after {after:<16} {took:.2?} with {DATASETS} datasets of {per_dataset} documents (wanted {START:?} at most) {}  {memory} MiB",
            verdict(took <= START)
        );
        // Dropped: killed.
    }
}
