//! Who is dialed, and when: every known peer that is not connected, for ever.
//!
//! Known are the peers the user told of and those in the address book. Each waits between attempts with exponential backoff
//! and jitter; a connection that stood for a while resets it. Both sides redial, so two nodes may dial each other at once: both
//! connections are kept, which costs little and settles without a rule that both ends would have to agree on.
//!
//! A told address without a peer id is dialed as it is until somebody answers there; from then on it is one more address of
//! that peer. Should another peer answer there later, it goes back to being an address of whoever answers.
//!
//! A dial goes to the addresses of one carrier, TCP or QUIC, and the next one to those of the other: dialed together they would
//! both connect, and one of the connections would close again under the peer's first words.
//!
//! This is bookkeeping only: time comes in, dials come out.

use std::collections::BTreeMap;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

#[cfg(feature = "mdns")]
use super::address::ADDRESSES_PER_PEER_MAX;
use super::address::{Carrier, carrier};
use super::config::SwarmLimits;

/// What is dialed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A peer, at any of its addresses.
    Peer(PeerId),
    /// Whoever answers at a told address.
    Address(Multiaddr),
}

/// A dial that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) target: Target,
    pub(super) addresses: Vec<Multiaddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialing,
    Connected(Instant),
}

#[derive(Debug)]
struct Attempt {
    state: State,
    delays: ExponentialBackoff,
    not_before: Option<Instant>,
    /// By the user; kept for ever.
    told: Vec<Multiaddr>,
    /// Told without a peer id.
    anonymous: Vec<Multiaddr>,
    /// By the peer itself or the address book; replaced by news.
    learned: Vec<Multiaddr>,
    /// By announcements on the local network, which end.
    found: Vec<Multiaddr>,
    /// Where somebody else answered; left out until nothing else is left.
    wrong: Vec<Multiaddr>,
    /// Dialed last.
    dialed_last: Option<Carrier>,
}

impl Attempt {
    fn addresses(&self) -> Vec<Multiaddr> {
        let mut all = Vec::new();
        for address in self.told.iter().chain(&self.anonymous).chain(&self.learned).chain(&self.found) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    fn next_dial(&mut self) -> Vec<Multiaddr> {
        let all = self.addresses();
        let right: Vec<Multiaddr> = all.iter().filter(|address| !self.wrong.contains(address)).cloned().collect();
        if right.is_empty() {
            self.wrong.clear();
        }
        self.of_one_carrier(if right.is_empty() { all } else { right })
    }

    /// Those of the carrier that the first one has, or of another one than was dialed last. A connection keeps its carrier.
    fn of_one_carrier(&mut self, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let other = addresses.iter().filter_map(carrier).find(|carrier| Some(*carrier) != self.dialed_last);
        self.dialed_last = other.or(self.dialed_last);
        addresses.into_iter().filter(|address| carrier(address) == self.dialed_last).collect()
    }
}

/// All targets.
#[derive(Debug)]
pub(super) struct Redial {
    targets: BTreeMap<Target, Attempt>,
    limits: SwarmLimits,
}

impl Redial {
    pub(super) fn new(limits: SwarmLimits) -> Self {
        Self { targets: BTreeMap::new(), limits }
    }

    fn delays(limits: &SwarmLimits) -> ExponentialBackoff {
        // Seeded here: without its `std` feature backon's jitter is the same on every node.
        ExponentialBuilder::new()
            .with_min_delay(limits.redial_delay_min)
            .with_max_delay(limits.redial_delay_max)
            .without_max_times()
            .with_jitter_seed(rand::random())
            .build()
    }

    fn attempt(&mut self, target: Target, now: Instant) -> &mut Attempt {
        let limits = &self.limits;
        self.targets.entry(target).or_insert_with(|| Attempt {
            state: State::Waiting(now),
            delays: Self::delays(limits),
            not_before: None,
            told: Vec::new(),
            anonymous: Vec::new(),
            learned: Vec::new(),
            found: Vec::new(),
            wrong: Vec::new(),
            dialed_last: None,
        })
    }

