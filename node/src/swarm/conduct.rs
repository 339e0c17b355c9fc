//! How peers behave: points for what breaks the protocol, by identity, so that a new connection is no new start.
//!
//! This is bookkeeping only: time comes in, verdicts come out.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

/// Identities kept; past that the one that was quiet longest goes. Who can make new ones at will gains nothing by being forgotten.
const PEERS_MAX: usize = 4_096;
/// Points of a message that does not decode: a bug may send one.
pub(super) const MALFORMED_POINTS: u32 = 1;
/// Points of a commit or statement that nobody signed: an honest node checks what it passes on.
pub(super) const FORGED_POINTS: u32 = 4;

#[derive(Debug)]
struct Record {
    points: u32,
    last: Instant,
    until: Option<Instant>,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Conduct {
    peers: HashMap<PeerId, Record>,
    points_max: u32,
    backed_off_for: Duration,
}

impl Conduct {
    /// At `points_max` a peer is backed off for `backed_off_for`; as long without misbehaviour clears its points.
    pub(super) fn new(points_max: u32, backed_off_for: Duration) -> Self {
        Self { peers: HashMap::new(), points_max: points_max.max(1), backed_off_for }
    }

    /// Takes note of misbehaviour; whether the peer is to be backed off now.
    pub(super) fn note(&mut self, peer: PeerId, points: u32, now: Instant) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            self.forget_the_quietest();
        }
        let record = self.peers.entry(peer).or_insert(Record { points: 0, last: now, until: None });
        if now.duration_since(record.last) >= self.backed_off_for {
            record.points = 0;
        }
        record.last = now;
        record.points = record.points.saturating_add(points);
        let enough = record.points >= self.points_max && record.until.is_none();
        if enough {
            record.until = Some(now + self.backed_off_for);
        }
        enough
    }

    fn forget_the_quietest(&mut self) {
        let quietest = self.peers.iter().min_by_key(|(_, record)| (record.until.is_some(), record.last)).map(|(peer, _)| *peer);
        if let Some(peer) = quietest {
            self.peers.remove(&peer);
        }
    }

    /// Whether the peer is backed off.
    pub(super) fn is_backed_off(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|record| record.until.is_some())
    }

    /// Forgets those whose time is over; they begin anew.
    pub(super) fn release(&mut self, now: Instant) {
        let (kept, quiet_for) = (&mut self.peers, self.backed_off_for);
        kept.retain(|_, record| match record.until {
            Some(until) => now < until,
            None => now.duration_since(record.last) < quiet_for,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn points_add_up_over_connections_and_a_quiet_time_clears_them() {
        let (mut conduct, start) = (Conduct::new(3, MINUTE), Instant::now());
        let (rude, clumsy) = (PeerId::random(), PeerId::random());
        assert!(!conduct.note(rude, 1, start) && !conduct.note(clumsy, 2, start));
        assert!(conduct.note(rude, 2, start + MINUTE / 2));
        assert!(conduct.is_backed_off(&rude) && !conduct.is_backed_off(&clumsy));
        assert!(!conduct.note(rude, 9, start + MINUTE / 2), "once");
        assert!(!conduct.note(clumsy, 2, start + MINUTE), "the first two are forgiven");
        conduct.release(start + MINUTE);
        assert!(conduct.is_backed_off(&rude));
        conduct.release(start + MINUTE * 3 / 2);
        assert!(!conduct.is_backed_off(&rude));
        assert!(!conduct.note(rude, 2, start + MINUTE * 3 / 2), "it begins anew");
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_is_backed_off_stays_longest() {
        let (mut conduct, start) = (Conduct::new(2, MINUTE), Instant::now());
        let rude = PeerId::random();
        conduct.note(rude, 2, start);
        for n in 0..PEERS_MAX as u64 + 100 {
            conduct.note(PeerId::random(), 1, start + Duration::from_millis(n));
        }
        assert_eq!(conduct.peers.len(), PEERS_MAX);
        assert!(conduct.is_backed_off(&rude));
    }
}
