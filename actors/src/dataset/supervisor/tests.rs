//! Panics everywhere and disks that hang: the dataset comes back with all it acknowledged, and no other one notices.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, Key, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::{Announce, Kind, Request, Response};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::clock::AskStandings;
use super::super::handle::DatasetHandle;
use super::*;
use crate::api::{DatasetError, Document, WriteError};
use crate::dataset::lineage::LineageSetting;
use crate::node::{AccessSettings, SyncSettings};
use crate::store::{FaultEngine, FaultPlan, MemoryEngine, OpenError, Row, Store, StoreEngine, StoreError, Visitor};
use crate::transport::{Class, Transport, TransportError};

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Alone;

impl Transport for Alone {
    fn request(&self, _: PeerId, _: Class, _: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        async { Err(TransportError::NotConnected) }.boxed()
    }
    fn announce(&self, _: Announce) {}
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
struct Noon;

impl crate::node::Clock for Noon {
    fn now(&self) -> WallClock {
        WallClock(1_700_000_000_000)
    }
}

/// Counts the stores that are open on each directory, and remembers the most.
#[derive(Debug, Clone)]
struct Tenants {
    inner: Arc<dyn StoreEngine>,
    open: Arc<Mutex<BTreeMap<PathBuf, usize>>>,
    most: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Tenant {
    inner: Option<Arc<dyn Store>>,
    directory: PathBuf,
    tenants: Tenants,
}

impl StoreEngine for Tenants {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let now = {
            let mut open = self.open.lock().unwrap();
            let now = open.entry(dir.to_owned()).or_default();
            *now += 1;
            *now
        };
        self.most.fetch_max(now, Ordering::Relaxed);
        let mut tenant = Tenant { inner: None, directory: dir.to_owned(), tenants: self.clone() };
        tenant.inner = Some(self.inner.open(dir, cache_bytes)?);
        Ok(Arc::new(tenant))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.inner = None;
        *self.tenants.open.lock().unwrap().get_mut(&self.directory).unwrap() -= 1;
    }
}

impl Tenant {
    fn store(&self) -> &dyn Store {
        &**self.inner.as_ref().unwrap()
    }
}

impl Store for Tenant {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store().get(key)
    }
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.store().put(key, value)
    }
    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.store().delete(key)
    }
    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.store().scan(start, end, visit)
    }
    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        self.store().last(start, end)
    }
    fn barrier(&self) -> Result<(), StoreError> {
        self.store().barrier()
    }
    fn size_bytes(&self) -> u64 {
        self.store().size_bytes()
    }
}

/// Two datasets of one node; all faults are meant for `logs`.
struct World {
    plan: FaultPlan,
    most: Arc<AtomicUsize>,
    logs: DatasetHandle,
    primary: DatasetHandle,
    acked: usize,
}

fn settings(engine: Arc<dyn StoreEngine>, plan: &FaultPlan, disk_patience: Duration) -> NodeSettings {
    NodeSettings {
        runtime: crate::runtime::Runtime::Threads,
        identity: Identity::from_secret(&[7; 32]),
        incarnation: Incarnation([7; 16]),
        data_dir: PathBuf::from("/nowhere"),
        cache_bytes: 0,
        max_clock_skew: Duration::from_secs(300),
        access: AccessSettings::default(),
        datasets: BTreeMap::new(),
        disabled: BTreeMap::new(),
        engine,
        clock: Arc::new(Noon),
        disk_patience,
        probe: Some(Arc::new(plan.clone())),
    }
}

fn start(node: &NodeSettings, name: &str) -> DatasetHandle {
    start_at_pace(node, name, Duration::from_secs(60))
}

fn start_at_pace(node: &NodeSettings, name: &str, maintenance_interval: Duration) -> DatasetHandle {
    start_as(Kind::Documents, node, name, maintenance_interval)
}

