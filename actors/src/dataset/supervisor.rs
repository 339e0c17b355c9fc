//! The supervisor of a dataset: opens the store on first use, runs the children, and rebuilds all of them from disk when one ends.
//!
//! Restarts back off exponentially. Past the budget the dataset is `failed`, says why, and is tried again slowly. Callers see the
//! dataset's gate: they wait while it opens, and get a typed error while it is down; never a hang.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage};
use anabranch_protocol::replica::ReplicaSettings;
use anabranch_protocol::vector::VersionVector;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot};

pub(super) use self::repair::RepairClock;
use super::aside::Asides;
use super::budget::FAILED_RETRY;
use super::clock::{Clock, ClockSettings};
use super::confirmation::{Confirmation, ConfirmationSettings};
use super::counters::{Counted, Counters};
use super::damage::{Damage, Damaged};
use super::death_watch::{ChildEnded, DeathWatch, Ending, look_at};
use super::enrolment::Enrolments;
use super::keeper::SupervisorWatch;
use super::ledger::{Committed, Ledger};
use super::life::Life;
use super::lineage::LineageChoice;
use super::opener::Opener;
use super::oplog::{AuditPace, OpenStore, Oplog, TellAlso, Told};
use super::store_thread::{Started, StoreThread};
use super::sync::{Sync, SyncContext};
use super::tenancy::Lease;
use super::view::View;
use crate::api::DatasetState;
use crate::node::{DatasetSettings, News, NodeSettings};
use crate::probe::{Moment, ProbedActor, Role};
use crate::runtime::Blocking;
use crate::store::{OPEN_LIMIT, open_limit};
use crate::transport::SharedTransport;
use crate::watched;

/// How long the store of dead children may take to close until the dataset is called failed for it.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Past the time limit of its store, how long reading what it holds may take until the whole attempt counts as hanging.
const RECOVER_GRACE: Duration = Duration::from_secs(15);
/// How long the store thread of a damaged store may take to let go of it.
const DAMAGED_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a full disk is tried again at first, and at last.
const ROOM_RETRY_MIN: Duration = Duration::from_secs(1);
const ROOM_RETRY_MAX: Duration = Duration::from_secs(30);
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
    /// Which set of children this is.
    pub generation: u64,
    /// The disk is full: it is read, and takes no writes.
    pub full: bool,
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
    /// What is applied and durable; the sender goes with the oplog.
    pub vector: watched::Receiver<Arc<VersionVector>>,
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

/// Takes on the lineage of a peer, if the dataset holds nothing yet and has none: its store is opened anew with it. Callers wait
/// meanwhile.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct TakeOn(pub Lineage);

/// Stops the dataset; resolves once its children were told. Its store is closed when its directory is free.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// What callers are told meanwhile.
    pub reason: &'static str,
    /// Where it is said that it stopped.
    pub done: oneshot::Sender<()>,
}

/// A read does not come back from the disk.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct DiskHangs {
    /// Whose view was read.
    pub generation: u64,
    /// What is known.
    pub reason: String,
}

/// What a supervisor is started with.
#[derive(Debug, Clone)]
pub(crate) struct SupervisorContext {
    pub dataset: DatasetId,
    pub settings: DatasetSettings,
    pub node: NodeSettings,
    pub cache_bytes: u64,
    /// A store up to this size is read as a whole when the process opens it first, bytes on disk.
    pub audit_bytes_max: u64,
    pub transport: SharedTransport,
    /// Told each time the dataset runs anew, so that peers are greeted for it, and when a peer refuses it.
    pub news: mpsc::UnboundedSender<News>,
    /// What was set aside of this dataset.
    pub asides: Arc<Asides>,
    /// What it did since the node started.
    pub counters: Arc<Counters>,
}

impl SupervisorContext {
    /// Where everything of the dataset is.
    pub fn directory(&self) -> PathBuf {
        self.asides.directory().to_owned()
    }

