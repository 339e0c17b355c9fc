//! What is known of one peer, and what is under way with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Parted;
use super::past::Past;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::coverage::Scope;
use anabranch_protocol::id::{Tag, WriterId};
use anabranch_protocol::registration::TagSet;
use anabranch_protocol::replica::ReplicaSettings;
use anabranch_protocol::vector::VersionVector;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// See the module documentation.
pub(super) struct Session {
    /// Tells it from earlier ones with the same peer: what those left under way ends without touching this one.
    pub number: u64,
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
    /// Writers whose commits the peer did not take in when they were pushed: it pulls them once it can.
    pub refused: BTreeSet<WriterId>,
    pub pulling: bool,
    /// A pull from the peer is under way and brings nothing: it takes no turn and claims no writer meanwhile.
    pub stalled: bool,
    /// Pulls begun, and pages that arrived.
    pub pulls: u64,
    pub pages: u64,
    /// Writers whose frames the peer sends in a newer format than this version knows.
    pub newer: BTreeSet<WriterId>,
    /// Messages of the peer with frames that no writer made.
    pub bad_messages: u32,
    /// Writers whose lines there are searched for a fork, and those that were since vectors were last compared without being asked.
    pub searching: BTreeSet<WriterId>,
    pub searched: BTreeSet<WriterId>,
    /// Writers of which the peer lacks sections that are registered here: another peer has to deliver them. Asked again now and
    /// then.
    pub lacking: BTreeSet<WriterId>,
    /// What it said it lacked: from which commit on, and which sections. Stands until we have the commit.
    pub lacks: BTreeMap<WriterId, (u64, Vec<Tag>)>,
    /// Scopes whose past the peer does not have of a writer, as far as it was asked.
    pub lacks_past: BTreeSet<(Scope, WriterId)>,
    /// The same, until the peer delivers.
    pub lacks_past_shown: BTreeSet<(Scope, WriterId)>,
    /// The next pull is for the past, if there is any to be had.
    pub past_next: bool,
    /// Vectors are being compared, and whether there is reason to do it once more.
    pub comparing: bool,
    pub compare_again: bool,
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
    pub fn new(number: u64) -> Self {
        Self {
            number,
            tags: TagSet::All,
            theirs: VersionVector::new(),
            expected: VersionVector::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            pushing: false,
            refused: BTreeSet::new(),
            pulling: false,
            stalled: false,
            pulls: 0,
            pages: 0,
            lacking: BTreeSet::new(),
            newer: BTreeSet::new(),
            searching: BTreeSet::new(),
            searched: BTreeSet::new(),
            bad_messages: 0,
            lacks: BTreeMap::new(),
            lacks_past: BTreeSet::new(),
            lacks_past_shown: BTreeSet::new(),
            past_next: false,
            comparing: false,
            compare_again: false,
            waiting: false,
            page_bytes: super::pull::PAGE_BYTES_MIN,
            backoff: backoff(),
        }
    }

    /// Whether something is known to be missing on either side, or was not said yet.
    pub fn is_open(&self, ours: &VersionVector) -> bool {
        let asked = self.pulling || self.waiting || self.comparing;
        let lacked = !(self.lacking.is_empty() && self.lacks.is_empty() && self.lacks_past.is_empty());
        let refused = !(self.lacks_past_shown.is_empty() && self.refused.is_empty() && self.newer.is_empty());
        asked || lacked || refused || self.theirs != *ours
    }

    /// The peer has at least this.
    pub fn learn(&mut self, theirs: &VersionVector) {
        self.refused.retain(|writer| theirs.seq(writer) <= self.theirs.seq(writer));
        self.theirs.join(theirs);
        self.expected.join(theirs);
    }

    /// Of a line that goes no further here the peer has no more than that, whatever it said before it heard of the fork.
    pub fn cut(&mut self, parted: &Parted) {
        for cut in &parted.cuts {
            cut.apply(&mut self.theirs);
            cut.apply(&mut self.expected);
        }
    }

    /// What was queued or sent did not arrive: the peer will pull.
    pub fn forget_pushes(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.expected = self.theirs.clone();
    }

    /// The peer said `Hello` (again): whatever it refused or failed to deliver before may be otherwise now. So may what it has: its
    /// store may be another one.
    pub fn greeted(&mut self, tags: TagSet, theirs: &VersionVector) {
        self.tags = tags;
        self.theirs = theirs.clone();
        self.expected = theirs.clone();
        self.waiting = false;
        self.refused.clear();
        self.newer.clear();
        self.ask_again();
        self.lacks.clear();
        self.lacks_past_shown.clear();
        self.backoff = backoff();
    }

    /// What the peer lacked it may have by now.
    pub fn ask_again(&mut self) {
        self.lacking.clear();
        self.lacks_past.clear();
    }

    /// A pull of the past ended, and this is what the peer lacked of it.
    pub fn delivered_past(&mut self, past: &Past, lacked: Vec<(Scope, WriterId)>) {
        self.lacks_past_shown.retain(|(scope, writer)| !past.asked_for(scope, writer));
        self.lacks_past_shown.extend(lacked.iter().cloned());
        self.lacks_past.extend(lacked);
    }

    /// Whether the peer registered all of a scope.
    pub fn registered(&self, scope: &Scope, replica: &ReplicaSettings) -> bool {
        match scope {
            Scope::All => self.tags == TagSet::All,
            Scope::One(collection) => self.tags.contains(&collection.tag(&replica.dataset, replica.lineage)),
        }
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
