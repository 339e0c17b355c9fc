//! A world: nodes, network, disks and clocks on one thread, what happens to them, and who looks.

mod application;
mod clients;
mod copying;
mod faulting;
mod looking;
mod membership;
mod plan;
mod report;
mod settling;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use anabranch_protocol::commit::{Identity, remember_signatures};
use anabranch_protocol::id::Incarnation;
use tokio::task::LocalSet;
use tokio::time::Instant;

pub use self::application::Scripted;
use self::looking::Seen;
pub(crate) use self::plan::identity;
use self::plan::{datasets, topology};
pub use self::report::{Lag, LifeSpan, NodeReport, Report};
use crate::clock::SimulatedClock;
use crate::disk::Disk;
use crate::faults::{self, Fault};
use crate::invariants::{self, Excuses, Invariant, Message, Violation};
use crate::network::Network;
use crate::node::{DatasetPlan, PLANNED_PANIC, Panics, SimulatedNode};
use crate::options::Options;
use crate::oracle::Operation;
use crate::rng::Rng;
use crate::sometimes::Sometimes;
use crate::trace::Trace;
use crate::workload;

/// How much of the work is done before faults stop, in thousandths.
const FIRST_PHASE: u64 = 800;

/// How often an application looks for what is new.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What the world does next.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Write,
    Look,
    /// Looks at one node as soon as its datasets run.
    LookSoon {
        node: usize,
        life: u64,
        tries: u32,
    },
    Fault(usize),
    End(usize),
    Start {
        node: usize,
    },
    Kill {
        node: usize,
    },
    /// A node may have been killed by its disk.
    Bury {
        node: usize,
        tries: u32,
    },
    Flood {
        node: usize,
        dataset: usize,
        left: u32,
    },
    Panic {
        node: usize,
        dataset: usize,
        left: u32,
    },
    BackUp {
        number: usize,
        node: usize,
    },
    Scripted(usize),
    Watch,
}

/// See the module documentation.
pub struct World {
    pub(crate) options: Options,
    pub(crate) started: Instant,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<SimulatedNode>,
    pub(crate) plans: Vec<DatasetPlan>,
    pub(crate) names: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) agenda: BTreeMap<(Instant, u64), Action>,
    pub(crate) next_action: u64,
    pub(crate) history: Rc<RefCell<Vec<Operation>>>,
    pub(crate) receipts_open: Rc<RefCell<u64>>,
    pub(crate) rng: Rng,
    pub(crate) invariants: Arc<Mutex<Vec<Box<dyn Invariant>>>>,
    pub(crate) violations: Arc<Mutex<Vec<Violation>>>,
    pub(crate) excuses: Excuses,
    pub(crate) gone: BTreeSet<usize>,
    /// Nodes that were asked to stop.
    pub(crate) stopping: BTreeSet<usize>,
    pub(crate) seen: BTreeMap<(usize, usize), Seen>,
    pub(crate) cuts: BTreeMap<(usize, usize), u32>,
    pub(crate) backups: BTreeMap<usize, (Disk, PathBuf)>,
    /// Copies of nodes, by the fault that made them.
    pub(crate) clones: BTreeMap<usize, usize>,
    /// Months that passed while nothing else did, milliseconds.
    pub(crate) skipped_ms: u64,
    pub(crate) sometimes: Sometimes,
    /// Operations of an application, if this is one's world.
    script: Vec<Scripted>,
    /// What arrived at each node, as an application there heard of it.
    heard: BTreeMap<usize, Vec<String>>,
    pub(crate) lag: Vec<Lag>,
    pub(crate) place: tempfile::TempDir,
    /// Restarts in lives that ended, by node and dataset.
    pub(crate) restarts: BTreeMap<(usize, usize), u64>,
    /// Lives so far, by node.
    pub(crate) lives: BTreeMap<usize, Vec<LifeSpan>>,
    pub(crate) healing_from_ms: Option<u64>,
    pub(crate) observer: Box<dyn FnMut(u64)>,
}

/// Runs a world to its end, on this thread. `observer` hears how far it is, from 0 to 1,000.
///
/// # Panics
/// Where the machine refuses a temporary directory.
#[must_use]
pub fn run(options: &Options, loud: bool, observer: impl FnMut(u64) + 'static) -> Report {
    silence_planned_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime needs nothing");
    let local = LocalSet::new();
    fastrand::seed(options.seed);
    let (options, observer) = (options.clone(), Box::new(observer));
    remember_signatures(true);
    let report = local.block_on(&runtime, async move { World::new(options, loud, observer).run().await });
    // What is left of nodes ends here, inside the runtime.
    let _inside = runtime.enter();
    drop(local);
    remember_signatures(false);
    report
}

