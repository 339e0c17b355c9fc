//! How often a peer may ask.
//!
//! Rates count by identity and outlive connections, so that dialing again brings no new allowance. What goes over a rate is
//! answered `busy`, which costs next to nothing; who keeps at it is shut out for a while (`SwarmLimits::over_rate_max`).

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use libp2p::PeerId;

use super::config::SwarmLimits;

/// Peers whose rate is remembered before those that have their whole allowance again are forgotten.
const REMEMBERED_MAX: usize = 1_024;

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// `Hello`: every dataset it names is looked at.
    Hello,
    /// Other control requests, and bulk streams opened.
    Request,
    /// Announcements: each has a signature to check.
    Announcement,
}

/// The allowances of all peers.
#[derive(Debug)]
pub(super) struct Allowances {
    hellos: DefaultKeyedRateLimiter<PeerId>,
    requests: DefaultKeyedRateLimiter<PeerId>,
    announcements: DefaultKeyedRateLimiter<PeerId>,
}

impl Allowances {
    pub(super) fn new(limits: &SwarmLimits) -> Self {
        let of = |rate: NonZeroU32, burst: NonZeroU32| RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst));
        Self {
            hellos: of(limits.hello_rate_max, limits.hello_burst_max),
            requests: of(limits.request_rate_max, limits.request_rate_max.saturating_mul(BURST_SECONDS)),
            announcements: of(limits.announce_rate_max, limits.announce_rate_max),
        }
    }

    /// Takes one from a peer's allowance, or says that it is spent.
    pub(super) fn take(&self, peer: &PeerId, asking: Asking) -> bool {
        let of = match asking {
            Asking::Hello => &self.hellos,
            Asking::Request => &self.requests,
            Asking::Announcement => &self.announcements,
        };
        of.check_key(peer).is_ok()
    }

    /// Forgets peers that have their whole allowance again, once there are many.
    pub(super) fn tidy(&self) {
        for of in [&self.hellos, &self.requests, &self.announcements] {
            if of.len() > REMEMBERED_MAX {
                of.retain_recent();
            }
        }
    }
}

/// Seconds' worth of requests that may come at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(2).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_allowance_of_each_kind() {
        let limits = SwarmLimits { hello_burst_max: NonZeroU32::new(3).expect("not zero"), ..SwarmLimits::default() };
        let allowances = Allowances::new(&limits);
        let (flooding, other) = (PeerId::random(), PeerId::random());
        let taken = (0..100).filter(|_| allowances.take(&flooding, Asking::Hello)).count();
        // More than the burst only if a second passes meanwhile.
        assert!((3..100).contains(&taken), "{taken}");
        assert!(allowances.take(&other, Asking::Hello) && allowances.take(&flooding, Asking::Request));
    }
}
