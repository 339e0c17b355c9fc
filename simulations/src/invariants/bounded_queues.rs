use anabranch_actors::dataset::measures::Queue;

use super::{Invariant, Waiting};

/// Payload of local writes that may wait in one dataset (`WAITING_KIB_MAX` of `anabranch_actors::dataset::handle`), KiB.
const WRITES_KIB_MAX: u64 = 32 << 10;

/// How many may wait in a queue of one dataset. In `anabranch_actors::dataset`: pushes (`INTAKES_MAX`), a page of each peer
/// (`max_peers`) and of the past (`PAGES_MAX`); requests that wait for receipts (`WAITING_MAX`). Writes are bounded by their weight,
/// and chores follow one from the other.
fn bound(queue: Queue) -> u64 {
    match queue {
        Queue::Writes => WRITES_KIB_MAX,
        Queue::Received => 32 + 8 + 4,
        Queue::Chores => 32,
        Queue::Confirmations => 4_096,
    }
}

/// See its statement.
pub struct BoundedQueues;

impl Invariant for BoundedQueues {
    fn name(&self) -> &'static str {
        "bounded-queues"
    }

    fn statement(&self) -> &'static str {
        "what waits in a dataset stays within its bounds, whatever floods it"
    }

    fn reason(&self) -> &'static str {
        "a queue without a bound is an outage that waits for load"
    }

    fn waiting(&mut self, waiting: &Waiting<'_>) -> Result<(), String> {
        let place = || format!("node {} dataset {}", waiting.node, waiting.name);
        for (queue, depth) in Queue::ALL.into_iter().zip(waiting.queues) {
            if depth > bound(queue) {
                return Err(format!("{}: {depth} wait in its queue of {}", place(), queue.name()));
            }
        }
        if waiting.writes_kib > WRITES_KIB_MAX {
            return Err(format!("{}: {} KiB of writes wait", place(), waiting.writes_kib));
        }
        Ok(())
    }
}
