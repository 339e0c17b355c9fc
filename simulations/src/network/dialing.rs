//! Connections: who dials whom, again and again, and what happens when a connection is made or breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_actors::transport::{Class, TransportEvent};
use anabranch_protocol::id::PeerId;
use tokio::time::Instant;

use super::delivery::Delivery;
use super::{Inner, pair_of};
use crate::trace::Trace;

/// Delays as the shipped swarm has them (`anabranch_node::swarm::SwarmLimits`).
pub(super) const REDIAL_MIN: Duration = Duration::from_millis(250);
const REDIAL_MAX: Duration = Duration::from_secs(15);
const REFUSED_FOR: Duration = Duration::from_secs(60);
const STABLE_AFTER: Duration = Duration::from_secs(10);
const MISBEHAVIOUR_MAX: u32 = 32;
/// How long until a connection over a link that is cut is noticed to be dead.
pub(super) const DEATH_NOTICED: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(20);
/// A full inbox is tried again so much later: the transport stops reading meanwhile.
pub(super) const FULL_RETRY: Duration = Duration::from_millis(1);

/// Two nodes of which one dials the other.
pub(super) struct Pair {
    pub(super) dialer: usize,
    pub(super) other: usize,
    pub(super) connection: Option<u64>,
    pub(super) since: Instant,
    pub(super) redial: Duration,
    pub(super) left_alone_until: Option<Instant>,
    pub(super) misbehaviour: BTreeMap<usize, u32>,
    pub(super) dialing: bool,
}

impl Pair {
    pub(super) fn new(dialer: usize, other: usize) -> Self {
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

impl Inner {
    pub(super) fn dial_all(&mut self) {
        let pairs: Vec<_> = self.pairs.iter().filter(|(_, pair)| pair.connection.is_none()).map(|(key, _)| *key).collect();
        for pair in pairs {
            self.dial_later(pair, Duration::ZERO);
        }
    }

    pub(super) fn dial_later(&mut self, key: (usize, usize), after: Duration) {
        let jitter = self.rng.time(Duration::ZERO..Duration::from_millis(50));
        if let Some(pair) = self.pairs.get_mut(&key)
            && !std::mem::replace(&mut pair.dialing, true)
        {
            self.put(after + jitter, Delivery::Dial { pair: key });
        }
    }

    pub(super) fn dial(&mut self, key: (usize, usize)) {
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

    pub(super) fn backoff(&mut self, key: (usize, usize)) -> Duration {
        let Some(pair) = self.pairs.get_mut(&key) else { return REDIAL_MAX };
        let delay = pair.redial;
        pair.redial = (pair.redial * 2).min(REDIAL_MAX);
        delay + self.rng.time(Duration::ZERO..delay)
    }

    pub(super) fn arrive(&mut self, key: (usize, usize), lives: (u64, u64), trace: &Trace) {
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

    pub(super) fn break_off(&mut self, key: (usize, usize), connection: u64, trace: &Trace) {
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
    pub(super) fn tell(&mut self, to: usize, life: u64, event: TransportEvent) {
        if self.endpoints[to].life != life {
            return;
        }
        let Some(events) = &self.endpoints[to].events else { return };
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
            self.put(FULL_RETRY, Delivery::Event { to, life, event });
        }
    }

    pub(super) fn misbehaved(&mut self, at: usize, by: usize, points: u32) {
        let key = pair_of(at, by);
        let Some(pair) = self.pairs.get_mut(&key) else { return };
        let so_far = pair.misbehaviour.entry(by).or_default();
        *so_far += points;
        if *so_far >= MISBEHAVIOUR_MAX {
            *so_far = 0;
            self.leave_alone(key);
        }
    }

    pub(super) fn leave_alone(&mut self, key: (usize, usize)) {
        let Some(pair) = self.pairs.get_mut(&key) else { return };
        pair.left_alone_until = Some(Instant::now() + REFUSED_FOR);
        if let Some(connection) = pair.connection {
            self.put(Duration::from_millis(1), Delivery::Break { pair: key, connection });
        }
    }

    pub(super) fn index_of(&self, peer: &PeerId, seen_from: usize) -> Option<usize> {
        // Two live nodes may have one identity.
        let mut those = self.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.peer == *peer).map(|(index, _)| index);
        let first = those.clone().next();
        those.find(|index| self.pairs.get(&pair_of(*index, seen_from)).is_some_and(|pair| pair.connection.is_some())).or(first)
    }
}
