//! The task that owns the libp2p swarm: takes commands, reacts to the network, delivers events.
//!
//! Everything that changes state runs here, one thing at a time. What takes long (bulk streams, waiting for the node's answers,
//! writing the address book) runs beside it and reports back. `network.rs` has connections, dials and listeners; `messages.rs`
//! what arrives on them.

#[cfg(feature = "mdns")]
mod local_network;
mod messages;
mod network;
mod turned_away;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anabranch_actors::transport::{Class, EventSender, TransportError};
use anabranch_protocol::id::PeerId;
use anabranch_protocol::network_key::Keyring;
use anabranch_protocol::wire::Announce;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::core::transport::ListenerId;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, StreamProtocol, Swarm};
use libp2p_stream::{Control, IncomingStreams};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::SwarmError;
use super::address::{from_libp2p, socket, split_peer, to_libp2p, worth_dialing};
use super::address_book::{AddressBook, Written};
use super::allowance::Allowances;
use super::behaviour::{self, Behaviour};
use super::bulk::{Inbound, Opener};
use super::conduct::{Conduct, FORGED_POINTS};
use super::config::{SwarmConfig, SwarmLimits};
use super::control::ControlRequest;
use super::counters::{Counters, MessageKind, count};
use super::door::Lists;
use super::gossip;
use super::handle::{COMMANDS_MAX, Command, PeerView, SwarmHandle, Verdict, View, Wishes, lock};
use super::outbox::Outbox;
use super::redial::{Redial, Target};
use super::reply::Reply;

/// How often deadlines and redials are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Bulk requests of all peers on their way to the outbox.
const BULK_INBOUND_MAX: usize = 64;
/// How long connections may take to close on shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the address book may take to be written on shutdown.
const BOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// A connected peer.
struct Peer {
    id: PeerId,
    remote_ip: Option<IpAddr>,
    /// Where this node reached it.
    dialed: Option<Multiaddr>,
    /// Where it listens, by its own word in identify.
    identified: Vec<Multiaddr>,
    accepted: bool,
    rtt: Option<Duration>,
    /// Requests that were over a rate.
    over_rate: u32,
    /// The connection that this node opened; another one of its own is one too many.
    dialed_by_us: Option<ConnectionId>,
    control_in_flight: usize,
    opener: Option<Opener>,
    server: Option<AbortHandle>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// A control request of ours that is under way.
struct Waiting {
    peer: libp2p::PeerId,
    reply: Reply,
    since: Instant,
}

pub(super) struct SwarmTask {
    swarm: Swarm<Behaviour>,
    network_keys: Keyring,
    limits: SwarmLimits,
    counters: Arc<Counters>,
    view: Arc<View>,
    events: EventSender,
    outbox: Outbox,
    commands: mpsc::Receiver<Command>,
    wishes: Arc<Wishes>,
    peers: HashMap<libp2p::PeerId, Peer>,
    redial: Redial,
    conduct: Conduct,
    book: AddressBook,
    dials: HashMap<ConnectionId, Target>,
    /// Connections that are closed once their last answer is sent.
    unwanted: HashSet<ConnectionId>,
    lists: Arc<Lists>,
    /// Connections to peers that are not let in, and when each is closed.
    strangers: HashMap<ConnectionId, Instant>,
    /// Peers that may not connect for a while, and until when.
    shut_out: HashMap<libp2p::PeerId, Instant>,
    allowances: Allowances,
    /// Listeners that have not said where they listen.
    unbound: HashMap<ListenerId, Multiaddr>,
    waiting: HashMap<OutboundRequestId, Waiting>,
    answers: FuturesUnordered<BoxFuture<'static, messages::Answered>>,
    bulk_control: Control,
    bulk_streams: IncomingStreams,
    bulk_inbound: mpsc::Receiver<Inbound>,
    bulk_hand_over: mpsc::Sender<Inbound>,
}

impl SwarmTask {
    /// Builds the swarm, binds every listen address and learns whom to dial.
    pub(super) async fn start(config: SwarmConfig, events: EventSender) -> Result<(Self, SwarmHandle), SwarmError> {
        let counters = Arc::new(Counters::default());
        let lists = Lists::new(&config);
        let swarm = behaviour::build(&config, &lists, &counters)?;
        let peer_id = from_libp2p(swarm.local_peer_id()).ok_or_else(|| SwarmError::Identity("not ed25519".to_owned()))?;
        let mut bulk_control = swarm.behaviour().members.inner().bulk.new_control();
        let bulk_protocol = StreamProtocol::new(anabranch_protocol::wire::BULK_PROTOCOL);
        let bulk_streams = bulk_control.accept(bulk_protocol).map_err(|error| SwarmError::Setup(error.to_string()))?;
        let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
        let (bulk_hand_over, bulk_inbound) = mpsc::channel(BULK_INBOUND_MAX);
        let (wishes, view) = (Arc::new(Wishes::default()), Arc::new(View::default()));
        let mut task = Self {
            swarm,
            network_keys: config.network_keys.clone(),
            redial: Redial::new(config.limits.clone()),
            conduct: Conduct::new(config.limits.misbehaviour_max, config.limits.refused_for),
            limits: config.limits.clone(),
            counters: Arc::clone(&counters),
            view: Arc::clone(&view),
            events,
            outbox: Outbox::new(Arc::clone(&counters)),
            commands,
            wishes: Arc::clone(&wishes),
            peers: HashMap::new(),
            book: AddressBook::open(config.address_book.clone()),
            dials: HashMap::new(),
            unwanted: HashSet::new(),
            lists,
            strangers: HashMap::new(),
            shut_out: HashMap::new(),
            allowances: Allowances::new(&config.limits),
            unbound: HashMap::new(),
            waiting: HashMap::new(),
            answers: FuturesUnordered::new(),
            bulk_control,
            bulk_streams,
            bulk_inbound,
            bulk_hand_over,
        };
        task.listen(&config.listen).await?;
        task.learn_whom_to_dial(&config.peers);
        Ok((task, SwarmHandle::new(peer_id, commands_in, wishes, view, counters)))
    }