    /// Runs what blocks.
    pub fn blocking(&self) -> Blocking {
        Blocking { runtime: self.node.runtime.clone(), directory: self.directory() }
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
    life: Arc<Life>,
    /// Held beside the children, so that it can be given up.
    store: Option<StoreThread>,
    generation: u64,
    /// Counts attempts to run: what belongs to an earlier one is too late.
    attempt: u64,
    /// A peer's, for the next attempt.
    offered: Option<Lineage>,
    /// How long a full disk is left alone.
    room_backoff: ExponentialBackoff,
    watch: SupervisorWatch,
}

/// What the store says when it was opened.
struct Opened {
    store: StoreThread,
    view: Arc<View>,
    standing: Committed,
    incarnation: Incarnation,
    enrolments: Enrolments,
    lineage: Lineage,
    /// There is no space to write, and this is what is certain to be on the disk.
    full: Option<VersionVector>,
    /// All of it was read and checked when it was opened.
    read_whole: bool,
}

impl DatasetSupervisor {
    pub(super) fn new(context: SupervisorContext, life: Arc<Life>, watch: SupervisorWatch) -> Self {
        Self { context, life, store: None, generation: 0, attempt: 0, offered: None, room_backoff: room_backoff(), watch }
    }

    fn replica_settings(&self, lineage: Lineage) -> ReplicaSettings {
        ReplicaSettings {
            dataset: self.context.dataset.clone(),
            lineage,
            kind: self.context.settings.kind,
            identity: self.context.node.identity.clone(),
            registration: self.context.settings.registration.clone(),
            max_clock_skew: self.context.node.max_clock_skew,
            writers: self.context.settings.writers.clone(),
        }
    }

    fn opener(&mut self, lease: Option<Lease>, ctx: &mut Context<Self>, abandoned: Arc<AtomicBool>) -> Opener {
        Opener {
            engine: self.context.node.engine.clone(),
            runtime: self.context.node.runtime.clone(),
            directory: self.context.directory(),
            cache_bytes: self.context.cache_bytes,
            settings: self.replica_settings(Lineage::ZERO),
            lineage: LineageChoice {
                setting: self.context.settings.lineage,
                offered: self.offered.take(),
                ..LineageChoice::default()
            },
            asides: self.context.asides.clone(),
            damage: Damage::new(self.attempt, ctx.address().recipient()),
            known_damage: self.life.damaged().take(),
            audit_bytes_max: if self.life.audited.load(Ordering::Acquire) { 0 } else { self.context.audit_bytes_max },
            abandoned,
            life: self.life.clone(),
            full: AtomicBool::new(false),
            lease: lease.into(),
        }
    }

    /// Opens the store. Without a lease, because an earlier store does not let go of the directory, only one that is set aside first.
    fn open(&mut self, lease: Option<Lease>, ctx: &mut Context<Self>) {
        self.attempt += 1;
        let attempt = self.attempt;
        let abandoned = Arc::new(AtomicBool::new(false));
        let opener = self.opener(lease, ctx, abandoned.clone());
        let limit = open_limit(&opener.directory, OPEN_LIMIT) + RECOVER_GRACE;
        let open = move || opener.open();
        let patience = self.context.node.disk_patience;
        let Started { thread: store, opened } =
            match StoreThread::start(self.context.dataset.as_str(), self.context.blocking(), patience, open) {
                Ok(started) => started,
                Err(error) => return self.fail(&format!("its store thread can't be started: {error}"), ctx),
            };
        let opening = async move {
            match tokio::time::timeout(limit, opened).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => return Err(Unopened::Failed(error.to_string())),
                Ok(Err(_)) => return Err(Unopened::Failed("its store thread panicked while it opened the store".to_owned())),
                Err(_) => return Err(Unopened::Hangs(format!("what the store holds was not read within {limit:?}"))),
            }
            let facts = |ledger: &mut Ledger| {
                let (replica, enrolments) = (ledger.replica(), ledger.enrolments().clone());
                let (lineage, standing) = (replica.settings().lineage, ledger.nothing_committed());
                (
                    ledger.view().clone(),
                    standing,
                    ledger.incarnation(),
                    lineage,
                    (ledger.stable_while_full().cloned(), ledger.is_read_as_a_whole()),
                    enrolments,
                )
            };
            let facts = store.run(facts).await.map_err(|gone| Unopened::Failed(gone.to_string()))?;
            let (view, standing, incarnation, lineage, (full, read_whole), enrolments) = facts;
            Ok(Opened { store, view, standing, incarnation, lineage, full, read_whole, enrolments })
        };
        ctx.spawn(opening.into_actor(self).map(move |opened, actor, ctx| match opened {
            // Paused or restarted meanwhile: the store is closed again.
            _ if actor.attempt != attempt => {}
            Ok(opened) => actor.start_children(opened, ctx),
            Err(Unopened::Failed(reason)) => actor.fail(&reason, ctx),
            Err(Unopened::Hangs(reason)) => {
                // The thread is left behind; should it ever come back, it must not touch what takes the store's place.
                abandoned.store(true, Ordering::Release);
                *actor.life.damaged() = Some(reason.clone());
                actor.fail(&reason, ctx);
            }
        }));
    }

