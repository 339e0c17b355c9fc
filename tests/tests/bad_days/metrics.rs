//! What two real nodes say of themselves in numbers and in a word.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anabranch_tests::process::{DEADLINE, Node, converged, document, wait_for};
use serde_json::{Value, json};

use crate::world::Place;

/// Sends a request that no client library would; the whole answer.
fn send(node: &Node, head: &str) -> String {
    let mut stream = TcpStream::connect(node.url.trim_start_matches("http://")).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Samples by name and labels, as written.
struct Page(BTreeMap<String, f64>);

impl Page {
    fn of(node: &Node) -> Self {
        let (status, text) = node.ask("GET", "/metrics", "");
        assert_eq!(status, 200);
        let text = text.as_str().expect("text").to_owned();
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            assert!(name.starts_with("anabranch_"), "{line}");
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        };
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        Self(samples.map(sample).collect())
    }

    fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    fn get(&self, name: &str) -> f64 {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0.keys()))
    }

    /// Of `primary`.
    fn primary(&self, name: &str) -> f64 {
        self.get(&format!("anabranch_dataset_{name}{{dataset=\"primary\"}}"))
    }

    /// Of `primary` and a peer.
    fn apart(&self, name: &str, peer: &Node) -> Option<f64> {
        self.find(&format!("anabranch_peer_{name}{{dataset=\"primary\",peer=\"{}\"}}", peer.peer_id))
    }
}

fn health(node: &Node) -> Value {
    node.ask("GET", "/healthz", "").1
}

const DOCUMENTS: u32 = 20;
const MISSED: u32 = 7;

#[test]
fn two_nodes_count_what_they_did_and_a_peer_that_stops_falls_behind() {
    let place = Place::new();
    let a = place.node("a").environment("ANABRANCH_HEALTH__LAG_COMMITS_MAX", "5").start();
    let b = place.node("b").peer(&a).start();
    wait_for("they are connected", || (Page::of(&a).get("anabranch_peers_connected") == 1.0).then_some(()));
    for n in 0..DOCUMENTS {
        a.put("orders", &format!("k-{n}"), &json!(n));
    }
    let (status, _) = a.ask("PUT", &format!("{}?ack=1", document("orders", "acked")), "1");
    assert_eq!(status, 201);
    let (status, _) = a.ask("PUT", &format!("{}?ack=9&timeout_ms=1", document("orders", "unacked")), "1");
    assert_eq!(status, 202);
    converged(&[&a, &b], "primary", "orders");
    let all = f64::from(DOCUMENTS + 2);
    wait_for("b is known to have everything", || (Page::of(&a).apart("lag_commits", &b)? == 0.0).then_some(()));

    let (here, there) = (Page::of(&a), Page::of(&b));
    for page in [&here, &there] {
        assert_eq!((page.primary("documents"), page.primary("commits"), page.primary("answered")), (all, all, 1.0));
        assert_eq!(page.get("anabranch_dataset_state{dataset=\"primary\",state=\"running\"}"), 1.0);
        assert_eq!(page.get("anabranch_dataset_state{dataset=\"primary\",state=\"failed\"}"), 0.0);
        assert_eq!(page.get("anabranch_health{state=\"healthy\"}"), 1.0);
        assert!(page.primary("oplog_bytes") > 0.0 && page.primary("disk_bytes") > 0.0);
    }
    assert_eq!((here.primary("written_commits_total"), here.primary("received_commits_total")), (all, 0.0));
    assert_eq!((there.primary("written_commits_total"), there.primary("received_commits_total")), (0.0, all));
    assert_eq!(here.primary("commit_latency_seconds_count"), all, "each write is measured once");
    assert!(here.primary("commit_latency_seconds_sum") > 0.0);
    assert_eq!(there.primary("write_to_visible_seconds_count"), all, "each arrival is measured once");
    assert!(here.primary("confirmations_total") > 0.0);
    let acks = |outcome: &str| here.get(&format!("anabranch_dataset_acks_total{{dataset=\"primary\",outcome=\"{outcome}\"}}"));
    assert_eq!((acks("confirmed"), acks("timeout")), (1.0, 1.0));
    let push =
        |page: &Page, way: &str| page.get(&format!("anabranch_dataset_{way}_bytes_total{{dataset=\"primary\",kind=\"push\"}}"));
    assert!(push(&here, "sent") > push(&here, "received") && push(&there, "received") > push(&there, "sent"));
    let route = "route=\"/v1/datasets/{d}/collections/{c}/docs/{key:.*}\",method=\"PUT\"";
    assert_eq!(here.get(&format!("anabranch_http_requests_total{{{route},status=\"201\"}}")), all - 1.0);
    assert_eq!(here.get(&format!("anabranch_http_request_duration_seconds_count{{{route}}}")), all);

    let b = falls_behind_and_catches_up(&a, b);
    assert_eq!(Page::of(&b).primary("commits"), all + f64::from(MISSED));
}

