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
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Conduct {
    peers: HashMap<PeerId, Record>,
    points_max: u32,
    quiet_for: Duration,
}

impl Conduct {
    /// At `points_max` a peer has done too much; `quiet_for` without misbehaviour clears its points.
    pub(super) fn new(points_max: u32, quiet_for: Duration) -> Self {
        Self { peers: HashMap::new(), points_max: points_max.max(1), quiet_for }
    }

    /// Takes note of misbehaviour; whether it is too much by now. It is told once: whoever is shut out for it begins anew.
    pub(super) fn note(&mut self, peer: PeerId, points: u32, now: Instant) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            self.forget_the_quietest();
        }
        let record = self.peers.entry(peer).or_insert(Record { points: 0, last: now });
        if now.duration_since(record.last) >= self.quiet_for {
            record.points = 0;
        }
        record.last = now;
        record.points = record.points.saturating_add(points);
        let enough = record.points >= self.points_max;
        if enough {
            self.peers.remove(&peer);
        }
        enough
    }

    fn forget_the_quietest(&mut self) {
        let quietest = self.peers.iter().min_by_key(|(_, record)| record.last).map(|(peer, _)| *peer);
        if let Some(peer) = quietest {
            self.peers.remove(&peer);
        }
    }

    /// Forgets those that were quiet long enough.
    pub(super) fn forgive(&mut self, now: Instant) {
        let quiet_for = self.quiet_for;
        self.peers.retain(|_, record| now.duration_since(record.last) < quiet_for);
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
        assert!(!conduct.note(clumsy, 2, start + MINUTE), "the first two are forgiven");
        assert!(!conduct.note(rude, 2, start + MINUTE), "it begins anew");
        conduct.forgive(start + MINUTE * 3 / 2);
        assert_eq!(conduct.peers.len(), 2);
        conduct.forgive(start + MINUTE * 2);
        assert!(conduct.peers.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_misbehaved_last_stays() {
        let (mut conduct, start) = (Conduct::new(2, MINUTE), Instant::now());
        let rude = PeerId::random();
        for n in 0..PEERS_MAX as u64 + 100 {
            conduct.note(PeerId::random(), 1, start + Duration::from_millis(n));
            if n == PEERS_MAX as u64 {
                assert!(!conduct.note(rude, 1, start + Duration::from_millis(n)));
            }
        }
        assert_eq!(conduct.peers.len(), PEERS_MAX);
        assert!(conduct.note(rude, 1, start + MINUTE / 2));
    }
}
