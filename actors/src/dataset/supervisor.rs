//! The supervisor of a dataset: opens the store on first use, runs the children, and rebuilds all of them from disk when one ends.
//!
//! Restarts back off exponentially. Past the budget the dataset is `failed`, says why, and is tried again slowly. Callers see the
//! dataset's gate: they wait while it opens, and get a typed error while it is down; never a hang.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage};
use anabranch_protocol::replica::ReplicaSettings;
use anabranch_protocol::vector::VersionVector;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::aside::Asides;
use super::clock::{Clock, ClockSettings};
use super::confirmation::{Confirmation, ConfirmationSettings};
use super::damage::{Damage, Damaged};
use super::death_watch::{ChildEnded, DeathWatch};
use super::ledger::Ledger;
use super::opener::Opener;
use super::oplog::{Oplog, Stop, TellAlso};
use super::store_thread::{Started, StoreThread};
use super::sync::{Sync, SyncContext};
use super::view::View;
use crate::api::DatasetState;
use crate::node::{DatasetSettings, NodeSettings};
use crate::store::{OPEN_LIMIT, open_limit};
use crate::transport::SharedTransport;

/// Restarts within [`BUDGET_WINDOW`] before the dataset counts as failed.
const RESTARTS_MAX: usize = 10;
/// Over which the budget of restarts counts.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
/// How often a failed dataset is tried again.
const FAILED_RETRY: Duration = Duration::from_secs(30);
/// How long the store thread of dead children may take to close its store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Past the time limit of its store, how long reading what it holds may take until the whole attempt counts as hanging.
const RECOVER_GRACE: Duration = Duration::from_secs(15);
/// How long the store thread of a damaged store may take to let go of it.
const DAMAGED_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What callers of a paused dataset are told to wait.
const PAUSED_RETRY: Duration = Duration::from_secs(5);

