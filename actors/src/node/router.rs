//! The node actor: greets peers, judges their `Hello`, and routes what they ask to the dataset it names.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, Incarnation, PeerId};
use anabranch_protocol::round::Rounds;
use anabranch_protocol::wire::{DatasetHello, DatasetReply, Hello, HelloReply, Refusal, RefusalCode, Request, Response, VERSION};
use tokio::sync::oneshot;

use super::Datasets;
use super::access::{AccessSettings, Entry, Unanswered};
use super::hosting::Hosting;
use super::sessions::{Judged, PeerSession, admit, introduce_all, judge_all};
use crate::api::{PeerDataset, PeerInfo, PeerState};
use crate::dataset::sync::{Announced, Gone, Inbound};
use crate::transport::{SharedTransport, TransportEvent};

/// How long until a `Hello` that was not answered is said again.
const HELLO_RETRY: Duration = Duration::from_secs(2);
/// How long a refused dataset is left alone before it is asked about again on the same connection.
const REFUSED_RETRY: Duration = Duration::from_secs(15);

/// Addresses remembered of one connected peer.
const ADDRESSES_MAX: usize = 64;

/// Peers remembered, connected or not; more only where more are connected at once.
const PEERS_KNOWN_MAX: usize = 1_024;

/// The network says something.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Event(pub TransportEvent);

/// Asks for all peers.
#[derive(Message)]
#[rtype(result = "Vec<PeerInfo>")]
pub(super) struct AskPeers;

/// See the module documentation.
pub(super) struct Node {
    pub(super) peer: PeerId,
    pub(super) incarnation: Incarnation,
    pub(super) access: AccessSettings,
    pub(super) transport: SharedTransport,
    pub(super) hosting: Hosting,
    pub(super) datasets: Datasets,
    pub(super) peers: BTreeMap<PeerId, PeerSession>,
}

impl Node {
    pub fn new(hosting: Hosting, datasets: Datasets) -> Self {
        let settings = &hosting.settings;
        let (peer, incarnation, access) = (settings.identity.peer(), settings.incarnation, settings.access.clone());
        let transport = hosting.transport.clone();
        Self { peer, incarnation, access, transport, hosting, datasets, peers: BTreeMap::new() }
    }

    fn connected(&mut self, peer: PeerId, dialed: bool, address: String, ctx: &mut Context<Self>) {
        self.make_room_for(peer);
        let session = self.peers.entry(peer).or_default();
        session.connected = true;
        session.dialed = dialed;
        session.connection += 1;
        // Those of earlier connections are mostly ports that are gone.
        session.addresses = std::iter::once(address).collect();
        let connection = session.connection;
        self.expect_proof(peer, connection, ctx);
        if dialed {
            self.greet_for_all(peer, ctx);
        } else {
            // Both may have dialed and each think that the other one speaks first.
            ctx.run_later(HELLO_RETRY, move |actor, ctx| {
                let silent = actor.peers.get(&peer).is_some_and(|session| session.incarnation.is_none());
                if silent && actor.is_current(peer, connection) {
                    actor.greet_for_all(peer, ctx);
                }
            });
        }
    }

    /// Identities cost nothing: of peers that are not connected only so many are remembered, those turned away least of all.
    fn make_room_for(&mut self, peer: PeerId) {
        if self.peers.len() < PEERS_KNOWN_MAX || self.peers.contains_key(&peer) {
            return;
        }
        let gone = self.peers.iter().filter(|(_, session)| !session.connected);
        let least = gone.min_by_key(|(_, session)| (session.turned_away.is_none(), session.dialed)).map(|(peer, _)| *peer);
        if let Some(peer) = least {
            self.peers.remove(&peer);
        }
    }

    fn greet_for_all(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        let all = self.datasets.names();
        self.greet(peer, all, ctx);
    }

