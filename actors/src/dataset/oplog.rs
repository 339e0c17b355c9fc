//! Oplog: the only writer of a dataset. Decide → commit (durable) → evolve → tell.
//!
//! Writes that arrive while a turn is in flight form the next one, so throughput grows with load and a lone write waits for
//! nobody. Local writes and commits of peers take turns. Whoever is told (clock, confirmation, sync) is downstream: the oplog
//! never waits for them.

mod audit;
pub mod chores;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use anabranch_protocol::commit::{Commit, ForkError, ForkProof};
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage, PeerId};
use anabranch_protocol::replica::{ReceiveRefusal, Verdict, WriteRequest, WriterState};
use anabranch_protocol::vector::VersionVector;
use tokio::sync::oneshot;

pub(super) use self::audit::AuditPace;
use self::chores::Chore;
use super::confirmation::EnrolmentChanged;
use super::counters::Counters;
use super::death_watch::DeathWatch;
use super::enrolment::SetEnrolled;
use super::ledger::{Committed, Ledger, RowAudit};
use super::measures::{Measures, Queue};
use super::store_thread::{StoreThread, StoreThreadError};
use super::ticket::{Begun, Ticket};
use crate::api::{EnrolmentError, WriteError};
use crate::node::Clock as WallClockSource;
use crate::runtime::Runtime;
use crate::store::StoreError;
use crate::watched;

/// Requests in one turn.
const TURN_REQUESTS_MAX: usize = 1_024;
/// Payload of the requests in one turn, bytes.
const TURN_BYTES_MAX: usize = 1 << 20;

/// A local write.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Write(pub Ticket);

/// Verified commits of a peer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Receive {
    /// In seq order per writer.
    pub commits: Vec<Commit>,
    /// Proofs of forks, taken in before the commits.
    pub proofs: Vec<ForkProof>,
    /// Where verdicts go, after the barrier.
    pub reply: oneshot::Sender<Result<Received, StoreError>>,
}

/// What became of received commits.
#[derive(Debug, Clone)]
pub struct Received {
    /// One per commit.
    pub verdicts: Vec<Verdict>,
    /// The vector now.
    pub vector: Arc<VersionVector>,
    /// What was wrong with the first bad proof.
    pub bad_proof: Option<ForkError>,
    /// By how many commits collections that are imported got on.
    pub got_on: usize,
}

/// A peer was accepted.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PeerKnows {
    /// Who.
    pub peer: PeerId,
    /// What it has of our own line.
    pub has: VersionVector,
}

/// Told downstream after each turn.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct Told(pub Arc<Committed>);

/// What status pages ask the ledger.
#[derive(Debug, Clone)]
pub struct LedgerStatus {
    /// Live documents or records.
    pub documents: u64,
    /// Per collection, without those that were dropped and not written to since.
    pub tallies: Vec<(anabranch_protocol::id::Collection, u64)>,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Equal on equal replicas.
    pub fingerprint: String,
    /// The writer's standing.
    pub writer: WriterState,
    /// The life of the store.
    pub incarnation: Incarnation,
    /// What it has in common with those it syncs with.
    pub lineage: Lineage,
    /// The vector.
    pub vector: VersionVector,
    /// Commits of peers taken in since the start.
    pub received_commits: u64,
    /// Commits of peers refused since the start.
    pub refused_commits: u64,
    /// How the audit of rows in the background stands.
    pub row_audit: RowAudit,
}

/// Someone else to be told after each turn.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TellAlso(pub Recipient<Told>);

/// Asks for the status.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Status(pub oneshot::Sender<LedgerStatus>);

/// Stops the actor; a turn in flight finishes on the store thread.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// Writes that become one commit, and who waits for them.
#[derive(Default)]
struct Group {
    requests: Vec<WriteRequest>,
    waiting: Waiting,
}

/// Those who wait for a turn. Shared with the oplog: whoever waits for a disk that hangs is told by it.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<VecDeque<Begun>>>);