    fn clock_settings(&self, replica: &ReplicaSettings, transport: SharedTransport) -> ClockSettings {
        let node = &self.context.node;
        ClockSettings {
            dataset: replica.dataset.clone(),
            kind: replica.kind,
            me: node.identity.peer(),
            wall: node.clock.clone(),
            transport,
            announce_interval: self.context.settings.sync.announce_interval,
            max_clock_skew: replica.max_clock_skew,
            writers: replica.writers.clone(),
        }
    }

    fn start_children(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        if self.life.is_stopping() {
            return;
        }
        let damaged = self.life.damaged().clone();
        if let Some(reason) = damaged {
            drop(opened);
            return self.fail(&format!("its store is damaged: {reason}"), ctx);
        }
        let generation = self.life.next_generation();
        self.generation = generation;
        self.life.audited.store(true, Ordering::Release);
        let Opened { store, view, standing, incarnation, lineage, full, read_whole, enrolments } = opened;
        let vector = standing.vector.clone();
        let (full, stable) = (full.is_some(), full.map_or_else(|| vector.clone(), Arc::new));
        let counters = self.context.counters.clone();
        let transport: SharedTransport = Arc::new(Counted { inner: self.context.transport.clone(), counters: counters.clone() });
        let (dataset, node) = (self.context.dataset.clone(), &self.context.node);
        let watching = |child| {
            let probed = ProbedActor::new(node.probe.clone(), dataset.clone(), child);
            DeathWatch::new(self.life.clone(), ctx.address().recipient(), generation, probed)
        };
        let replica = self.replica_settings(lineage);
        let clock = self.clock_settings(&replica, transport.clone());
        let clock = Clock::new(clock, vector.clone(), watching(Role::Clock)).start();
        let confirmation = ConfirmationSettings {
            dataset: dataset.clone(),
            lineage: replica.lineage,
            identity: node.identity.clone(),
            incarnation,
            registered: view.registered().clone(),
            wall: node.clock.clone(),
            transport: transport.clone(),
            counters: counters.clone(),
            grows: !full,
        };
        let confirmation = Confirmation::new(confirmation, stable, enrolments, watching(Role::Confirmation)).start();
        let applied = watched::Sender::new(vector.clone());
        let vector_now = applied.subscribe();
        let (wall, counted) = (node.clock.clone(), counters.clone());
        let audit = AuditPace { unread: !read_whole, interval: self.context.settings.sync.maintenance_interval };
        let opened = OpenStore { thread: store.clone(), full, audit };
        let oplog = Oplog::new(dataset.clone(), opened, wall, applied, counted, watching(Role::Oplog)).start();
        let sync = SyncContext {
            replica,
            sync: self.context.settings.sync.clone(),
            wall: node.clock.clone(),
            transport,
            counters,
            view: view.clone(),
            oplog: oplog.clone(),
            clock: clock.clone(),
            confirmation: confirmation.clone(),
            news: self.context.news.clone(),
            blocking: self.context.blocking(),
        };
        let sync = Sync::new(sync, vector, watching(Role::Sync)).start();
        // Sync first: a push should be on its way before anything else is done about a commit.
        oplog.do_send(TellAlso(sync.clone().recipient()));
        oplog.do_send(TellAlso(confirmation.clone().recipient()));
        oplog.do_send(TellAlso(clock.clone().recipient()));
        let told = Told(Arc::new(standing));
        sync.do_send(told.clone());
        clock.do_send(told);
        self.store = Some(store);
        self.life.run(Running { generation, full, oplog, clock, confirmation, sync, view, vector: vector_now });
        tracing::info!(dataset = %self.context.dataset, generation, full, "running");
        if full {
            self.look_for_room(ctx);
        } else {
            self.room_backoff = room_backoff();
        }
        // The node is gone only when the process is.
        let _ = self.context.news.send(News::Ready(self.context.dataset.clone()));
    }

