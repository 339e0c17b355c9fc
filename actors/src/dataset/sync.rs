//! Sync: pushes fresh commits, pulls missing ones, answers peers, and compares vectors though nothing was heard.
//!
//! One session per accepted peer. Fresh commits of `documents` datasets are pushed to peers that have everything before them; all
//! else is pulled: by a peer that learned from a confirmation, an announcement or a comparison of digests that it lacks commits.

mod faults;
mod forks;
mod intake;
mod past;
mod pull;
mod push;
mod serve;
mod session;
mod sources;
mod stall;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::confirmation::Checked;
use anabranch_protocol::fence::Fences;
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Lineage, PeerId, ShortHash, WriterId};
use anabranch_protocol::replica::{ReceiveRefusal, ReplicaSettings, Verdict};
use anabranch_protocol::round;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Announce, DatasetHello, Heads, Held, Kind, PolicyScope, Refusal, Request, Response};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::Instrument as _;

use self::forks::Suspicion;
use self::session::Session;
use self::stall::Stalls;
use super::clock::{Clock, Forget, HeldHere, PeerHas, PeerHolds, Sourceless, Unreadable};
use super::confirmation::{Audience, Confirmation, Enrolled};
use super::counters::Counters;
use super::death_watch::DeathWatch;
use super::ledger::Parted;
use super::oplog::{Oplog, PeerKnows, Stop, Told};
use super::span;
use super::view::View;
use crate::node::{Clock as WallClockSource, News, SyncSettings};
use crate::runtime::Blocking;
use crate::transport::{Class, SharedTransport};

/// Commits kept in memory so that a peer which just caught up by pulling goes on by push, bytes.
const RECENT_BYTES_MAX: usize = 4 << 20;
/// Pages that are read from the store for peers at once.
const SERVES_MAX: usize = 4;
/// Pushes and pages of peers that wait for the oplog at once.
const INTAKES_MAX: usize = 32;
/// How long a writer whose chain broke is left alone before it is asked for again.
const STOPPED_FOR: Duration = Duration::from_secs(60);

/// A peer's `Hello` for this dataset was accepted.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Accepted {
    /// Who.
    pub peer: PeerId,
    /// What it said.
    pub hello: DatasetHello,
}

/// The connection to a peer is gone.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Gone(pub PeerId);

/// An accepted peer asks.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Inbound {
    /// Who.
    pub peer: PeerId,
    /// What.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Response>,
}

/// An accepted peer announced.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Announced {
    /// Who forwarded it.
    pub peer: PeerId,
    /// What.
    pub announce: Announce,
}

/// A peer answered that it does not sync this dataset any more.
#[derive(Debug, Clone)]
pub struct PeerNews {
    /// Who.
    pub peer: PeerId,
    /// Why.
    pub refusal: Refusal,
}

/// Asks what this dataset has ([`anabranch_protocol::round`]).
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskState(pub oneshot::Sender<ShortHash>);

/// A round says that something is different: heads are to be compared with this peer's.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CompareWith {
    /// Who.
    pub peer: PeerId,
    /// Whether they were.
    pub done: oneshot::Sender<bool>,
}

/// Asks how this dataset introduces itself.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Introduce(pub oneshot::Sender<DatasetHello>);

/// What a sync actor is started with.
pub(super) struct SyncContext {
    pub replica: ReplicaSettings,
    pub sync: SyncSettings,
    pub wall: Arc<dyn WallClockSource>,
    pub transport: SharedTransport,
    pub counters: Arc<Counters>,
    pub view: Arc<View>,
    pub oplog: Addr<Oplog>,
    pub clock: Addr<Clock>,
    pub confirmation: Addr<Confirmation>,
    pub news: mpsc::UnboundedSender<News>,
    pub blocking: Blocking,
}

/// See the module documentation.
pub struct Sync {
    context: SyncContext,
    vector: Arc<VersionVector>,
    fences: Arc<Fences>,
    sessions: BTreeMap<PeerId, Session>,
    /// Peers whose pulls brought nothing.
    stalls: Stalls,
    /// Whose pull ended last.
    pulled_last: Option<PeerId>,
    /// Sessions opened so far.
    sessions_opened: u64,
    /// Writers that a pull is under way for, and from whom.
    claims: BTreeMap<WriterId, PeerId>,
    /// Who is being asked for the past of collections that are imported.
    past_pulled_from: Option<PeerId>,
    /// What the clock was told that nobody can deliver.
    sourceless: Sourceless,
    /// Writers whose clock is too far ahead.
    held: BTreeMap<WriterId, Held>,
    /// Writers whose chain broke.
    stopped: BTreeSet<WriterId>,
    /// What is known of forks.
    parted: Arc<Parted>,
    /// Whose statements were checked.
    checked: Checked,
    /// What waits for a newer version of this node: a writer, or what one peer sends of it.
    unreadable: BTreeMap<(Option<WriterId>, Option<PeerId>), Unreadable>,
    recent: VecDeque<(Arc<Commit>, usize)>,
    recent_bytes: usize,
    serves: Arc<Semaphore>,
    intakes: Arc<Semaphore>,
    death_watch: DeathWatch,
}