/// What callers see of a dataset.
#[derive(Debug, Clone)]
pub enum Gate {
    /// Not opened yet; the first message opens it.
    Idle,
    /// Being opened for the first time: callers wait.
    Opening,
    /// Serving.
    Running(Running),
    /// Not serving: callers are told.
    Down {
        /// In which way.
        state: DatasetState,
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// The children of a running dataset.
#[derive(Debug, Clone)]
pub struct Running {
    /// The only writer.
    pub oplog: Addr<Oplog>,
    /// Vectors.
    pub clock: Addr<Clock>,
    /// Statements.
    pub confirmation: Addr<Confirmation>,
    /// Peers.
    pub sync: Addr<Sync>,
    /// Reads.
    pub view: Arc<View>,
}

/// Opens the dataset if it is idle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Open;

/// What an operator may ask of a dataset. In effect, as far as callers see, when it is answered.
#[derive(Message, Debug, Clone, Copy, PartialEq, Eq)]
#[rtype(result = "()")]
pub enum Order {
    /// Rebuild the children from disk, with a new restart budget; ends a pause.
    Restart,
    /// Close the store and answer nobody, until resumed or until the process starts again.
    Pause,
    /// End the pause.
    Resume,
}

/// Stops the dataset; resolves once its store is closed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Shutdown(pub oneshot::Sender<()>);

/// What a supervisor is started with.
#[derive(Debug, Clone)]
pub(crate) struct SupervisorContext {
    pub dataset: DatasetId,
    pub settings: DatasetSettings,
    pub node: NodeSettings,
    pub cache_bytes: u64,
    pub transport: SharedTransport,
    /// Told each time the dataset runs anew, so that peers are greeted for it.
    pub ready: mpsc::UnboundedSender<DatasetId>,
    /// What was set aside of this dataset.
    pub asides: Arc<Asides>,
}

impl SupervisorContext {
    /// Where everything of the dataset is.
    pub fn directory(&self) -> PathBuf {
        self.asides.directory().to_owned()
    }
}

/// Why an attempt ended before the dataset ran.
enum Unopened {
    /// The store can't be used, as it says.
    Failed(String),
    /// Nothing was heard of it.
    Hangs(String),
}

/// See the module documentation.
pub struct DatasetSupervisor {
    context: SupervisorContext,
    gate: watch::Sender<Gate>,
    restarts: watch::Sender<u64>,
    generation: u64,
    store: Option<StoreThread>,
    closed: Option<oneshot::Receiver<()>>,
    recent_restarts: VecDeque<Instant>,
    backoff: ExponentialBackoff,
    stopping: bool,
    paused: bool,
    /// Counts attempts to run: what belongs to an earlier one is too late.
    attempt: u64,
    /// What the next attempt sets the store aside for.
    damaged: Option<String>,
    /// The store was once read as a whole in this process.
    audited: bool,
}

/// What the store says when it was opened.
struct Opened {
    store: StoreThread,
    view: Arc<View>,
    vector: VersionVector,
    incarnation: Incarnation,
}

impl DatasetSupervisor {
    pub(super) fn new(context: SupervisorContext, gate: watch::Sender<Gate>, restarts: watch::Sender<u64>) -> Self {
        Self {
            context,
            gate,
            restarts,
            generation: 0,
            store: None,
            closed: None,
            recent_restarts: VecDeque::new(),
            backoff: backoff(),
            stopping: false,
            paused: false,
            attempt: 0,
            damaged: None,
            audited: false,
        }
    }

    fn replica_settings(&self) -> ReplicaSettings {
        ReplicaSettings {
            dataset: self.context.dataset.clone(),
            lineage: Lineage::ZERO,
            kind: self.context.settings.kind,
            identity: self.context.node.identity.clone(),
            registration: self.context.settings.registration.clone(),
            max_clock_skew: self.context.node.max_clock_skew,
            writers: self.context.settings.writers.clone(),
        }
    }

    fn opener(&mut self, ctx: &mut Context<Self>, abandoned: Arc<AtomicBool>) -> Opener {
        Opener {
            engine: self.context.node.engine.clone(),
            directory: self.context.directory(),
            cache_bytes: self.context.cache_bytes,
            settings: self.replica_settings(),
            asides: self.context.asides.clone(),
            damage: Damage::new(self.attempt, ctx.address().recipient()),
            known_damage: self.damaged.take(),
            audit: !self.audited,
            abandoned,
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        self.attempt += 1;
        let attempt = self.attempt;
        let abandoned = Arc::new(AtomicBool::new(false));
        let opener = self.opener(ctx, abandoned.clone());
        let limit = open_limit(&opener.directory, OPEN_LIMIT) + RECOVER_GRACE;
        let open = move || opener.open();
        let Started { thread: store, opened, closed } = match StoreThread::start(self.context.dataset.as_str(), open) {
            Ok(started) => started,
            Err(error) => return self.fail(&format!("its store thread can't be started: {error}"), ctx),
        };
        self.closed = Some(closed);
        let opening = async move {
            match tokio::time::timeout(limit, opened).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => return Err(Unopened::Failed(error.to_string())),
                Ok(Err(_)) => return Err(Unopened::Failed("its store thread panicked while it opened the store".to_owned())),
                Err(_) => return Err(Unopened::Hangs(format!("what the store holds was not read within {limit:?}"))),
            }
            let facts = |ledger: &mut Ledger| (ledger.view().clone(), ledger.replica().vector().clone(), ledger.incarnation());
            let (view, vector, incarnation) = store.run(facts).await.map_err(|gone| Unopened::Failed(gone.to_string()))?;
            Ok(Opened { store, view, vector, incarnation })
        };
        ctx.spawn(opening.into_actor(self).map(move |opened, actor, ctx| match opened {
            // Paused or restarted meanwhile: the store is closed again.
            _ if actor.attempt != attempt => {}
            Ok(opened) => actor.start_children(opened, ctx),
            Err(Unopened::Failed(reason)) => actor.fail(&reason, ctx),
            Err(Unopened::Hangs(reason)) => {
                // The thread is left behind; should it ever come back, it must not touch what takes the store's place.
                abandoned.store(true, Ordering::Release);
                actor.closed = None;
                actor.damaged = Some(reason.clone());
                actor.fail(&reason, ctx);
            }
        }));
    }

    fn start_children(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        if let Some(reason) = self.damaged.clone() {
            drop(opened);
            return self.fail(&format!("its store is damaged: {reason}"), ctx);
        }
        self.generation += 1;
        self.audited = true;
        let Opened { store, view, vector, incarnation } = opened;
        let vector = Arc::new(vector);
        let (dataset, node) = (self.context.dataset.clone(), &self.context.node);
        let watch = |child| DeathWatch::new(ctx.address().recipient(), self.generation, child);
        let replica = self.replica_settings();
        let clock = ClockSettings {
            dataset: dataset.clone(),
            kind: replica.kind,
            me: node.identity.peer(),
            wall: node.clock.clone(),
            transport: self.context.transport.clone(),
            announce_interval: self.context.settings.sync.announce_interval,
            writers: replica.writers.clone(),
        };
        let clock = Clock::new(clock, vector.clone(), watch("clock")).start();
        let confirmation = ConfirmationSettings {
            dataset: dataset.clone(),
            lineage: replica.lineage,
            identity: node.identity.clone(),
            incarnation,
            registered: view.registered().clone(),
            wall: node.clock.clone(),
            transport: self.context.transport.clone(),
        };
        let confirmation = Confirmation::new(confirmation, vector.clone(), watch("confirmation")).start();
        let oplog = Oplog::new(dataset, store.clone(), node.clock.clone(), watch("oplog")).start();
        let sync = SyncContext {
            replica,
            sync: self.context.settings.sync.clone(),
            wall: node.clock.clone(),
            transport: self.context.transport.clone(),
            view: view.clone(),
            oplog: oplog.clone(),
            clock: clock.clone(),
            confirmation: confirmation.clone(),
            ready: self.context.ready.clone(),
        };
        let sync = Sync::new(sync, vector, watch("sync")).start();
        // Sync first: a push should be on its way before anything else is done about a commit.
        oplog.do_send(TellAlso(sync.clone().recipient()));
        oplog.do_send(TellAlso(confirmation.clone().recipient()));
        oplog.do_send(TellAlso(clock.clone().recipient()));
        self.store = Some(store);
        self.gate.send_replace(Gate::Running(Running { oplog, clock, confirmation, sync, view }));
        tracing::info!(dataset = %self.context.dataset, generation = self.generation, "running");
        // The node is gone only when the process is.
        let _ = self.context.ready.send(self.context.dataset.clone());
    }

    /// Stops what is left of the children and lets go of the store.
    fn stop_children(&mut self, gate: Gate) {
        if let Gate::Running(running) = self.gate.send_replace(gate) {
            running.oplog.do_send(Stop);
            running.clock.do_send(Stop);
            running.confirmation.do_send(Stop);
            running.sync.do_send(Stop);
        }
        self.store = None;
    }

    /// Rebuilds everything from disk, after a delay, within the budget.
    fn fail(&mut self, reason: &str, ctx: &mut Context<Self>) {
        if self.stopping || self.paused {
            return;
        }
        let now = Instant::now();
        self.recent_restarts.push_back(now);
        while self.recent_restarts.front().is_some_and(|at| now.duration_since(*at) > BUDGET_WINDOW) {
            self.recent_restarts.pop_front();
        }
        if self.recent_restarts.len() == 1 {
            self.backoff = backoff();
        }
        let spent = self.recent_restarts.len() > RESTARTS_MAX;
        let state = if spent { DatasetState::Failed } else { DatasetState::Restarting };
        let delay = if spent { FAILED_RETRY } else { self.backoff.next().unwrap_or(FAILED_RETRY) };
        tracing::error!(dataset = %self.context.dataset, reason, ?delay, state = state.as_str(), "the dataset went down");
        self.stop_children(Gate::Down { state, reason: reason.to_owned(), retry_after: delay.max(Duration::from_secs(1)) });
        self.restarts.send_modify(|count| *count += 1);
        self.reopen(delay, ctx);
    }

    /// Opens again once the store is closed.
    fn reopen(&mut self, delay: Duration, ctx: &mut Context<Self>) {
        let attempt = self.attempt;
        let closed = self.closed.take();
        let patience = if self.damaged.is_some() { DAMAGED_CLOSE_TIMEOUT } else { CLOSE_TIMEOUT };
        let pause = async move {
            if let Some(closed) = closed {
                // Resolves with an error when the thread ends: that is the signal. A hanging store is left behind.
                let _ = tokio::time::timeout(patience, closed).await;
            }
            tokio::time::sleep(delay).await;
        };
        ctx.spawn(pause.into_actor(self).map(move |(), actor, ctx| {
            if !actor.stopping && !actor.paused && actor.attempt == attempt {
                actor.open(ctx);
            }
        }));
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

impl Actor for DatasetSupervisor {
    type Context = Context<Self>;
}

impl Handler<Open> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Context<Self>) {
        if matches!(*self.gate.borrow(), Gate::Idle) && !self.stopping {
            self.gate.send_replace(Gate::Opening);
            self.open(ctx);
        }
    }
}

impl Handler<ChildEnded> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, ended: ChildEnded, ctx: &mut Context<Self>) {
        let current = ended.generation == self.generation && matches!(*self.gate.borrow(), Gate::Running(_));
        if current {
            let reason = ended.reason.unwrap_or_else(|| format!("its {} actor panicked", ended.child));
            self.fail(&reason, ctx);
        }
    }
}