    fn wait(&mut self, target: &Target, now: Instant) {
        if let Some(attempt) = self.targets.get_mut(target) {
            let delay = attempt.delays.next().unwrap_or(self.limits.redial_delay_max);
            let at = now + delay;
            attempt.state = State::Waiting(attempt.not_before.map_or(at, |earliest| earliest.max(at)));
        }
    }

    /// The user told of an address; it is dialed at once.
    pub(super) fn tell(&mut self, bare: Multiaddr, peer: Option<PeerId>, now: Instant) {
        let Some(peer) = peer else {
            let taken = self.targets.values().any(|attempt| attempt.anonymous.contains(&bare));
            if !taken {
                self.attempt(Target::Address(bare), now);
            }
            return;
        };
        let attempt = self.attempt(Target::Peer(peer), now);
        if !attempt.told.contains(&bare) {
            attempt.told.push(bare);
        }
        attempt.not_before = None;
        if matches!(attempt.state, State::Waiting(_)) {
            attempt.state = State::Waiting(now);
        }
    }

    /// Where a peer is found, by its own word or the address book. `connected` since now, or not.
    pub(super) fn learn(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, connected: bool, now: Instant) {
        let attempt = self.attempt(Target::Peer(peer), now);
        attempt.learned = addresses;
        attempt.wrong.clear();
        if connected && !matches!(attempt.state, State::Connected(_)) {
            attempt.state = State::Connected(now);
        }
    }

    /// A peer is announced on the local network at an address. `false` if that was known, or too many are.
    #[cfg(feature = "mdns")]
    pub(super) fn found(&mut self, peer: PeerId, address: Multiaddr, peers_max: usize, now: Instant) -> bool {
        let known = self.targets.contains_key(&Target::Peer(peer));
        if !known && self.targets.values().filter(|attempt| !attempt.found.is_empty()).count() >= peers_max {
            return false;
        }
        let attempt = self.attempt(Target::Peer(peer), now);
        if attempt.found.contains(&address) || attempt.found.len() >= ADDRESSES_PER_PEER_MAX {
            return false;
        }
        attempt.found.push(address);
        true
    }

    /// A peer is no longer announced at an address. Who is known by nothing else is dialed no more.
    #[cfg(feature = "mdns")]
    pub(super) fn lost(&mut self, peer: PeerId, address: &Multiaddr) {
        let Some(attempt) = self.targets.get_mut(&Target::Peer(peer)) else { return };
        attempt.found.retain(|known| known != address);
        if attempt.addresses().is_empty() && matches!(attempt.state, State::Waiting(_)) {
            self.targets.remove(&Target::Peer(peer));
        }
    }

    /// Forgets what a peer said of itself; one that nobody told of and that is not connected is not dialed any more.
    pub(super) fn unlearn(&mut self, peer: PeerId) {
        let target = Target::Peer(peer);
        let Some(attempt) = self.targets.get_mut(&target) else { return };
        attempt.learned.clear();
        if attempt.addresses().is_empty() && !matches!(attempt.state, State::Connected(_)) {
            self.targets.remove(&target);
        }
    }

    /// A connection stands. `through`: the told address that was dialed without knowing whose it is.
    pub(super) fn connected(&mut self, peer: PeerId, through: Option<Multiaddr>, now: Instant) {
        if let Some(address) = through {
            self.targets.remove(&Target::Address(address.clone()));
            let attempt = self.attempt(Target::Peer(peer), now);
            if !attempt.anonymous.contains(&address) {
                attempt.anonymous.push(address);
            }
        }
        if let Some(attempt) = self.targets.get_mut(&Target::Peer(peer)) {
            if !matches!(attempt.state, State::Connected(_)) {
                attempt.state = State::Connected(now);
            }
            attempt.wrong.clear();
            attempt.dialed_last = None;
        }
    }

