//! How links are, and what it takes to cross one.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_actors::transport::Class;
use anabranch_protocol::id::DatasetId;
use anabranch_protocol::wire::Announce;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::delivery::Delivery;
use super::wire::BULK_TIMEOUT;
use super::{Inner, pair_of};

/// What a lost packet of a connection costs until it is sent again.
const RESENT_AFTER: Duration = Duration::from_millis(200);

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

impl Inner {
    pub(super) fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).cloned().unwrap_or_default()
    }

    pub(super) fn count(&mut self, from: usize, to: usize, kind: &str, bytes: &[u8]) {
        let counted = self.traffic.by_kind.entry(kind.to_owned()).or_default();
        counted.0 += 1;
        counted.1 += bytes.len() as u64;
        if let Some(tap) = self.tap.as_ref().filter(|_| !self.endpoints[from].hostile) {
            tap(from, to, kind, bytes);
        }
    }

    /// How long a message takes.
    pub(super) fn transit(&mut self, from: usize, to: usize, class: Class, bytes: usize) -> Duration {
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
    pub(super) fn carries(&self, from: usize, to: usize, connection: u64) -> bool {
        let stands = self.pairs.get(&pair_of(from, to)).is_some_and(|pair| pair.connection == Some(connection));
        stands && !self.link(from, to).cut && self.endpoints[to].events.is_some()
    }

    /// Whoever asked hears nothing, until the connection breaks or its patience ends.
    pub(super) fn never_answer(&mut self, asker: usize, asked: usize, connection: u64, reply: oneshot::Sender<Vec<u8>>) {
        let stands = self.pairs.get(&pair_of(asker, asked)).is_some_and(|pair| pair.connection == Some(connection));
        if stands && !reply.is_closed() {
            let silence = Delivery::Silence { connection, _reply: reply };
            self.put(BULK_TIMEOUT * 2, silence);
        }
    }

    pub(super) fn gossip_on(&mut self, from: usize, message: u64, announce: &Announce, bytes: &[u8]) {
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
}
