//! What has to hold: one file each, with its statement and the reason for it.
//!
//! A look at the world is taken every few simulated seconds, and right after a dataset came up again; it sees every store directly, on
//! the world's one thread, between two polls of its node.

mod acked_durable;
mod authorised;
mod bounded_queues;
mod confirmed_is_durable;
mod contiguous_prefix;
mod convergence;
mod dataset_isolation;
mod exactly_once;
mod fault_isolation;
mod no_regress;
mod selective_sync;
mod skew_bound;
mod stamped_after;
mod state_is_fold;
mod whole_batches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anabranch_actors::api::{Document, ListQuery};
use anabranch_actors::dataset::measures::Queue;
use anabranch_actors::dataset::view::View;
use anabranch_actors::store::StoreError;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::id::{Collection, Hash, PeerId};
use anabranch_protocol::wire::Kind;
use serde::Serialize;

use crate::oracle::{CommitId, Fold, Operation};

/// A guarantee of the design.
pub trait Invariant: Send {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What holds.
    fn statement(&self) -> &'static str;
    /// Why it matters.
    fn reason(&self) -> &'static str;
    /// Looks at one replica at one moment.
    ///
    /// # Errors
    /// How it is broken.
    fn look(&mut self, _: &Replica<'_>) -> Result<(), String> {
        Ok(())
    }
    /// Looks at what waits in a dataset, at every action of the world.
    ///
    /// # Errors
    /// How it is broken.
    fn waiting(&mut self, _: &Waiting<'_>) -> Result<(), String> {
        Ok(())
    }
    /// A message is on the wire.
    ///
    /// # Errors
    /// How it is broken.
    fn message(&mut self, _: &Message<'_>) -> Result<(), String> {
        Ok(())
    }
    /// The run is over, faults ended, and all had time to settle.
    ///
    /// # Errors
    /// How it is broken.
    fn settled(&mut self, _: &Settled<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(acked_durable::AckedDurable),
        Box::new(contiguous_prefix::ContiguousPrefix),
        Box::new(no_regress::NoRegress::default()),
        Box::new(confirmed_is_durable::ConfirmedIsDurable::default()),
        Box::new(state_is_fold::StateIsFold),
        Box::new(whole_batches::WholeBatches),
        Box::new(exactly_once::ExactlyOnce),
        Box::new(dataset_isolation::DatasetIsolation),
        Box::new(selective_sync::SelectiveSync::default()),
        Box::new(authorised::Authorised),
        Box::new(stamped_after::StampedAfter),
        Box::new(skew_bound::SkewBound),
        Box::new(bounded_queues::BoundedQueues),
        Box::new(fault_isolation::FaultIsolation),
        Box::new(convergence::Convergence),
    ]
}

/// What a run may not be blamed for: what happened to its replicas that no replica withstands.
#[derive(Debug, Clone, Default)]
pub struct Excuses {
    /// Replicas that lost what they had, by node and dataset, and when last, in simulated milliseconds: flipped bits, rolled back
    /// disks.
    pub lost: BTreeMap<(usize, usize), u64>,
    /// Identities of which two copies lived: their lines may fork.
    pub cloned: BTreeSet<PeerId>,
    /// Datasets of nodes on which an actor was made to panic.
    pub panicked: BTreeSet<(usize, usize)>,
    /// Nodes on which something else happened that takes datasets down.
    pub shaken: BTreeSet<usize>,
    /// Nodes whose clocks were set ahead by more than a day, and when last, in simulated milliseconds.
    pub days_ahead: BTreeMap<usize, u64>,
}

impl Excuses {
    /// A key may be forgotten before its request is sent again: its store lost what it had, or the clock says that its day is over.
    fn may_forget_key(&self, operation: &Operation) -> bool {
        let since = |when: Option<&u64>| when.is_some_and(|when| *when >= operation.at_ms);
        since(self.lost.get(&(operation.node, operation.dataset))) || since(self.days_ahead.get(&operation.node))
    }
}

/// One replica at one moment.
pub struct Replica<'a> {
    /// Which node.
    pub node: usize,
    /// Which of its lives.
    pub life: u64,
    /// Which dataset, by its place in the plan.
    pub dataset: usize,
    /// Its name.
    pub name: &'a str,
    /// What it holds.
    pub kind: Kind,
    /// The node's peer id.
    pub peer: PeerId,
    /// The collections that it replicates now.
    pub registered: &'a BTreeSet<Collection>,
    /// All collections that clients write to.
    pub collections: &'a [Collection],
    /// The dataset's store, through the reader that ships.
    pub view: &'a Arc<View>,
    /// What it shows of each collection, all of it; a store that is going down can't be read, and says so.
    pub shown: &'a BTreeMap<&'a Collection, Vec<Document>>,
    /// Every commit in its log.
    pub commits: &'a BTreeMap<CommitId, Commit>,
    /// The state that follows from them.
    pub fold: &'a Fold,
    /// The highest reading of its wall clock so far, milliseconds.
    pub highest_clock: u64,
    /// Restarts of the dataset in this life of the node.
    pub restarts: u64,
    /// What was asked so far.
    pub history: &'a [Operation],
    /// What is not to blame.
    pub excuses: &'a Excuses,
    /// Now, simulated milliseconds.
    pub now_ms: u64,
}

impl Replica<'_> {
    /// How it is called in words.
    #[must_use]
    pub fn place(&self) -> String {
        format!("node {} dataset {}", self.node, self.name)
    }
}

/// What waits in one dataset of a node.
pub struct Waiting<'a> {
    /// Which node.
    pub node: usize,
    /// The dataset's name.
    pub name: &'a str,
    /// How much waits in each queue.
    pub queues: [u64; Queue::ALL.len()],
    /// Payload of local writes that wait, KiB.
    pub writes_kib: u64,
}

/// All documents or records of a collection, page by page.
///
/// # Errors
/// As the view.
pub fn list(view: &View, collection: &Collection) -> Result<Vec<Document>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = view.list(collection, &ListQuery { limit: 10_000, after: after.take(), ..ListQuery::default() })?;
        all.extend(page.documents);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// A message at the moment it is sent.
pub struct Message<'a> {
    /// By whom.
    pub from: usize,
    /// The sender's peer id.
    pub peer: PeerId,
    /// To whom.
    pub to: usize,
    /// What kind.
    pub kind: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The names of all datasets, by their place in the plan.
    pub datasets: &'a [String],
}

/// The end of a run.
pub struct Settled<'a> {
    /// Why it did not settle, if it did not.
    pub unsettled: Option<String>,
    /// What all live replicas of each dataset hold together.
    pub union: &'a [BTreeMap<CommitId, Hash>],
    /// What was asked.
    pub history: &'a [Operation],
    /// What is not to blame.
    pub excuses: &'a Excuses,
    /// Nodes that are gone for good.
    pub gone: &'a BTreeSet<usize>,
    /// By peer id.
    pub nodes: &'a BTreeMap<PeerId, usize>,
    /// Receipts that were promised and never settled.
    pub receipts_open: u64,
}

/// How an invariant was broken.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// When, simulated milliseconds.
    pub at_ms: u64,
    /// How.
    pub how: String,
}