    /// Stops what is left of the children and lets go of the store.
    fn stop_children(&mut self, gate: Gate) {
        self.life.stop_children(gate);
        self.store = None;
    }

    /// The disk is full, or no more: opens again, while callers wait.
    fn open_again(&mut self, ctx: &mut Context<Self>) {
        self.stop_children(Gate::Opening);
        self.reopen(Duration::ZERO, "it is opened again, for its disk is or was full".to_owned(), ctx);
    }

    /// After a while, and until there is room on the disk.
    fn look_for_room(&mut self, ctx: &mut Context<Self>) {
        let (generation, directory, blocking) = (self.generation, self.context.directory(), self.context.blocking());
        let engine = self.context.node.engine.clone();
        let delay = self.room_backoff.next().unwrap_or(ROOM_RETRY_MAX);
        let look = async move {
            tokio::time::sleep(delay).await;
            blocking.run(move || engine.has_room(&directory)).await.unwrap_or(false)
        };
        ctx.spawn(look.into_actor(self).map(move |has_room, actor, ctx| {
            if generation != actor.generation || actor.store.is_none() {
                return;
            }
            if has_room {
                actor.open_again(ctx);
            } else {
                actor.look_for_room(ctx);
            }
        }));
    }

    /// Rebuilds everything from disk, after a delay, within the budget.
    fn fail(&mut self, reason: &str, ctx: &mut Context<Self>) {
        if self.life.is_stopping() || self.life.is_paused() {
            return;
        }
        let (state, delay) = self.life.spend();
        self.go_down(state, delay, reason, ctx);
    }

    /// The disk does not answer, and may not for long: callers are not made to wait for it.
    fn hangs(&mut self, reason: &str, ctx: &mut Context<Self>) {
        if self.life.is_stopping() || self.life.is_paused() {
            return;
        }
        let (_, delay) = self.life.spend();
        self.go_down(DatasetState::Failed, delay, reason, ctx);
    }

    fn go_down(&mut self, state: DatasetState, delay: Duration, reason: &str, ctx: &mut Context<Self>) {
        tracing::error!(dataset = %self.context.dataset, reason, ?delay, state = state.as_str(), "the dataset went down");
        self.stop_children(Gate::Down { state, reason: reason.to_owned(), retry_after: delay.max(Duration::from_secs(1)) });
        self.reopen(delay, reason.to_owned(), ctx);
    }

    /// Opens again once the store that was open before is closed.
    fn reopen(&mut self, delay: Duration, reason: String, ctx: &mut Context<Self>) {
        let attempt = self.attempt;
        let pause = tokio::time::sleep(delay);
        ctx.spawn(pause.into_actor(self).map(move |(), actor, ctx| {
            if actor.is_due(attempt) {
                actor.open_when_closed(attempt, reason, ctx);
            }
        }));
    }

    fn is_due(&self, attempt: u64) -> bool {
        self.attempt == attempt && !self.life.is_stopping() && !self.life.is_paused()
    }

    fn open_when_closed(&mut self, attempt: u64, reason: String, ctx: &mut Context<Self>) {
        let patience = if self.life.damaged().is_some() { DAMAGED_CLOSE_TIMEOUT } else { CLOSE_TIMEOUT };
        let life = self.life.clone();
        let closed = async move { tokio::time::timeout(patience, life.tenancy.lease()).await };
        ctx.spawn(closed.into_actor(self).map(move |lease, actor, ctx| {
            if !actor.is_due(attempt) {
                return;
            }
            match lease {
                Ok(lease) => actor.open(Some(lease), ctx),
                // It is set aside: the old store keeps its files under another name.
                Err(_) if actor.life.damaged().is_some() => actor.open(None, ctx),
                Err(_) => {
                    let still = format!("{reason}; its store has not closed for {CLOSE_TIMEOUT:?} and is waited for");
                    tracing::error!(dataset = %actor.context.dataset, reason = still, "the dataset stays down");
                    let state = DatasetState::Failed;
                    actor.life.set_gate(Gate::Down { state, reason: still, retry_after: FAILED_RETRY });
                    actor.open_when_closed(attempt, reason, ctx);
                }
            }
        }));
    }
}

