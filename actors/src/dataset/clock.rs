//! Clock: publishes our vector, knows peers' vectors, watches skew; never touches the disk.

mod late;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::access::Peers;
use anabranch_protocol::clock_repair::{Heard, disagrees, is_suspect, still_here};
use anabranch_protocol::commit::FrameFault;
use anabranch_protocol::coverage::Scope;
use anabranch_protocol::fence::Fences;
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, PeerId, WriterId};
use anabranch_protocol::plan::{Standing, standing};
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{Announce, Held, Kind};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::late::Late;
use super::death_watch::DeathWatch;
use super::ledger::Parted;
use super::oplog::{Stop, Told};
use crate::api::{HeldWriter, PeerDataset, PeerState};
use crate::node::Clock as WallClockSource;
use crate::transport::SharedTransport;

/// Fresh commits of a `documents` dataset are pushed: gossip waits this long and then only speaks to whoever was not reached.
const PUSHES_TAKE: Duration = Duration::from_millis(50);
/// Heads in one announcement; the digest stands for the rest.
const ANNOUNCED_HEADS_MAX: usize = 128;
/// Peers that left and are remembered; past it the one that has been away longest is forgotten.
const AWAY_MAX: usize = 64;
/// For how long one that left is remembered: whoever stays away longer is not missed.
const AWAY_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a peer has, as far as we know.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct PeerHas {
    /// Who.
    pub peer: PeerId,
    /// What.
    pub vector: Arc<VersionVector>,
}

/// Writers that a peer holds back: ours among them is what our user must hear.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct PeerHolds {
    /// Who.
    pub peer: PeerId,
    /// Whom.
    pub held: Vec<Held>,
}

/// Writers that are held back here.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct HeldHere(pub Vec<Held>);

/// What waits for a newer version of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Whose commits, as far as that can be told.
    pub writer: Option<WriterId>,
    /// The peer that sends what can't be verified here; none where the writer signed it.
    pub from: Option<PeerId>,
    /// What is not known.
    pub fault: FrameFault,
}

/// All that waits for a newer version of this node.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct UnreadableHere(pub Vec<Unreadable>);

/// A peer sent frames that no writer made.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct BadFramesOf {
    /// Who.
    pub peer: PeerId,
    /// In how many messages of this session.
    pub count: u32,
    /// What was wrong last.
    pub fault: FrameFault,
}

/// What none of the connected peers can deliver, in words; nothing where all is well.
#[derive(Message, Debug, Clone, Default, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct Sourceless {
    /// The past of collections that are imported.
    pub scopes: BTreeMap<Scope, String>,
    /// Fresh commits.
    pub commits: Option<String>,
    /// Which peer lacks what.
    pub peers: BTreeMap<PeerId, String>,
}

/// The session with a peer ended.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Forget(pub PeerId);

/// How peers stand, and what is wrong with clocks.
#[derive(Debug, Clone, Default)]
pub struct Standings {
    /// Per peer of this dataset.
    pub peers: Vec<(PeerId, PeerDataset)>,
    /// Per peer that left, by what it was last known to have.
    pub away: Vec<(PeerId, PeerDataset)>,
    /// For how long each of those, or this node, has lacked what the other had, by this node's own clock.
    pub waited: BTreeMap<PeerId, Duration>,
    /// Writers held back here.
    pub held: Vec<HeldWriter>,
    /// What the user should know, in words.
    pub reason: Option<String>,
    /// What no connected peer can deliver of the past of collections that are imported.
    pub sourceless: BTreeMap<Scope, String>,
    /// Most connected peers disagree with this node's clock.
    pub own_clock_suspect: bool,
    /// Whether there are fresh commits that no connected peer can deliver.
    pub sourceless_commits: bool,
    /// Writers whose history forked.
    pub forked: u64,
    /// What waits for a newer version of this node.
    pub unreadable: u64,
}

/// A peer that this node's commits were pushed to did not take them in, and not because it waits for its clock.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct NotTaken(pub PeerId);

