//! The simulated network: links with latency, jitter, bandwidth, loss, duplication and reordering between endpoints that come and go.
//!
//! Messages travel as bytes and go through the decoders. A request crosses in the way of its class, interactive or bulk, and each
//! way has its own bandwidth; announcements are gossip and are lost apart from requests.

mod delivery;
mod dialing;
mod link;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch_actors::transport::EventSender;
use anabranch_protocol::id::{DatasetId, PeerId};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::delivery::Delivery;
use self::dialing::{DEATH_NOTICED, Pair, REDIAL_MIN};
pub use self::link::{Link, Traffic};
pub use self::wire::Wire;
use crate::rng::Rng;
use crate::trace::Trace;

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

impl Endpoint {
    fn new(peer: PeerId) -> Self {
        Self { peer, events: None, subscribed: BTreeSet::new(), life: 0, other_version: false, hostile: false }
    }
}

fn pair_of(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// A network between `peers`, in which every pair of `dials` is dialed by its first.
    #[must_use]
    pub fn new(peers: &[PeerId], dials: &[(usize, usize)], rng: Rng, trace: Trace) -> Self {
        let pair = |(dialer, other): &(usize, usize)| (pair_of(*dialer, *other), Pair::new(*dialer, *other));
        let inner = Inner {
            rng,
            endpoints: peers.iter().map(|peer| Endpoint::new(*peer)).collect(),
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
        inner.endpoints.push(Endpoint::new(peer));
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
}

impl Inner {
    fn put(&mut self, after: Duration, delivery: Delivery) {
        let at = Instant::now() + after;
        self.queue.insert((at, self.next), delivery);
        self.next += 1;
        self.traffic.queue_max = self.traffic.queue_max.max(self.queue.len());
    }
}
