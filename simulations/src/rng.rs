//! The one source of randomness of a run. Every part of a world forks its own stream from the seed, so that a change in one part
//! leaves the draws of the others as they were.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// A seeded stream.
#[derive(Debug)]
pub struct Rng(StdRng);

impl Rng {
    /// The stream of `purpose` under `seed`.
    #[must_use]
    pub fn of(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("anabranch simulation stream");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(StdRng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A stream of its own, drawn from this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        Self(StdRng::from_seed(seed))
    }

    /// A number in a range.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() { range.start } else { self.0.random_range(range) }
    }

    /// An index below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.within(0..count as u64)).unwrap_or(0)
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability.clamp(0.0, 1.0))
    }

    /// One of them.
    ///
    /// # Panics
    /// Where there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// The time until the next event of a Poisson process with this mean.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let uniform: f64 = self.0.random_range(f64::EPSILON..1.0);
        mean.mul_f64(-uniform.ln()).min(mean * 20)
    }

    /// A time in a range, to the microsecond.
    pub fn time(&mut self, range: Range<Duration>) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(range.start)..micros(range.end)))
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}