/// Asks for [`Standings`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskStandings(pub oneshot::Sender<Standings>);

/// Asks what is known of peers that matters to a repair of the clock; statements and enrolments are not known here.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskHeard(pub oneshot::Sender<Heard>);

/// What a clock actor is started with.
pub(super) struct ClockSettings {
    pub dataset: DatasetId,
    pub kind: Kind,
    pub me: PeerId,
    pub wall: Arc<dyn WallClockSource>,
    pub transport: SharedTransport,
    pub announce_interval: Duration,
    pub max_clock_skew: Duration,
    pub writers: Peers,
}

/// See the module documentation.
pub struct Clock {
    dataset: DatasetId,
    me: PeerId,
    wall: Arc<dyn WallClockSource>,
    transport: SharedTransport,
    announce_after: Duration,
    max_clock_skew: Duration,
    writers: Peers,
    fences: Arc<Fences>,
    vector: Arc<VersionVector>,
    announced: Arc<VersionVector>,
    announcing: bool,
    peers: BTreeMap<PeerId, Arc<VersionVector>>,
    /// Peers that left, since when, and what they had.
    away: BTreeMap<PeerId, (Instant, Arc<VersionVector>)>,
    late: Late,
    held: Vec<Held>,
    held_by: BTreeMap<PeerId, Vec<Held>>,
    parted: Arc<Parted>,
    unreadable: Vec<Unreadable>,
    bad_frames: BTreeMap<PeerId, BadFramesOf>,
    /// Peers that did not take in commits of ours, until they have them.
    not_taken_by: BTreeSet<PeerId>,
    sourceless: Sourceless,
    death_watch: DeathWatch,
}

impl Clock {
    pub(super) fn new(settings: ClockSettings, vector: Arc<VersionVector>, death_watch: DeathWatch) -> Self {
        let ClockSettings { dataset, kind, me, wall, transport, announce_interval, max_clock_skew, writers } = settings;
        let announce_after = match kind {
            Kind::Documents => announce_interval.max(PUSHES_TAKE),
            Kind::Append => announce_interval,
        };
        Self {
            dataset,
            me,
            wall,
            transport,
            announce_after,
            max_clock_skew,
            writers,
            fences: Arc::default(),
            announced: vector.clone(),
            vector,
            announcing: false,
            peers: BTreeMap::new(),
            away: BTreeMap::new(),
            late: Late::default(),
            held: Vec::new(),
            held_by: BTreeMap::new(),
            parted: Arc::default(),
            unreadable: Vec::new(),
            bad_frames: BTreeMap::new(),
            not_taken_by: BTreeSet::new(),
            sourceless: Sourceless::default(),
            death_watch,
        }
    }

    /// Announces what changed, gathered over the announce interval.
    fn announce_soon(&mut self, ctx: &mut Context<Self>) {
        if self.announcing || self.peers.is_empty() {
            return;
        }
        self.announcing = true;
        if self.announce_after.is_zero() {
            self.announce();
        } else {
            ctx.run_later(self.announce_after, |clock, _| clock.announce());
        }
    }

    fn announce(&mut self) {
        self.announcing = false;
        // A peer that was pushed to knows already; gossip is for those further away.
        if self.peers.values().all(|peer| peer.covers(&self.vector)) {
            return;
        }
        let changed = self.vector.iter().filter(|(writer, head)| self.announced.head(writer) != Some(**head));
        let heads = changed.take(ANNOUNCED_HEADS_MAX).map(|(writer, head)| (*writer, *head)).collect();
        self.transport.announce(Announce { dataset: self.dataset.to_wire(), digest: self.vector.digest(), heads });
        self.announced = self.vector.clone();
    }

    /// Remembers what a peer that leaves had.
    fn see_off(&mut self, peer: PeerId, vector: Arc<VersionVector>, now: Instant) {
        self.away.insert(peer, (now, vector));
        let long_ago = |since: &Instant| now.saturating_duration_since(*since) > AWAY_FOR;
        while let Some((peer, (since, _))) = self.away.iter().min_by_key(|(_, (since, _))| *since) {
            if self.away.len() <= AWAY_MAX && !long_ago(since) {
                return;
            }
            let peer = *peer;
            self.away.remove(&peer);
            self.late.forget(peer);
        }
    }

