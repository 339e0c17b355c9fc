//! Confirmation: states what we have on stable storage, signed, and keeps what peers stated.
//!
//! A statement is made from a vector that the oplog told of after its barrier, so it is never ahead of the disk. Statements of
//! others are relayed as they are: whoever is many hops away still proves what it has by its own signature.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::confirmation::{Confirmations, SignedStatement, Statement};
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Lineage, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::token::Token;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Confirm, Request, Response};
use tokio::sync::oneshot;

use super::counters::Counters;
use super::death_watch::DeathWatch;
use super::enrolment::Enrolments;
use super::measures::Queue;
use super::oplog::{Stop, Told};
use super::registered::Registered;
use crate::api::Ack;
use crate::node::Clock as WallClockSource;
use crate::transport::{Class, SharedTransport};

/// Statements are gathered this long before they are sent: pushes carry theirs at once.
const GATHER: Duration = Duration::from_millis(50);
/// Whoever has all we have hears of it this much later: it waits for nothing.
const UNHURRIED: Duration = Duration::from_secs(1);
/// Statements in one message.
const STATEMENTS_MAX: usize = 256;

/// Writes that wait for confirmations at once; each has a connection of its own, and those are bounded too.
const WAITING_MAX: usize = 4_096;

/// Asks for our statement about at least this vector.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StateFor {
    /// Who will get it.
    pub peer: PeerId,
    /// What was applied and durable when the question arose.
    pub vector: Arc<VersionVector>,
    /// Where the statement goes.
    pub reply: oneshot::Sender<SignedStatement>,
}

/// A verified statement, and who sent it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stated {
    /// The sender: it is not told again.
    pub from: PeerId,
    /// What.
    pub statement: Statement,
    /// The bytes to relay.
    pub signed: SignedStatement,
}

/// A peer takes part in this dataset from now on, or no more.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub enum Audience {
    /// Statements go to it.
    Joined(PeerId),
    /// They don't any more.
    Left(PeerId),
}

/// Asks to be told when a commit is durable elsewhere.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AwaitConfirmed {
    /// The commit.
    pub token: Token,
    /// What it wrote to: only peers that replicate all of these count.
    pub collections: Vec<Collection>,
    /// Where.
    pub ack: Ack,
    /// Gets the peers that have it, once there are enough; dropped where too many wait.
    pub reply: oneshot::Sender<Vec<PeerId>>,
}

/// Asks who has a commit now.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AskConfirmed {
    /// The commit.
    pub token: Token,
    /// What it wrote to.
    pub collections: Vec<Collection>,
    /// Gets the peers that have it.
    pub reply: oneshot::Sender<Vec<PeerId>>,
}

/// A peer's `Hello` was accepted for this dataset once: `ack=all` waits for it.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Enrolled(pub PeerId);

/// An operator enrolled or demoted a peer; it is durable.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct EnrolmentChanged {
    /// Who.
    pub peer: PeerId,
    /// Enrolled, or demoted.
    pub enrolled: bool,
}

/// Asks who is enrolled and who was demoted.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AskEnrolments(pub oneshot::Sender<Enrolments>);

/// Asks what peers stated that they have, and who is enrolled.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AskStated(pub oneshot::Sender<(BTreeMap<PeerId, VersionVector>, BTreeSet<PeerId>)>);

/// What a confirmation actor is started with.
pub(super) struct ConfirmationSettings {
    pub dataset: DatasetId,
    pub lineage: Lineage,
    pub identity: Identity,
    pub incarnation: Incarnation,
    pub registered: Arc<Registered>,
    pub wall: Arc<dyn WallClockSource>,
    pub transport: SharedTransport,
    pub counters: Arc<Counters>,
    /// Not while the disk is full: then nothing becomes durable.
    pub grows: bool,
}

/// See the module documentation.
pub struct Confirmation {
    settings: ConfirmationSettings,
    vector: Arc<VersionVector>,
    counter: u64,
    confirmations: Confirmations,
    audience: BTreeSet<PeerId>,
    /// The vector of the last statement each peer got from us.
    told: BTreeMap<PeerId, Arc<VersionVector>>,
    /// Peers that did not take a message: they get all statements again.
    missed: BTreeSet<PeerId>,
    /// Whose statements changed since the last message, by the neighbour that is to hear of it.
    news: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// Our own vector grew, or a peer joined.
    own_news: bool,
    /// Our newest statement; it stands for as long as what it says does.
    stated: Option<(Arc<VersionVector>, Registration, SignedStatement)>,
    gathering: bool,
    unhurried: bool,
    enrolments: Enrolments,
    waiting: Vec<AwaitConfirmed>,
    /// A look at who of them waits no more is due.
    looking: bool,
    /// What peers were last told is here, past and all.
    complete: Registration,
    death_watch: DeathWatch,
}