impl Sync {
    pub(super) fn new(context: SyncContext, vector: Arc<VersionVector>, death_watch: DeathWatch) -> Self {
        Self {
            context,
            vector,
            fences: Arc::default(),
            sessions: BTreeMap::new(),
            stalls: Stalls::default(),
            pulled_last: None,
            sessions_opened: 0,
            claims: BTreeMap::new(),
            past_pulled_from: None,
            sourceless: Sourceless::default(),
            held: BTreeMap::new(),
            stopped: BTreeSet::new(),
            parted: Arc::default(),
            checked: Checked::default(),
            unreadable: BTreeMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            serves: Arc::new(Semaphore::new(SERVES_MAX)),
            intakes: Arc::new(Semaphore::new(INTAKES_MAX)),
            death_watch,
        }
    }

    fn dataset(&self) -> &DatasetId {
        &self.context.replica.dataset
    }

    fn lineage(&self) -> Lineage {
        self.context.replica.lineage
    }

    /// Takes in what a peer has: tells the clock, pulls what is missing here, pushes what is missing there.
    fn learn(&mut self, peer: PeerId, theirs: &VersionVector, ctx: &mut Context<Self>) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.learn(theirs);
        session.cut(&self.parted);
        let forked = self.forked_from(&self.sessions[&peer].theirs);
        forked.into_iter().for_each(|writer| self.search_fork(peer, writer, Suspicion::Claimed, ctx));
        let Some(session) = self.sessions.get(&peer) else { return };
        self.context.clock.do_send(PeerHas { peer, vector: Arc::new(session.theirs.clone()) });
        self.push_recent(peer, ctx);
        self.pull(peer, ctx);
    }

    /// Compares vectors with every peer with which something is open. With all others the node's rounds do, for all datasets at
    /// once.
    fn anti_entropy(&mut self, ctx: &mut Context<Self>) {
        #[cfg(feature = "planted")]
        if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SayOnce) {
            return;
        }
        self.release_held();
        let peers: Vec<PeerId> = self.sessions.keys().copied().collect();
        for peer in peers {
            let open = self.is_open_with(peer);
            if let Some(session) = self.sessions.get_mut(&peer) {
                // What the peer lacked it may have by now.
                session.ask_again();
                session.searched.clear();
            }
            if open {
                self.compare(peer, None, ctx);
            }
        }
        self.look_for_sources();
    }

    /// Whether something is known to be missing on either side, or was not said yet.
    fn is_open_with(&self, peer: PeerId) -> bool {
        let here = !self.held.is_empty() || !self.stopped.is_empty() || !self.unreadable.is_empty();
        here || self.sourceless != Sourceless::default()
            || self.sessions.get(&peer).is_some_and(|session| session.is_open(&self.vector))
    }

    /// Compares vectors with a peer; once at a time, so that a slow peer is not asked the more the more it is announced.
    fn compare(&mut self, peer: PeerId, done: Option<oneshot::Sender<bool>>, ctx: &mut Context<Self>) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if session.comparing {
            session.compare_again = true;
            return;
        }
        (session.comparing, session.compare_again) = (true, false);
        let number = session.number;
        // What is the same is what was asked about, not what was written since.
        let asked_about = self.vector.clone();
        let request = Request::Heads(Heads { dataset: self.dataset().to_wire(), digest: asked_about.digest() });
        let asked = self.context.transport.request(peer, Class::Interactive, request).instrument(span::with_peer(peer));
        ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
            let Some(session) = actor.sessions.get_mut(&peer).filter(|session| session.number == number) else { return };
            session.comparing = false;
            let again = session.compare_again && answer.is_ok();
            if let Some(done) = done {
                // The node may have lost the peer meanwhile.
                let _ = done.send(matches!(answer, Ok(Response::Heads(_))));
            }
            match answer {
                Ok(Response::Heads(reply)) => {
                    actor.context.clock.do_send(PeerHolds { peer, held: reply.held });
                    // Before what it has is asked for: commits of branches mean nothing without the forks.
                    actor.take_proofs(peer, reply.forks, ctx);
                    let theirs = reply.heads.unwrap_or_else(|| (*asked_about).clone());
                    actor.learn(peer, &theirs, ctx);
                }
                Ok(other) => {
                    tracing::debug!(dataset = %actor.dataset(), %peer, answer = ?other, "heads were not compared");
                    if let Response::Refused(refusal) = other {
                        actor.heed(peer, &refusal);
                    }
                }
                Err(error) => tracing::debug!(dataset = %actor.dataset(), %peer, %error, "heads were not compared"),
            }
            if again {
                actor.compare(peer, None, ctx);
            }
        }));
    }

    /// A peer that does not sync this dataset any more is left alone; the node goes on asking it now and then.
    fn heed(&self, peer: PeerId, refusal: &Refusal) {
        if refusal.ends_session() {
            let news = PeerNews { peer, refusal: refusal.clone() };
            // The node is gone only when the process is.
            let _ = self.context.news.send(News::Refused(self.dataset().clone(), news));
        }
    }

    /// Writers that no pull should ask for now.
    fn left_alone(&self) -> BTreeSet<WriterId> {
        let held = self.claims.keys().chain(self.held.keys()).chain(&self.stopped);
        held.chain(self.held_for_upgrade()).copied().collect()
    }

    /// Notes what the oplog said of received commits.
    fn note_verdicts(&mut self, peer: PeerId, commits: &[(WriterId, u64, Hlc)], verdicts: &[Verdict], ctx: &mut Context<Self>) {
        let held_before = self.held.len();
        for ((writer, ..), verdict) in commits.iter().zip(verdicts) {
            match verdict {
                Verdict::Refused(ReceiveRefusal::Held { seq, hlc }) => {
                    self.held.insert(*writer, Held { writer: *writer, seq: *seq, hlc: *hlc });
                }
                Verdict::Refused(ReceiveRefusal::Gap { .. } | ReceiveRefusal::MissingSections { .. })
                | Verdict::Applied
                | Verdict::Duplicate => {}
                Verdict::Refused(ReceiveRefusal::Fork { .. }) => self.search_fork(peer, *writer, Suspicion::Signed, ctx),
                Verdict::Refused(_) => self.stop_writer(*writer, ctx),
            }
        }
        if self.held.len() != held_before {
            self.context.clock.do_send(HeldHere(self.held.values().cloned().collect()));
        }
    }

    fn stop_writer(&mut self, writer: WriterId, ctx: &mut Context<Self>) {
        if self.stopped.insert(writer) {
            ctx.run_later(STOPPED_FOR, move |actor, ctx| {
                actor.stopped.remove(&writer);
                actor.pull_from_anyone(ctx);
            });
        }
    }

    /// Fences admit what was refused before: those writers are asked for again.
    fn take_fences(&mut self, fences: &Arc<Fences>, ctx: &mut Context<Self>) {
        if Arc::ptr_eq(&self.fences, fences) {
            return;
        }
        self.fences = fences.clone();
        let (writers, vector) = (&self.context.replica.writers, &self.vector);
        self.stopped.retain(|writer| writers.contains(&writer.peer) || !fences.admits(writers, writer, vector.seq(writer) + 1));
        self.pull_from_anyone(ctx);
    }

    /// Lets go of held writers whose time has come, which are asked for again, and of those who took back what is held.
    fn release_held(&mut self) {
        let now = self.context.wall.now();
        let skew = self.context.replica.max_clock_skew;
        let before = self.held.len();
        let sessions = &self.sessions;
        let has = |session: &Session, held: &Held| session.theirs.seq(&held.writer) >= held.seq;
        let is_had = |held: &Held| sessions.values().any(|session| has(session, held));
        let taken_back = |held: &Held| sessions.contains_key(&held.writer.peer) && !is_had(held);
        self.held.retain(|_, held| held.hlc.is_ahead_of(now, skew) && !taken_back(held));
        if self.held.len() != before {
            self.context.clock.do_send(HeldHere(self.held.values().cloned().collect()));
        }
    }

    /// Another registration: peers are greeted anew, and what they lacked is asked for as it is wanted now.
    fn registered_anew(&mut self, ctx: &mut Context<Self>) {
        // The node is gone only when the process is.
        let _ = self.context.news.send(News::Ready(self.dataset().clone()));
        for session in self.sessions.values_mut() {
            session.ask_again();
            session.lacks.clear();
        }
        self.pull_from_anyone(ctx);
        self.look_for_sources();
    }

    fn introduction(&self) -> DatasetHello {
        let replica = &self.context.replica;
        DatasetHello {
            dataset: replica.dataset.to_wire(),
            lineage: replica.lineage,
            kind: replica.kind,
            registration: self.context.view.registered().now().registration.clone(),
            policies: match replica.kind {
                Kind::Documents => BTreeMap::from([(PolicyScope(None), "lww".to_owned())]),
                Kind::Append => BTreeMap::from([(PolicyScope(None), "append".to_owned())]),
            },
            heads: (*self.vector).clone(),
        }
    }
}