impl Waiting {
    fn take(&self) -> VecDeque<Begun> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Group {
    /// Writes what fits one commit and answers it from the store thread: whoever waits need not wait for the actor as well.
    /// What did not fit is left.
    fn write(
        mut self,
        ledger: &mut Ledger,
        now: WallClock,
        runtime: &Runtime,
        measures: &Measures,
    ) -> Result<(Undecided, Committed), StoreError> {
        let written = ledger.write(now, &self.requests, &mut |bytes| runtime.fill_random(bytes));
        // Nobody is left if it took so long that they were told otherwise.
        let mut waiting = self.waiting.take();
        match written {
            Ok((outcomes, committed)) => {
                let undecided = waiting.split_off(outcomes.len().min(waiting.len()));
                let requests = self.requests.drain(outcomes.len()..);
                let undecided = requests.zip(undecided).collect();
                for (mut begun, outcome) in waiting.into_iter().zip(outcomes) {
                    if outcome.is_ok() {
                        measures.durable_after(begun.waited());
                    }
                    begun.answer(outcome.map_err(WriteError::from));
                }
                Ok((undecided, committed))
            }
            Err(error) => {
                waiting.iter_mut().for_each(|begun| begun.answer_failure(&error));
                Err(error)
            }
        }
    }
}

/// Requests that did not fit the commit, and who waits for them.
type Undecided = Vec<(WriteRequest, Begun)>;

/// What became of commits in a turn.
enum Taken {
    In((Vec<Verdict>, Committed, Option<ForkError>)),
    /// What their drops leave is still being counted.
    NotYet(Vec<Commit>, Vec<ForkProof>),
}

/// Who takes turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnOf {
    Writes,
    Received,
    Chores,
}

impl TurnOf {
    /// Who comes next: the others before the one whose turn it was.
    fn others_first(self) -> [Self; 3] {
        match self {
            Self::Writes => [Self::Received, Self::Chores, Self::Writes],
            Self::Received => [Self::Chores, Self::Writes, Self::Received],
            Self::Chores => [Self::Writes, Self::Received, Self::Chores],
        }
    }
}

/// A store as it was opened.
#[derive(Debug)]
pub(super) struct OpenStore {
    pub thread: StoreThread,
    /// The disk is full: nothing is taken in.
    pub full: bool,
    pub audit: AuditPace,
}

/// See the module documentation.
pub struct Oplog {
    dataset: DatasetId,
    store: StoreThread,
    /// The disk is full: nothing is taken in.
    full: bool,
    clock: Arc<dyn WallClockSource>,
    told: Vec<Recipient<Told>>,
    /// The vector after the last turn, for reads that wait for a write.
    vector: watched::Sender<Arc<VersionVector>>,
    writes: VecDeque<Ticket>,
    received: VecDeque<Receive>,
    /// A turn is on the store thread.
    in_flight: bool,
    /// Changes of registration, old commits with more sections, local rows to be issued, rows to be audited.
    chores: VecDeque<Chore>,
    /// Rows that were dropped are being removed.
    sweeping: bool,
    /// Whose turn it was last.
    last: TurnOf,
    /// Commits of peers taken in and refused since the start.
    received_commits: u64,
    refused_commits: u64,
    counters: Arc<Counters>,
    audit: AuditPace,
    death_watch: DeathWatch,
}

impl Oplog {
    pub(super) fn new(
        dataset: DatasetId,
        OpenStore { thread: store, full, audit }: OpenStore,
        clock: Arc<dyn WallClockSource>,
        vector: watched::Sender<Arc<VersionVector>>,
        counters: Arc<Counters>,
        death_watch: DeathWatch,
    ) -> Self {
        Self {
            dataset,
            store,
            full,
            clock,
            vector,
            told: Vec::new(),
            writes: VecDeque::new(),
            received: VecDeque::new(),
            in_flight: false,
            chores: VecDeque::new(),
            sweeping: false,
            last: TurnOf::Chores,
            received_commits: 0,
            refused_commits: 0,
            counters,
            audit,
            death_watch,
        }
    }

