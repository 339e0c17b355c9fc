//! How the rest of the node reaches a dataset.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::access::Peers;
use anabranch_protocol::id::{Collection, DatasetId, Key, KeyHash, Lineage, WriterId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{WriteRequest, Written};
use anabranch_protocol::wire::Kind;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::aside::{Asides, DropAsideError, SetAside};
use super::clock::{AskStandings, Standings};
use super::counters::Counters;
use super::keeper::{CurrentSupervisor, keep};
use super::life::Life;
use super::oplog::{LedgerStatus, Oplog, Status, Write};
use super::sample::Waiting;
use super::span;
use super::supervisor::{CLOSE_TIMEOUT, DiskHangs, Gate, Open, Order, Running, Shutdown, SupervisorContext, TakeOn, stopping};
use super::ticket::{Outcome, Ticket};
use super::view::View;
use crate::api::{DatasetContents, DatasetError, DatasetInfo, DatasetState, Document, ListQuery, Listing, WriteError};
use crate::runtime::Place;
use crate::store::StoreError;
use crate::watched;

/// Payload of writes that may wait, in KiB.
const WAITING_KIB_MAX: u32 = 32 << 10;
/// What a small write counts for in the bound above, in KiB, so that their number is bounded too.
const WRITE_KIB_MIN: usize = 4;
/// Reads of one dataset that may be on threads at once: a slow disk must not take the readers of the others.
const READS_MAX: usize = 8;
/// Reads that may wait for one of those.
const READS_WAITING_MAX: usize = 256;
/// How long a write waits in all; the oplog gives a disk that hangs up before that.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(60);
pub(super) const NO_ANSWER: &str = "it was not answered in time";
/// How often a read is tried that finds a store which just stopped.
const READ_TRIES: usize = 3;
/// How long a caller waits for a dataset that is being opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a status page waits for a dataset.
pub(super) const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A dataset of this node, running or not. Cheap to share.
#[derive(Debug)]
pub struct DatasetHandle {
    pub(super) context: SupervisorContext,
    life: Arc<Life>,
    supervisor: CurrentSupervisor,
    gate: watched::Receiver<Gate>,
    waiting: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    reads_waiting: Arc<Semaphore>,
    place: Place,
}

impl DatasetHandle {
    /// Starts the supervisor on an arbiter of its own; the store is opened with the first message.
    pub(crate) fn start(context: SupervisorContext) -> Self {
        let place = context.node.runtime.place();
        let span = span::of(&context.dataset);
        place.on_own_thread(move || span::enter_thread(span));
        let life = Life::new();
        let supervisor = keep(context.clone(), life.clone(), &place);
        Self {
            context,
            gate: life.gate(),
            life,
            supervisor,
            waiting: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            reads_waiting: Arc::new(Semaphore::new(READS_WAITING_MAX)),
            place,
        }
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.context.settings.kind
    }

    /// What it did since the node started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.context.counters
    }

    /// Takes on a peer's lineage if it holds nothing yet, not even documents that don't replicate; whether it is about to.
    pub(crate) async fn take_on(&self, lineage: Lineage) -> bool {
        let Some(running) = self.running_now() else { return false };
        let Ok(Some(status)) = tokio::time::timeout(STATUS_TIMEOUT, ledger_status(&running)).await else { return false };
        if status.log_bytes > 0 {
            return false;
        }
        // Held on to, it would keep the store from being opened anew.
        drop(running);
        self.supervisor.borrow().do_send(TakeOn(lineage));
        true
    }

    /// Who may sync it.
    #[must_use]
    pub fn readers(&self) -> &Peers {
        &self.context.settings.readers
    }

    /// Its name.
    #[must_use]
    pub fn dataset(&self) -> &DatasetId {
        &self.context.dataset
    }

    /// Opens the dataset if it is idle; waits for nothing.
    pub(crate) fn open(&self) {
        self.supervisor.borrow().do_send(Open);
    }

    /// The dataset's children, once it is open.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] while it is down.
    pub async fn running(&self) -> Result<Running, DatasetError> {
        let mut gate = self.gate.clone();
        if matches!(*gate.borrow(), Gate::Idle) {
            self.open();
        }
        let settled = gate.wait_for(|gate| matches!(gate, Gate::Running(_) | Gate::Down { .. }));
        let unavailable = |state, reason: &str, retry_after| DatasetError::Unavailable {
            dataset: self.dataset().clone(),
            state,
            reason: reason.to_owned(),
            retry_after,
        };
        match tokio::time::timeout(OPEN_TIMEOUT, settled).await {
            Ok(Ok(gate)) => match &*gate {
                Gate::Running(running) => Ok(running.clone()),
                Gate::Down { state, reason, retry_after } => Err(unavailable(*state, reason, *retry_after)),
                Gate::Idle | Gate::Opening => unreachable!("waited for the gate to settle"),
            },
            Ok(Err(_)) => Err(unavailable(DatasetState::Failed, "its supervisor ended", Duration::from_secs(5))),
            Err(_) => Err(unavailable(DatasetState::Restarting, "it is still being opened", Duration::from_secs(1))),
        }
    }

    /// The dataset's children if it runs now; opens nothing.
    #[must_use]
    pub fn running_now(&self) -> Option<Running> {
        if let Gate::Running(running) = &*self.gate.borrow() { Some(running.clone()) } else { None }
    }

    fn overloaded(&self, waiting: usize) -> DatasetError {
        DatasetError::Overloaded { dataset: self.dataset().clone(), waiting, retry_after: Duration::from_secs(1) }
    }

    /// Writes; resolves once the write is durable.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(&self, request: WriteRequest) -> Result<Written, WriteError> {
        let kib = u32::try_from((request.weight() >> 10).max(WRITE_KIB_MIN)).unwrap_or(WAITING_KIB_MAX).min(WAITING_KIB_MAX);
        let waiting = (WAITING_KIB_MAX as usize - self.waiting.available_permits()) / WRITE_KIB_MIN;
        let permit = self.waiting.clone().try_acquire_many_owned(kib).map_err(|_| self.overloaded(waiting))?;
        let mut waiting = (request, permit);
        let deadline = Instant::now() + OPEN_TIMEOUT;
        // Not the rest: a view that is held keeps the store from being opened again.
        let mut oplog = self.running().await?.oplog;
        loop {
            let (reply, outcome) = oneshot::channel();
            oplog.do_send(Write(Ticket::new(waiting.0, waiting.1, reply)));
            match tokio::time::timeout(WRITE_PATIENCE, outcome).await {
                Ok(Ok(Outcome::Done(outcome))) => return outcome,
                // The oplog ended before it began with this write: the next one takes it.
                Ok(Ok(Outcome::NotBegun(request, permit))) => {
                    waiting = (request, permit);
                    oplog = self.oplog_after(&oplog, deadline).await?;
                }
                Ok(Err(_)) => return Err(self.not_begun().into()),
                Err(_) => return Err(WriteError::Unknown { dataset: self.dataset().clone(), reason: NO_ANSWER.to_owned() }),
            }
        }
    }

    /// The oplog that comes after one that ended.
    async fn oplog_after(&self, ended: &Addr<Oplog>, deadline: Instant) -> Result<Addr<Oplog>, DatasetError> {
        let mut gate = self.gate.clone();
        let settled = gate.wait_for(|gate| match gate {
            Gate::Running(running) => running.oplog != *ended,
            Gate::Down { state, .. } => *state != DatasetState::Restarting,
            Gate::Idle | Gate::Opening => false,
        });
        match tokio::time::timeout_at(deadline, settled).await {
            Ok(Ok(gate)) => match &*gate {
                Gate::Running(running) => Ok(running.oplog.clone()),
                Gate::Down { state, reason, retry_after } => Err(DatasetError::Unavailable {
                    dataset: self.dataset().clone(),
                    state: *state,
                    reason: reason.clone(),
                    retry_after: *retry_after,
                }),
                Gate::Idle | Gate::Opening => unreachable!("waited for the gate to settle"),
            },
            Ok(Err(_)) | Err(_) => Err(self.not_begun()),
        }
    }

    /// Does what an operator asks; resolves once callers see it.
    pub async fn order(&self, order: Order) {
        let mut supervisor = self.supervisor.clone();
        loop {
            let current = supervisor.borrow_and_update().clone();
            // One that panicked is followed by another, unless the dataset is on its way out.
            if current.send(order).await.is_ok() {
                return;
            }
            self.life.want();
            if self.next_supervisor(&mut supervisor).await.is_none() {
                return;
            }
        }
    }

    pub(super) fn supervisor(&self) -> Addr<super::supervisor::DatasetSupervisor> {
        self.supervisor.borrow().clone()
    }

    async fn next_supervisor(&self, supervisor: &mut CurrentSupervisor) -> Option<()> {
        tokio::select! {
            biased;
            () = self.life.stopped() => None,
            changed = supervisor.changed() => changed.ok(),
        }
    }

    /// What callers see of it, now and later.
    #[must_use]
    pub fn gate(&self) -> watched::Receiver<Gate> {
        self.gate.clone()
    }

    #[cfg(test)]
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What is set aside of the dataset, as last seen.
    #[must_use]
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.asides().known()
    }

    /// Deletes for ever what was set aside under a name.
    ///
    /// # Errors
    /// [`DropAsideError`].
    pub async fn drop_aside(&self, name: String) -> Result<(), DropAsideError> {
        let asides = self.asides().clone();
        let dropped = self.context.blocking().run(move || asides.drop_aside(&name)).await;
        dropped.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
    }

    fn asides(&self) -> &Arc<Asides> {
        &self.context.asides
    }

    pub(super) fn not_begun(&self) -> DatasetError {
        DatasetError::Unavailable {
            dataset: self.dataset().clone(),
            state: DatasetState::Restarting,
            reason: "it went down before the request was begun".to_owned(),
            retry_after: Duration::from_secs(1),
        }
    }

    /// Reads. A store that stopped meanwhile, between two turns as it were, is read again once it was opened again.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&View) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, DatasetError> {
        let _waiting = self.reads_waiting.clone().try_acquire_owned().map_err(|_| self.overloaded(READS_WAITING_MAX))?;
        let read = Arc::new(read);
        for _ in 0..READ_TRIES {
            match self.read_once(read.clone()).await? {
                (_, Ok(found)) => return Ok(found),
                (generation, Err(StoreError::Poisoned)) => self.moved_on(generation).await,
                (_, Err(error)) => return Err(self.not_read(error.to_string())),
            }
        }
        Err(self.not_read(StoreError::Poisoned.to_string()))
    }

    /// Reads on a thread for blocking work; says of which set of children the view was.
    async fn read_once<T: Send + 'static>(
        &self,
        read: Arc<impl Fn(&View) -> Result<T, StoreError> + Send + Sync + 'static>,
    ) -> Result<(u64, Result<T, StoreError>), DatasetError> {
        let patience = self.context.node.disk_patience;
        let no_answer = || Err(self.not_read(format!("a read has not returned for {patience:?}")));
        // A dataset that is down says so at once. Its view is not held while this waits: it keeps the store open.
        drop(self.running().await?);
        let Ok(permit) = tokio::time::timeout(patience, self.reads.clone().acquire_owned()).await else { return no_answer() };
        let running = self.running().await?;
        let generation = running.generation;
        let span = span::of(self.dataset());
        let done = self.context.blocking().run(move || {
            let _permit = permit;
            span.in_scope(|| read(&running.view))
        });
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(outcome)) => Ok((generation, outcome)),
            Ok(Err(_)) => Err(self.not_read("the read panicked".to_owned())),
            Err(_) => {
                let reason = format!("the disk does not answer: a read has not returned for {patience:?}");
                self.supervisor.borrow().do_send(DiskHangs { generation, reason });
                no_answer()
            }
        }
    }

    /// Waits, but not long, until a set of children is gone.
    async fn moved_on(&self, generation: u64) {
        let mut gate = self.gate.clone();
        let gone = gate.wait_for(|gate| !matches!(gate, Gate::Running(running) if running.generation == generation));
        // If it is still there the next try says what is wrong.
        let _ = tokio::time::timeout(STATUS_TIMEOUT, gone).await;
    }

    fn not_read(&self, reason: String) -> DatasetError {
        DatasetError::Storage { dataset: self.dataset().clone(), reason }
    }

    /// A document or record.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn get(&self, collection: Collection, key: Key) -> Result<Option<Document>, DatasetError> {
        self.read(move |view| view.get(&collection, &key)).await
    }

    /// Whether a write happened under an idempotency key that is remembered.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn remembers(&self, key: KeyHash) -> Result<bool, DatasetError> {
        let now = self.context.node.clock.now();
        self.read(move |view| Ok(view.remembered(&key)?.is_some_and(|remembered| !remembered.is_over(now)))).await
    }

    /// A page of a collection.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn list(&self, collection: Collection, query: ListQuery) -> Result<Listing, DatasetError> {
        self.read(move |view| view.list(&collection, &query)).await
    }

    /// The dataset as status pages show it; never waits long.
    pub async fn info(&self) -> DatasetInfo {
        self.sample(STATUS_TIMEOUT).await.info
    }

    /// How often its children were rebuilt since the node started.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.life.restarts()
    }

    pub(super) fn restarts_within(&self, window: Duration) -> u64 {
        self.life.restarts_within(window)
    }

    /// What callers of this node wait for.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting {
            write_kib: (WAITING_KIB_MAX as usize).saturating_sub(self.waiting.available_permits()) as u64,
            reads: READS_WAITING_MAX.saturating_sub(self.reads_waiting.available_permits()) as u64,
        }
    }

    pub(super) fn contents(
        &self,
        status: LedgerStatus,
        standings: Standings,
        registration: &Registration,
        disk_bytes: u64,
    ) -> DatasetContents {
        let peer = self.context.node.identity.peer();
        DatasetContents {
            documents: status.documents,
            commits: status.vector.commits(),
            oplog_bytes: status.log_bytes,
            disk_bytes,
            collections: names(registration),
            writer: status.writer.epoch().map(|epoch| WriterId { peer, epoch }),
            vector: status.vector,
            fingerprint: status.fingerprint,
            held: standings.held,
            received_commits: status.received_commits,
            refused_commits: status.refused_commits,
            lineage: status.lineage,
            row_audit: status.row_audit,
        }
    }

    /// How peers stand, if the dataset runs.
    pub async fn standings(&self) -> Option<Standings> {
        let running = self.running_now()?;
        tokio::time::timeout(STATUS_TIMEOUT, standings(&running)).await.ok().flatten()
    }

    /// Stops the dataset: writes in flight finish, the store is closed, and no other can be opened. Callers are told the reason.
    pub async fn stop(&self, reason: &'static str) {
        self.life.stop();
        let (done, stopped) = oneshot::channel();
        self.supervisor.borrow().do_send(Shutdown { reason, done });
        if stopped.await.is_err() {
            // There is no supervisor at the moment, and there will be none.
            self.life.stop_children(stopping(reason));
        }
        match tokio::time::timeout(CLOSE_TIMEOUT, self.life.tenancy.lease()).await {
            Ok(lease) => lease.keep_for_ever(),
            Err(_) => {
                tracing::error!(dataset = %self.dataset(), "the store has not closed for {CLOSE_TIMEOUT:?} and is left behind")
            }
        }
        let (done, left) = oneshot::channel();
        self.place.on_own_thread(move || {
            span::leave_thread();
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(STATUS_TIMEOUT, left).await;
        self.place.stop();
    }
}

pub(super) async fn ledger_status(running: &Running) -> Option<LedgerStatus> {
    let (reply, status) = oneshot::channel();
    running.oplog.do_send(Status(reply));
    status.await.ok()
}

pub(super) async fn standings(running: &Running) -> Option<Standings> {
    let (reply, standings) = oneshot::channel();
    running.clock.do_send(AskStandings(reply));
    standings.await.ok()
}

fn names(registration: &Registration) -> Vec<String> {
    if registration.all { vec!["*".to_owned()] } else { registration.collections.iter().map(ToString::to_string).collect() }
}
