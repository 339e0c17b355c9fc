//! HTTP clients that keep their connections open.

use std::io::Read;
use std::time::{Duration, Instant};

use super::bare;
use super::nodes::{BenchNode, wait_for};
use super::scenarios::{LIMIT, documents, percentile};

/// What one kind of request took.
struct Measured {
    rate: f64,
    p50: Duration,
    p95: Duration,
    p99: Duration,
}

/// PUT and GET of single documents by so many clients at once, beside a request that the node answers without any dataset: what
/// HTTP alone, client and server, can do on this machine.
pub fn live(clients: usize, per_client: usize) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = documents(clients * per_client);
    let node = BenchNode::start(&place.path().join("a"), &["primary=*"], &[]);
    let docs = format!("{}/v1/datasets/primary/collections/items/docs", node.url);
    let nothing = format!("{}/v1/nothing-here", node.url);
    let bare = all(&documents, per_client, |agent, _, _| call(agent.get(&nothing).call(), 404));
    let put = all(&documents, per_client, |agent, key, json| {
        call(agent.put(format!("{docs}/{key}")).content_type("application/json").send(json), 201);
    });
    let get = all(&documents, per_client, |agent, key, _| call(agent.get(format!("{docs}/{key}")).call(), 200));
    drop(node);
    let fsync = percentile(&mut bare::lone_fsyncs(&documents[..200.min(documents.len())]), 0.5);
    for (name, measured) in [("HTTP alone", &bare), ("PUT", &put), ("GET", &get)] {
        let Measured { rate, p50, p95, p99 } = measured;
        let share = rate / bare.rate;
        println!(
            "{clients:>3} clients {name:<16} {rate:>8.0}/s  p50 {p50:.2?} p95 {p95:.2?} p99 {p99:.2?}  of HTTP alone {share:.2}"
        );
    }
    println!("{clients:>3} clients bare fsync p50 {fsync:.2?}");
}

/// Each client has a thread and a connection of its own, and its share of the documents.
fn all(documents: &[(String, String)], per_client: usize, request: impl Fn(&ureq::Agent, &str, &str) + Sync) -> Measured {
    let request = &request;
    let started = Instant::now();
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let client = |share| move || one(share, request);
        let clients: Vec<_> = documents.chunks(per_client).map(|share| scope.spawn(client(share))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client ends")).collect()
    });
    let rate = documents.len() as f64 / started.elapsed().as_secs_f64();
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| percentile(&mut took, share));
    Measured { rate, p50, p95, p99 }
}

fn one(share: &[(String, String)], request: &impl Fn(&ureq::Agent, &str, &str)) -> Vec<Duration> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT));
    let agent: ureq::Agent = config.build().into();
    let timed = |(key, json): &(String, String)| {
        let started = Instant::now();
        request(&agent, key, json);
        started.elapsed()
    };
    share.iter().map(timed).collect()
}

fn call(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, wanted: u16) {
    let mut answer = answer.expect("the node answers");
    assert_eq!(answer.status(), wanted);
    // Read to the end, or the connection can't be used again.
    let _ = answer.body_mut().as_reader().read_to_end(&mut Vec::new()).expect("a body");
}

/// One `PUT …?ack=1` every 20 ms: durable here and on the peer, and its signed confirmation is back.
pub fn ack(count: usize) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = documents(count);
    let a = BenchNode::start(&place.path().join("a"), &["primary=*"], &[]);
    let b = BenchNode::start(&place.path().join("b"), &["primary=*"], &a.listen);
    a.put("first", "1");
    wait_for(LIMIT, || b.has("first").then_some(()));
    let docs = format!("{}/v1/datasets/primary/collections/items/docs", a.url);
    let paced = |agent: &ureq::Agent, key: &str, json: &str| {
        call(agent.put(format!("{docs}/{key}?ack=1")).content_type("application/json").send(json), 201);
    };
    let mut took = Vec::new();
    for document in &documents {
        let started = Instant::now();
        took.extend(one(std::slice::from_ref(document), &paced));
        std::thread::sleep(Duration::from_millis(20).saturating_sub(started.elapsed()));
    }
    drop((a, b));
    let bare = percentile(&mut bare::lone_fsyncs(&documents), 0.5);
    let (p50, p95) = (percentile(&mut took, 0.5), percentile(&mut took, 0.95));
    println!("PUT with ack=1               p50 {p50:.2?} p95 {p95:.2?}  beside two bare fsyncs {:.2?}", bare * 2);
}
