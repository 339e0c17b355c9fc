//! The simulated network: links with latency, jitter, bandwidth, loss, duplication and reordering between endpoints that come and go.
//!
//! Messages travel as bytes and go through the decoders. A request crosses in the way of its class, interactive or bulk, and each
//! way has its own bandwidth; announcements are gossip and are lost apart from requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch_actors::transport::{Class, EventSender, Transport, TransportError, TransportEvent};
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::wire::{Announce, Request, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::rng::Rng;
use crate::trace::Trace;

/// Deadlines and delays as the shipped swarm has them (`anabranch_node::swarm::SwarmLimits`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const BULK_TIMEOUT: Duration = Duration::from_secs(30);
const REDIAL_MIN: Duration = Duration::from_millis(250);
const REDIAL_MAX: Duration = Duration::from_secs(15);
const REFUSED_FOR: Duration = Duration::from_secs(60);
const STABLE_AFTER: Duration = Duration::from_secs(10);
const MISBEHAVIOUR_MAX: u32 = 32;
/// What a lost packet of a connection costs until it is sent again.
const RESENT_AFTER: Duration = Duration::from_millis(200);
/// How long until a connection over a link that is cut is noticed to be dead.
const DEATH_NOTICED: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(20);
/// What is clogged is looked at again so much later.
const CLOGGED_RETRY: Duration = Duration::from_millis(50);
/// A full inbox is tried again so much later: the transport stops reading meanwhile.
const FULL_RETRY: Duration = Duration::from_millis(1);

/// A version of the protocol that nobody speaks yet.
const OTHER_VERSION: u64 = 99;

/// How one direction of a link is.
#[derive(Debug, Clone)]
pub struct Link {
    /// Least time from one end to the other.
    pub latency: Duration,
    /// What is added at most.
    pub jitter: Duration,
    /// Bytes a second, in each class.
    pub bandwidth: u64,
    /// Share of packets that are lost; on a connection that costs time.
    pub loss: f64,
    /// Share of requests that arrive twice.
    pub duplication: f64,
    /// Share of requests that are never answered.
    pub requests_lost: f64,
    /// Share of announcements that are lost.
    pub gossip_lost: f64,
    /// Nothing passes.
    pub cut: bool,
    /// Nothing passes now; what waits passes later.
    pub clogged: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            jitter: Duration::from_millis(15),
            bandwidth: 2 << 20,
            loss: 0.002,
            duplication: 0.0,
            requests_lost: 0.0,
            gossip_lost: 0.01,
            cut: false,
            clogged: false,
        }
    }
}

/// What is said of a message to whoever watches the wire.
pub type Tap = Arc<dyn Fn(usize, usize, &str, &[u8]) + Send + Sync>;

/// See the module documentation. Clones share it.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    peers: Arc<Mutex<Vec<PeerId>>>,
    trace: Trace,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

struct Inner {
    rng: Rng,
    endpoints: Vec<Endpoint>,
    links: BTreeMap<(usize, usize), Link>,
    /// When the way of a class is free again.
    free: BTreeMap<(usize, usize, bool), Instant>,
    pairs: BTreeMap<(usize, usize), Pair>,
    queue: BTreeMap<(Instant, u64), Delivery>,
    next: u64,
    gossip: u64,
    seen: BTreeSet<(u64, usize)>,
    traffic: Traffic,
    tap: Option<Tap>,
}

/// What crossed the network.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Traffic {
    /// Messages and bytes by kind.
    pub by_kind: BTreeMap<String, (u64, u64)>,
    /// Requests that were lost, and that arrived twice.
    pub lost: u64,
    /// See above.
    pub duplicated: u64,
    /// Announcements that were lost.
    pub gossip_lost: u64,
    /// Connections made, and those that broke.
    pub connected: u64,
    /// See above.
    pub broken: u64,
    /// Longest queue of messages on the way.
    pub queue_max: usize,
}

struct Endpoint {
    peer: PeerId,
    /// None while the node is down.
    events: Option<EventSender>,
    subscribed: BTreeSet<DatasetId>,
    /// Which life of the node this is.
    life: u64,
    /// It names no version that the others speak.
    other_version: bool,
    /// What it says is not the word of a node.
    hostile: bool,
}

