//! Pulls that bring nothing: they hold up nobody else, and whose they are is remembered by identity.
//!
//! A pull claims its writers, so that no two peers are asked for the same commits, and takes one of `max_peers` turns. One that
//! brought no page for [`PULL_PATIENCE`] keeps neither: other peers are asked for the same at once. The request itself ends by its
//! own deadline; then the peer is left alone for a while that doubles each time, also when it connects or says `Hello` anew.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::id::PeerId;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::Sync;

/// How long a pull may bring nothing before others are asked for the same. A page of one largest frame takes 2 s at 20 Mbit/s; a
/// page that comes after all is only brought twice.
const PULL_PATIENCE: Duration = Duration::from_secs(3);
const LEFT_ALONE_MIN: Duration = Duration::from_secs(2);
const LEFT_ALONE_MAX: Duration = Duration::from_secs(5 * 60);
/// Peers remembered for their stalls.
const REMEMBERED_MAX: usize = 1_024;

/// A page of a pull arrived.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PageArrived {
    pub peer: PeerId,
    pub session: u64,
}

/// Peers whose pulls stalled, whether they are connected or not.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<PeerId, Stall>);

#[derive(Debug)]
struct Stall {
    delays: ExponentialBackoff,
    until: Instant,
}

impl Stalls {
    /// Notes that a peer let a pull run into its deadline; how long it is left alone.
    pub fn note(&mut self, peer: PeerId, now: Instant) -> Duration {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&peer) {
            let first_free = self.0.iter().min_by_key(|(_, stall)| stall.until).map(|(peer, _)| *peer);
            first_free.and_then(|peer| self.0.remove(&peer));
        }
        let stall = self.0.entry(peer).or_insert_with(|| Stall { delays: delays(), until: now });
        let delay = stall.delays.next().unwrap_or(LEFT_ALONE_MAX);
        stall.until = now + delay;
        delay
    }

    /// Whether the peer is being left alone.
    pub fn left_alone(&self, peer: &PeerId, now: Instant) -> bool {
        self.0.get(peer).is_some_and(|stall| stall.until > now)
    }

    /// The peer delivered.
    pub fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default().with_min_delay(LEFT_ALONE_MIN).with_max_delay(LEFT_ALONE_MAX).without_max_times().build()
}

impl Sync {
    /// Looks after a pull that has begun.
    pub(super) fn watch_pull(&self, peer: PeerId, ctx: &mut Context<Self>) {
        let Some(session) = self.sessions.get(&peer) else { return };
        let (number, pull, pages) = (session.number, session.pulls, session.pages);
        ctx.run_later(PULL_PATIENCE, move |actor, ctx| {
            let Some(session) = actor.sessions.get_mut(&peer) else { return };
            if session.number != number || session.pulls != pull || !session.pulling {
                return;
            }
            if session.pages != pages {
                return actor.watch_pull(peer, ctx);
            }
            tracing::info!(dataset = %actor.context.replica.dataset, %peer, "a pull brings nothing: others are asked for the same");
            session.stalled = true;
            actor.claims.retain(|_, from| *from != peer);
            actor.past_pulled_from = actor.past_pulled_from.filter(|from| *from != peer);
            actor.pull_from_anyone(ctx);
        });
    }
}

impl Handler<PageArrived> for Sync {
    type Result = ();
    fn handle(&mut self, page: PageArrived, _: &mut Context<Self>) {
        if let Some(session) = self.sessions.get_mut(&page.peer).filter(|session| session.number == page.session) {
            session.pages += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stalls_is_left_alone_longer_each_time_until_it_delivers() {
        let (peer, other, now) = (PeerId([1; 32]), PeerId([2; 32]), Instant::now());
        let mut stalls = Stalls::default();
        let delays: Vec<_> = (0..10).map(|_| stalls.note(peer, now)).collect();
        assert_eq!(delays[..3], [2, 4, 8].map(Duration::from_secs));
        assert_eq!(delays[9], LEFT_ALONE_MAX);
        assert!(stalls.left_alone(&peer, now + LEFT_ALONE_MAX / 2) && !stalls.left_alone(&peer, now + LEFT_ALONE_MAX));
        assert!(!stalls.left_alone(&other, now));
        stalls.forget(&peer);
        assert!(!stalls.left_alone(&peer, now));
    }

    #[test]
    fn no_more_than_the_bound_are_remembered() {
        let (mut stalls, now) = (Stalls::default(), Instant::now());
        for n in 0..=REMEMBERED_MAX {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            stalls.note(PeerId(id), now);
        }
        assert_eq!(stalls.0.len(), REMEMBERED_MAX);
    }
}
