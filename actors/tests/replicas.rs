//! Nodes in one process, over stores in memory and a transport of channels: the actors as they ship, without a network.

#[path = "replicas/bad_frames.rs"]
mod bad_frames;
#[path = "replicas/floors.rs"]
mod floors;
#[path = "replicas/forks.rs"]
mod forks;
#[path = "replicas/receipts.rs"]
mod receipts;
#[path = "replicas/rights.rs"]
mod rights;
#[path = "replicas/rounds.rs"]
mod rounds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_actors::api::{LineageSetting, ListQuery, PeerState, WriteError};
use anabranch_actors::node::{AccessSettings, Clock, DatasetSettings, NodeHandle, NodeSettings, SyncSettings};
use anabranch_actors::runtime::Runtime;
use anabranch_actors::store::{FaultEngine, FaultPlan, MemoryEngine, OpenError, Store, StoreEngine};
use anabranch_actors::transport::{Class, EventSender, Transport, TransportError, TransportEvent};
use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Key, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Op, WriteOp, WriteRefusal, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::{Announce, Kind, Request, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

#[path = "replicas/collections.rs"]
mod collections;

/// Who can reach whom. Messages travel as bytes, so that what arrives went through the decoders.
#[derive(Debug, Default)]
struct Network {
    nodes: Mutex<BTreeMap<PeerId, EventSender>>,
    links: Mutex<Vec<(PeerId, PeerId)>>,
    /// Requests so far, by kind.
    requests: Mutex<BTreeMap<&'static str, usize>>,
    /// Requests of a kind that are lost from now on.
    lost: Mutex<BTreeMap<&'static str, usize>>,
    /// Bytes that are looked for in every message, and who sent them to whom.
    marker: Mutex<Vec<u8>>,
    carried: Mutex<Vec<(PeerId, PeerId)>>,
    /// Announcements are lost.
    silent: AtomicBool,
}

fn kind_of(request: &Request) -> &'static str {
    match request {
        Request::Hello(_) => "hello",
        Request::Heads(_) => "heads",
        Request::Round(_) => "round",
        Request::Pull(_) => "pull",
        Request::Push(_) => "push",
        Request::Confirm(_) => "confirm",
    }
}

impl Network {
    /// Notes who sends the marker to whom.
    fn look_at(&self, from: PeerId, to: PeerId, bytes: &[u8]) {
        let marker = self.marker.lock().unwrap();
        if !marker.is_empty() && bytes.windows(marker.len()).any(|window| window == &marker[..]) {
            self.carried.lock().unwrap().push((from, to));
        }
    }

    fn linked(&self, a: PeerId, b: PeerId) -> bool {
        self.links.lock().unwrap().iter().any(|link| *link == (a, b) || *link == (b, a))
    }

    fn requests(&self, kind: &'static str) -> usize {
        self.requests.lock().unwrap().get(kind).copied().unwrap_or_default()
    }

    fn lose(&self, kind: &'static str, count: usize) {
        self.lost.lock().unwrap().insert(kind, count);
    }

    fn is_lost(&self, kind: &'static str) -> bool {
        let mut lost = self.lost.lock().unwrap();
        let Some(left) = lost.get_mut(kind).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }

    /// How many requests of a kind there are while nothing happens.
    async fn requests_when_idle(&self, kind: &'static str) -> usize {
        let before = self.requests(kind);
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.requests(kind) - before
    }

    /// Waits until there are no more requests of a kind: twice the time in which a statement that is owed is made.
    async fn falls_silent(&self, kind: &'static str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut silent = 0;
        while silent < 4 {
            silent = if self.requests_when_idle(kind).await == 0 { silent + 1 } else { 0 };
            assert!(tokio::time::Instant::now() < deadline, "{kind} goes on though nothing happens");
        }
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
            *network.requests.lock().unwrap().entry(kind_of(&request)).or_default() += 1;
            if network.is_lost(kind_of(&request)) {
                return Err(TransportError::Timeout);
            }
            let bytes = request.encode();
            network.look_at(me, peer, &bytes);
            let request = Request::decode(&bytes).expect("our own requests decode");
            let (reply, response) = oneshot::channel();
            events.send(TransportEvent::Request { peer: me, request, reply }).await.map_err(|_| TransportError::NotConnected)?;
            let response = response.await.map_err(|_| TransportError::Timeout)?;
            let bytes = response.encode();
            network.look_at(peer, me, &bytes);
            Ok(Response::decode(&bytes).expect("our own responses decode"))
        }
        .boxed()
    }
    fn announce(&self, announce: Announce) {
        if self.network.silent.load(Ordering::Relaxed) {
            return;
        }
        let nodes = self.network.nodes.lock().unwrap();
        for (peer, events) in nodes.iter().filter(|(peer, _)| self.network.linked(self.me, **peer)) {
            assert_ne!(*peer, self.me);
            // Gossip may be lost, and here it is when the channel is full.
            let _ = events.try_send(TransportEvent::Announced { peer: self.me, announce: announce.clone() });
        }
    }
    fn subscribe(&self, _: DatasetId) {}
    fn unsubscribe(&self, _: DatasetId) {}
    fn accepted(&self, _: PeerId, _: Vec<String>) {}
    fn disconnect(&self, _: PeerId, _: &str) {}

    fn misbehaved(&self, _: PeerId, _: &str) {}
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
    start_with(network, seed, clock, engine, BTreeMap::from([(DatasetId::primary(), dataset(kind, Registration::all()))]))
}

