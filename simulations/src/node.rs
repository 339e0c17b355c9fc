//! A simulated node: the shipped actors in a `LocalSet` of their own, on a disk, a clock and a wire of their own. Dropping the
//! `LocalSet` is `kill -9`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use anabranch_actors::api::LineageSetting;
use anabranch_actors::dataset::supervisor::Running;
use anabranch_actors::node::{AccessSettings, DISK_PATIENCE, DatasetSettings, NodeHandle, NodeSettings, SyncSettings};
use anabranch_actors::probe::{Moment, Probe, Role};
use anabranch_actors::runtime::{OneThread, Runtime, Work};
use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Lineage};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::wire::Kind;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::clock::SimulatedClock;
use crate::disk::Disk;
use crate::network::Network;
use crate::rng::Rng;

/// Events that may wait for the node: past it the transport stops reading, as the swarm does.
const EVENTS_MAX: usize = 256;

/// A dataset as every node of a world is configured with it.
#[derive(Debug, Clone)]
pub struct DatasetPlan {
    /// Its name.
    pub id: DatasetId,
    /// What it holds.
    pub kind: Kind,
    /// Collections that a node registers; others stay on it.
    pub registered: Vec<Collection>,
}

/// What is the same in all lives of a node.
#[derive(Debug)]
pub struct SimulatedNode {
    /// Its place in the world.
    pub index: usize,
    /// Who it is.
    pub identity: Identity,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Where its small files are.
    pub data_dir: PathBuf,
    /// Its disk.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: Arc<SimulatedClock>,
    /// What it is configured with; may differ from other nodes'.
    pub datasets: Vec<DatasetPlan>,
    /// Its life, while it is up.
    pub life: Option<Life>,
    /// Lives so far.
    pub lives: u64,
    /// Its randomness, over all lives.
    pub rng: Arc<Mutex<Rng>>,
    /// Where its actors panic next.
    pub panics: Arc<Panics>,
}

/// One life.
#[derive(Debug)]
pub struct Life {
    slot: Rc<Slot>,
    /// The node.
    pub handle: NodeHandle,
}

#[derive(Debug)]
struct Slot {
    local: RefCell<Option<LocalSet>>,
    /// It is stopped as by `SIGSTOP`.
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// It is killed after so many more polls.
    dies_in: Cell<Option<u64>>,
}

/// What a node on the world's thread is given.
#[derive(Debug)]
struct Stage {
    rng: Arc<Mutex<Rng>>,
    disk: Disk,
}

impl OneThread for Stage {
    fn fill_random(&self, bytes: &mut [u8]) {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }

    fn work(&self, _: PathBuf, work: Work) -> BoxFuture<'static, ()> {
        let takes = self.disk.takes(work);
        tokio::time::sleep(takes).boxed()
    }
}

/// Panics that are due, by dataset.
#[derive(Debug, Default)]
pub struct Panics(Mutex<BTreeMap<DatasetId, Vec<(Role, Moment)>>>);

/// What a planned panic says, so that it is told from a real one.
pub const PLANNED_PANIC: &str = "a planned panic";

impl Panics {
    /// An actor of a dataset panics when it gets there next.
    pub fn plan(&self, dataset: DatasetId, role: Role, moment: Moment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(dataset).or_default().push((role, moment));
    }

    /// Nothing is planned any more.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Probe for Panics {
    fn at(&self, dataset: &DatasetId, role: Role, moment: Moment) {
        let due = {
            let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            planned.get_mut(dataset).and_then(|planned| {
                let found = planned.iter().position(|one| *one == (role, moment))?;
                Some(planned.remove(found))
            })
        };
        assert!(due.is_none(), "{PLANNED_PANIC}");
    }

    /// Rarely enough that a world has other things to do: hundreds of actors have two such timers each.
    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }
}

/// What all datasets of a world have in common.
pub const LINEAGE: Lineage = Lineage([7; 16]);

/// How datasets of a world sync.
#[must_use]
pub fn sync_settings() -> SyncSettings {
    SyncSettings {
        announce_interval: Duration::ZERO,
        anti_entropy_interval: Duration::from_secs(5),
        max_peers: 8,
        maintenance_interval: Duration::from_secs(5),
    }
}

