//! The supervisor of a dataset: opens the store on first use, runs the children, and rebuilds all of them from disk when one ends.
//!
//! Restarts back off exponentially. Past the budget the dataset is `failed`, says why, and is tried again slowly. Callers see the
//! dataset's gate: they wait while it opens, and get a typed error while it is down; never a hang.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage};
use anabranch_protocol::replica::ReplicaSettings;
use anabranch_protocol::vector::VersionVector;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::clock::{Clock, ClockSettings};
use super::confirmation::{Confirmation, ConfirmationSettings};
use super::death_watch::{ChildEnded, DeathWatch};
use super::ledger::Ledger;
use super::oplog::{Oplog, Stop, TellAlso, fill_random};
use super::store_thread::{Started, StoreThread};
use super::sync::{Sync, SyncContext};
use super::view::View;
use crate::api::DatasetState;
use crate::node::{DatasetSettings, NodeSettings};
use crate::transport::SharedTransport;

/// Restarts within [`BUDGET_WINDOW`] before the dataset counts as failed.
const RESTARTS_MAX: usize = 10;
/// Over which the budget of restarts counts.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
/// How often a failed dataset is tried again.
const FAILED_RETRY: Duration = Duration::from_secs(30);
/// How long the store thread of dead children may take to close its store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

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

    fn directory(&self) -> PathBuf {
        self.context.node.data_dir.join("datasets").join(self.context.dataset.as_str())
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        let (engine, directory, cache_bytes) = (self.context.node.engine.clone(), self.directory(), self.context.cache_bytes);
        let settings = self.replica_settings();
        let open = move || Ledger::open(&*engine, &directory, cache_bytes, settings, &mut fill_random);
        let Started { thread: store, opened, closed } = match StoreThread::start(self.context.dataset.as_str(), open) {
            Ok(started) => started,
            Err(error) => return self.fail(&format!("its store thread can't be started: {error}"), ctx),
        };
        self.closed = Some(closed);
        let opening = async move {
            match opened.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("its store thread panicked while it opened the store".to_owned()),
            }
            let facts = |ledger: &mut Ledger| (ledger.view().clone(), ledger.replica().vector().clone(), ledger.incarnation());
            let (view, vector, incarnation) = store.run(facts).await.map_err(|gone| gone.to_string())?;
            Ok(Opened { store, view, vector, incarnation })
        };
        ctx.spawn(opening.into_actor(self).map(|opened, actor, ctx| match opened {
            Ok(opened) => actor.start_children(opened, ctx),
            Err(reason) => actor.fail(&reason, ctx),
        }));
    }

    fn start_children(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        self.generation += 1;
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
            registration: replica.registration.clone(),
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
        if self.stopping {
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
        let closed = self.closed.take();
        let pause = async move {
            if let Some(closed) = closed {
                // Resolves with an error when the thread ends: that is the signal. A hanging store is left behind.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
            }
            tokio::time::sleep(delay).await;
        };
        ctx.spawn(pause.into_actor(self).map(|(), actor, ctx| {
            if !actor.stopping {
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