    fn learn_whom_to_dial(&mut self, told: &[Multiaddr]) {
        let now = Instant::now();
        for (peer, addresses) in self.book.peers() {
            if peer != *self.swarm.local_peer_id() {
                self.redial.learn(peer, addresses, false, now);
            }
        }
        for address in told {
            let (bare, peer) = split_peer(address);
            if socket(&bare).is_none() {
                tracing::warn!(%address, "this build can't dial this address; skipped");
            } else {
                self.tell(bare, peer);
            }
        }
        let known: Vec<_> = self.redial.peers().collect();
        known.into_iter().for_each(|peer| self.show(peer));
    }

    fn tell(&mut self, bare: Multiaddr, peer: Option<libp2p::PeerId>) {
        if peer == Some(*self.swarm.local_peer_id()) {
            tracing::warn!(address = %bare, "a peer address that is this node's own is ignored");
            return;
        }
        if peer.is_some_and(|peer| self.lists.is_disabled(&peer)) {
            tracing::warn!(address = %bare, "a peer that is disabled is not dialed");
        }
        self.redial.tell(bare, peer, Instant::now());
        if let Some(peer) = peer {
            // The user's word counts for more.
            self.admit_again(peer);
            self.show(peer);
        }
    }

    /// Runs until told to stop, or until nobody is left to run for. Returns who waits for the end.
    pub(super) async fn run(mut self) -> Option<oneshot::Sender<()>> {
        let events = self.events.clone();
        let wishes = Arc::clone(&self.wishes);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopped = loop {
            tokio::select! {
                permit = events.reserve(), if !self.outbox.is_empty() => match (permit, self.outbox.pop()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    (Ok(_), None) => {}
                    // The node is gone without a word.
                    (Err(_), _) => break None,
                },
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown(stopped)) => break Some(stopped),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                () = wishes.changed.notified() => self.fulfil_wishes(),
                event = self.swarm.select_next_some(), if self.outbox.has_room() => self.on_swarm_event(event),
                Some(inbound) = self.bulk_inbound.recv(), if self.outbox.has_room() => self.on_bulk_request(inbound),
                Some((peer, stream)) = self.bulk_streams.next() => self.on_bulk_stream(peer, stream),
                Some(answered) = self.answers.next() => self.on_answered(answered),
                _ = ticks.tick() => self.on_tick(),
            }
        };
        self.close().await;
        stopped
    }