    fn disconnected(&mut self, peer: PeerId) {
        self.connection_ended(peer);
        let Some(session) = self.peers.get_mut(&peer) else { return };
        session.connected = false;
        session.rtt = None;
        session.incarnation = None;
        session.rounds = Rounds::default();
        session.round_under_way = false;
        session.refused.clear();
        session.retried.clear();
        session.unanswered.clear();
        session.withdrawing.clear();
        for dataset in std::mem::take(&mut session.accepted) {
            if let Some(running) = self.datasets.running_now(&dataset) {
                running.sync.do_send(Gone(peer));
            }
        }
        if session.forget_when_gone {
            self.peers.remove(&peer);
        }
    }

    pub(super) fn is_current(&self, peer: PeerId, connection: u64) -> bool {
        self.peers.get(&peer).is_some_and(|session| session.connected && session.connection == connection)
    }

    /// Says `Hello` with these datasets, as far as they run, and with those that are withdrawn from the peer.
    pub(super) fn greet(&mut self, peer: PeerId, named: Vec<DatasetId>, ctx: &mut Context<Self>) {
        let Some(connection) = self.peers.get(&peer).map(|session| session.connection) else { return };
        let named = self.readable(peer, named);
        if !self.may_greet(peer, &named) {
            return;
        }
        let datasets = self.datasets.clone();
        let introduced = async move { introduce_all(&datasets, &named).await };
        ctx.spawn(introduced.into_actor(self).map(move |hellos, actor, ctx| {
            if !actor.is_current(peer, connection) {
                return;
            }
            let withdrawn =
                actor.peers.get_mut(&peer).map(|session| std::mem::take(&mut session.withdrawing)).unwrap_or_default();
            if hellos.is_empty() && withdrawn.is_empty() {
                actor.greeted(peer, ctx);
            } else {
                actor.say_hello(peer, connection, hellos, withdrawn, ctx);
            }
        }));
    }

    fn say_hello(
        &mut self,
        peer: PeerId,
        connection: u64,
        hellos: Vec<DatasetHello>,
        withdrawn: Vec<DatasetReply>,
        ctx: &mut Context<Self>,
    ) {
        let named: Vec<DatasetId> = hellos.iter().filter_map(|hello| DatasetId::from_wire(hello.dataset.as_ref())).collect();
        let introduction = self.introduction(peer);
        let datasets = self.datasets.clone();
        let answered = async move {
            let reply = introduction.say_hello(hellos, withdrawn).await?;
            let judged = judge_all(&datasets, peer, reply.hello.datasets.clone()).await;
            Ok((reply, judged))
        };
        ctx.spawn(answered.into_actor(self).map(move |answer, actor, ctx| {
            if !actor.is_current(peer, connection) {
                // Who tells us that we are not let in may hang up in the same moment.
                if let Err(Unanswered::TurnedAway(refusal)) = answer {
                    actor.note_last_word(peer, connection, &refusal);
                }
                return;
            }
            actor.greeted(peer, ctx);
            match answer {
                Ok((reply, judged)) => actor.hello_answered(peer, reply, judged, ctx),
                Err(Unanswered::TurnedAway(refusal)) => actor.turn_away(peer, &refusal, ctx),
                Err(Unanswered::Again(reason)) => {
                    tracing::info!(%peer, reason, "a Hello was not answered; it is said again");
                    actor.greet_again(peer, connection, named, ctx);
                }
            }
        }));
    }

    /// Says an unanswered `Hello` again, once for all that were unanswered meanwhile.
    fn greet_again(&mut self, peer: PeerId, connection: u64, named: Vec<DatasetId>, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        let scheduled = !session.unanswered.is_empty();
        session.unanswered.extend(named);
        if scheduled {
            return;
        }
        ctx.run_later(HELLO_RETRY, move |actor, ctx| {
            if !actor.is_current(peer, connection) {
                return;
            }
            let unanswered = actor.peers.get_mut(&peer).map(|session| std::mem::take(&mut session.unanswered));
            actor.greet(peer, unanswered.into_iter().flatten().collect(), ctx);
        });
    }

    fn hello_answered(&mut self, peer: PeerId, reply: HelloReply, mut judged: Judged, ctx: &mut Context<Self>) {
        for refused in reply.refused {
            if let Some(dataset) = DatasetId::from_wire(refused.dataset.as_ref()) {
                judged.refused.push((dataset, refused.refusal.by_peer()));
            }
        }
        self.accept(peer, &reply.hello, judged, ctx);
    }

