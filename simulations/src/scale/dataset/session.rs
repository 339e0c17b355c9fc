//! What is known of one peer, and what is under way with it, as `actors/src/dataset/sync/session.rs` has it.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use anabranch_protocol::id::WriterId;
use anabranch_protocol::vector::VersionVector;
use rand::RngExt as _;
use rand_pcg::Pcg64;

use super::pull::{PAGE_BYTES_MIN, Puller};
use crate::scale::message::Frame;

/// Waits after pulls that failed, microseconds.
const WAIT_MIN: u64 = 100_000;
const WAIT_MAX: u64 = 30_000_000;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Session {
    /// Tells it from earlier ones with the same peer.
    pub number: u32,
    pub theirs: VersionVector,
    pub expected: VersionVector,
    pub outbox: VecDeque<Rc<Frame>>,
    pub outbox_bytes: usize,
    /// The heads of the push that is under way.
    pub pushing: Option<VersionVector>,
    pub refused: BTreeSet<WriterId>,
    pub pull: Option<Puller>,
    pub waiting: bool,
    pub comparing: Option<Comparing>,
    pub compare_again: bool,
    pub page_bytes: usize,
    failures: u32,
}

/// A comparison of heads that is under way.
#[derive(Debug)]
pub(super) struct Comparing {
    /// What is the same is what was asked about, not what was written since.
    pub asked_about: Rc<VersionVector>,
    /// A round waits for it.
    pub for_round: bool,
}

impl Session {
    pub fn new(number: u32) -> Self {
        Self {
            number,
            theirs: VersionVector::new(),
            expected: VersionVector::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            pushing: None,
            refused: BTreeSet::new(),
            pull: None,
            waiting: false,
            comparing: None,
            compare_again: false,
            page_bytes: PAGE_BYTES_MIN,
            failures: 0,
        }
    }

    pub fn is_open(&self, ours: &VersionVector) -> bool {
        let asked = self.pull.is_some() || self.waiting || self.comparing.is_some();
        asked || !self.refused.is_empty() || self.theirs != *ours
    }

    pub fn learn(&mut self, theirs: &VersionVector) {
        self.refused.retain(|writer| theirs.seq(writer) <= self.theirs.seq(writer));
        self.theirs.join(theirs);
        self.expected.join(theirs);
    }

    pub fn forget_pushes(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.expected = self.theirs.clone();
    }

    pub fn greeted(&mut self) {
        self.waiting = false;
        self.refused.clear();
        self.failures = 0;
    }

    pub fn pull_succeeded(&mut self) {
        self.failures = 0;
    }

    /// Doubles each time, and up to twice that by chance.
    pub fn next_delay(&mut self, rng: &mut Pcg64) -> u64 {
        let delay = WAIT_MIN.saturating_mul(1 << self.failures.min(20)).min(WAIT_MAX);
        self.failures += 1;
        delay + rng.random_range(0..=delay)
    }
}