/// Runs the operations of an application; what arrived at each node that is there in the end, in the order in which it arrived.
#[must_use]
pub fn run_script(options: &Options, script: Vec<Scripted>) -> BTreeMap<usize, Vec<String>> {
    silence_planned_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime needs nothing");
    let local = LocalSet::new();
    fastrand::seed(options.seed);
    let options = options.clone();
    let arrived = local.block_on(&runtime, async move {
        let mut world = World::new(options, false, Box::new(|_| {}));
        world.script = script;
        world.play().await;
        world.watch();
        world.arrived()
    });
    let _inside = runtime.enter();
    drop(local);
    arrived
}

impl World {
    fn new(options: Options, loud: bool, observer: Box<dyn FnMut(u64)>) -> Self {
        let trace = Trace::new(loud);
        let plans = datasets(&options);
        let names: Vec<String> = plans.iter().map(|plan| plan.id.to_string()).collect();
        let place =
            tempfile::Builder::new().prefix("anabranch-world-").tempdir_in(memory_directory()).expect("a temporary directory");
        let mut rng = Rng::of(options.seed, "world");
        let identities: Vec<Identity> = (0..options.nodes).map(|_| identity(&mut rng)).collect();
        let peers: Vec<_> = identities.iter().map(Identity::peer).collect();
        let network = Network::new(&peers, &topology(&options, &mut rng), Rng::of(options.seed, "network"), trace.clone());
        let mut world = Self {
            started: Instant::now(),
            trace,
            network,
            nodes: Vec::new(),
            plans,
            names,
            faults: faults::plan(&options),
            agenda: BTreeMap::new(),
            next_action: 0,
            history: Rc::default(),
            receipts_open: Rc::default(),
            rng,
            invariants: Arc::new(Mutex::new(invariants::all())),
            violations: Arc::default(),
            excuses: Excuses::default(),
            gone: BTreeSet::new(),
            stopping: BTreeSet::new(),
            seen: BTreeMap::new(),
            cuts: BTreeMap::new(),
            backups: BTreeMap::new(),
            clones: BTreeMap::new(),
            skipped_ms: 0,
            sometimes: Sometimes::default(),
            script: Vec::new(),
            heard: BTreeMap::new(),
            lag: Vec::new(),
            place,
            restarts: BTreeMap::new(),
            lives: BTreeMap::new(),
            healing_from_ms: None,
            observer,
            options,
        };
        for identity in identities {
            world.add_node(identity);
        }
        world
    }

    /// A node with an empty disk, not started.
    pub(crate) fn add_node(&mut self, identity: Identity) -> usize {
        let index = self.nodes.len();
        let mut incarnation = Incarnation([0; 16]);
        self.rng.fill(&mut incarnation.0);
        let data_dir = self.place.path().join(format!("node-{index}"));
        std::fs::create_dir_all(data_dir.join("datasets")).expect("a directory in our own");
        // Every third node does not register what others do.
        let mut datasets = self.plans.clone();
        if index % 3 == 2 {
            datasets.iter_mut().for_each(|plan| plan.registered.retain(|name| name.as_str() != workload::SOMETIMES));
        }
        let seed = self.options.seed;
        self.nodes.push(SimulatedNode {
            index,
            identity,
            incarnation,
            data_dir,
            disk: Disk::new(Rng::of(seed, &format!("disk {index}")), self.trace.clone()),
            clock: Arc::new(SimulatedClock::new()),
            datasets,
            life: None,
            lives: 0,
            rng: Arc::new(Mutex::new(Rng::of(seed, &format!("node {index}")))),
            panics: Arc::new(Panics::default()),
        });
        index
    }

    async fn run(mut self) -> Report {
        let converged_after = self.play().await;
        self.report(converged_after)
    }

    /// Both phases; how long the second one took.
    async fn play(&mut self) -> Option<Duration> {
        tokio::task::spawn_local(self.network.clone().run());
        self.tap();
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        let end = self.started + self.options.duration();
        self.first_actions();
        while let Some(((at, _), action)) = self.agenda.pop_first() {
            if at > end || !self.violated().is_empty() {
                break;
            }
            tokio::time::sleep_until(at).await;
            let share = FIRST_PHASE * self.elapsed().as_secs() / self.options.duration_s;
            (self.observer)(share);
            self.act(action);
            self.look_at_queues();
        }
        self.settle().await
    }

