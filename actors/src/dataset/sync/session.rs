//! What is known of one peer, and what is under way with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::commit::Commit;
use anabranch_protocol::registration::TagSet;
use anabranch_protocol::vector::VersionVector;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// See the module documentation.
pub(super) struct Session {
    /// What the peer registered.
    pub tags: TagSet,
    /// What it has for certain.
    pub theirs: VersionVector,
    /// What it has once everything sent or queued has arrived.
    pub expected: VersionVector,
    /// Fresh commits to be pushed.
    pub outbox: VecDeque<(Arc<Commit>, usize)>,
    pub outbox_bytes: usize,
    pub pushing: bool,
    pub pulling: bool,
    /// A retry is scheduled.
    pub waiting: bool,
    /// Page size that the link took without delay, bytes.
    pub page_bytes: usize,
    backoff: ExponentialBackoff,
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}

impl Session {
    pub fn new() -> Self {
        Self {
            tags: TagSet::All,
            theirs: VersionVector::new(),
            expected: VersionVector::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            pushing: false,
            pulling: false,
            waiting: false,
            page_bytes: super::pull::PAGE_BYTES_MIN,
            backoff: backoff(),
        }
    }

    /// The peer has at least this.
    pub fn learn(&mut self, theirs: &VersionVector) {
        self.theirs.join(theirs);
        self.expected.join(theirs);
    }

    /// What was queued or sent did not arrive: the peer will pull.
    pub fn forget_pushes(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.expected = self.theirs.clone();
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        self.backoff.next().unwrap_or(Duration::from_secs(30))
    }

    /// The peer delivers: the next failure waits shortly again.
    pub fn pull_succeeded(&mut self) {
        self.backoff = backoff();
    }
}