    /// The last connection to the peer is gone.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        let target = Target::Peer(peer);
        let Some(attempt) = self.targets.get_mut(&target) else { return };
        if let State::Connected(since) = attempt.state
            && now.duration_since(since) >= self.limits.stable_after
        {
            attempt.delays = Self::delays(&self.limits);
        }
        self.wait(&target, now);
    }

    /// A dial failed.
    pub(super) fn failed(&mut self, target: &Target, now: Instant) {
        let dialing = self.targets.get(target).is_some_and(|attempt| attempt.state == State::Dialing);
        if dialing {
            self.wait(target, now);
        }
    }

    /// Somebody else answered at an address of `peer`.
    pub(super) fn wrong_peer(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        let Some(attempt) = self.targets.get_mut(&Target::Peer(peer)) else { return };
        let was_anonymous = attempt.anonymous.contains(&address);
        attempt.anonymous.retain(|known| *known != address);
        attempt.learned.retain(|known| *known != address);
        attempt.found.retain(|known| *known != address);
        attempt.wrong.push(address.clone());
        if attempt.addresses().is_empty() {
            self.targets.remove(&Target::Peer(peer));
        }
        if was_anonymous {
            self.attempt(Target::Address(address), now);
        }
    }

    /// Leaves a peer alone until `until`.
    pub(super) fn block(&mut self, peer: PeerId, until: Instant) {
        if let Some(attempt) = self.targets.get_mut(&Target::Peer(peer)) {
            attempt.not_before = Some(until);
            if matches!(attempt.state, State::Waiting(_)) {
                attempt.state = State::Waiting(until);
            }
        }
    }

    /// Dials a peer that was left alone, at once.
    pub(super) fn unblock(&mut self, peer: PeerId, now: Instant) {
        if let Some(attempt) = self.targets.get_mut(&Target::Peer(peer)) {
            attempt.not_before = None;
            if matches!(attempt.state, State::Waiting(_)) {
                attempt.state = State::Waiting(now);
            }
        }
    }

    /// Never dials a target again.
    pub(super) fn forget(&mut self, target: &Target) {
        self.targets.remove(target);
    }