impl Handler<Damaged> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, Damaged { attempt, reason }: Damaged, ctx: &mut Context<Self>) {
        if attempt != self.attempt {
            return;
        }
        self.damaged = Some(reason.clone());
        if matches!(*self.gate.borrow(), Gate::Running(_)) {
            self.fail(&format!("its store is damaged: {reason}"), ctx);
        }
    }
}

impl Handler<Order> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, order: Order, ctx: &mut Context<Self>) {
        let resumed = match order {
            _ if self.stopping => false,
            Order::Pause => {
                self.paused = true;
                self.attempt += 1;
                let reason = "paused by its operator, until resumed or until the node starts again".to_owned();
                self.stop_children(Gate::Down { state: DatasetState::Paused, reason, retry_after: PAUSED_RETRY });
                false
            }
            Order::Resume => self.paused,
            Order::Restart => true,
        };
        if resumed {
            tracing::info!(dataset = %self.context.dataset, ?order, "the dataset is opened anew");
            self.paused = false;
            self.attempt += 1;
            self.recent_restarts.clear();
            let reason = "restarted by its operator".to_owned();
            let retry_after = Duration::from_secs(1);
            self.stop_children(Gate::Down { state: DatasetState::Restarting, reason, retry_after });
            self.reopen(Duration::ZERO, ctx);
        }
    }
}

impl Handler<Shutdown> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, Shutdown(done): Shutdown, ctx: &mut Context<Self>) {
        self.stopping = true;
        let reason = "the node is stopping".to_owned();
        self.stop_children(Gate::Down { state: DatasetState::Paused, reason, retry_after: Duration::from_secs(5) });
        let closed = self.closed.take();
        let close = async move {
            if let Some(closed) = closed {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
            }
            let _ = done.send(());
        };
        ctx.spawn(close.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}