fn dataset(kind: Kind, registration: Registration) -> DatasetSettings {
    let sync = SyncSettings {
        announce_interval: Duration::ZERO,
        anti_entropy_interval: Duration::from_secs(1),
        max_peers: 8,
        maintenance_interval: Duration::from_millis(5),
    };
    let (lineage, collections_max) = (LineageSetting::Open, Registration::all());
    DatasetSettings { kind, lineage, registration, collections_max, readers: Peers::All, writers: Peers::All, sync }
}

fn start_with(
    network: &Arc<Network>,
    seed: u8,
    clock: u64,
    engine: Arc<dyn StoreEngine>,
    datasets: BTreeMap<DatasetId, DatasetSettings>,
) -> TestNode {
    let identity = Identity::from_secret(&[seed; 32]);
    let peer = identity.peer();
    let settings = NodeSettings {
        runtime: Runtime::Threads,
        identity,
        incarnation: Incarnation([seed; 16]),
        data_dir: PathBuf::from("/nowhere"),
        cache_bytes: 1 << 20,
        max_clock_skew: Duration::from_secs(300),
        datasets,
        disabled: BTreeMap::new(),
        access: AccessSettings::default(),
        engine,
        clock: Arc::new(TestClock(AtomicU64::new(clock))),
        disk_patience: anabranch_actors::node::DISK_PATIENCE,
        probe: None,
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
        let request = WriteRequest::new(vec![WriteOp { collection: collection(), op }]);
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
        assert!(network.requests_when_idle("push").await <= 2, "what was refused is pushed over and over");
        assert!(network.requests_when_idle("pull").await <= 2);
    });
}

#[test]
fn a_peer_that_lacks_sections_is_not_asked_over_and_over_and_delivers_the_rest() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let only_orders = BTreeMap::from([(DatasetId::primary(), dataset(Kind::Documents, Registration::of([collection()])))]);
        let a = start(&network, 1, Kind::Documents, NOON);
        let b = start_with(&network, 2, NOON, Arc::new(MemoryEngine::default()), only_orders);
        let c = start(&network, 3, Kind::Documents, NOON);
        network.connect(a.peer, b.peer).await;
        network.connect(c.peer, b.peer).await;
        let secret = Op::Put { key: Key::new("s").unwrap(), value: json("1") };
        let secret = WriteOp { collection: Collection::new("secrets").unwrap(), op: secret };
        a.handle.write(&DatasetId::primary(), WriteRequest::new(vec![secret])).await.unwrap();
        a.put("of a", "1").await;
        b.put("of b", "1").await;
        // B has both documents; C must not have A's, whose first commit it can't have whole.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while b.state().await.0.len() < 2 || c.state().await.0.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "what B can deliver does not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(network.requests_when_idle("pull").await <= 3, "what B lacks is asked for over and over");
        // Another peer has it.
        network.connect(c.peer, a.peer).await;
        converged(&[&a, &c], 2).await;
    });
}

/// A peer that is gone while it is asked leaves its writers to the others at once, and what it had under way touches no later
/// session.
#[test]
fn links_that_come_and_go_while_everybody_writes_end_equal() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let nodes: Vec<_> = (1..=3).map(|seed| start(&network, seed, Kind::Documents, NOON)).collect();
        let [a, b, c] = &nodes[..] else { unreachable!() };
        network.connect(a.peer, b.peer).await;
        network.connect(b.peer, c.peer).await;
        network.connect(c.peer, a.peer).await;
        for n in 0..30 {
            network.lose("push", n % 3);
            network.lose("pull", n % 2);
            for (node, name) in [(a, "a"), (b, "b"), (c, "c")] {
                node.put(&format!("{name}{n}"), "true").await;
            }
            if n % 5 == 4 {
                network.disconnect(a.peer, b.peer).await;
                network.connect(b.peer, a.peer).await;
            }
        }
        converged(&[a, b, c], 90).await;
        for kind in ["push", "pull"] {
            assert!(network.requests_when_idle(kind).await <= 2, "{kind} goes on though all are equal");
        }
    });
}