    /// Opens the session for the datasets that both sides accepted.
    fn accept(&mut self, peer: PeerId, hello: &Hello, judged: Judged, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        if session.is_other_store(hello.incarnation) {
            return tracing::warn!(%peer, "two live stores of one identity: the second one is not synced with");
        }
        session.incarnation = Some(hello.incarnation);
        session.turned_away = None;
        let room = ADDRESSES_MAX.saturating_sub(session.addresses.len());
        session.addresses.extend(hello.listen.iter().take(room).cloned());
        for (dataset, refusal) in judged.refused {
            self.refused(peer, dataset, &refusal, ctx);
        }
        let Some(session) = self.peers.get_mut(&peer) else { return };
        for (dataset, _) in &judged.accepted {
            session.refused.remove(dataset);
            session.accepted.insert(dataset.clone());
        }
        if !judged.accepted.is_empty() {
            self.transport.accepted(peer, hello.listen.clone());
            admit(&self.datasets, peer, judged.accepted);
        }
    }

    /// One side refuses a dataset: shown, ended where it was synced, and asked about again after a while.
    pub(super) fn refused(&mut self, peer: PeerId, dataset: DatasetId, refusal: &Refusal, ctx: &mut Context<Self>) {
        if refusal.ends_session() {
            self.end_session(peer, &dataset);
        }
        if let Some(handle) = self.datasets.get(&dataset) {
            handle.counters().refused(refusal.code);
        }
        let Some(session) = self.peers.get_mut(&peer) else { return };
        let shown = session.refused.insert(dataset.clone(), refusal.to_string());
        if shown.as_deref() != Some(refusal.to_string().as_str()) {
            tracing::warn!(%dataset, %peer, %refusal, "the dataset is not synced with this peer");
        }
        if !session.retried.insert(dataset.clone()) {
            return;
        }
        let connection = session.connection;
        // Configuration changes and restarts on either side end most refusals.
        ctx.run_later(REFUSED_RETRY, move |actor, ctx| {
            let Some(session) = actor.peers.get_mut(&peer).filter(|s| s.connected && s.connection == connection) else {
                return;
            };
            session.retried.remove(&dataset);
            if session.refused.contains_key(&dataset) {
                actor.greet(peer, vec![dataset], ctx);
            }
        });
    }

    fn request(&mut self, peer: PeerId, request: Request, reply: oneshot::Sender<Response>, ctx: &mut Context<Self>) {
        let request = match request {
            Request::Hello(hello) => return self.take_hello(peer, hello, reply, ctx),
            Request::Round(_) => return self.answer_round(peer, reply, ctx),
            about_a_dataset => about_a_dataset,
        };
        let Some(dataset) = request.dataset() else { return };
        let Some(handle) = self.datasets.get(&dataset) else {
            let why = self.datasets.absence(&dataset).unwrap_or_default();
            return refuse(reply, RefusalCode::UnknownDataset, &why);
        };
        let accepted = self.peers.get(&peer).is_some_and(|session| session.connected && session.accepted.contains(&dataset));
        if !accepted {
            return refuse(reply, RefusalCode::HelloFirst, "say Hello for this dataset first");
        }
        match handle.running_now() {
            Some(running) => running.sync.do_send(Inbound { peer, request, reply }),
            None => refuse(reply, RefusalCode::Unavailable, &format!("dataset {dataset} does not run now")),
        }
    }