impl Actor for Sync {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let interval = self.context.sync.anti_entropy_interval.max(Duration::from_millis(100));
        ctx.run_interval(interval, Self::anti_entropy);
        self.death_watch.started(ctx);
        self.look_for_sources();
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.death_watch.stopping();
        Running::Stop
    }
}

impl Handler<Accepted> for Sync {
    type Result = ();
    fn handle(&mut self, Accepted { peer, hello }: Accepted, ctx: &mut Context<Self>) {
        let _session = span::with_peer(peer).entered();
        let tags = hello.registration.tags(self.dataset(), self.lineage());
        let own = hello.heads.of_peer(&self.context.replica.identity.peer());
        self.context.oplog.do_send(PeerKnows { peer, has: own });
        self.context.confirmation.do_send(Enrolled(peer));
        self.context.confirmation.do_send(Audience::Joined(peer));
        // A refreshed `Hello` keeps what is under way.
        let opened = &mut self.sessions_opened;
        let session = self.sessions.entry(peer).or_insert_with(|| {
            *opened += 1;
            Session::new(*opened)
        });
        session.greeted(tags, &hello.heads);
        tracing::info!(dataset = %self.dataset(), %peer, "syncing");
        self.learn(peer, &hello.heads, ctx);
        self.release_held();
        self.look_for_sources();
    }
}

