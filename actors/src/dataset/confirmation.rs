//! Confirmation: states what we have on stable storage, signed, and keeps what peers stated.
//!
//! A statement is made from a vector that the oplog told of after its barrier, so it is never ahead of the disk. Statements of
//! others are relayed as they are: whoever is many hops away still proves what it has by its own signature.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::confirmation::{Confirmations, SignedStatement, Statement};
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Confirm, Request};
use tokio::sync::oneshot;

use super::death_watch::DeathWatch;
use super::oplog::{Stop, Told};
use crate::node::Clock as WallClockSource;
use crate::transport::{Class, SharedTransport};

/// Statements are gathered this long before they are sent: pushes carry theirs at once.
const GATHER: Duration = Duration::from_millis(50);
/// Statements in one message.
const STATEMENTS_MAX: usize = 256;

/// Asks for our statement about at least this vector.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StateFor {
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

/// Asks what every accepted peer has: per writer the minimum.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskFrontier(pub oneshot::Sender<VersionVector>);

/// What a confirmation actor is started with.
pub(super) struct ConfirmationSettings {
    pub dataset: DatasetId,
    pub lineage: Lineage,
    pub identity: Identity,
    pub incarnation: Incarnation,
    pub registration: Registration,
    pub wall: Arc<dyn WallClockSource>,
    pub transport: SharedTransport,
}

/// See the module documentation.
pub struct Confirmation {
    settings: ConfirmationSettings,
    vector: Arc<VersionVector>,
    counter: u64,
    confirmations: Confirmations,
    audience: BTreeSet<PeerId>,
    /// Peers whose statements changed since the last message; our own among them.
    news: BTreeSet<PeerId>,
    gathering: bool,
    _death_watch: DeathWatch,
}

impl Confirmation {
    pub(super) fn new(settings: ConfirmationSettings, vector: Arc<VersionVector>, death_watch: DeathWatch) -> Self {
        Self {
            settings,
            vector,
            counter: 0,
            confirmations: Confirmations::default(),
            audience: BTreeSet::new(),
            news: BTreeSet::new(),
            gathering: false,
            _death_watch: death_watch,
        }
    }

    /// Our statement about the vector as it is now.
    fn state(&mut self) -> SignedStatement {
        // The wall clock makes the counter grow over restarts without a write per statement.
        self.counter = (self.counter + 1).max(self.settings.wall.now().0 << 8);
        let settings = &self.settings;
        let statement = Statement {
            dataset: settings.dataset.to_wire(),
            peer: settings.identity.peer(),
            incarnation: settings.incarnation,
            counter: self.counter,
            registration: settings.registration.clone(),
            vector: (*self.vector).clone(),
        };
        SignedStatement::sign(&statement, settings.lineage, &settings.identity)
    }

    fn send_soon(&mut self, about: PeerId, ctx: &mut Context<Self>) {
        self.news.insert(about);
        if !self.gathering {
            self.gathering = true;
            ctx.run_later(GATHER, |actor, ctx| actor.send(ctx));
        }
    }

    fn send(&mut self, ctx: &mut Context<Self>) {
        self.gathering = false;
        let me = self.settings.identity.peer();
        let news = std::mem::take(&mut self.news);
        let own = (news.contains(&me) && !self.audience.is_empty()).then(|| self.state());
        for peer in &self.audience {
            let relayed = self.confirmations.signed().filter(|(about, _)| news.contains(about) && *about != peer);
            let statements: Vec<_> = own.iter().chain(relayed.map(|(_, signed)| signed)).take(STATEMENTS_MAX).cloned().collect();
            if statements.is_empty() {
                continue;
            }
            let request = Request::Confirm(Confirm { dataset: self.settings.dataset.to_wire(), statements });
            let sent = self.settings.transport.request(*peer, Class::Interactive, request);
            // A lost statement is made good by the next one, or by the peer's anti-entropy.
            ctx.spawn(sent.into_actor(self).map(|_, _, _| ()));
        }
    }
}

impl Actor for Confirmation {
    type Context = Context<Self>;
}

impl Handler<Told> for Confirmation {
    type Result = ();
    fn handle(&mut self, Told(committed): Told, ctx: &mut Context<Self>) {
        self.vector = committed.vector.clone();
        self.send_soon(self.settings.identity.peer(), ctx);
    }
}

impl Handler<StateFor> for Confirmation {
    type Result = ();
    fn handle(&mut self, StateFor { vector, reply }: StateFor, _: &mut Context<Self>) {
        if vector.covers(&self.vector) {
            self.vector = vector;
        }
        // Whoever asked may have gone.
        let _ = reply.send(self.state());
    }
}

impl Handler<Stated> for Confirmation {
    type Result = ();
    fn handle(&mut self, Stated { from, statement, signed }: Stated, ctx: &mut Context<Self>) {
        let about = statement.peer;
        let own = about == self.settings.identity.peer();
        // With one neighbour, which told us, nobody is left to be told.
        let others = self.audience.iter().any(|peer| *peer != from && *peer != about);
        if !own && self.confirmations.insert(&from, statement, signed) && others {
            self.send_soon(about, ctx);
        }
    }
}

impl Handler<Audience> for Confirmation {
    type Result = ();
    fn handle(&mut self, audience: Audience, ctx: &mut Context<Self>) {
        match audience {
            Audience::Joined(peer) => {
                self.audience.insert(peer);
                let known: Vec<_> = self.confirmations.signed().map(|(about, _)| *about).collect();
                known.into_iter().for_each(|about| self.send_soon(about, ctx));
                self.send_soon(self.settings.identity.peer(), ctx);
            }
            Audience::Left(peer) => drop(self.audience.remove(&peer)),
        }
    }
}

impl Handler<AskFrontier> for Confirmation {
    type Result = ();
    fn handle(&mut self, AskFrontier(reply): AskFrontier, _: &mut Context<Self>) {
        let members: Vec<_> = self.confirmations.signed().map(|(peer, _)| *peer).collect();
        let _ = reply.send(self.confirmations.frontier(members, &self.vector));
    }
}

impl Handler<Stop> for Confirmation {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