    fn first_actions(&mut self) {
        for number in 0..self.faults.len() {
            self.after(Duration::from_millis(self.faults[number].at_ms), Action::Fault(number));
        }
        self.after(Duration::from_secs(self.options.look_every_s), Action::Look);
        for place in 0..self.script.len() {
            self.after(Duration::from_millis(self.script[place].at_ms), Action::Scripted(place));
        }
        if !self.script.is_empty() {
            self.after(WATCH_EVERY, Action::Watch);
        }
        if self.options.writes_per_second > 0.0 {
            self.after(Duration::from_millis(500), Action::Write);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Write => {
                self.write();
                let mean = Duration::from_secs_f64(1.0 / self.options.writes_per_second);
                let pause = self.rng.exponential(mean);
                self.after(pause, Action::Write);
            }
            Action::Look => {
                self.look_at_all();
                self.after(Duration::from_secs(self.options.look_every_s), Action::Look);
            }
            Action::LookSoon { node, life, tries } => self.look_soon(node, life, tries),
            Action::Fault(number) => self.begin(number),
            Action::End(number) => self.end(number),
            Action::Start { node } => self.start(node),
            Action::Kill { node } => self.kill(node, false),
            Action::Bury { node, tries } => self.bury(node, tries),
            Action::Flood { node, dataset, left } => self.flood(node, dataset, left),
            Action::Panic { node, dataset, left } => self.storm(node, dataset, left),
            Action::BackUp { number, node } => self.finish_backup(number, node),
            Action::Scripted(place) => self.append_scripted(place),
            Action::Watch => self.watch(),
        }
    }

    pub(crate) fn after(&mut self, time: Duration, action: Action) {
        self.next_action += 1;
        self.agenda.insert((Instant::now() + time, self.next_action), action);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn violated(&self) -> Vec<Violation> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nodes that clients reach now.
    pub(crate) fn up(&self) -> Vec<usize> {
        self.nodes.iter().filter(|node| node.life.is_some()).map(|node| node.index).collect()
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.gone.contains(&node) || self.nodes[node].life.is_some() {
            return;
        }
        self.trace.note("start", node.to_string().as_bytes());
        let network = self.network.clone();
        self.nodes[node].start(&network);
        let span = LifeSpan { from_ms: self.now_ms(), to_ms: None };
        self.lives.entry(node).or_default().push(span);
        let life = self.nodes[node].lives;
        self.after(Duration::from_millis(5), Action::LookSoon { node, life, tries: 0 });
    }

    pub(crate) fn kill(&mut self, node: usize, vanished: bool) {
        if self.nodes[node].life.is_none() {
            return;
        }
        self.trace.note("kill", node.to_string().as_bytes());
        self.count_restarts(node);
        let now = self.now_ms();
        if let Some(span) = self.lives.get_mut(&node).and_then(|lives| lives.last_mut()) {
            span.to_ms = Some(now);
        }
        let network = self.network.clone();
        let before = self.nodes[node].disk.counts();
        self.nodes[node].kill(&network, vanished);
        let after = self.nodes[node].disk.counts();
        self.sometimes.reached_if(after.lost > before.lost, "unflushed operations were lost in a crash");
        let torn = after.lost > before.lost && after.kept > before.kept;
        self.sometimes.reached_if(torn, "part of the last batch survived a crash");
    }

    /// Shows every message to the invariants.
    fn tap(&mut self) {
        let (invariants, violations) = (self.invariants.clone(), self.violations.clone());
        let (started, names) = (self.started, self.names.clone());
        let peers = self.network.peers();
        self.network.watch(Arc::new(move |from, to, kind, bytes| {
            let peer = peers.lock().unwrap_or_else(PoisonError::into_inner)[from];
            let message = Message { from, peer, to, kind, bytes, datasets: &names };
            for invariant in invariants.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                if let Err(how) = invariant.message(&message) {
                    let at_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let violation = Violation { invariant: invariant.name().to_owned(), at_ms, how };
                    violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
                }
            }
        }));
    }
}

/// Panics that a fault planned are no news.
fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<String>().map(String::as_str);
            if !text.is_some_and(|text| text.contains(PLANNED_PANIC)) {
                before(panic);
            }
        }));
    });
}

/// Where small files of simulated nodes are: in memory, where the machine has such a place.
fn memory_directory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}
