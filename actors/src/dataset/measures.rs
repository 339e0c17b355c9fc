//! What one dataset takes its time for and what waits in it: recorded by its actors, read by whoever watches the node. Reading waits
//! for no actor and no disk, so it also tells of a dataset that is stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_protocol::hlc::{Hlc, WallClock};

use super::histogram::{Distribution, Histogram};

/// What waits in a dataset's actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Local writes that wait for their turn.
    Writes,
    /// Pushes and pages of peers that wait for their turn.
    Received,
    /// Changes of registration and what follows from them.
    Chores,
    /// Writes that wait until enough peers confirmed them.
    Confirmations,
}

impl Queue {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Writes, Self::Received, Self::Chores, Self::Confirmations];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Received => "received",
            Self::Chores => "chores",
            Self::Confirmations => "confirmations",
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Measures {
    commit_latency: Histogram,
    visible: Histogram,
    stamped_ahead: AtomicU64,
    statements: AtomicU64,
    confirmed: AtomicU64,
    unconfirmed: AtomicU64,
    queues: [AtomicU64; Queue::ALL.len()],
}

/// The numbers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// From when a local write was accepted until it was durable, for each that was.
    pub commit_latency: Distribution,
    /// From the stamp of a peer's commit, by its writer's clock, until it was applied here, by ours.
    pub visible: Distribution,
    /// Commits of peers whose stamp was ahead of our clock when they were applied; they count as zero in `visible`.
    pub stamped_ahead: u64,
    /// Signed statements of peers taken in.
    pub statements: u64,
    /// Writes that enough peers confirmed in time.
    pub confirmed: u64,
    /// Writes that too few peers confirmed in time.
    pub unconfirmed: u64,
    /// What waits, in the order of [`Queue::ALL`].
    pub queues: [u64; Queue::ALL.len()],
}

impl Measures {
    /// The numbers now.
    #[must_use]
    pub fn measured(&self) -> Measured {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Measured {
            commit_latency: self.commit_latency.distribution(),
            visible: self.visible.distribution(),
            stamped_ahead: load(&self.stamped_ahead),
            statements: load(&self.statements),
            confirmed: load(&self.confirmed),
            unconfirmed: load(&self.unconfirmed),
            queues: std::array::from_fn(|queue| load(&self.queues[queue])),
        }
    }

    /// A local write is durable.
    pub(super) fn durable_after(&self, waited: Duration) {
        self.commit_latency.observe(waited);
    }

    /// A peer's commit is applied.
    pub(super) fn visible(&self, stamp: Hlc, now: WallClock) {
        if stamp.millis() > now.0 {
            self.stamped_ahead.fetch_add(1, Ordering::Relaxed);
        }
        self.visible.observe(Duration::from_millis(now.0.saturating_sub(stamp.millis())));
    }

    /// A peer's statement was taken in.
    pub(super) fn stated(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
    }

    /// A write's wait for confirmations is over.
    pub(crate) fn waited(&self, enough: bool) {
        let counter = if enough { &self.confirmed } else { &self.unconfirmed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn queue(&self, queue: Queue, depth: usize) {
        self.queues[queue as usize].store(depth as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_from_the_future_counts_as_visible_at_once_and_is_told() {
        let measures = Measures::default();
        measures.visible(Hlc::at(WallClock(1_000)), WallClock(3_000));
        measures.visible(Hlc::at(WallClock(9_000)), WallClock(3_000));
        let measured = measures.measured();
        assert_eq!((measured.visible.count(), measured.visible.sum_micros, measured.stamped_ahead), (2, 2_000_000, 1));
    }

    #[test]
    fn queues_are_told_apart() {
        let measures = Measures::default();
        for (depth, queue) in Queue::ALL.into_iter().enumerate() {
            measures.queue(queue, depth + 1);
        }
        assert_eq!(measures.measured().queues, [1, 2, 3, 4]);
    }
}
