//! Durations counted in fixed buckets: recorded from any thread, read while they are recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, microseconds: from a commit without a disk to a replica that was away for an hour. What is above the
/// last one is counted too.
pub const BOUNDS_MICROS: [u64; 19] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
];
const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many were in each bucket of [`BOUNDS_MICROS`], not cumulated; the last is what is above all bounds.
    pub counts: [u64; BUCKETS],
    /// All durations together, microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What it holds now.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let counts = std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed));
        Distribution { counts, sum_micros: self.sum_micros.load(Ordering::Relaxed) }
    }
}

impl Distribution {
    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 250, 251, 3_600_000_000, 3_600_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let held = histogram.distribution();
        let filled: Vec<_> = held.counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert_eq!(filled, [(0, &2), (1, &1), (18, &1), (19, &1)]);
        assert_eq!((held.count(), held.sum_micros), (5, 7_200_000_502));
        assert!(BOUNDS_MICROS.is_sorted());
    }
}