    /// The first turn: sets missing fences. A full disk takes none; those that are set already were told by the supervisor.
    fn set_fences(&mut self, ctx: &mut Context<Self>) {
        if self.full {
            return;
        }
        self.in_flight = true;
        let (store, now, runtime) = (self.store.clone(), self.clock.now(), self.store.runtime().clone());
        let set = move |ledger: &mut Ledger| ledger.set_fences(now, &mut |bytes| runtime.fill_random(bytes));
        let turn = async move { store.run(set).await };
        ctx.spawn(turn.into_actor(self).map(|done, actor, ctx| match done {
            Ok(Ok(committed)) => {
                if !committed.commits.is_empty() {
                    tracing::info!(dataset = %actor.dataset, "fences were set for peers that may no longer write");
                }
                actor.finish_turn(committed, ctx);
            }
            Ok(Err(error)) => actor.store_failed(&error, ctx),
            Err(error) => actor.thread_failed(error, ctx),
        }));
    }

    fn tell(&self, committed: Committed) {
        self.vector.send_replace(committed.vector.clone());
        let told = Told(Arc::new(committed));
        self.told.iter().for_each(|recipient| recipient.do_send(told.clone()));
    }

    fn next_turn(&mut self, ctx: &mut Context<Self>) {
        self.take_turn(ctx);
        self.tell_queues();
    }

    fn tell_queues(&self) {
        let measures = &self.counters.measures;
        measures.queue(Queue::Writes, self.writes.len());
        measures.queue(Queue::Received, self.received.len());
        measures.queue(Queue::Chores, self.chores.len());
    }

    fn take_turn(&mut self, ctx: &mut Context<Self>) {
        if self.full {
            return self.refuse_all();
        }
        if self.in_flight {
            return;
        }
        for next in self.last.others_first() {
            let started = match next {
                TurnOf::Writes => !self.writes.is_empty() && self.start_writes(ctx),
                TurnOf::Received => self.received.pop_front().is_some_and(|receive| self.start_receive(receive, ctx)),
                TurnOf::Chores => self.chores.pop_front().is_some_and(|chore| self.start_chore(chore, ctx)),
            };
            if started {
                self.last = next;
                return;
            }
        }
    }

    /// The disk is full: whoever waits is told, and nothing is begun.
    fn refuse_all(&mut self) {
        for ticket in self.writes.drain(..) {
            ticket.begin(&self.dataset).1.answer_failure(&StoreError::NoSpace);
        }
        // Whoever waits for one hears that it is not done.
        self.chores.clear();
        for receive in self.received.drain(..) {
            // Whoever asked may have gone.
            let _ = receive.reply.send(Err(StoreError::NoSpace));
        }
    }