/// From now on this thread's clock stands unless it is advanced; other threads keep the real one.
fn move_clock_by_hand() {
    tokio::time::pause();
    // While something always runs the clock is not moved on by itself.
    actix::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
}

/// Lets everything run until something is so; false after half a minute of real time, while the virtual clock stands.
async fn settled(mut condition: impl FnMut() -> bool) -> bool {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !condition() && std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
    condition()
}

/// Lets everybody do what there is to do.
async fn settle() {
    let until = std::time::Instant::now() + Duration::from_millis(50);
    while std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// Two nodes that refuse each other a dataset ask again every 15 seconds, not twice as often each time.
#[test]
fn refused_datasets_are_asked_about_again_but_no_more_often_than_before() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (start(&network, 1, Kind::Documents, NOON), start(&network, 2, Kind::Append, NOON));
        a.handle.open_all().await;
        b.handle.open_all().await;
        move_clock_by_hand();
        network.connect(a.peer, b.peer).await;
        settle().await;
        let first = network.requests("hello");
        assert!(first >= 1);
        for _ in 0..6 {
            tokio::time::advance(Duration::from_secs(16)).await;
            settle().await;
        }
        let hellos = network.requests("hello") - first;
        assert!((6..=12).contains(&hellos), "{hellos} in six rounds");
    });
}

/// Opens one dataset's store through the fault plan, the others' as they are.
#[derive(Debug)]
struct OneFaulty {
    dataset: &'static str,
    memory: MemoryEngine,
    faulty: FaultEngine,
}

impl OneFaulty {
    fn new(dataset: &'static str, plan: &FaultPlan) -> Self {
        let memory = MemoryEngine::default();
        Self { dataset, faulty: FaultEngine::new(Arc::new(memory.clone()), plan.clone()), memory }
    }
}

impl StoreEngine for OneFaulty {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        if dir.ends_with(self.dataset) { self.faulty.open(dir, cache_bytes) } else { self.memory.open(dir, cache_bytes) }
    }
}

#[test]
fn a_dataset_that_hangs_while_it_opens_keeps_no_other_from_syncing() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let datasets = || {
            let slow = DatasetId::new("a-slow-one").unwrap();
            let settings = dataset(Kind::Documents, Registration::all());
            BTreeMap::from([(slow, settings.clone()), (DatasetId::primary(), settings)])
        };
        let plan = FaultPlan::default();
        plan.reload("open:hang:count=forever").unwrap();
        let a = start_with(&network, 1, NOON, Arc::new(OneFaulty::new("a-slow-one", &plan)), datasets());
        let b = start_with(&network, 2, NOON, Arc::new(MemoryEngine::default()), datasets());
        a.put("k", "1").await;
        b.handle.open_all().await;
        // What runs already is not what peers are greeted for anew.
        tokio::time::sleep(Duration::from_millis(100)).await;
        network.connect(a.peer, b.peer).await;
        let both = [&a, &b];
        let synced = converged(&both, 1);
        assert!(tokio::time::timeout(Duration::from_secs(8), synced).await.is_ok(), "a Hello waits for a dataset that hangs");
        plan.clear();
        // And once it is open it syncs, too.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let slow = DatasetId::new("a-slow-one").unwrap();
        let (orders, key) = (collection(), Key::new("k").unwrap());
        let op = Op::Put { key: key.clone(), value: json("1") };
        let request = WriteRequest::new(vec![WriteOp { collection: orders.clone(), op }]);
        a.handle.write(&slow, request).await.unwrap();
        while b.handle.get(&slow, &orders, &key).await.unwrap().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "peers were not greeted for it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_slow_disk_under_many_questions_is_not_taken_for_a_dead_one() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone());
        let a = start_on(&network, 1, Kind::Documents, NOON, Arc::new(engine));
        let b = start(&network, 2, Kind::Documents, NOON);
        a.put("before", "1").await;
        b.put("before", "1").await;
        plan.reload("barrier:delay:ms=1000").unwrap();
        let slow = a.put("slow", "1");
        let asked = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = futures::future::join_all((0..100).map(|_| a.handle.datasets()));
            let connected = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                network.connect(a.peer, b.peer).await;
            };
            futures::join!(asked, connected)
        };
        futures::join!(slow, asked);
        converged(&[&a, &b], 2).await;
        assert_eq!(a.handle.dataset(&DatasetId::primary()).await.unwrap().restarts, 0);
    });
}

#[test]
fn a_lost_statement_is_made_again_though_nothing_else_happens() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (start(&network, 1, Kind::Documents, NOON), start(&network, 2, Kind::Documents, NOON));
        network.connect(a.peer, b.peer).await;
        a.put("first", "1").await;
        converged(&[&a, &b], 1).await;
        network.falls_silent("confirm").await;
        network.lose("confirm", 1);
        let before = network.requests("confirm");
        a.put("second", "1").await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while network.requests("confirm") < before + 2 {
            assert!(tokio::time::Instant::now() < deadline, "a lost statement is not made again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        network.falls_silent("confirm").await;
    });
}