fn start_as(kind: Kind, node: &NodeSettings, name: &str, maintenance_interval: Duration) -> DatasetHandle {
    let dataset = DatasetId::new(name).unwrap();
    let sync = SyncSettings {
        announce_interval: Duration::ZERO,
        anti_entropy_interval: Duration::from_secs(1),
        max_peers: 8,
        maintenance_interval,
    };
    let settings = DatasetSettings {
        kind,
        registration: Registration::all(),
        readers: Peers::All,
        writers: Peers::All,
        lineage: LineageSetting::Open,
        collections_max: Registration::all(),
        sync,
    };
    DatasetHandle::start(SupervisorContext {
        asides: Asides::in_data_dir(&node.data_dir, &dataset),
        dataset,
        settings,
        node: node.clone(),
        cache_bytes: 0,
        audit_bytes_max: u64::MAX,
        transport: Arc::new(Alone),
        news: mpsc::unbounded_channel().0,
        counters: Arc::default(),
    })
}

fn collection() -> Collection {
    Collection::new("c").unwrap()
}

fn key(number: usize) -> Key {
    Key::new(&format!("k{number}")).unwrap()
}

async fn put(handle: &DatasetHandle, number: usize) -> Result<(), WriteError> {
    let op = Op::Put { key: key(number), value: Value::from_json(b"1").unwrap().encode() };
    let request = WriteRequest::new(vec![WriteOp { collection: collection(), op }]);
    let written = tokio::time::timeout(DEADLINE, handle.write(request)).await;
    written.expect("no caller ever hangs").map(drop)
}

