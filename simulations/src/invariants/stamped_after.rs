use super::{Invariant, Replica};
use crate::oracle::Outcome;

/// See its statement.
pub struct StampedAfter;

impl Invariant for StampedAfter {
    fn name(&self) -> &'static str {
        "stamped-after"
    }

    fn statement(&self) -> &'static str {
        "a write is stamped after everything that its node showed of the same documents when it was asked"
    }

    fn reason(&self) -> &'static str {
        "who changes what is on the screen must win over it, whatever the clock says of the machine that wrote it"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let lost = replica.excuses.lost.get(&(replica.node, replica.dataset)).copied();
        let here =
            replica.history.iter().filter(|operation| operation.node == replica.node && operation.dataset == replica.dataset);
        for operation in here.filter(|operation| lost.is_none_or(|at| operation.at_ms > at)) {
            let (Some(saw), Outcome::Acked { stamp: Some(stamp), .. }) = (operation.saw, &operation.outcome) else { continue };
            // A write of a collection that does not replicate has a writer of its own, and the same clock.
            if stamp.hlc <= saw.hlc {
                return Err(format!("{}: write {} has stamp {stamp}, and {saw} was there", replica.place(), operation.number));
            }
        }
        Ok(())
    }
}
