//! The hybrid logical clock of Kulkarni, Demirbas, Madappa, Avva and Leone, *Logical Physical Clocks* (OPODIS 2014).
//!
//! 48 bits of milliseconds since the Unix epoch and a 16-bit counter, in one integer that sorts as time. A counter that is full
//! carries into the milliseconds, so the clock never stands still; it is persisted with each commit and never goes back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, by a node's own wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallClock(pub u64);

/// A hybrid logical clock reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

const COUNTER_BITS: u32 = 16;
const MILLIS_MAX: u64 = (1 << 48) - 1;

impl Hlc {
    /// Before every reading.
    pub const ZERO: Self = Self(0);

    /// The first reading of a millisecond.
    #[must_use]
    pub fn at(wall: WallClock) -> Self {
        Self(wall.0.min(MILLIS_MAX) << COUNTER_BITS)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The reading of a local event: the wall clock if it moved on, else one more than the last reading.
    #[must_use]
    pub fn tick(self, wall: WallClock) -> Self {
        Self::at(wall).max(Self(self.0.saturating_add(1)))
    }

    /// The reading after a message stamped `remote` was taken in: never behind either.
    #[must_use]
    pub fn receive(self, remote: Self) -> Self {
        self.max(remote)
    }

    /// Whether this reading lies further ahead of `wall` than `skew` allows.
    #[must_use]
    pub fn is_ahead_of(self, wall: WallClock, skew: Duration) -> bool {
        let skew_millis = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
        self.millis() > wall.0.saturating_add(skew_millis)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.millis(), self.0 & 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tick_is_later_than_everything_seen(last: u64, wall: u64, remote: u64) {
            let last = Hlc(last.min(u64::MAX - 2)).receive(Hlc(remote.min(u64::MAX - 2)));
            let next = last.tick(WallClock(wall));
            prop_assert!(next > last);
            prop_assert!(next >= Hlc::at(WallClock(wall)));
        }

        #[test]
        fn a_tick_follows_the_wall_clock_when_it_moved_on(wall in 1..MILLIS_MAX, behind in 1_u64..1_000) {
            let last = Hlc::at(WallClock(wall.saturating_sub(behind)));
            prop_assert_eq!(last.tick(WallClock(wall)), Hlc::at(WallClock(wall)));
        }

        #[test]
        fn receive_is_a_join(a: u64, b: u64, c: u64) {
            let (a, b, c) = (Hlc(a), Hlc(b), Hlc(c));
            prop_assert_eq!(a.receive(b), b.receive(a));
            prop_assert_eq!(a.receive(b).receive(c), a.receive(b.receive(c)));
            prop_assert_eq!(a.receive(a), a);
        }
    }

    #[test]
    fn a_full_counter_carries() {
        let full = Hlc((5 << 16) | 0xffff);
        assert_eq!(full.tick(WallClock(5)), Hlc(6 << 16));
    }

    #[test]
    fn skew_is_measured_on_the_wall() {
        let skew = Duration::from_secs(1);
        assert!(!Hlc::at(WallClock(2_000)).is_ahead_of(WallClock(1_000), skew));
        assert!(Hlc::at(WallClock(2_001)).is_ahead_of(WallClock(1_000), skew));
    }
}