impl World {
    fn new(disk_patience: Duration) -> Self {
        let plan = FaultPlan::default();
        let engine = Arc::new(FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone()));
        let most = Arc::new(AtomicUsize::new(0));
        let engine = Tenants { inner: engine, open: Arc::default(), most: most.clone() };
        let node = settings(Arc::new(engine), &plan, disk_patience);
        Self { plan, most, logs: start(&node, "logs"), primary: start(&node, "primary"), acked: 0 }
    }

    /// Writes until it is acknowledged.
    async fn write(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            put(&self.primary, self.acked).await.expect("the other dataset never notices");
            match put(&self.logs, self.acked).await {
                Ok(()) => break self.acked += 1,
                Err(error) => assert!(Instant::now() < deadline, "logs never came back: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads until the dataset answers: a fault strikes a moment before anybody notices.
    async fn read(&self, number: usize) -> Result<Option<Document>, DatasetError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.logs.get(collection(), key(number)).await {
                Err(DatasetError::Unavailable { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                found => break found,
            }
        }
    }

    async fn strike(&mut self, rules: &str) {
        let before = self.plan.struck();
        self.plan.reload(rules).unwrap();
        self.struck_since(before).await;
    }

    async fn struck_since(&self, before: u64) {
        let deadline = Instant::now() + DEADLINE;
        while self.plan.struck() == before {
            assert!(Instant::now() < deadline, "the fault never struck");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Everything acknowledged is there, the other dataset did not notice, and no directory ever had two stores open.
    async fn is_well(&mut self, what: &str) {
        self.write().await;
        for number in 0..self.acked {
            let found = self.read(number).await;
            assert!(matches!(found, Ok(Some(_))), "{what}: {number} of {} is {found:?}", self.acked);
        }
        assert_eq!(self.primary.info().await.restarts, 0, "{what}");
        assert_eq!(self.most.load(Ordering::Relaxed), 1, "{what}: two stores were open on one directory");
    }

    async fn stop(self) {
        self.logs.stop("stopped by the test").await;
        self.primary.stop("stopped by the test").await;
    }
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

#[test]
fn a_child_may_panic_at_any_moment() {
    run(async {
        let mut world = World::new(DEADLINE);
        world.write().await;
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Supervisor) {
            for moment in [Moment::Started, Moment::Timer, Moment::Future, Moment::Stopping, Moment::Dropped] {
                let what = format!("{}.{}", role.as_str(), moment.as_str());
                let before = world.logs.info().await.restarts;
                world.write().await;
                let struck = world.plan.struck();
                world.plan.reload(&format!("{what}:panic:dataset=logs")).unwrap();
                if !matches!(moment, Moment::Timer | Moment::Future) {
                    world.logs.order(Order::Restart).await;
                }
                world.struck_since(struck).await;
                // One that panics when it is stopped anyway takes nobody with it.
                let needed = matches!(moment, Moment::Started | Moment::Timer | Moment::Future);
                let deadline = Instant::now() + DEADLINE;
                while needed && world.logs.info().await.restarts == before {
                    assert!(Instant::now() < deadline, "{what}: no restart");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                world.is_well(&what).await;
                // Ten in a minute are the budget; this is about panics.
                world.plan.clear();
                world.logs.order(Order::Restart).await;
            }
        }
        world.stop().await;
    });
}

#[test]
fn a_supervisor_may_panic_at_any_moment() {
    run(async {
        let mut world = World::new(DEADLINE);
        world.write().await;
        for rules in [
            "supervisor.timer:panic:dataset=logs",
            "supervisor.future:panic:dataset=logs",
            "supervisor.child_ended:panic:dataset=logs;clock.timer:panic:dataset=logs",
            "supervisor.timer:panic:dataset=logs;supervisor.started:panic:count=3:dataset=logs",
            "supervisor.timer:panic:dataset=logs;oplog.stopping:panic:dataset=logs;sync.dropped:panic:dataset=logs",
        ] {
            // With all of its children, so that there is somebody to strike.
            world.write().await;
            let before = world.logs.info().await.restarts;
            let rules_struck = rules.split(';').count() as u64;
            let struck = world.plan.struck();
            world.strike(rules).await;
            // The others strike while everything is stopped for the first.
            let deadline = Instant::now() + DEADLINE;
            while world.plan.struck() < struck + rules_struck {
                assert!(Instant::now() < deadline, "{rules}: not all of them struck");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.is_well(rules).await;
            assert!(world.logs.info().await.restarts > before, "{rules}");
            world.logs.order(Order::Restart).await;
        }
        world.stop().await;
    });
}

#[test]
fn a_supervisor_that_panics_from_the_start_is_failed_and_comes_back_when_it_is_asked_to() {
    run(async {
        let mut world = World::new(DEADLINE);
        world.strike("supervisor.timer:panic:dataset=logs;supervisor.started:panic:count=forever:dataset=logs").await;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let error = put(&world.logs, 0).await.unwrap_err();
            let WriteError::Dataset(DatasetError::Unavailable { state, reason, .. }) = error else { panic!("{error}") };
            put(&world.primary, 0).await.unwrap();
            if state == DatasetState::Failed {
                break assert_eq!(reason, "its supervisor panicked");
            }
            assert!(Instant::now() < deadline, "never called failed: {state:?} {reason}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.plan.clear();
        // Long before it would be tried again by itself.
        world.logs.order(Order::Restart).await;
        world.is_well("after a restart").await;
        world.stop().await;
    });
}

#[test]
fn a_pause_outlives_the_supervisor_that_was_told() {
    run(async {
        let mut world = World::new(DEADLINE);
        world.write().await;
        world.logs.order(Order::Pause).await;
        world.strike("supervisor.timer:panic:dataset=logs").await;
        // An order goes to the next supervisor if there is none at the moment.
        world.logs.order(Order::Pause).await;
        let info = world.logs.info().await;
        assert_eq!(info.state, DatasetState::Paused, "{info:?}");
        world.strike("supervisor.timer:panic:dataset=logs").await;
        let deadline = Instant::now() + DEADLINE;
        while world.logs.info().await.state != DatasetState::Paused {
            assert!(Instant::now() < deadline, "the pause is forgotten");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.logs.order(Order::Resume).await;
        world.is_well("after a resume").await;
        world.stop().await;
    });
}

#[test]
fn the_gate_is_shut_before_anything_else_happens_on_the_arbiter() {
    run(async {
        let mut world = World::new(DEADLINE);
        world.write().await;
        // Nothing else of the dataset: a view that is held keeps its store open.
        let clock = world.logs.running().await.unwrap().clock;
        let gate = world.logs.gate();
        let (answer, answered) = oneshot::channel();
        world.logs.place().spawn(async move {
            // On this thread nothing comes between the panic and whoever it wakes: the first question without an answer.
            loop {
                let (reply, standings) = oneshot::channel();
                clock.do_send(AskStandings(reply));
                if standings.await.is_err() {
                    break;
                }
            }
            let shut = matches!(&*gate.borrow(), Gate::Down { reason, .. } if reason.contains("clock"));
            answer.send(shut).unwrap();
        });
        world.plan.reload("clock.timer:panic:dataset=logs").unwrap();
        assert!(tokio::time::timeout(DEADLINE, answered).await.unwrap().unwrap(), "the gate was still open");
        world.is_well("after the panic").await;
        world.stop().await;
    });
}

#[test]
fn a_disk_that_hangs_takes_one_dataset_down_until_it_answers() {
    run(async {
        let mut world = World::new(Duration::from_millis(200));
        world.write().await;
        for rule in ["barrier:hang", "put:hang", "barrier:hang:when=after"] {
            world.plan.reload(&format!("{rule}:count=forever:dataset=logs")).unwrap();
            let error = put(&world.logs, 1_000).await.unwrap_err();
            assert!(matches!(&error, WriteError::Unknown { reason, .. } if reason.contains("does not answer")), "{error}");
            put(&world.primary, 1_000).await.expect("the other dataset never notices");
            let error = put(&world.logs, 1_001).await.unwrap_err();
            assert!(matches!(&error, WriteError::Dataset(DatasetError::Unavailable { .. })), "{error}");
            let reason = world.logs.info().await.reason.unwrap();
            assert!(reason.contains("does not answer"), "{reason}");
            world.plan.clear();
            world.logs.order(Order::Restart).await;
            world.is_well(rule).await;
        }
        world.stop().await;
    });
}

#[test]
fn a_read_that_hangs_takes_the_dataset_down_until_it_returns() {
    run(async {
        let mut world = World::new(Duration::from_millis(200));
        world.write().await;
        world.plan.reload("get:hang:count=forever:dataset=logs").unwrap();
        let error = tokio::time::timeout(DEADLINE, world.logs.get(collection(), key(0))).await.unwrap().unwrap_err();
        assert!(matches!(&error, DatasetError::Storage { reason, .. } if reason.contains("has not returned")), "{error}");
        let deadline = Instant::now() + DEADLINE;
        while !world.logs.info().await.reason.is_some_and(|reason| reason.contains("does not answer")) {
            assert!(Instant::now() < deadline, "nobody says that the disk hangs");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        put(&world.primary, 0).await.expect("the other dataset never notices");
        world.plan.clear();
        world.is_well("after the read returned").await;
        world.stop().await;
    });
}

#[test]
fn a_full_disk_is_read_takes_no_writes_and_needs_no_restart() {
    run(async {
        let mut world = World::new(DEADLINE);
        world.write().await;
        for rules in [
            "put:enospc:count=forever:dataset=logs",
            "barrier:enospc:count=forever:dataset=logs;put:enospc:after=40:count=forever:dataset=logs",
            // The frame is durable, its rows are not there.
            "put:enospc:after=3:count=forever:dataset=logs",
        ] {
            world.plan.reload(rules).unwrap();
            let deadline = Instant::now() + DEADLINE;
            let mut full = 0;
            while full < 5 {
                match put(&world.logs, 5_000).await {
                    Err(WriteError::NoSpace { .. }) => full += 1,
                    Ok(()) => assert!(Instant::now() < deadline, "the disk never was full"),
                    Err(error) => panic!("{rules}: {error}"),
                }
                // Not one read fails.
                for number in 0..world.acked {
                    let found = world.logs.get(collection(), key(number)).await;
                    assert!(matches!(found, Ok(Some(_))), "{rules}: {found:?}");
                }
                put(&world.primary, 5_000).await.expect("the other dataset never notices");
            }
            let info = world.logs.info().await;
            assert_eq!(info.state, DatasetState::Running, "{info:?}");
            assert!(info.reason.is_some_and(|reason| reason.contains("no space left")));
            world.plan.clear();
            world.write().await;
            world.is_well(rules).await;
            assert_eq!((world.logs.info().await.reason, world.logs.info().await.restarts), (None, 0), "{rules}");
        }
        world.stop().await;
    });
}

#[test]
fn a_write_is_measured_once_it_is_durable_and_a_refused_one_is_not() {
    run(async {
        let world = World::new(DEADLINE);
        let measured = || world.logs.counters().measures.measured().commit_latency.count();
        for n in 1..=3 {
            put(&world.logs, 1).await.unwrap();
            assert_eq!(measured(), n);
        }
        let op = Op::Delete { key: key(99), must_exist: true };
        let refused = world.logs.write(WriteRequest::new(vec![WriteOp { collection: collection(), op }])).await;
        assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
        world.plan.reload("barrier:error:dataset=logs").unwrap();
        assert!(matches!(put(&world.logs, 1).await, Err(WriteError::Unknown { .. })));
        assert_eq!(measured(), 3);
        world.stop().await;
    });
}

mod audit;
mod reopen;