impl Confirmation {
    pub(super) fn new(
        settings: ConfirmationSettings,
        vector: Arc<VersionVector>,
        enrolments: Enrolments,
        death_watch: DeathWatch,
    ) -> Self {
        let complete = settings.registered.now().complete();
        Self {
            settings,
            vector,
            counter: 0,
            confirmations: Confirmations::default(),
            audience: BTreeSet::new(),
            told: BTreeMap::new(),
            missed: BTreeSet::new(),
            news: BTreeMap::new(),
            own_news: false,
            stated: None,
            gathering: false,
            unhurried: false,
            enrolments,
            waiting: Vec::new(),
            looking: false,
            complete,
            death_watch,
        }
    }

    /// Who has a commit, if that is enough.
    fn confirmed(&self, wait: &AwaitConfirmed) -> Option<Vec<PeerId>> {
        let by: Vec<PeerId> = self.confirmed_by(&wait.token, &wait.collections);
        let enough = match wait.ack {
            Ack::Peers(count) => by.len() >= usize::from(count),
            Ack::All => {
                let has_it = |peer| by.contains(peer) || self.can_not_cover(peer, &wait.collections);
                self.enrolments.enrolled.iter().all(has_it)
            }
        };
        enough.then_some(by)
    }

    /// Whether a peer says that it does not replicate what was written to: it will never have it.
    fn can_not_cover(&self, peer: &PeerId, collections: &[Collection]) -> bool {
        let lacks = |statement: &Statement| collections.iter().any(|c| !statement.registration.contains(c));
        self.confirmations.of(peer).is_some_and(lacks)
    }

    fn confirmed_by(&self, token: &Token, collections: &[Collection]) -> Vec<PeerId> {
        self.confirmations.covering(&token.writer, token.seq, collections).collect()
    }

    /// Answers whoever waited for a statement that came; lets go of those who wait no more.
    fn answer_waiting(&mut self) {
        for wait in std::mem::take(&mut self.waiting) {
            if wait.reply.is_closed() {
                continue;
            }
            match self.confirmed(&wait) {
                // Whoever asked may have gone.
                Some(by) => drop(wait.reply.send(by)),
                None => self.waiting.push(wait),
            }
        }
        self.tell_queue();
    }

    /// Lets go of those whose patience ended, also where nobody states anything any more.
    fn let_go_soon(&mut self, ctx: &mut Context<Self>) {
        if self.waiting.is_empty() || self.looking {
            return;
        }
        self.looking = true;
        ctx.run_later(UNHURRIED, |actor, ctx| {
            actor.looking = false;
            actor.waiting.retain(|wait| !wait.reply.is_closed());
            actor.tell_queue();
            actor.let_go_soon(ctx);
        });
    }

    fn tell_queue(&self) {
        self.settings.counters.measures.queue(Queue::Confirmations, self.waiting.len());
    }

