use super::{Invariant, Replica};

/// What may wait in one dataset (`WAITING_KIB_MAX` of `anabranch_actors::dataset`), KiB.
const WAITING_KIB_MAX: u64 = 32 << 10;

/// See its statement.
pub struct BoundedQueues;

impl Invariant for BoundedQueues {
    fn name(&self) -> &'static str {
        "bounded-queues"
    }

    fn statement(&self) -> &'static str {
        "what waits in a dataset stays within its bound, whatever floods it"
    }

    fn reason(&self) -> &'static str {
        "a queue without a bound is an outage that waits for load"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        if replica.waiting_kib > WAITING_KIB_MAX {
            return Err(format!("{}: {} KiB of writes wait", replica.place(), replica.waiting_kib));
        }
        Ok(())
    }
}