    fn standings(&mut self, now: Instant) -> Standings {
        let away = self.away.iter().map(|(peer, (_, theirs))| (peer, theirs));
        let all = self.peers.iter().chain(away.clone());
        let waited: BTreeMap<_, _> =
            all.map(|(peer, theirs)| (*peer, self.late.waited(*peer, theirs, &self.vector, now))).collect();
        // Stamps tell how far apart two are, this node's own clock for how long they have been at least.
        let standing = |(peer, theirs): (&PeerId, &Arc<VersionVector>)| {
            let standing = self.standing(*peer, theirs);
            (*peer, PeerDataset { lag: standing.lag.max(waited[peer]), ..standing })
        };
        let (peers, away) = (self.peers.iter().map(standing).collect(), away.map(standing).collect());
        let shown = |held: &Held| HeldWriter { writer: held.writer, seq: held.seq, ahead: self.ahead(held.hlc) };
        Standings {
            peers,
            away,
            waited,
            held: self.held.iter().map(shown).collect(),
            reason: self.reason(),
            own_clock_suspect: self.suspicion().is_some(),
            sourceless: self.sourceless.scopes.clone(),
            sourceless_commits: self.sourceless.commits.is_some(),
            forked: self.parted.lowest.len() as u64,
            unreadable: self.unreadable.len() as u64,
        }
    }

    fn standing(&self, peer: PeerId, theirs: &VersionVector) -> PeerDataset {
        let unreadable = self.unreadable_of(peer, theirs);
        let state = match standing(&self.vector, theirs) {
            Standing::InSync => PeerState::InSync,
            Standing::Behind => PeerState::Ahead,
            Standing::Ahead => PeerState::Behind,
            Standing::Diverged => PeerState::Diverged,
        };
        let forked = self.fork_of(&peer);
        let state = if forked.is_some() { PeerState::Diverged } else { state };
        let state = if unreadable.is_some() { PeerState::NeedsUpgrade } else { state };
        let lag_commits = self.vector.missing(theirs) + theirs.missing(&self.vector);
        let lag = lag(&self.vector, theirs).max(lag(theirs, &self.vector));
        let bad = || {
            let BadFramesOf { count, fault, .. } = self.bad_frames.get(&peer)?;
            Some(format!("it sent bad commits in {count} messages; the last one: {fault}"))
        };
        let not_taken = || self.not_taken_by.contains(&peer).then(|| NOT_TAKEN.to_owned());
        let forbidden = || self.forbidden_writer(theirs).map(refused_writer);
        let reason = unreadable.map(|unreadable| unreadable.fault.to_string()).or(forked).or_else(forbidden);
        let reason = reason.or_else(|| self.sourceless.peers.get(&peer).cloned()).or_else(not_taken).or_else(bad);
        PeerDataset { state, lag_commits, lag, reason }
    }

    /// What is to be said of a peer whose history forked.
    fn fork_of(&self, peer: &PeerId) -> Option<String> {
        let (writer, seq) = self.parted.lowest.iter().find(|(writer, _)| writer.peer == *peer)?;
        let whose = if *peer == self.me { "this node's own history" } else { "the history of this writer" };
        let more = if *peer == self.me {
            "a copy of this node wrote too (was its machine rolled back, or is its key in other hands?); it goes on under a new epoch"
        } else {
            "both branches are kept, as lines of their own"
        };
        Some(format!("{whose} forked: two commits of {writer} have the number {seq}; {more}"))
    }

    /// What of a peer waits for a newer version of this node.
    fn unreadable_of(&self, peer: PeerId, theirs: &VersionVector) -> Option<&Unreadable> {
        self.unreadable.iter().find(|unreadable| match (unreadable.from, unreadable.writer) {
            (Some(from), _) => from == peer,
            (None, writer) => writer.is_some_and(|writer| theirs.seq(&writer) > self.vector.seq(&writer)),
        })
    }