    /// Our statement about the vector as it is now.
    fn state(&mut self) -> SignedStatement {
        let registration = self.settings.registered.now().complete();
        // A new one about the same would go around the whole network once more.
        if let Some((vector, registered, signed)) = &self.stated
            && (vector, registered) == (&self.vector, &registration)
        {
            return signed.clone();
        }
        // The wall clock makes the counter grow over restarts without a write per statement.
        self.counter = self.counter.saturating_add(1).max(self.settings.wall.now().0 << 8);
        let settings = &self.settings;
        #[cfg(feature = "planted")]
        if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::ConfirmAhead) {
            let peers: Vec<PeerId> = self.confirmations.signed().map(|(peer, _)| *peer).collect();
            let heard = peers.iter().filter_map(|peer| self.confirmations.of(peer));
            heard.for_each(|statement| Arc::make_mut(&mut self.vector).join(&statement.vector));
        }
        let statement = Statement {
            dataset: settings.dataset.to_wire(),
            peer: settings.identity.peer(),
            incarnation: settings.incarnation,
            counter: self.counter,
            registration: registration.clone(),
            vector: (*self.vector).clone(),
        };
        let signed = SignedStatement::sign(&statement, settings.lineage, &settings.identity);
        self.stated = Some((self.vector.clone(), registration, signed.clone()));
        signed
    }

    /// Where something is complete by now, or no more, what peers were told is not true any more.
    fn restate(&mut self) {
        let complete = self.settings.registered.now().complete();
        if complete != self.complete {
            self.complete = complete;
            self.told.clear();
        }
    }

    /// Passes on what a peer stated to all neighbours but the one that told us.
    fn pass_on(&mut self, about: PeerId, from: PeerId, ctx: &mut Context<Self>) {
        let mut anybody = false;
        for peer in self.audience.iter().filter(|peer| **peer != from && **peer != about) {
            self.news.entry(*peer).or_default().insert(about);
            anybody = true;
        }
        // With one neighbour, which told us, nobody is left to be told.
        if anybody {
            self.send_soon(ctx);
        }
    }

    /// Passes on all that is known to one neighbour, what it said itself in an earlier life too: see [`Self::outlived`].
    fn tell_all_known(&mut self, peer: PeerId) {
        let all = self.confirmations.signed().map(|(about, _)| *about);
        self.news.entry(peer).or_default().extend(all);
    }

    /// Peers still have a statement of ours that ours of now does not replace: our clock was set back since, or the store was
    /// rebuilt. Ours takes a greater counter, as routers do that hear of their own old link states (RFC 2328, section 13.4).
    fn outlived(&mut self, statement: &Statement, ctx: &mut Context<Self>) {
        if statement.counter < self.counter || self.said(statement) {
            return;
        }
        self.counter = statement.counter;
        if self.stated.take().is_some() {
            self.told.clear();
            self.send_own_soon(ctx);
        }
    }

    /// Whether it is our newest one.
    fn said(&self, statement: &Statement) -> bool {
        statement.counter == self.counter && statement.incarnation == self.settings.incarnation && self.stated.is_some()
    }

    fn send_own_soon(&mut self, ctx: &mut Context<Self>) {
        self.own_news = true;
        self.send_soon(ctx);
    }

    fn send_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.gathering {
            self.gathering = true;
            ctx.run_later(GATHER, |actor, ctx| actor.send(ctx));
        }
    }

    fn send(&mut self, ctx: &mut Context<Self>) {
        self.gathering = false;
        for peer in self.audience.clone() {
            let mut statements = Vec::new();
            if self.waits_for_us(&peer) {
                statements.push(self.state());
                self.told.insert(peer, self.vector.clone());
            }
            statements.extend(self.next_news(&peer));
            self.tell(peer, statements, ctx);
        }
        if std::mem::take(&mut self.own_news) && !self.all_told() {
            self.tell_the_rest_later(ctx);
        }
        if !self.news.is_empty() {
            self.send_soon(ctx);
        }
    }

    /// What a neighbour has yet to hear of others, as much as one message takes; the rest comes with the next one.
    fn next_news(&mut self, peer: &PeerId) -> Vec<SignedStatement> {
        let Some(mut now) = self.news.remove(peer) else { return Vec::new() };
        if let Some(first_of_rest) = now.iter().nth(STATEMENTS_MAX).copied() {
            self.news.insert(*peer, now.split_off(&first_of_rest));
        }
        self.confirmations.signed().filter(|(about, _)| now.contains(about)).map(|(_, signed)| signed.clone()).collect()
    }

    /// Whether a peer may lack something that we have, and does not know that we have it.
    fn waits_for_us(&self, peer: &PeerId) -> bool {
        let has_all = self.confirmations.of(peer).is_some_and(|statement| statement.vector.covers(&self.vector));
        !has_all && self.told.get(peer) != Some(&self.vector)
    }

    fn all_told(&self) -> bool {
        self.audience.iter().all(|peer| self.told.get(peer) == Some(&self.vector))
    }

    fn tell_the_rest_later(&mut self, ctx: &mut Context<Self>) {
        if !self.unhurried {
            self.unhurried = true;
            ctx.run_later(UNHURRIED, |actor, ctx| actor.tell_the_rest(ctx));
        }
    }

    /// States what we have to whoever did not hear of it, though it lacks nothing, and all that is known to whoever missed some.
    fn tell_the_rest(&mut self, ctx: &mut Context<Self>) {
        self.unhurried = false;
        let missed = std::mem::take(&mut self.missed);
        let lacks = |peer: &&PeerId| self.told.get(peer) != Some(&self.vector) || missed.contains(peer);
        let rest: Vec<PeerId> = self.audience.iter().filter(lacks).copied().collect();
        if rest.is_empty() {
            return;
        }
        for peer in rest {
            self.told.insert(peer, self.vector.clone());
            if missed.contains(&peer) {
                self.tell_all_known(peer);
            }
            let statements = std::iter::once(self.state()).chain(self.next_news(&peer)).collect();
            self.tell(peer, statements, ctx);
        }
        if !self.news.is_empty() {
            self.send_soon(ctx);
        }
    }

    fn tell(&mut self, peer: PeerId, statements: Vec<SignedStatement>, ctx: &mut Context<Self>) {
        if statements.is_empty() {
            return;
        }
        let request = Request::Confirm(Confirm { dataset: self.settings.dataset.to_wire(), statements });
        let sent = self.settings.transport.request(peer, Class::Interactive, request);
        ctx.spawn(sent.into_actor(self).map(move |answer, actor, ctx| {
            #[cfg(feature = "planted")]
            if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SayOnce) {
                return;
            }
            // In a quiet dataset no other statement would follow a lost one.
            if !matches!(answer, Ok(Response::Confirmed)) && actor.audience.contains(&peer) {
                actor.told.remove(&peer);
                actor.missed.insert(peer);
                actor.tell_the_rest_later(ctx);
            }
        }));
    }
}