/// Stores fail, actors are rebuilt and links break while three nodes write to two datasets: what was acknowledged is everywhere.
#[test]
fn what_was_acknowledged_survives_failing_stores_and_links_on_every_node() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let datasets = [DatasetId::primary(), DatasetId::new("other").unwrap()];
        let all = || datasets.iter().map(|id| (id.clone(), dataset(Kind::Documents, Registration::all()))).collect();
        let plans: Vec<FaultPlan> = (0..3).map(|_| FaultPlan::default()).collect();
        let engine = |n: usize| Arc::new(FaultEngine::new(Arc::new(MemoryEngine::default()), plans[n].clone()));
        let nodes: Vec<_> = (0..3_u8).map(|n| start_with(&network, n + 1, NOON, engine(n.into()), all())).collect();
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            network.connect(nodes[a].peer, nodes[b].peer).await;
        }
        let mut acked = vec![Vec::new(); datasets.len()];
        let faults =
            ["barrier:error:after=3", "put:error:after=11", "barrier:panic:after=2", "put:enospc:after=30", "scan:error"];
        for round in 0..60 {
            if round % 10 == 5 {
                plans[round % 3].reload(faults[(round / 10) % faults.len()]).unwrap();
            }
            if round % 15 == 14 {
                let (a, b) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
                network.disconnect(a.peer, b.peer).await;
                network.connect(b.peer, a.peer).await;
            }
            network.lose("push", round % 2);
            for (n, node) in nodes.iter().enumerate() {
                for (d, id) in datasets.iter().enumerate() {
                    let key = format!("{n}-{round}");
                    let op = Op::Put { key: Key::new(&key).unwrap(), value: json("1") };
                    let request = WriteRequest::new(vec![WriteOp { collection: collection(), op }]);
                    if node.handle.write(id, request).await.is_ok() {
                        acked[d].push(key);
                    }
                }
            }
        }
        plans.iter().for_each(FaultPlan::clear);
        for (id, acked) in datasets.iter().zip(&acked) {
            assert!(acked.len() > 100, "{} writes were acknowledged", acked.len());
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            loop {
                let mut states = Vec::new();
                for node in &nodes {
                    let query = ListQuery { limit: 10_000, ..ListQuery::default() };
                    let keys = node
                        .handle
                        .list(id, &collection(), query)
                        .await
                        .map(|page| page.documents.into_iter().map(|document| document.key.to_string()).collect::<Vec<_>>());
                    let contents = node.handle.dataset(id).await.unwrap().contents;
                    states.push((keys, contents.map(|contents| (contents.fingerprint, contents.vector))));
                }
                let equal = states.iter().all(|state| *state == states[0] && state.1.is_some());
                if let (true, Ok(keys)) = (equal, &states[0].0) {
                    assert!(acked.iter().all(|key| keys.contains(key)), "acknowledged and lost");
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "not converged: {states:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for kind in ["push", "pull", "hello"] {
            assert!(network.requests_when_idle(kind).await <= 4, "{kind} goes on though all are equal");
        }
    });
}

#[test]
fn a_disk_that_hangs_keeps_no_caller_for_ever() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let plan = FaultPlan::default();
        let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone());
        let a = start_on(&network, 1, Kind::Documents, NOON, Arc::new(engine));
        a.put("before", "1").await;
        plan.reload("barrier:hang:count=forever;scan:hang:count=forever").unwrap();
        move_clock_by_hand();
        let (writer, reader) = (a.handle.clone(), a.handle.clone());
        let write = actix::spawn(async move {
            let op = Op::Put { key: Key::new("k").unwrap(), value: json("1") };
            let request = WriteRequest::new(vec![WriteOp { collection: collection(), op }]);
            writer.write(&DatasetId::primary(), request).await
        });
        let query = ListQuery { limit: 10, ..ListQuery::default() };
        assert!(settled(|| plan.struck() >= 1).await, "the write hangs");
        let read = actix::spawn(async move { reader.list(&DatasetId::primary(), &collection(), query).await });
        // Both are with the disk before the clock moves: a write that has not got there is refused, not unknown.
        assert!(settled(|| plan.struck() >= 2).await, "so does the read");
        assert!(!write.is_finished() && !read.is_finished());
        tokio::time::advance(Duration::from_secs(61)).await;
        let answered = settled(|| write.is_finished() && read.is_finished()).await;
        plan.clear();
        assert!(answered, "callers hang with the disk");
        let outcome = write.await.unwrap();
        assert!(matches!(outcome, Err(WriteError::Unknown { .. })), "{outcome:?}");
        assert!(read.await.unwrap().is_err());
    });
}