fn room_backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(ROOM_RETRY_MIN)
        .with_max_delay(ROOM_RETRY_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Actor for DatasetSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        look_at(&self.watch.probed.0, ctx);
        if self.life.is_stopping() || matches!(*self.life.gate().borrow(), Gate::Idle) {
            return;
        }
        // The one before it panicked.
        if self.life.is_paused() {
            self.life.set_gate(paused());
        } else {
            self.reopen(Duration::ZERO, "its supervisor panicked".to_owned(), ctx);
        }
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> actix::Running {
        self.watch.stopping();
        actix::Running::Stop
    }
}

fn paused() -> Gate {
    let reason = "paused by its operator, until resumed or until the node starts again".to_owned();
    Gate::Down { state: DatasetState::Paused, reason, retry_after: PAUSED_RETRY }
}

impl Handler<Open> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Context<Self>) {
        let idle = matches!(*self.life.gate().borrow(), Gate::Idle);
        if idle && !self.life.is_stopping() {
            self.life.set_gate(Gate::Opening);
            self.reopen(Duration::ZERO, "it is opened".to_owned(), ctx);
        }
    }
}

impl Handler<ChildEnded> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, ended: ChildEnded, ctx: &mut Context<Self>) {
        // Its siblings end because of it, one after the other.
        if ended.generation == self.generation && self.store.is_some() {
            self.watch.probed.0.at(Moment::ChildEnded);
            match ended.how {
                Ending::Broken => self.fail(&ended.reason(), ctx),
                Ending::DiskHangs => self.hangs(&ended.reason(), ctx),
                Ending::DiskFull => self.open_again(ctx),
            }
        }
    }
}

impl Handler<DiskHangs> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, DiskHangs { generation, reason }: DiskHangs, ctx: &mut Context<Self>) {
        if generation == self.generation
            && let Some(store) = self.store.take()
        {
            store.give_up();
            self.hangs(&reason, ctx);
        }
    }
}

impl Handler<Damaged> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, Damaged { attempt, reason }: Damaged, ctx: &mut Context<Self>) {
        if attempt != self.attempt {
            return;
        }
        *self.life.damaged() = Some(reason.clone());
        if self.store.is_some() {
            self.fail(&format!("its store is damaged: {reason}"), ctx);
        }
    }
}

impl Handler<Order> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, order: Order, ctx: &mut Context<Self>) {
        let resumed = match order {
            _ if self.life.is_stopping() => false,
            Order::Pause => {
                self.life.paused.store(true, Ordering::Release);
                self.attempt += 1;
                self.stop_children(paused());
                false
            }
            Order::Resume => self.life.is_paused(),
            Order::Restart => true,
        };
        if resumed {
            tracing::info!(dataset = %self.context.dataset, ?order, "the dataset is opened anew");
            self.life.paused.store(false, Ordering::Release);
            self.life.forgive();
            self.attempt += 1;
            let reason = "restarted by its operator".to_owned();
            let retry_after = Duration::from_secs(1);
            self.stop_children(Gate::Down { state: DatasetState::Restarting, reason: reason.clone(), retry_after });
            self.reopen(Duration::ZERO, reason, ctx);
        }
    }
}

impl Handler<TakeOn> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, TakeOn(lineage): TakeOn, ctx: &mut Context<Self>) {
        if self.life.is_stopping() || self.store.is_none() {
            return;
        }
        tracing::info!(dataset = %self.context.dataset, %lineage, "the empty dataset takes on the lineage of a peer");
        self.offered = Some(lineage);
        self.attempt += 1;
        self.stop_children(Gate::Opening);
        self.reopen(Duration::ZERO, "it takes on the lineage of a peer".to_owned(), ctx);
    }
}

impl Handler<Shutdown> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, Shutdown { reason, done }: Shutdown, ctx: &mut Context<Self>) {
        self.life.stop();
        self.stop_children(stopping(reason));
        // Whoever asked may have gone.
        let _ = done.send(());
        ctx.stop();
    }
}

/// What callers see of a dataset that is stopping for good.
pub(super) fn stopping(reason: &str) -> Gate {
    let reason = reason.to_owned();
    Gate::Down { state: DatasetState::Paused, reason, retry_after: Duration::from_secs(5) }
}

mod repair;
#[cfg(test)]
mod tests;