    /// Takes what is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Dial> {
        let mut due = Vec::new();
        for (target, attempt) in &mut self.targets {
            if !matches!(attempt.state, State::Waiting(at) if at <= now) {
                continue;
            }
            let addresses = match target {
                Target::Peer(_) => attempt.next_dial(),
                Target::Address(address) => vec![address.clone()],
            };
            if !addresses.is_empty() {
                attempt.state = State::Dialing;
                attempt.not_before = None;
                due.push(Dial { target: target.clone(), addresses });
            }
        }
        due
    }

    /// Where a peer would be dialed.
    pub(super) fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        self.targets.get(&Target::Peer(peer)).map(Attempt::addresses).unwrap_or_default()
    }

    /// Every peer that is known by id.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.targets.keys().filter_map(|target| match target {
            Target::Peer(peer) => Some(*peer),
            Target::Address(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn limits() -> SwarmLimits {
        SwarmLimits::default()
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    /// Milliseconds until the next dial.
    fn next_delay(redial: &mut Redial, from: Instant) -> u128 {
        let step = (0..120_000).find(|ms| !redial.due(from + MILLISECOND * *ms).is_empty());
        u128::from(step.expect("a dial within two minutes"))
    }

    #[test]
    fn delays_grow_to_a_bound_and_reset_after_a_stable_connection() {
        let mut redial = Redial::new(limits());
        let (peer, start) = (PeerId::random(), Instant::now());
        redial.tell(address(1), Some(peer), start);
        assert_eq!(redial.due(start), [Dial { target: Target::Peer(peer), addresses: vec![address(1)] }]);
        assert!(redial.due(start).is_empty(), "one dial at a time");
        let mut delays = Vec::new();
        for _ in 0..9 {
            redial.failed(&Target::Peer(peer), start);
            delays.push(next_delay(&mut redial, start));
        }
        assert!((250..=500).contains(&delays[0]), "{delays:?}");
        assert!((15_000..=30_000).contains(&delays[8]), "{delays:?}");

        redial.connected(peer, None, start);
        redial.disconnected(peer, start + MILLISECOND);
        assert!(next_delay(&mut redial, start) >= 15_000, "a connection that dies at once keeps the delay");
        redial.connected(peer, None, start);
        let later = start + limits().stable_after;
        redial.disconnected(peer, later);
        assert!(next_delay(&mut redial, later) <= 500);
    }

    #[test]
    fn a_blocked_peer_is_left_alone_even_when_its_connection_closes_later() {
        let mut redial = Redial::new(limits());
        let (peer, start) = (PeerId::random(), Instant::now());
        redial.learn(peer, vec![address(1)], true, start);
        redial.block(peer, start + Duration::from_secs(60));
        redial.disconnected(peer, start + MILLISECOND);
        assert_eq!(next_delay(&mut redial, start), 60_000);
        redial.failed(&Target::Peer(peer), start);
        redial.block(peer, start + Duration::from_secs(60));
        redial.unblock(peer, start);
        assert_eq!(next_delay(&mut redial, start), 0);
    }

    #[test]
    fn a_told_address_becomes_its_peers_and_is_freed_when_another_answers_there() {
        let mut redial = Redial::new(limits());
        let (peer, start) = (PeerId::random(), Instant::now());
        redial.tell(address(1), None, start);
        assert_eq!(redial.due(start)[0].target, Target::Address(address(1)));
        redial.connected(peer, Some(address(1)), start);
        redial.learn(peer, vec![address(2)], true, start);
        redial.disconnected(peer, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(redial.due(later), [Dial { target: Target::Peer(peer), addresses: vec![address(1), address(2)] }]);
        redial.wrong_peer(peer, address(1), later);
        redial.failed(&Target::Peer(peer), later);
        assert_eq!(redial.due(later), [Dial { target: Target::Address(address(1)), addresses: vec![address(1)] }]);
        assert_eq!(redial.addresses(peer), [address(2)]);
    }

    #[cfg(feature = "quic")]
    #[test]
    fn one_carrier_is_dialed_at_a_time_and_the_other_one_next() {
        let mut redial = Redial::new(limits());
        let (peer, start) = (PeerId::random(), Instant::now());
        let quic: Multiaddr = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
        redial.learn(peer, vec![address(1), quic.clone(), address(2)], false, start);
        let mut dialed = Vec::new();
        for minute in 0..3 {
            let now = start + Duration::from_secs(60 * minute);
            dialed.extend(redial.due(now).into_iter().map(|dial| dial.addresses));
            redial.failed(&Target::Peer(peer), now);
        }
        assert_eq!(dialed, [vec![address(1), address(2)], vec![quic], vec![address(1), address(2)]]);
    }

    #[cfg(feature = "mdns")]
    #[test]
    fn peers_of_the_local_network_are_dialed_while_they_are_announced() {
        let mut redial = Redial::new(limits());
        let (peer, start) = (PeerId::random(), Instant::now());
        assert!(redial.found(peer, address(1), 1, start) && !redial.found(peer, address(1), 1, start));
        assert!(!redial.found(PeerId::random(), address(2), 1, start), "no more than the bound");
        assert_eq!(redial.due(start), [Dial { target: Target::Peer(peer), addresses: vec![address(1)] }]);
        redial.failed(&Target::Peer(peer), start);
        redial.lost(peer, &address(1));
        assert!(redial.due(start + Duration::from_secs(60)).is_empty());
        // Who was accepted stays known.
        assert!(redial.found(peer, address(1), 1, start));
        redial.learn(peer, vec![address(3)], false, start);
        redial.lost(peer, &address(1));
        assert_eq!(redial.due(start), [Dial { target: Target::Peer(peer), addresses: vec![address(3)] }]);
    }
}