    /// How many of the connected peers disagree with this node's clock, where that is most of them.
    fn suspicion(&self) -> Option<usize> {
        let disagreeing = self.disagreeing();
        is_suspect(disagreeing, self.peers.len()).then_some(disagreeing)
    }

    fn disagreeing(&self) -> usize {
        let now = self.wall.now();
        let disagree = |peer: &&PeerId| {
            let there = self.held_by.get(peer).map(Vec::as_slice).unwrap_or_default();
            disagrees(peer, &self.me, (there, &self.held), &self.vector, now, self.max_clock_skew)
        };
        self.peers.keys().filter(disagree).count()
    }

    fn reason(&self) -> Option<String> {
        let reason = self.reason_of_peers();
        let Some(disagreeing) = self.suspicion() else { return reason };
        let suspect =
            format!("own_clock_suspect: {disagreeing} of {} connected peers disagree with this node's clock", self.peers.len());
        Some(reason.map_or_else(|| suspect.clone(), |reason| format!("{suspect}; {reason}")))
    }

    fn reason_of_peers(&self) -> Option<String> {
        let holds_us = |held: &&Held| held.writer.peer == self.me && still_here(held, &self.vector);
        let ours = self.held_by.iter().find_map(|(peer, held)| held.iter().find(holds_us).map(|held| (peer, held)));
        if let Some((peer, held)) = ours {
            let wrong = !held.hlc.is_ahead_of(self.wall.now(), self.max_clock_skew);
            let (is, what) = if wrong { ("is", "set the clock right, then run") } else { ("was", "run") };
            return Some(format!(
                "peer {peer} holds back this node's commits from {} on: this node's clock {is} too far ahead; {what} `anabranch repair clock`",
                held.seq
            ));
        }
        if let Some(unreadable) = self.unreadable.first() {
            return Some(format!("needs_upgrade: {}; upgrade it, then start it again", unreadable.fault));
        }
        let forked = self.parted.lowest.iter().map(|(writer, _)| writer.peer);
        // Our own first: that is for our user to look into.
        if let Some(forked) = forked.min_by_key(|peer| *peer != self.me).and_then(|peer| self.fork_of(&peer)) {
            return Some(format!("diverged: {forked}"));
        }
        if let Some(peer) = self.peers.values().find_map(|theirs| self.forbidden_writer(theirs)) {
            return Some(refused_writer(peer));
        }
        let held = self.held.first().map(|held| {
            let ahead = humane(self.ahead(held.hlc));
            format!(
                "commits of {} from {} on are held back: their clock is {ahead} ahead of this node's",
                held.writer.peer, held.seq
            )
        });
        held.or_else(|| self.sourceless.commits.clone())
    }

    /// A peer whose commits a neighbour has and we refuse.
    fn forbidden_writer(&self, theirs: &VersionVector) -> Option<PeerId> {
        let refused = |(writer, head): &(&WriterId, &Head)| {
            let have = self.vector.seq(writer);
            head.seq > have && !self.fences.admits(&self.writers, writer, have + 1)
        };
        theirs.iter().find(refused).map(|(writer, _)| writer.peer)
    }

    fn ahead(&self, hlc: Hlc) -> Duration {
        Duration::from_millis(hlc.millis().saturating_sub(self.wall.now().0))
    }
}

const NOT_TAKEN: &str = "the peer does not take in this node's commits: this node may not be among its `writers`";

fn refused_writer(peer: PeerId) -> String {
    format!("commits of {peer} are refused: it is not among the dataset's `writers`")
}

/// How far the clock of what `behind` lacks has gone on since what it has.
fn lag(behind: &VersionVector, ahead: &VersionVector) -> Duration {
    let lacking = |(writer, head): (&WriterId, &Head)| {
        let known = behind.head(writer).map_or(head.hlc, |known| known.hlc);
        head.hlc.millis().saturating_sub(known.millis())
    };
    Duration::from_millis(ahead.iter().map(lacking).max().unwrap_or(0))
}