    fn on_command(&mut self, command: Command) {
        // What was wished before this command comes before it.
        self.fulfil_wishes();
        match command {
            Command::Request { peer, class, kind, bytes, reply } => self.request(peer, class, kind, bytes, reply),
            Command::Announce(announce) => self.announce(&announce),
            Command::Dial { bare, peer } => self.tell(bare, peer),
            Command::Forget(peer, written) => self.forget(peer, written),
            // Ends the loop before it gets here.
            Command::Shutdown(_) => {}
        }
    }

    fn fulfil_wishes(&mut self) {
        let wanted = self.wishes.take();
        for (dataset, wanted) in wanted.subscribe {
            for topic in gossip::topics(&self.network_keys, &dataset) {
                if !wanted {
                    self.swarm.behaviour_mut().gossip().unsubscribe(&topic);
                    continue;
                }
                if let Err(error) = self.swarm.behaviour_mut().gossip().subscribe(&topic) {
                    tracing::error!(%dataset, %error, "subscribing to announcements failed");
                }
            }
        }
        for (id, verdict) in wanted.verdicts {
            let Some(peer) = to_libp2p(id) else { continue };
            match verdict {
                Verdict::Accepted { listen } => self.accept(peer, &listen),
                Verdict::Disconnect { reason } => self.disconnect(peer, &reason),
            }
        }
        for (id, disabled) in wanted.disabled {
            self.set_disabled(id, disabled);
        }
        for (id, (times, what)) in wanted.misbehaved {
            if let Some(peer) = to_libp2p(id) {
                self.on_misbehaved(peer, FORGED_POINTS.saturating_mul(times), &what);
            }
        }
    }

    fn request(&mut self, id: PeerId, class: Class, kind: MessageKind, bytes: Vec<u8>, reply: Reply) {
        let connected = to_libp2p(id).and_then(|peer| Some((peer, self.peers.get_mut(&peer)?)));
        let Some((peer, state)) = connected else {
            return reply.send(Err(TransportError::NotConnected));
        };
        if class == Class::Bulk {
            let (limits, counters) = (&self.limits, &self.counters);
            let start = || Opener::spawn(peer, self.bulk_control.clone(), limits, Arc::clone(counters));
            return state.opener.get_or_insert_with(start).request(kind, bytes, reply);
        }
        if state.control_in_flight >= self.limits.requests_in_flight_max {
            return reply.send(Err(TransportError::Busy));
        }
        state.control_in_flight += 1;
        let request = ControlRequest::Outbound { kind, bytes };
        let sent = self.swarm.behaviour_mut().control.send_request(&peer, request);
        self.waiting.insert(sent, Waiting { peer, reply, since: Instant::now() });
    }

    fn announce(&mut self, announce: &Announce) {
        // Nobody to hear it: not worth a signature.
        if !self.peers.values().any(|peer| peer.accepted) {
            return count(&self.counters.announcements_unheard);
        }
        let Some(dataset) = anabranch_protocol::id::DatasetId::from_wire(announce.dataset.as_ref()) else { return };
        let bytes = announce.encode();
        let size = bytes.len();
        for topic in gossip::topics(&self.network_keys, &dataset) {
            match self.swarm.behaviour_mut().gossip().publish(topic, bytes.clone()) {
                Ok(_) => self.counters.add_out(MessageKind::Announce, size),
                Err(libp2p::gossipsub::PublishError::NoPeersSubscribedToTopic) => count(&self.counters.announcements_unheard),
                Err(libp2p::gossipsub::PublishError::AllQueuesFull(_)) => count(&self.counters.announcements_queue_full),
                Err(error) => tracing::error!(%dataset, %error, size, "an announcement was not published"),
            }
        }
    }