impl Handler<Gone> for Sync {
    type Result = ();
    fn handle(&mut self, Gone(peer): Gone, ctx: &mut Context<Self>) {
        if self.sessions.remove(&peer).is_some() {
            self.claims.retain(|_, from| *from != peer);
            self.past_pulled_from = self.past_pulled_from.filter(|from| *from != peer);
            self.context.confirmation.do_send(Audience::Left(peer));
            self.context.clock.do_send(Forget(peer));
            self.forget_unreadable_of(peer);
            // What it was being asked for, another may have.
            self.pull_from_anyone(ctx);
            self.look_for_sources();
        }
    }
}

impl Handler<Told> for Sync {
    type Result = ();
    fn handle(&mut self, Told(committed): Told, ctx: &mut Context<Self>) {
        self.vector = committed.vector.clone();
        self.note_forks(&committed.parted, ctx);
        self.take_fences(&committed.fences, ctx);
        self.remember(&committed.commits);
        if committed.registered_anew {
            self.registered_anew(ctx);
        } else if committed.got_on {
            self.pull_from_anyone(ctx);
            self.look_for_sources();
        }
        if self.context.replica.kind == Kind::Documents {
            let peers: Vec<PeerId> = self.sessions.keys().copied().collect();
            for peer in peers {
                self.offer(peer, &committed.commits, ctx);
            }
        }
    }
}

impl Handler<Announced> for Sync {
    type Result = ();
    fn handle(&mut self, Announced { peer, announce }: Announced, ctx: &mut Context<Self>) {
        if announce.digest == self.vector.digest() {
            return;
        }
        // The announcer may be many hops away: what it has is worth asking the neighbour for, who may have it by now.
        if !self.vector.covers(&announce.heads) || announce.heads.is_empty() {
            self.compare(peer, None, ctx);
        }
    }
}

impl Handler<AskState> for Sync {
    type Result = ();
    fn handle(&mut self, AskState(reply): AskState, _: &mut Context<Self>) {
        let held: Vec<Held> = self.held.values().cloned().collect();
        // Whoever asked may have gone.
        let _ = reply.send(round::state(&self.vector, &held));
    }
}

impl Handler<CompareWith> for Sync {
    type Result = ();
    fn handle(&mut self, CompareWith { peer, done }: CompareWith, ctx: &mut Context<Self>) {
        self.compare(peer, Some(done), ctx);
    }
}

impl Handler<Introduce> for Sync {
    type Result = ();
    fn handle(&mut self, Introduce(reply): Introduce, _: &mut Context<Self>) {
        // Whoever asked may have gone.
        let _ = reply.send(self.introduction());
    }
}

impl Handler<Stop> for Sync {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