fn humane(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

impl Actor for Clock {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.death_watch.started(ctx);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.death_watch.stopping();
        Running::Stop
    }
}

impl Handler<Told> for Clock {
    type Result = ();
    fn handle(&mut self, Told(committed): Told, ctx: &mut Context<Self>) {
        self.vector = committed.vector.clone();
        self.parted = committed.parted.clone();
        self.fences = committed.fences.clone();
        if !committed.commits.is_empty() {
            self.late.grown(self.peers.keys().chain(self.away.keys()), &self.vector, Instant::now());
        }
        self.announce_soon(ctx);
    }
}

impl Handler<PeerHas> for Clock {
    type Result = ();
    fn handle(&mut self, PeerHas { peer, vector }: PeerHas, _: &mut Context<Self>) {
        if vector.covers(&self.vector.of_peer(&self.me)) {
            self.not_taken_by.remove(&peer);
        }
        self.late.waited(peer, &vector, &self.vector, Instant::now());
        self.away.remove(&peer);
        self.peers.insert(peer, vector);
    }
}

impl Handler<PeerHolds> for Clock {
    type Result = ();
    fn handle(&mut self, PeerHolds { peer, held }: PeerHolds, _: &mut Context<Self>) {
        if held.iter().any(|held| held.writer.peer == self.me) && !self.held_by.contains_key(&peer) {
            tracing::warn!(dataset = %self.dataset, %peer, "the peer holds back our commits: our clock is too far ahead");
        }
        if held.is_empty() {
            self.held_by.remove(&peer);
        } else {
            self.held_by.insert(peer, held);
        }
    }
}

impl Handler<HeldHere> for Clock {
    type Result = ();
    fn handle(&mut self, HeldHere(held): HeldHere, _: &mut Context<Self>) {
        self.held = held;
    }
}

impl Handler<UnreadableHere> for Clock {
    type Result = ();
    fn handle(&mut self, UnreadableHere(unreadable): UnreadableHere, _: &mut Context<Self>) {
        self.unreadable = unreadable;
    }
}

impl Handler<BadFramesOf> for Clock {
    type Result = ();
    fn handle(&mut self, bad: BadFramesOf, _: &mut Context<Self>) {
        self.bad_frames.insert(bad.peer, bad);
    }
}

impl Handler<Sourceless> for Clock {
    type Result = ();
    fn handle(&mut self, sourceless: Sourceless, _: &mut Context<Self>) {
        self.sourceless = sourceless;
    }
}

impl Handler<Forget> for Clock {
    type Result = ();
    fn handle(&mut self, Forget(peer): Forget, _: &mut Context<Self>) {
        if let Some(vector) = self.peers.remove(&peer) {
            self.see_off(peer, vector, Instant::now());
        }
        // It says so again when it is back, if it still does.
        self.held_by.remove(&peer);
        self.bad_frames.remove(&peer);
        self.not_taken_by.remove(&peer);
    }
}

impl Handler<NotTaken> for Clock {
    type Result = ();
    fn handle(&mut self, NotTaken(peer): NotTaken, _: &mut Context<Self>) {
        self.not_taken_by.insert(peer);
    }
}

impl Handler<AskHeard> for Clock {
    type Result = ();
    fn handle(&mut self, AskHeard(reply): AskHeard, _: &mut Context<Self>) {
        let away = self.away.iter().map(|(peer, (_, has))| (peer, has));
        let has = self.peers.iter().chain(away).map(|(peer, has)| (*peer, (**has).clone())).collect();
        let (connected, disagreeing) = (self.peers.len(), self.disagreeing());
        let holds = self.held_by.clone();
        // Whoever asked may have gone.
        let _ = reply.send(Heard { has, holds, connected, disagreeing, ..Heard::default() });
    }
}

impl Handler<AskStandings> for Clock {
    type Result = ();
    fn handle(&mut self, AskStandings(reply): AskStandings, _: &mut Context<Self>) {
        // Whoever asked may have gone.
        let _ = reply.send(self.standings(Instant::now()));
    }
}

impl Handler<Stop> for Clock {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