    /// A peer's `Hello` was accepted: remember where it is and let it into gossip.
    fn accept(&mut self, peer: libp2p::PeerId, listen: &[String]) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.accepted = true;
        gossip::set_accepted(self.swarm.behaviour_mut().gossip(), &peer, true);
        let told: Vec<Multiaddr> = listen.iter().filter_map(|address| address.parse().ok()).collect();
        let told = if told.is_empty() { &state.identified } else { &told };
        let mut addresses = worth_dialing(told, &peer, state.remote_ip);
        if let Some(dialed) = state.dialed.clone()
            && !addresses.contains(&dialed)
        {
            addresses.insert(0, dialed);
        }
        for gone in self.book.accepted(&peer, addresses.clone()) {
            self.redial.unlearn(gone);
            self.show(gone);
        }
        self.redial.learn(peer, addresses, true, Instant::now());
        self.show(peer);
    }

    fn disconnect(&mut self, peer: libp2p::PeerId, reason: &str) {
        tracing::info!(%peer, reason, "disconnecting");
        self.redial.block(peer, Instant::now() + self.limits.refused_for);
        self.close_all(peer);
    }

    fn forget(&mut self, id: PeerId, written: Written) {
        let Some(peer) = to_libp2p(id) else { return };
        self.book.forget(&peer, written);
        self.redial.forget(&Target::Peer(peer));
        self.close_all(peer);
    }

    /// Closes a peer's connections; nothing of it is taken any more while they close.
    pub(super) fn close_all(&mut self, peer: libp2p::PeerId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.accepted = false;
            state.opener = None;
            gossip::set_accepted(self.swarm.behaviour_mut().gossip(), &peer, false);
        }
        // An error only says that there is no connection.
        let _ = self.swarm.disconnect_peer_id(peer);
        self.show(peer);
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for dial in self.redial.due(now) {
            match &dial.target {
                Target::Peer(peer) if self.lists.is_disabled(peer) => self.redial.failed(&dial.target, now),
                _ => self.dial(dial, now),
            }
        }
        self.let_go_of_turned_away(now);
        self.allowances.tidy();
        let deadline = self.limits.request_timeout;
        let late: Vec<_> = self.waiting.extract_if(|_, waiting| now.duration_since(waiting.since) >= deadline).collect();
        for (_, waiting) in late {
            self.answered(waiting, Err(TransportError::Timeout));
        }
    }

    fn answered(&mut self, waiting: Waiting, answer: super::reply::Answer) {
        if let Some(peer) = self.peers.get_mut(&waiting.peer) {
            peer.control_in_flight = peer.control_in_flight.saturating_sub(1);
        }
        waiting.reply.send(answer);
    }

    /// Brings what the handle shows of a peer up to date.
    fn show(&self, peer: libp2p::PeerId) {
        let Some(id) = from_libp2p(&peer) else { return };
        let state = self.peers.get(&peer);
        let mut addresses = self.redial.addresses(peer);
        if let Some(dialed) = state.and_then(|state| state.dialed.clone())
            && !addresses.contains(&dialed)
        {
            addresses.push(dialed);
        }
        let mut peers = lock(&self.view.peers);
        if state.is_none() && addresses.is_empty() {
            peers.remove(&id);
            return;
        }
        let view = PeerView {
            connected: state.is_some(),
            accepted: state.is_some_and(|state| state.accepted),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            rtt: state.and_then(|state| state.rtt),
        };
        peers.insert(id, view);
    }

    /// Lets go of the network: peers see their connections close, not time out.
    async fn close(mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
        // A disk that hangs does not keep the process.
        if timeout(BOOK_TIMEOUT, self.book.close()).await.is_err() {
            tracing::error!("the address book was not written in time");
        }
    }
}