/// Two nodes of which one dials the other.
struct Pair {
    dialer: usize,
    other: usize,
    connection: Option<u64>,
    since: Instant,
    redial: Duration,
    left_alone_until: Option<Instant>,
    misbehaviour: BTreeMap<usize, u32>,
    dialing: bool,
}

impl Pair {
    fn new(dialer: usize, other: usize) -> Self {
        Self {
            dialer,
            other,
            connection: None,
            since: Instant::now(),
            redial: REDIAL_MIN,
            left_alone_until: None,
            misbehaviour: BTreeMap::new(),
            dialing: false,
        }
    }
}

enum Delivery {
    Request {
        from: usize,
        to: usize,
        connection: u64,
        class: Class,
        bytes: Vec<u8>,
        reply: Option<oneshot::Sender<Vec<u8>>>,
    },
    Response {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// Nothing: the way back is kept until then.
    Silence {
        connection: u64,
        _reply: oneshot::Sender<Vec<u8>>,
    },
    Announce {
        from: usize,
        to: usize,
        message: u64,
        announce: Announce,
        bytes: Vec<u8>,
    },
    Dial {
        pair: (usize, usize),
    },
    Arrive {
        pair: (usize, usize),
        lives: (u64, u64),
    },
    Break {
        pair: (usize, usize),
        connection: u64,
    },
    Event {
        to: usize,
        life: u64,
        event: TransportEvent,
    },
}

fn kind_of_request(request: &Request) -> &'static str {
    match request {
        Request::Hello(_) => "hello",
        Request::Heads(_) => "heads",
        Request::Pull(_) => "pull",
        Request::Push(_) => "push",
        Request::Confirm(_) => "confirm",
        Request::Round(_) => "round",
    }
}

fn kind_of_response(response: &Response) -> &'static str {
    match response {
        Response::Hello(_) => "hello reply",
        Response::Heads(_) => "heads reply",
        Response::Page(_) => "page",
        Response::Pushed(_) => "pushed",
        Response::Confirmed => "confirmed",
        Response::Round(_) => "round reply",
        Response::Refused(_) => "refused",
    }
}