impl Actor for Confirmation {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.death_watch.started(ctx);
        // Who waited for the one before it asks again.
        self.tell_queue();
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.death_watch.stopping();
        Running::Stop
    }
}

impl Handler<Told> for Confirmation {
    type Result = ();
    fn handle(&mut self, Told(committed): Told, ctx: &mut Context<Self>) {
        if self.settings.grows {
            self.vector = committed.vector.clone();
        }
        if committed.registered_anew || committed.got_on {
            self.restate();
        }
        if committed.registered_anew {
            // What was stated so far was stated under another registration.
            self.told.clear();
        }
        self.send_own_soon(ctx);
    }
}

impl Handler<StateFor> for Confirmation {
    type Result = ();
    fn handle(&mut self, StateFor { peer, vector, reply }: StateFor, _: &mut Context<Self>) {
        if self.settings.grows && vector.covers(&self.vector) {
            self.vector = vector;
        }
        self.told.insert(peer, self.vector.clone());
        // Whoever asked may have gone.
        let _ = reply.send(self.state());
    }
}

impl Handler<Stated> for Confirmation {
    type Result = ();
    fn handle(&mut self, Stated { from, statement, signed }: Stated, ctx: &mut Context<Self>) {
        let about = statement.peer;
        if about == self.settings.identity.peer() {
            return self.outlived(&statement, ctx);
        }
        if self.confirmations.insert(&from, statement, signed) {
            self.settings.counters.measures.stated();
            self.answer_waiting();
            self.pass_on(about, from, ctx);
        }
    }
}

impl Handler<AwaitConfirmed> for Confirmation {
    type Result = ();
    fn handle(&mut self, wait: AwaitConfirmed, ctx: &mut Context<Self>) {
        match self.confirmed(&wait) {
            Some(by) => drop(wait.reply.send(by)),
            None => {
                if self.waiting.len() >= WAITING_MAX {
                    self.answer_waiting();
                }
                if self.waiting.len() < WAITING_MAX {
                    self.waiting.push(wait);
                }
                self.tell_queue();
                self.let_go_soon(ctx);
            }
        }
    }
}

impl Handler<AskConfirmed> for Confirmation {
    type Result = ();
    fn handle(&mut self, AskConfirmed { token, collections, reply }: AskConfirmed, _: &mut Context<Self>) {
        // Whoever asked may have gone.
        let _ = reply.send(self.confirmed_by(&token, &collections));
    }
}

impl Handler<Enrolled> for Confirmation {
    type Result = ();
    fn handle(&mut self, Enrolled(peer): Enrolled, _: &mut Context<Self>) {
        self.enrolments.accepted(peer);
    }
}

impl Handler<EnrolmentChanged> for Confirmation {
    type Result = ();
    fn handle(&mut self, EnrolmentChanged { peer, enrolled }: EnrolmentChanged, _: &mut Context<Self>) {
        self.enrolments.set(peer, enrolled);
        // Some may have waited for this peer alone.
        self.answer_waiting();
    }
}

impl Handler<AskEnrolments> for Confirmation {
    type Result = ();
    fn handle(&mut self, AskEnrolments(reply): AskEnrolments, _: &mut Context<Self>) {
        // Whoever asked may have gone.
        let _ = reply.send(self.enrolments.clone());
    }
}

impl Handler<AskStated> for Confirmation {
    type Result = ();
    fn handle(&mut self, AskStated(reply): AskStated, _: &mut Context<Self>) {
        let stated =
            self.confirmations.signed().filter_map(|(peer, _)| Some((*peer, self.confirmations.of(peer)?.vector.clone())));
        // Whoever asked may have gone.
        let _ = reply.send((stated.collect(), self.enrolments.enrolled.clone()));
    }
}

impl Handler<Audience> for Confirmation {
    type Result = ();
    fn handle(&mut self, audience: Audience, ctx: &mut Context<Self>) {
        match audience {
            Audience::Joined(peer) => {
                self.audience.insert(peer);
                // Also when it was here all the time: its dataset may have been rebuilt since.
                self.told.remove(&peer);
                self.tell_all_known(peer);
                self.send_own_soon(ctx);
            }
            Audience::Left(peer) => {
                self.audience.remove(&peer);
                self.told.remove(&peer);
                self.missed.remove(&peer);
                self.news.remove(&peer);
            }
        }
    }
}

impl Handler<Stop> for Confirmation {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
