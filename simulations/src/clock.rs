//! Wall clocks that drift, step, freeze, or are decades off.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anabranch_actors::node::Clock;
use anabranch_protocol::hlc::WallClock;
use tokio::time::Instant;

/// When every world begins, by true time, milliseconds since the Unix epoch.
pub const BEGINNING: u64 = 1_700_000_000_000;

/// The clock of one node.
#[derive(Debug)]
pub struct SimulatedClock {
    world: Instant,
    reading: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    /// How far it was set off, milliseconds.
    offset: i64,
    /// How much faster than true time it runs, in parts per million.
    drift: i64,
    /// Where it stands still.
    frozen: Option<u64>,
    /// The highest that was read.
    highest: u64,
}

impl SimulatedClock {
    /// A clock that is right.
    #[must_use]
    pub fn new() -> Self {
        Self { world: Instant::now(), reading: Mutex::default() }
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, reading: &Reading) -> u64 {
        if let Some(frozen) = reading.frozen {
            return frozen;
        }
        let elapsed = i64::try_from(self.world.elapsed().as_millis()).unwrap_or(i64::MAX);
        let shown = elapsed + elapsed / 1_000 * reading.drift / 1_000 + reading.offset;
        BEGINNING.saturating_add_signed(shown)
    }

    /// Sets it forward or back.
    pub fn step(&self, millis: i64) {
        self.reading().offset += millis;
    }

    /// Makes it run faster or slower from the beginning of the world on.
    pub fn drift(&self, parts_per_million: i64) {
        self.reading().drift = parts_per_million;
    }

    /// Stops it.
    pub fn freeze(&self) {
        let mut reading = self.reading();
        reading.frozen = Some(self.read(&reading));
    }

    /// Sets it right, after so many milliseconds passed that nobody waited for.
    pub fn set_right(&self, skipped_ms: u64) {
        let offset = i64::try_from(skipped_ms).unwrap_or(i64::MAX);
        let highest = self.reading().highest;
        *self.reading() = Reading { offset, highest, ..Reading::default() };
    }

    /// The highest reading that anybody took.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.reading().highest
    }
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> WallClock {
        let mut reading = self.reading();
        let now = self.read(&reading);
        reading.highest = reading.highest.max(now);
        WallClock(now)
    }
}