    fn start_writes(&mut self, ctx: &mut Context<Self>) -> bool {
        let mut group = Group::default();
        let mut begun_all = VecDeque::new();
        let mut bytes = 0;
        while let Some(ticket) = self.writes.pop_front() {
            let weight = ticket.weight();
            let full = group.requests.len() >= TURN_REQUESTS_MAX || bytes + weight > TURN_BYTES_MAX;
            if full && !group.requests.is_empty() {
                self.writes.push_front(ticket);
                break;
            }
            bytes += weight;
            let (request, begun) = ticket.begin(&self.dataset);
            group.requests.push(request);
            begun_all.push_back(begun);
        }
        let waiting = Waiting(Arc::new(Mutex::new(begun_all)));
        group.waiting = waiting.clone();
        self.in_flight = true;
        let (store, now) = (self.store.clone(), self.clock.now());
        let counters = self.counters.clone();
        let runtime = store.runtime().clone();
        let write = move |ledger: &mut Ledger| group.write(ledger, now, &runtime, &counters.measures);
        let turn = async move { store.run(write).await };
        ctx.spawn(turn.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(Ok((undecided, committed))) => {
                actor.counters.wrote(&committed);
                // What did not fit this commit goes first into the next one.
                for (request, begun) in undecided.into_iter().rev() {
                    begun.again(request).into_iter().for_each(|ticket| actor.writes.push_front(ticket));
                }
                actor.finish_turn(committed, ctx);
            }
            Ok(Err(error)) => actor.store_failed(&error, ctx),
            Err(error) => {
                waiting.take().iter_mut().for_each(|begun| begun.answer_unknown(&error));
                actor.thread_failed(error, ctx);
            }
        }));
        true
    }

    fn start_receive(&mut self, receive: Receive, ctx: &mut Context<Self>) -> bool {
        self.in_flight = true;
        let (store, now) = (self.store.clone(), self.clock.now());
        let Receive { commits, proofs, reply } = receive;
        let receive = move |ledger: &mut Ledger| match ledger.weigh(&commits)? {
            true => ledger.receive_with(now, commits, proofs).map(Taken::In),
            false => Ok(Taken::NotYet(commits, proofs)),
        };
        let turn = async move { store.run(receive).await };
        ctx.spawn(turn.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(Ok(Taken::NotYet(commits, proofs))) => {
                // The others have their turns first.
                actor.received.push_front(Receive { commits, proofs, reply });
                actor.in_flight = false;
                actor.next_turn(ctx);
            }
            Ok(Ok(Taken::In((verdicts, committed, bad_proof)))) => {
                actor.note(&verdicts);
                actor.counters.received(&committed, actor.clock.now());
                // Told before the reply: who hears of the vector finds the others informed.
                let vector = committed.vector.clone();
                actor.finish_turn(committed, ctx);
                let _ = reply.send(Ok(Received { verdicts, vector, bad_proof, got_on: 0 }));
            }
            Ok(Err(error)) => {
                let _ = reply.send(Err(error.clone()));
                actor.store_failed(&error, ctx);
            }
            Err(error) => actor.thread_failed(error, ctx),
        }));
        true
    }

    fn note(&mut self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            match verdict {
                Verdict::Applied => self.received_commits += 1,
                Verdict::Duplicate => {}
                // Not the commit's fault: what is before it comes first.
                Verdict::Refused(refusal @ ReceiveRefusal::Gap { .. }) => {
                    tracing::debug!(dataset = %self.dataset, %refusal, "commit not taken in");
                }
                Verdict::Refused(refusal) => {
                    self.refused_commits += 1;
                    self.counters.refused_commit();
                    tracing::warn!(dataset = %self.dataset, %refusal, "commit refused");
                }
            }
        }
    }

    fn finish_turn(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        self.in_flight = false;
        let begin_to_sweep = committed.to_sweep && !self.sweeping;
        self.sweeping = committed.to_sweep;
        let news = committed.newly_parted || committed.registered_anew || committed.got_on;
        if !committed.commits.is_empty() || news {
            self.tell(committed);
        }
        if begin_to_sweep {
            self.sweep(ctx);
        }
        self.next_turn(ctx);
    }

    fn store_failed(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        if matches!(error, StoreError::NoSpace) {
            // What waits is told so too, rather than after the store was opened again.
            self.full = true;
            self.refuse_all();
            self.death_watch.because_full();
            return ctx.stop();
        }
        self.fail(error, ctx);
    }

    fn thread_failed(&mut self, error: StoreThreadError, ctx: &mut Context<Self>) {
        if matches!(error, StoreThreadError::Hangs(_)) {
            self.death_watch.because_it_hangs(error.to_string());
            return ctx.stop();
        }
        self.fail(&error, ctx);
    }

    /// The store can't be trusted any more: everything is rebuilt from disk.
    fn fail(&mut self, error: &dyn std::fmt::Display, ctx: &mut Context<Self>) {
        tracing::error!(dataset = %self.dataset, %error, "the store failed; the dataset is rebuilt from disk");
        self.death_watch.because(error.to_string());
        ctx.stop();
    }
}