    fn take_hello(&mut self, peer: PeerId, hello: Hello, reply: oneshot::Sender<Response>, ctx: &mut Context<Self>) {
        if !hello.versions.contains(&VERSION) {
            let reason = format!("this node speaks protocol version {VERSION}, the peer {:?}", hello.versions);
            return refuse(reply, RefusalCode::Version, &reason);
        }
        match self.judge_entry(peer, &hello) {
            Entry::Admitted => {}
            Entry::Challenged(answer) => return say(reply, Response::Hello(answer)),
            Entry::Keyless(answer, refusal) => {
                say(reply, Response::Hello(answer));
                return self.turn_away(peer, &refusal, ctx);
            }
            Entry::Refused(refusal) => {
                say(reply, Response::Refused(refusal.clone()));
                return self.turn_away(peer, &refusal, ctx);
            }
        }
        let session = self.peers.entry(peer).or_default();
        if session.is_other_store(hello.incarnation) {
            let reason = "another live store of this identity is connected already";
            return refuse(reply, RefusalCode::DuplicateIdentity, reason);
        }
        let connection = session.connection;
        let datasets = self.datasets.clone();
        let theirs = hello.datasets.clone();
        let judged = async move { judge_all(&datasets, peer, theirs).await };
        ctx.spawn(judged.into_actor(self).map(move |mut judged, actor, ctx| {
            let own = actor.answer_hello(peer, hello.nonce, judged.ours.clone());
            let answer = HelloReply { hello: own, refused: judged.replies() };
            // Sent first: the peer answers our own requests only once it has it.
            let sent = reply.send(Response::Hello(answer)).is_ok();
            if sent && actor.is_current(peer, connection) {
                // Named by the peer, so not part of the answer.
                judged.withdraw(&hello);
                actor.accept(peer, &hello, judged, ctx);
                actor.greet_for_the_rest(peer, &hello, ctx);
            }
        }));
    }
}

pub(super) fn refuse(reply: oneshot::Sender<Response>, code: RefusalCode, reason: &str) {
    say(reply, Response::Refused(Refusal::new(code, reason)));
}

pub(super) fn say(reply: oneshot::Sender<Response>, response: Response) {
    // A peer that went away needs no answer.
    let _ = reply.send(response);
}

impl Actor for Node {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.start_rounds(ctx);
    }
}

impl Handler<Event> for Node {
    type Result = ();
    fn handle(&mut self, Event(event): Event, ctx: &mut Context<Self>) {
        match event {
            TransportEvent::Connected { peer, dialed, address } => self.connected(peer, dialed, address, ctx),
            TransportEvent::Disconnected { peer } => self.disconnected(peer),
            TransportEvent::Request { peer, request, reply } => self.request(peer, request, reply, ctx),
            TransportEvent::Announced { peer, announce } => {
                let Some(dataset) = DatasetId::from_wire(announce.dataset.as_ref()) else { return };
                let accepted = self.peers.get(&peer).is_some_and(|session| session.accepted.contains(&dataset));
                if let (true, Some(running)) = (accepted, self.datasets.running_now(&dataset)) {
                    running.sync.do_send(Announced { peer, announce });
                }
            }
            TransportEvent::TurnedAway { peer, refusal } => self.kept_out(peer, &refusal),
            TransportEvent::RoundTrip { peer, rtt } => {
                if let Some(session) = self.peers.get_mut(&peer) {
                    session.rtt = Some(rtt);
                }
            }
        }
    }
}

impl Handler<AskPeers> for Node {
    type Result = MessageResult<AskPeers>;
    fn handle(&mut self, _: AskPeers, _: &mut Context<Self>) -> Self::Result {
        let others = self.peers.iter().filter(|(peer, _)| **peer != self.peer);
        let info = |(peer, session): (&PeerId, &PeerSession)| PeerInfo {
            peer: *peer,
            connected: session.connected,
            rtt: session.rtt,
            addresses: session.addresses.iter().cloned().collect(),
            refused: session.turned_away.clone(),
            datasets: match &session.turned_away {
                Some(reason) => self.datasets.names().iter().map(|dataset| refused_dataset((dataset, reason))).collect(),
                None => session.refused.iter().map(refused_dataset).collect(),
            },
        };
        MessageResult(others.map(info).collect())
    }
}

fn refused_dataset((dataset, reason): (&DatasetId, &String)) -> (DatasetId, PeerDataset) {
    let refused = PeerDataset { state: PeerState::Refused, lag_commits: 0, lag: Duration::ZERO, reason: Some(reason.clone()) };
    (dataset.clone(), refused)
}