impl DatasetPlan {
    fn settings(&self) -> DatasetSettings {
        DatasetSettings {
            kind: self.kind,
            lineage: LineageSetting::Fixed(LINEAGE),
            registration: Registration::of(self.registered.iter().cloned()),
            collections_max: Registration::all(),
            readers: Peers::All,
            writers: Peers::All,
            sync: sync_settings(),
        }
    }
}

impl SimulatedNode {
    fn settings(&self) -> NodeSettings {
        NodeSettings {
            identity: self.identity.clone(),
            incarnation: self.incarnation,
            data_dir: self.data_dir.clone(),
            cache_bytes: 1 << 20,
            max_clock_skew: MAX_CLOCK_SKEW,
            access: AccessSettings::default(),
            datasets: self.datasets.iter().map(|plan| (plan.id.clone(), plan.settings())).collect(),
            disabled: BTreeMap::new(),
            engine: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            runtime: Runtime::OneThread(Arc::new(Stage { rng: self.rng.clone(), disk: self.disk.clone() })),
            disk_patience: DISK_PATIENCE,
            probe: Some(self.panics.clone()),
        }
    }

    /// Starts it, as a process is started.
    pub fn start(&mut self, network: &Network) {
        let local = LocalSet::new();
        let handle = {
            let _inside = local.enter();
            let (events, inbox) = mpsc::channel(EVENTS_MAX);
            let wire = network.up(self.index, events);
            let handle = NodeHandle::start(self.settings(), wire, inbox);
            let all = handle.clone();
            tokio::task::spawn_local(async move { all.open_all().await });
            handle
        };
        let slot = Rc::new(Slot {
            local: RefCell::new(Some(local)),
            stopped: Cell::new(false),
            waker: RefCell::default(),
            dies_in: Cell::new(None),
        });
        tokio::task::spawn_local(slot.clone().run(self.disk.clone()));
        self.lives += 1;
        self.life = Some(Life { slot, handle });
    }

    /// Kills it: what was not flushed is lost, or some of it.
    pub fn kill(&mut self, network: &Network, vanished: bool) {
        self.panics.clear();
        if let Some(life) = self.life.take() {
            network.down(self.index, vanished);
            drop(life.slot.local.borrow_mut().take());
            life.slot.wake();
            self.disk.crash(&self.data_dir);
        }
    }

    /// Whether its process was killed from within, by its disk.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.life.is_some() && self.disk.is_doomed()
    }

    /// Where a dataset's files are.
    #[must_use]
    pub fn directory(&self, dataset: &DatasetId) -> PathBuf {
        Path::new(&self.data_dir).join("datasets").join(dataset.as_str())
    }

    /// The children of a dataset that runs now.
    #[must_use]
    pub fn running(&self, dataset: &DatasetId) -> Option<Running> {
        self.life.as_ref()?.handle.actors(dataset).ok()?.running_now()
    }
}

/// How far ahead of a node's clock a stamp may be.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

impl Life {
    /// Runs a task in the node's process; nothing comes of it if the process dies.
    pub fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> oneshot::Receiver<T> {
        let (done, outcome) = oneshot::channel();
        if let Some(local) = &*self.slot.local.borrow() {
            local.spawn_local(async move {
                // Whoever waited may have given up.
                let _ = done.send(task.await);
            });
        }
        self.slot.wake();
        outcome
    }

    /// Kills it after so many more polls of its tasks: at whatever they wait for then.
    pub fn dies_in(&self, polls: Option<u64>) {
        self.slot.dies_in.set(polls);
    }

    /// Stops it, as by `SIGSTOP`, or lets it go on.
    pub fn stop(&self, stopped: bool) {
        self.slot.stopped.set(stopped);
        self.slot.wake();
    }
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Runs the process until it is killed.
    async fn run(self: Rc<Self>, disk: Disk) {
        poll_fn(|context| {
            *self.waker.borrow_mut() = Some(context.waker().clone());
            if disk.is_doomed() {
                self.local.borrow_mut().take();
            }
            let mut local = self.local.borrow_mut();
            let Some(running) = local.as_mut() else { return Poll::Ready(()) };
            if !self.stopped.get() {
                let _ = Pin::new(running).poll(context);
                match self.dies_in.get() {
                    Some(0) => disk.doom(),
                    left => self.dies_in.set(left.map(|left| left - 1)),
                }
            }
            if disk.is_doomed() {
                local.take();
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}
