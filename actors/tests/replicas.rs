//! Nodes in one process, over stores in memory and a transport of channels: the actors as they ship, without a network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_actors::api::ListQuery;
use anabranch_actors::node::{AccessSettings, Clock, DatasetSettings, NodeHandle, NodeSettings, SyncSettings};
use anabranch_actors::store::{MemoryEngine, StoreEngine};
use anabranch_actors::transport::{Class, EventSender, Transport, TransportError, TransportEvent};
use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Key, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::{Announce, Kind, Request, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

/// Who can reach whom. Messages travel as bytes, so that what arrives went through the decoders.
#[derive(Debug, Default)]
struct Network {
    nodes: Mutex<BTreeMap<PeerId, EventSender>>,
    links: Mutex<Vec<(PeerId, PeerId)>>,
}

impl Network {
    fn linked(&self, a: PeerId, b: PeerId) -> bool {
        self.links.lock().unwrap().iter().any(|link| *link == (a, b) || *link == (b, a))
    }

    async fn connect(&self, dialer: PeerId, other: PeerId) {
        self.links.lock().unwrap().push((dialer, other));
        for (at, peer, dialed) in [(other, dialer, false), (dialer, other, true)] {
            let events = self.nodes.lock().unwrap()[&at].clone();
            events.send(TransportEvent::Connected { peer, dialed, address: String::new() }).await.unwrap();
        }
    }

    async fn disconnect(&self, a: PeerId, b: PeerId) {
        self.links.lock().unwrap().retain(|link| *link != (a, b) && *link != (b, a));
        for (at, peer) in [(a, b), (b, a)] {
            let events = self.nodes.lock().unwrap()[&at].clone();
            events.send(TransportEvent::Disconnected { peer }).await.unwrap();
        }
    }
}

#[derive(Debug)]
struct Channels {
    me: PeerId,
    network: Arc<Network>,
}

impl Transport for Channels {
    fn request(&self, peer: PeerId, _: Class, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (me, network) = (self.me, self.network.clone());
        async move {
            let events = network.nodes.lock().unwrap().get(&peer).cloned();
            let events = events.filter(|_| network.linked(me, peer)).ok_or(TransportError::NotConnected)?;
            let request = Request::decode(&request.encode()).expect("our own requests decode");
            let (reply, response) = oneshot::channel();
            events.send(TransportEvent::Request { peer: me, request, reply }).await.map_err(|_| TransportError::NotConnected)?;
            let response = response.await.map_err(|_| TransportError::Timeout)?;
            Ok(Response::decode(&response.encode()).expect("our own responses decode"))
        }
        .boxed()
    }
    fn announce(&self, announce: Announce) {
        let nodes = self.network.nodes.lock().unwrap();
        for (peer, events) in nodes.iter().filter(|(peer, _)| self.network.linked(self.me, **peer)) {
            assert_ne!(*peer, self.me);
            // Gossip may be lost, and here it is when the channel is full.
            let _ = events.try_send(TransportEvent::Announced { peer: self.me, announce: announce.clone() });
        }
    }
    fn subscribe(&self, _: DatasetId) {}
    fn accepted(&self, _: PeerId, _: Vec<String>) {}
    fn disconnect(&self, _: PeerId, _: &str) {}
    fn listen_addresses(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> WallClock {
        WallClock(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

struct TestNode {
    peer: PeerId,
    handle: NodeHandle,
}

const NOON: u64 = 1_700_000_000_000;

fn start(network: &Arc<Network>, seed: u8, kind: Kind, clock: u64) -> TestNode {
    start_on(network, seed, kind, clock, Arc::new(MemoryEngine::default()))
}

fn start_on(network: &Arc<Network>, seed: u8, kind: Kind, clock: u64, engine: Arc<dyn StoreEngine>) -> TestNode {
    let identity = Identity::from_secret(&[seed; 32]);
    let peer = identity.peer();
    let sync = SyncSettings { announce_interval: Duration::ZERO, anti_entropy_interval: Duration::from_secs(1), max_peers: 8 };
    let dataset = DatasetSettings { kind, registration: Registration::all(), readers: Peers::All, writers: Peers::All, sync };
    let settings = NodeSettings {
        identity,
        incarnation: Incarnation([seed; 16]),
        data_dir: PathBuf::from("/nowhere"),
        cache_bytes: 1 << 20,
        max_clock_skew: Duration::from_secs(300),
        access: AccessSettings::default(),
        datasets: BTreeMap::from([(DatasetId::primary(), dataset)]),
        engine,
        clock: Arc::new(TestClock(AtomicU64::new(clock))),
    };
    let (events, inbox) = mpsc::channel(64);
    network.nodes.lock().unwrap().insert(peer, events);
    let transport = Arc::new(Channels { me: peer, network: network.clone() });
    TestNode { peer, handle: NodeHandle::start(settings, transport, inbox) }
}

fn collection() -> Collection {
    Collection::new("orders").unwrap()
}

fn json(text: &str) -> Vec<u8> {
    Value::from_json(text.as_bytes()).unwrap().encode()
}

impl TestNode {
    async fn write(&self, op: Op) {
        let request = WriteRequest { ops: vec![WriteOp { collection: collection(), op }] };
        self.handle.write(&DatasetId::primary(), request).await.unwrap();
    }

    async fn put(&self, key: &str, value: &str) {
        self.write(Op::Put { key: Key::new(key).unwrap(), value: json(value) }).await;
    }

    async fn state(&self) -> (Vec<(String, Vec<u8>)>, Option<(String, u64)>) {
        let query = ListQuery { limit: 10_000, ..ListQuery::default() };
        let listing = self.handle.list(&DatasetId::primary(), &collection(), query).await.unwrap();
        let documents = listing.documents.into_iter().map(|d| (d.key.to_string(), d.value)).collect();
        let info = self.handle.dataset(&DatasetId::primary()).await.unwrap();
        (documents, info.contents.map(|contents| (contents.fingerprint, contents.vector.commits())))
    }
}

/// Waits until all nodes are equal and hold `documents` documents.
async fn converged(nodes: &[&TestNode], documents: usize) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let mut states = Vec::new();
        for node in nodes {
            states.push(node.state().await);
        }
        if states.iter().all(|state| *state == states[0] && state.0.len() == documents) {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "not converged: {:?}",
            states.iter().map(|s| (s.0.len(), &s.1)).collect::<Vec<_>>()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn two_replicas_converge_after_writing_apart_and_together() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (start(&network, 1, Kind::Documents, NOON), start(&network, 2, Kind::Documents, NOON + 500));
        for n in 0..50 {
            a.put(&format!("a{n}"), r#"{"by":"a"}"#).await;
            b.put(&format!("b{n}"), r#"{"by":"b"}"#).await;
            a.put("both", &format!(r#"{{"n":{n},"by":"a"}}"#)).await;
            b.put("both", &format!(r#"{{"n":{n},"by":"b"}}"#)).await;
        }
        network.connect(a.peer, b.peer).await;
        converged(&[&a, &b], 101).await;
        b.write(Op::Delete { key: Key::new("a0").unwrap(), must_exist: true }).await;
        a.put("late", "1.0").await;
        converged(&[&a, &b], 101).await;
        a.handle.stop().await;
        b.handle.stop().await;
    });
}

#[test]
fn commits_travel_through_a_middle_node_and_after_a_partition() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let nodes: Vec<_> = (1..=3).map(|seed| start(&network, seed, Kind::Documents, NOON)).collect();
        let [a, b, c] = &nodes[..] else { unreachable!() };
        network.connect(a.peer, b.peer).await;
        network.connect(b.peer, c.peer).await;
        for n in 0..20 {
            a.put(&format!("k{n}"), "true").await;
        }
        converged(&[a, b, c], 20).await;
        network.disconnect(b.peer, c.peer).await;
        a.put("apart", "1").await;
        c.put("apart", "2").await;
        c.put("from c", "2").await;
        network.connect(b.peer, c.peer).await;
        converged(&[a, b, c], 22).await;
    });
}

#[test]
fn records_of_an_append_dataset_are_pulled() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (start(&network, 1, Kind::Append, NOON), start(&network, 2, Kind::Append, NOON));
        network.connect(a.peer, b.peer).await;
        for n in 0..100 {
            a.write(Op::Append { value: json(&n.to_string()) }).await;
            b.write(Op::Append { value: json(&(1_000 + n).to_string()) }).await;
        }
        converged(&[&a, &b], 200).await;
    });
}

#[test]
fn a_writer_a_year_ahead_is_held_and_told() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (start(&network, 1, Kind::Documents, NOON + 365 * 86_400_000), start(&network, 2, Kind::Documents, NOON));
        a.put("early", "1").await;
        network.connect(a.peer, b.peer).await;
        a.put("k", "1").await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let (told, held) =
                (a.handle.dataset(&DatasetId::primary()).await.unwrap(), b.handle.dataset(&DatasetId::primary()).await.unwrap());
            let contents = held.contents.unwrap();
            assert_eq!(contents.documents, 0);
            if told.reason.is_some_and(|reason| reason.contains("holds back"))
                && contents.held.len() == 1
                && held.reason.is_some()
            {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the writer was not told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