impl Actor for Oplog {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.death_watch.started(ctx);
        // Of the one before it nothing waits any more.
        self.tell_queues();
        self.set_fences(ctx);
        // A crash may have cut it short.
        self.catch_up(ctx);
        self.start_audit(ctx);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.death_watch.stopping();
        Running::Stop
    }
}

impl Handler<Write> for Oplog {
    type Result = ();
    fn handle(&mut self, Write(ticket): Write, ctx: &mut Context<Self>) {
        self.writes.push_back(ticket);
        self.next_turn(ctx);
    }
}

impl Handler<Receive> for Oplog {
    type Result = ();
    fn handle(&mut self, receive: Receive, ctx: &mut Context<Self>) {
        self.received.push_back(receive);
        self.next_turn(ctx);
    }
}

impl Handler<PeerKnows> for Oplog {
    type Result = ();
    fn handle(&mut self, PeerKnows { peer, has }: PeerKnows, ctx: &mut Context<Self>) {
        // Peers say so again when there is room.
        if self.full {
            return;
        }
        let (store, now) = (self.store.clone(), self.clock.now());
        let learn = async move {
            store
                .run(move |ledger: &mut Ledger| {
                    ledger.learn_own_line(&has)?;
                    ledger.peer_accepted(peer, now)
                })
                .await
        };
        ctx.spawn(learn.into_actor(self).map(|done, actor, ctx| match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => actor.store_failed(&error, ctx),
            Err(error) => actor.thread_failed(error, ctx),
        }));
    }
}

impl Handler<SetEnrolled> for Oplog {
    type Result = ();
    fn handle(&mut self, SetEnrolled { peer, enrolled, tell, reply }: SetEnrolled, ctx: &mut Context<Self>) {
        if self.full {
            // Whoever asked may have gone.
            return drop(reply.send(Err(EnrolmentError::NoSpace(self.dataset.clone()))));
        }
        let (store, now) = (self.store.clone(), self.clock.now());
        let set = async move { store.run(move |ledger: &mut Ledger| ledger.set_enrolled(peer, enrolled, now)).await };
        ctx.spawn(set.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(Ok(changed)) => {
                if changed {
                    tell.do_send(EnrolmentChanged { peer, enrolled });
                }
                let _ = reply.send(Ok(changed));
            }
            Ok(Err(error)) => actor.store_failed(&error, ctx),
            Err(error) => actor.thread_failed(error, ctx),
        }));
    }
}

impl Handler<Status> for Oplog {
    type Result = ();
    fn handle(&mut self, Status(reply): Status, ctx: &mut Context<Self>) {
        let store = self.store.clone();
        let (received_commits, refused_commits) = (self.received_commits, self.refused_commits);
        let ask = async move {
            if let Ok(status) = store.run_unless_busy(|ledger: &mut Ledger| status(ledger)).await {
                // Whoever asked may have gone.
                let _ = reply.send(LedgerStatus { received_commits, refused_commits, ..status });
            }
        };
        ctx.spawn(ask.into_actor(self));
    }
}

impl Handler<TellAlso> for Oplog {
    type Result = ();
    fn handle(&mut self, TellAlso(recipient): TellAlso, _: &mut Context<Self>) {
        self.told.push(recipient);
    }
}

impl Handler<Stop> for Oplog {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

fn status(ledger: &Ledger) -> LedgerStatus {
    let replica = ledger.replica();
    LedgerStatus {
        documents: replica.documents(),
        tallies: {
            let listed = replica.tallies().iter().filter(|(_, tally)| !tally.is_dropped());
            listed.map(|(collection, tally)| (collection.clone(), tally.live)).collect()
        },
        log_bytes: ledger.log_bytes(),
        fingerprint: replica.fingerprint(),
        writer: replica.writer(),
        incarnation: ledger.incarnation(),
        lineage: replica.settings().lineage,
        vector: replica.vector().clone(),
        received_commits: 0,
        refused_commits: 0,
        row_audit: ledger.row_audit(),
    }
}
