use super::{Invariant, Replica};

/// See its statement.
pub struct FaultIsolation;

impl Invariant for FaultIsolation {
    fn name(&self) -> &'static str {
        "fault-isolation"
    }

    fn statement(&self) -> &'static str {
        "a dataset whose actors did not fail, on a node whose disk did not, is never restarted"
    }

    fn reason(&self) -> &'static str {
        "a bug in one dataset must not take the others down"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let place = (replica.node, replica.dataset);
        let excused = replica.excuses.shaken.contains(&replica.node)
            || replica.excuses.panicked.contains(&place)
            || replica.excuses.lost.contains_key(&place);
        if replica.restarts > 0 && !excused {
            return Err(format!("{}: it restarted {} times for no fault of its own", replica.place(), replica.restarts));
        }
        Ok(())
    }
}