fn falls_behind_and_catches_up(a: &Node, b: Node) -> Node {
    let (gone, name) = (format!("anabranch_peer_connected{{peer=\"{}\"}}", b.peer_id), b.peer_id.clone());
    let apart = |what: &str| Page::of(a).find(&format!("anabranch_peer_{what}{{dataset=\"primary\",peer=\"{name}\"}}"));
    let options = b.kill();
    wait_for("it is seen to be away", || (Page::of(a).get(&gone) == 0.0).then_some(()));
    for n in 0..MISSED {
        a.put("orders", &format!("missed-{n}"), &json!(n));
    }
    wait_for("its lag is known", || (apart("lag_commits")? == f64::from(MISSED)).then_some(()));
    let first = apart("apart_seconds").expect("a lag");
    wait_for("its lag grows though nothing is written", || (apart("apart_seconds")? > first).then_some(()));
    let why = health(a);
    let reason = why["why"][0].as_str().unwrap_or_default();
    assert_eq!(why["health"], "degraded", "{why}");
    assert!(reason.contains(&name) && reason.contains("by 7 commits") && reason.contains("lag_commits_max is 5"), "{why}");
    assert_eq!(Page::of(a).get("anabranch_health{state=\"degraded\"}"), 1.0);
    assert_eq!(a.ask("GET", "/readyz", "").0, 200, "it serves");

    let b = options.start();
    wait_for("it caught up", || (Page::of(a).apart("lag_commits", &b)? == 0.0).then_some(()));
    assert_eq!(Page::of(a).apart("apart_seconds", &b), Some(0.0));
    assert_eq!(health(a), json!({ "health": "healthy", "why": [] }));
    b
}

#[test]
fn a_scrape_waits_for_no_dataset_that_is_stuck() {
    let place = Place::new();
    let names: Vec<String> = (0..63).map(|n| format!("d-{n}=*")).collect();
    let datasets = names.iter().map(String::as_str).chain(["stuck=*"]).flat_map(|name| ["--dataset", name]);
    let arguments: Vec<&str> = datasets.collect();
    // Its disk is never given up while this test runs.
    let node = place.faulty_node("node", 0).environment("TEST_DISK_PATIENCE", "600000").arguments(&arguments).start();
    let path = "/v1/datasets/stuck/collections/c/docs/k";
    assert_eq!(node.ask("PUT", path, "1").0, 201);
    let of = |page: &Page, what: &str| page.get(&format!("anabranch_dataset_{what}{{dataset=\"stuck\"}}"));
    assert_eq!((of(&Page::of(&node), "answered"), of(&Page::of(&node), "documents")), (1.0, 1.0));

    place.set_faults("node", "barrier:hang:count=forever:dataset=stuck");
    place.faults_taken("node");
    let page = std::thread::scope(|scope| {
        let write = scope.spawn(|| node.send("PUT", "/v1/datasets/stuck/collections/c/docs/hangs", "1"));
        // It hangs for as long as the plan says so: a scrape that is answered meanwhile did not wait for it.
        let page = wait_for("it is stuck", || Some(Page::of(&node)).filter(|page| of(page, "answered") == 0.0));
        assert!(!write.is_finished(), "it still hangs");
        place.set_faults("node", "");
        assert!(write.join().expect("a client").is_ok());
        page
    });
    assert_eq!(page.get("anabranch_dataset_state{dataset=\"stuck\",state=\"running\"}"), 1.0, "it was not given up meanwhile");
    assert_eq!(of(&page, "documents"), 1.0, "what it last answered");
    assert_eq!(page.get("anabranch_dataset_answered{dataset=\"d-0\"}"), 1.0);
    wait_for("it answers again", || (of(&Page::of(&node), "answered") == 1.0).then_some(()));
}

#[test]
fn metrics_need_the_token_and_never_show_what_a_client_made_up() {
    let place = Place::new();
    let token = place.path("token");
    std::fs::write(&token, "a-long-enough-secret\n").expect("a token");
    let node = place.node("node").environment("ANABRANCH_HTTP__TOKEN_FILE", token.to_str().expect("a path in UTF-8")).start();
    assert_eq!(node.ask("GET", "/metrics", "").0, 401);
    let bearer = [("Authorization", "Bearer a-long-enough-secret")];
    assert_eq!(node.ask_with("GET", "/made-up/by-a-client", &bearer, "").0, 404);
    let invented = send(&node, "MADEUP /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-long-enough-secret");
    assert!(invented.starts_with("HTTP/1.1 405 "), "{invented}");
    let (status, text) = node.ask_with("GET", "/metrics", &bearer, "");
    let text = text.as_str().expect("text");
    assert_eq!(status, 200);
    assert!(text.contains("anabranch_http_requests_total{route=\"/metrics\",method=\"GET\",status=\"401\"} 1"), "{text}");
    assert!(text.contains("anabranch_http_requests_total{route=\"other\",method=\"GET\",status=\"404\"} 1"), "{text}");
    assert!(text.contains("anabranch_http_requests_total{route=\"/metrics\",method=\"other\",status=\"405\"} 1"), "{text}");
    assert!(!text.contains("made-up") && !text.contains("MADEUP"), "{text}");
}