fn pair_of(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// A network between `peers`, in which every pair of `dials` is dialed by its first.
    #[must_use]
    pub fn new(peers: &[PeerId], dials: &[(usize, usize)], rng: Rng, trace: Trace) -> Self {
        let endpoint = |peer: &PeerId| Endpoint {
            peer: *peer,
            events: None,
            subscribed: BTreeSet::new(),
            life: 0,
            other_version: false,
            hostile: false,
        };
        let pair = |(dialer, other): &(usize, usize)| (pair_of(*dialer, *other), Pair::new(*dialer, *other));
        let inner = Inner {
            rng,
            endpoints: peers.iter().map(endpoint).collect(),
            links: BTreeMap::new(),
            free: BTreeMap::new(),
            pairs: dials.iter().map(pair).collect(),
            queue: BTreeMap::new(),
            next: 1,
            gossip: 0,
            seen: BTreeSet::new(),
            traffic: Traffic::default(),
            tap: None,
        };
        let peers = Arc::new(Mutex::new(peers.to_vec()));
        Self { inner: Arc::new(Mutex::new(inner)), changed: Arc::new(Notify::new()), peers, trace }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is sent is shown to `tap`: from, to, kind, bytes.
    pub fn watch(&self, tap: Tap) {
        self.inner().tap = Some(tap);
    }

    /// The peer ids of all endpoints, those that come later too.
    #[must_use]
    pub fn peers(&self) -> Arc<Mutex<Vec<PeerId>>> {
        self.peers.clone()
    }

    /// What crossed it.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.inner().traffic.clone()
    }

    /// A node with this peer id that dials these.
    pub fn add(&self, peer: PeerId, dials: &[usize]) -> usize {
        let mut inner = self.inner();
        let index = inner.endpoints.len();
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
        inner.endpoints.push(Endpoint {
            peer,
            events: None,
            subscribed: BTreeSet::new(),
            life: 0,
            other_version: false,
            hostile: false,
        });
        for other in dials {
            inner.pairs.insert(pair_of(index, *other), Pair::new(index, *other));
        }
        index
    }

    /// Changes one direction of a link.
    pub fn link(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        let mut inner = self.inner();
        change(inner.links.entry((from, to)).or_default());
        let cut = inner.links[&(from, to)].cut;
        let pair = pair_of(from, to);
        if let Some(connection) = inner.pairs.get(&pair).and_then(|pair| pair.connection).filter(|_| cut) {
            let noticed = inner.rng.time(DEATH_NOTICED);
            inner.put(noticed, Delivery::Break { pair, connection });
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// A node names no version that the others speak, or speaks as they do.
    pub fn speaks_other_version(&self, node: usize, other: bool) {
        self.inner().endpoints[node].other_version = other;
    }

    /// What a peer says is not shown to whoever watches: it is no node of ours.
    pub fn is_hostile(&self, node: usize) {
        self.inner().endpoints[node].hostile = true;
    }

    /// Who dials a node, or is dialed by it.
    #[must_use]
    pub fn neighbours(&self, node: usize) -> Vec<usize> {
        let inner = self.inner();
        let of_it = inner.pairs.values().filter(|pair| pair.dialer == node || pair.other == node);
        of_it.map(|pair| pair.dialer + pair.other - node).collect()
    }

    /// From now on one node dials another.
    pub fn dials(&self, dialer: usize, other: usize) {
        let mut inner = self.inner();
        if dialer != other && !inner.pairs.contains_key(&pair_of(dialer, other)) {
            inner.pairs.insert(pair_of(dialer, other), Pair::new(dialer, other));
            inner.dial_later(pair_of(dialer, other), Duration::ZERO);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// All links are as they were at first.
    pub fn heal(&self) {
        let mut inner = self.inner();
        for link in inner.links.values_mut() {
            *link = Link { latency: link.latency, jitter: link.jitter, ..Link::default() };
        }
        for pair in inner.pairs.values_mut() {
            (pair.redial, pair.left_alone_until) = (REDIAL_MIN, None);
            pair.misbehaviour.clear();
        }
        inner.dial_all();
        drop(inner);
        self.changed.notify_one();
    }

    /// A node is up: its transport.
    pub fn up(&self, node: usize, events: EventSender) -> Arc<Wire> {
        let mut inner = self.inner();
        let endpoint = &mut inner.endpoints[node];
        endpoint.life += 1;
        endpoint.events = Some(events);
        endpoint.subscribed.clear();
        let life = endpoint.life;
        inner.dial_all();
        drop(inner);
        self.changed.notify_one();
        Arc::new(Wire { network: self.clone(), node, life })
    }

    /// A node is gone; its peers notice at once, or late if it `vanished`.
    pub fn down(&self, node: usize, vanished: bool) {
        let mut inner = self.inner();
        let endpoint = &mut inner.endpoints[node];
        endpoint.events = None;
        endpoint.life += 1;
        let broken: Vec<_> = inner
            .pairs
            .iter()
            .filter(|(_, pair)| pair.dialer == node || pair.other == node)
            .filter_map(|(key, pair)| pair.connection.map(|connection| (*key, connection)))
            .collect();
        for (pair, connection) in broken {
            let noticed = if vanished { inner.rng.time(DEATH_NOTICED) } else { Duration::from_millis(1) };
            inner.put(noticed, Delivery::Break { pair, connection });
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Whether a connection between two nodes stands.
    #[must_use]
    pub fn connected(&self, a: usize, b: usize) -> bool {
        self.inner().pairs.get(&pair_of(a, b)).is_some_and(|pair| pair.connection.is_some())
    }

    /// Carries messages until it is dropped.
    pub async fn run(self) {
        loop {
            let due = self.inner().queue.first_key_value().map(|((at, _), _)| *at);
            match due {
                Some(at) if at <= Instant::now() => self.deliver(),
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn deliver(&self) {
        let mut inner = self.inner();
        let Some((_, delivery)) = inner.queue.pop_first() else { return };
        if delivery.way().is_some_and(|(from, to)| inner.link(from, to).clogged) {
            return inner.put(CLOGGED_RETRY, delivery);
        }
        match delivery {
            Delivery::Request { from, to, connection, class, bytes, reply } => {
                drop(inner);
                self.deliver_request(from, to, connection, class, bytes, reply);
            }
            Delivery::Response { from, to, connection, bytes, reply } => {
                if inner.carries(from, to, connection) {
                    self.trace.note("response", &summary(from, to, &bytes));
                    // Whoever asked may have given up.
                    let _ = reply.send(bytes);
                } else {
                    inner.never_answer(to, from, connection, reply);
                }
            }
            Delivery::Announce { from, to, message, announce, bytes } => {
                if inner.link(from, to).cut || inner.endpoints[to].events.is_none() || !inner.seen.insert((message, to)) {
                    return;
                }
                self.trace.note("announce", &summary(from, to, &bytes));
                let peer = inner.endpoints[from].peer;
                if let Some(events) = &inner.endpoints[to].events {
                    // Gossip is dropped where nobody reads.
                    let _ = events.try_send(TransportEvent::Announced { peer, announce: announce.clone() });
                }
                inner.gossip_on(to, message, &announce, &bytes);
            }
            Delivery::Silence { .. } => {}
            Delivery::Dial { pair } => inner.dial(pair),
            Delivery::Arrive { pair, lives } => inner.arrive(pair, lives, &self.trace),
            Delivery::Break { pair, connection } => inner.break_off(pair, connection, &self.trace),
            Delivery::Event { to, life, event } => inner.tell(to, life, event),
        }
    }

    fn deliver_request(
        &self,
        from: usize,
        to: usize,
        connection: u64,
        class: Class,
        bytes: Vec<u8>,
        reply: Option<oneshot::Sender<Vec<u8>>>,
    ) {
        let mut inner = self.inner();
        if !inner.carries(from, to, connection) {
            if let Some(reply) = reply {
                inner.never_answer(from, to, connection, reply);
            }
            return;
        }
        let Some(events) = inner.endpoints[to].events.clone() else { return };
        let (peer, life) = (inner.endpoints[from].peer, inner.endpoints[to].life);
        let Ok(request) = Request::decode(&bytes) else {
            // What the swarm's codec does with nonsense.
            inner.misbehaved(to, from, 1);
            return;
        };
        let (answer, answered) = oneshot::channel();
        match events.try_send(TransportEvent::Request { peer, request, reply: answer }) {
            Ok(()) => self.trace.note("request", &summary(from, to, &bytes)),
            Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => {
                inner.put(FULL_RETRY, Delivery::Request { from, to, connection, class, bytes, reply });
                return;
            }
            Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => return,
        }
        drop(inner);
        let network = self.clone();
        tokio::task::spawn_local(async move {
            let Ok(mut response) = answered.await else { return };
            let Some(reply) = reply else { return };
            let mut inner = network.inner();
            if inner.endpoints[to].life != life {
                return;
            }
            if let (Response::Hello(reply), true) = (&mut response, inner.endpoints[to].other_version) {
                reply.hello.versions = vec![OTHER_VERSION];
            }
            let bytes = response.encode();
            inner.count(to, from, kind_of_response(&response), &bytes);
            let takes = inner.transit(to, from, class, bytes.len());
            inner.put(takes, Delivery::Response { from: to, to: from, connection, bytes, reply });
            drop(inner);
            network.changed.notify_one();
        });
    }
}

fn summary(from: usize, to: usize, bytes: &[u8]) -> Vec<u8> {
    let mut summary = format!("{from}>{to} {} ", bytes.len()).into_bytes();
    summary.extend_from_slice(&blake3::hash(bytes).to_hex().as_bytes()[..12]);
    summary
}

impl Inner {
    fn put(&mut self, after: Duration, delivery: Delivery) {
        let at = Instant::now() + after;
        self.queue.insert((at, self.next), delivery);
        self.next += 1;
        self.traffic.queue_max = self.traffic.queue_max.max(self.queue.len());
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).cloned().unwrap_or_default()
    }

    fn count(&mut self, from: usize, to: usize, kind: &str, bytes: &[u8]) {
        let counted = self.traffic.by_kind.entry(kind.to_owned()).or_default();
        counted.0 += 1;
        counted.1 += bytes.len() as u64;
        if let Some(tap) = self.tap.as_ref().filter(|_| !self.endpoints[from].hostile) {
            tap(from, to, kind, bytes);
        }
    }

    /// How long a message takes.
    fn transit(&mut self, from: usize, to: usize, class: Class, bytes: usize) -> Duration {
        let link = self.link(from, to);
        let now = Instant::now();
        let free = self.free.entry((from, to, class == Class::Bulk)).or_insert(now);
        let begins = (*free).max(now);
        *free = begins + Duration::from_micros(bytes as u64 * 1_000_000 / link.bandwidth.max(1));
        let queued = *free - now;
        let lost = if self.rng.chance(link.loss) { RESENT_AFTER } else { Duration::ZERO };
        queued + link.latency + lost + self.rng.time(Duration::ZERO..link.jitter)
    }

    /// Whether a message of a connection gets through now.
    fn carries(&self, from: usize, to: usize, connection: u64) -> bool {
        let stands = self.pairs.get(&pair_of(from, to)).is_some_and(|pair| pair.connection == Some(connection));
        stands && !self.link(from, to).cut && self.endpoints[to].events.is_some()
    }

    /// Whoever asked hears nothing, until the connection breaks or its patience ends.
    fn never_answer(&mut self, asker: usize, asked: usize, connection: u64, reply: oneshot::Sender<Vec<u8>>) {
        let stands = self.pairs.get(&pair_of(asker, asked)).is_some_and(|pair| pair.connection == Some(connection));
        if stands && !reply.is_closed() {
            let silence = Delivery::Silence { connection, _reply: reply };
            self.put(BULK_TIMEOUT * 2, silence);
        }
    }

    fn dial_all(&mut self) {
        let pairs: Vec<_> = self.pairs.iter().filter(|(_, pair)| pair.connection.is_none()).map(|(key, _)| *key).collect();
        for pair in pairs {
            self.dial_later(pair, Duration::ZERO);
        }
    }

    fn dial_later(&mut self, key: (usize, usize), after: Duration) {
        let jitter = self.rng.time(Duration::ZERO..Duration::from_millis(50));
        if let Some(pair) = self.pairs.get_mut(&key)
            && !std::mem::replace(&mut pair.dialing, true)
        {
            self.put(after + jitter, Delivery::Dial { pair: key });
        }
    }

    fn dial(&mut self, key: (usize, usize)) {
        let Some(pair) = self.pairs.get_mut(&key) else { return };
        pair.dialing = false;
        let (dialer, other) = (pair.dialer, pair.other);
        if pair.connection.is_some() || self.endpoints[dialer].events.is_none() {
            return;
        }
        let alone = self.pairs[&key].left_alone_until.filter(|until| *until > Instant::now());
        let cut = self.link(dialer, other).cut || self.link(other, dialer).cut;
        if alone.is_some() || cut || self.endpoints[other].events.is_none() {
            let delay = self.backoff(key);
            return self.dial_later(key, delay);
        }
        let lives = (self.endpoints[dialer].life, self.endpoints[other].life);
        let takes = self.transit(dialer, other, Class::Interactive, 500) * 3;
        if let Some(pair) = self.pairs.get_mut(&key) {
            pair.dialing = true;
        }
        self.put(takes, Delivery::Arrive { pair: key, lives });
    }

    fn backoff(&mut self, key: (usize, usize)) -> Duration {
        let Some(pair) = self.pairs.get_mut(&key) else { return REDIAL_MAX };
        let delay = pair.redial;
        pair.redial = (pair.redial * 2).min(REDIAL_MAX);
        delay + self.rng.time(Duration::ZERO..delay)
    }

    fn arrive(&mut self, key: (usize, usize), lives: (u64, u64), trace: &Trace) {
        let next = self.next;
        let Some(pair) = self.pairs.get_mut(&key) else { return };
        pair.dialing = false;
        let (dialer, other) = (pair.dialer, pair.other);
        if lives != (self.endpoints[dialer].life, self.endpoints[other].life) || pair.connection.is_some() {
            return self.dial_later(key, REDIAL_MIN);
        }
        (pair.connection, pair.since) = (Some(next), Instant::now());
        self.next += 1;
        self.traffic.connected += 1;
        trace.note("connected", format!("{dialer} {other}").as_bytes());
        for (to, of, dialed) in [(dialer, other, true), (other, dialer, false)] {
            let peer = self.endpoints[of].peer;
            let address = format!("/memory/{of}");
            let life = self.endpoints[to].life;
            self.tell(to, life, TransportEvent::Connected { peer, dialed, address });
            self.tell(to, life, TransportEvent::RoundTrip { peer, rtt: Duration::from_millis(20) });
        }
    }

    fn break_off(&mut self, key: (usize, usize), connection: u64, trace: &Trace) {
        let Some(pair) = self.pairs.get_mut(&key).filter(|pair| pair.connection == Some(connection)) else { return };
        pair.connection = None;
        if pair.since.elapsed() > STABLE_AFTER {
            pair.redial = REDIAL_MIN;
        }
        let (dialer, other) = (pair.dialer, pair.other);
        self.traffic.broken += 1;
        trace.note("broken", format!("{dialer} {other}").as_bytes());
        // What is under way on it fails now: dropping the way back says so.
        let gone: Vec<_> = self.queue.iter().filter(|(_, on)| on.connection() == Some(connection)).map(|(key, _)| *key).collect();
        for key in gone {
            self.queue.remove(&key);
        }
        for (to, of) in [(dialer, other), (other, dialer)] {
            let (peer, life) = (self.endpoints[of].peer, self.endpoints[to].life);
            self.tell(to, life, TransportEvent::Disconnected { peer });
        }
        let delay = self.backoff(key);
        self.dial_later(key, delay);
    }

    /// An event that must not be lost.
    fn tell(&mut self, to: usize, life: u64, event: TransportEvent) {
        if self.endpoints[to].life != life {
            return;
        }
        let Some(events) = &self.endpoints[to].events else { return };
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
            self.put(FULL_RETRY, Delivery::Event { to, life, event });
        }
    }

    fn gossip_on(&mut self, from: usize, message: u64, announce: &Announce, bytes: &[u8]) {
        let Some(dataset) = DatasetId::from_wire(announce.dataset.as_ref()) else { return };
        let neighbours: Vec<usize> = self
            .pairs
            .values()
            .filter(|pair| pair.connection.is_some() && (pair.dialer == from || pair.other == from))
            .map(|pair| pair.dialer + pair.other - from)
            .filter(|to| self.endpoints[*to].subscribed.contains(&dataset) && !self.seen.contains(&(message, *to)))
            .collect();
        for to in neighbours {
            self.count(from, to, "announce", bytes);
            let link = self.link(from, to);
            if self.rng.chance(link.gossip_lost.max(link.loss)) {
                self.traffic.gossip_lost += 1;
                continue;
            }
            let takes = self.transit(from, to, Class::Interactive, bytes.len());
            self.put(takes, Delivery::Announce { from, to, message, announce: announce.clone(), bytes: bytes.to_vec() });
        }
    }

    fn misbehaved(&mut self, at: usize, by: usize, points: u32) {
        let key = pair_of(at, by);
        let Some(pair) = self.pairs.get_mut(&key) else { return };
        let so_far = pair.misbehaviour.entry(by).or_default();
        *so_far += points;
        if *so_far >= MISBEHAVIOUR_MAX {
            *so_far = 0;
            self.leave_alone(key);
        }
    }

    fn leave_alone(&mut self, key: (usize, usize)) {
        let Some(pair) = self.pairs.get_mut(&key) else { return };
        pair.left_alone_until = Some(Instant::now() + REFUSED_FOR);
        if let Some(connection) = pair.connection {
            self.put(Duration::from_millis(1), Delivery::Break { pair: key, connection });
        }
    }

    fn index_of(&self, peer: &PeerId, seen_from: usize) -> Option<usize> {
        // Two live nodes may have one identity.
        let mut those = self.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.peer == *peer).map(|(index, _)| index);
        let first = those.clone().next();
        those.find(|index| self.pairs.get(&pair_of(*index, seen_from)).is_some_and(|pair| pair.connection.is_some())).or(first)
    }
}

impl Delivery {
    fn connection(&self) -> Option<u64> {
        match self {
            Self::Request { connection, .. } | Self::Response { connection, .. } | Self::Silence { connection, .. } => {
                Some(*connection)
            }
            _ => None,
        }
    }

    fn way(&self) -> Option<(usize, usize)> {
        match self {
            Self::Request { from, to, .. } | Self::Response { from, to, .. } | Self::Announce { from, to, .. } => {
                Some((*from, *to))
            }
            _ => None,
        }
    }
}

/// One node's transport, for one of its lives.
#[derive(Debug)]
pub struct Wire {
    network: Network,
    node: usize,
    life: u64,
}

impl Wire {
    /// The network, while this life of the node is the current one.
    fn alive(&self) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.network.inner();
        (inner.endpoints[self.node].life == self.life).then_some(inner)
    }

    fn send(&self, peer: PeerId, class: Class, mut request: Request) -> Result<oneshot::Receiver<Vec<u8>>, TransportError> {
        let mut inner = self.alive().ok_or(TransportError::NotConnected)?;
        let to = inner.index_of(&peer, self.node).ok_or(TransportError::NotConnected)?;
        let connection = inner.pairs.get(&pair_of(self.node, to)).and_then(|pair| pair.connection);
        let connection = connection.ok_or(TransportError::NotConnected)?;
        if let (Request::Hello(hello), true) = (&mut request, inner.endpoints[self.node].other_version) {
            hello.versions = vec![OTHER_VERSION];
        }
        let bytes = request.encode();
        inner.count(self.node, to, kind_of_request(&request), &bytes);
        let (reply, answer) = oneshot::channel();
        let link = inner.link(self.node, to);
        if inner.rng.chance(link.requests_lost) {
            inner.traffic.lost += 1;
            inner.never_answer(self.node, to, connection, reply);
            return Ok(answer);
        }
        let (from, takes) = (self.node, inner.transit(self.node, to, class, bytes.len()));
        if inner.rng.chance(link.duplication) {
            inner.traffic.duplicated += 1;
            let again = takes + inner.rng.time(Duration::ZERO..Duration::from_secs(2));
            inner.put(again, Delivery::Request { from, to, connection, class, bytes: bytes.clone(), reply: None });
        }
        inner.put(takes, Delivery::Request { from, to, connection, class, bytes, reply: Some(reply) });
        drop(inner);
        self.network.changed.notify_one();
        Ok(answer)
    }
}

impl Transport for Wire {
    fn request(&self, peer: PeerId, class: Class, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let sent = self.send(peer, class, request);
        let limit = if class == Class::Bulk { BULK_TIMEOUT } else { REQUEST_TIMEOUT };
        async move {
            let bytes = match tokio::time::timeout(limit, sent?).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(_)) => return Err(TransportError::Connection("it broke".to_owned())),
                Err(_) => return Err(TransportError::Timeout),
            };
            Response::decode(&bytes).map_err(|error| TransportError::Malformed(error.to_string()))
        }
        .boxed()
    }

    fn announce(&self, announce: Announce) {
        let Some(mut inner) = self.alive() else { return };
        let bytes = announce.encode();
        inner.gossip += 1;
        let message = inner.gossip;
        inner.seen.insert((message, self.node));
        inner.gossip_on(self.node, message, &announce, &bytes);
        drop(inner);
        self.network.changed.notify_one();
    }

    fn subscribe(&self, dataset: DatasetId) {
        if let Some(mut inner) = self.alive() {
            inner.endpoints[self.node].subscribed.insert(dataset);
        }
    }

    fn unsubscribe(&self, dataset: DatasetId) {
        if let Some(mut inner) = self.alive() {
            inner.endpoints[self.node].subscribed.remove(&dataset);
        }
    }

    fn accepted(&self, _: PeerId, _: Vec<String>) {}

    fn disconnect(&self, peer: PeerId, _: &str) {
        if let Some(mut inner) = self.alive()
            && let Some(other) = inner.index_of(&peer, self.node)
        {
            inner.leave_alone(pair_of(self.node, other));
        }
        self.network.changed.notify_one();
    }

    fn misbehaved(&self, peer: PeerId, _: &str) {
        if let Some(mut inner) = self.alive()
            && let Some(other) = inner.index_of(&peer, self.node)
        {
            inner.misbehaved(self.node, other, 4);
        }
        self.network.changed.notify_one();
    }

    fn listen_addresses(&self) -> Vec<String> {
        vec![format!("/memory/{}", self.node)]
    }
}
