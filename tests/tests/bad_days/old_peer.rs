//! A peer that never names a dataset is served on `primary` only: frozen bytes on the real port of a node with more datasets.

use std::path::Path;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::id::{DatasetId, Lineage, WriterId};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Page, Pull, RefusalCode, Request, Response};
use anabranch_tests::process::Node;
use anabranch_tests::raw_peer::RawPeer;
use serde_json::{Value, json};

use crate::world::Place;

/// Whose statements and commits the frozen bytes are.
const SECRET: [u8; 32] = [7; 32];

fn frozen(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/wire/{name}.hex"));
    let digits: String = std::fs::read_to_string(path).expect("a fixture").split_whitespace().collect();
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(digit).collect()
}

struct OldPeer {
    raw: RawPeer,
    heard: Vec<u8>,
}

impl OldPeer {
    fn ask(&mut self, bytes: Vec<u8>) -> Response {
        let answer = self.raw.ask(bytes);
        self.heard.extend_from_slice(&answer);
        Response::decode(&answer).expect("an answer of the protocol")
    }

    fn refusal(&mut self, bytes: Vec<u8>) -> RefusalCode {
        match self.ask(bytes) {
            Response::Refused(refusal) => refusal.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Commits of a writer, without a word on which dataset.
    fn pull(&mut self, writer: WriterId) -> Page {
        let wants = vec![Want { writer, from_seq: 1 }];
        let pull = Pull { dataset: None, registration: Registration::all(), wants, bytes_max: 1 << 16 };
        match self.ask(Request::Pull(pull).encode()) {
            Response::Page(page) => page,
            other => panic!("not a page: {other:?}"),
        }
    }

    fn never_heard(&self, text: &str) {
        assert!(!self.heard.windows(text.len()).any(|window| window == text.as_bytes()), "{text} was said");
    }
}

/// A node with `primary` and `logs`, which both hold something.
fn node(place: &Place, primary: &str) -> Node {
    let datasets = ["--dataset", primary, "--dataset", "logs:append=*"];
    let node = place.node("node").arguments(&datasets).start();
    node.put("orders", "k", &json!("of primary"));
    let (status, _) = node.ask("POST", "/v1/datasets/logs/collections/app/docs", "\"of logs\"");
    assert_eq!(status, 201);
    node
}

fn writer(node: &Node, dataset: &str) -> WriterId {
    node.dataset(dataset)["writer"].as_str().expect("a writer").parse().expect("a writer")
}

fn shown(vector: &VersionVector) -> Value {
    vector.iter().map(|(writer, head)| (writer.to_string(), Value::from(head.seq))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn an_old_peer_is_served_on_primary_only() {
    let place = Place::new();
    let node = node(&place, "primary=orders");
    let (of_primary, of_logs) = (writer(&node, "primary"), writer(&node, "logs"));
    let mut peer = OldPeer { raw: RawPeer::connect(SECRET, &node.listen[0]), heard: Vec::new() };
    for before in ["heads", "round", "pull", "push", "confirm"] {
        assert_eq!(peer.refusal(frozen(&format!("request-{before}-primary"))), RefusalCode::HelloFirst, "{before}");
    }

    let Response::Hello(reply) = peer.ask(frozen("request-hello-primary")) else { panic!("not a Hello") };
    let named: Vec<_> = reply.hello.datasets.iter().map(|hello| hello.dataset.clone()).collect();
    assert_eq!((named, reply.refused.len()), (vec![None], 0), "`primary`, which is not named");
    let Response::Heads(heads) = peer.ask(frozen("request-heads-primary")) else { panic!("not heads") };
    assert_eq!((heads.dataset, shown(&heads.heads.expect("it has others"))), (None, node.dataset("primary")["vector"].clone()));
    let Response::Page(page) = peer.ask(frozen("request-pull-primary")) else { panic!("not a page") };
    assert_eq!((page.dataset, page.frames.len()), (None, 0), "nobody wrote what it asks for");
    let Response::Pushed(pushed) = peer.ask(frozen("request-push-primary")) else { panic!("not pushed") };
    let statement = pushed.confirmation.verify(&DatasetId::primary(), Lineage::ZERO).expect("of primary");
    assert_eq!((pushed.dataset, statement.dataset, pushed.complete), (None, None, false), "what comes before it is missing");
    assert_eq!(peer.ask(frozen("request-confirm-primary")), Response::Confirmed);

    let page = peer.pull(of_primary);
    assert_eq!((page.dataset, page.frames.len()), (None, 1));
    assert_eq!(peer.pull(of_logs).frames.len(), 0, "another dataset's writer has nothing in `primary`");
    // Nor does naming a dataset help without a Hello for it.
    let logs = Request::Pull(Pull {
        dataset: DatasetId::new("logs").expect("a name").to_wire(),
        registration: Registration::all(),
        wants: vec![Want { writer: of_logs, from_seq: 1 }],
        bytes_max: 1 << 16,
    });
    assert_eq!(peer.refusal(logs.encode()), RefusalCode::HelloFirst);
    assert_eq!(peer.refusal(frozen("request-heads-dataset")), RefusalCode::UnknownDataset);
    peer.never_heard("of logs");

    let me = Identity::from_secret(&SECRET).peer().to_string();
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["peer_id"] == me.as_str())).expect("the peer").clone();
    assert!(row["datasets"]["primary"]["state"].is_string(), "{row}");
    assert!(row["datasets"]["logs"].is_null(), "{row}");
}

/// The frozen `Hello` says that it merges `notes`, which this version does not.
#[test]
fn a_peer_with_another_policy_for_a_shared_collection_is_refused() {
    let place = Place::new();
    let node = node(&place, "primary=*");
    let mut peer = OldPeer { raw: RawPeer::connect(SECRET, &node.listen[0]), heard: Vec::new() };
    let Response::Hello(reply) = peer.ask(frozen("request-hello-primary")) else { panic!("not a Hello") };
    let refusal = &reply.refused.first().expect("a refusal").refusal;
    assert_eq!((reply.hello.datasets.len(), refusal.code), (0, RefusalCode::Policy));
    assert!(refusal.reason.contains("notes") && refusal.reason.contains("merge"), "{}", refusal.reason);
    assert_eq!(peer.refusal(frozen("request-heads-primary")), RefusalCode::HelloFirst);
    let me = Identity::from_secret(&SECRET).peer().to_string();
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["peer_id"] == me.as_str())).expect("the peer").clone();
    assert!(row["datasets"]["primary"]["reason"].as_str().is_some_and(|reason| reason.starts_with("policy: ")), "{row}");
}
