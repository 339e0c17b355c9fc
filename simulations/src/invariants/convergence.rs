use super::{Invariant, Settled};

/// See its statement.
pub struct Convergence;

impl Invariant for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn statement(&self) -> &'static str {
        "once faults stop, within the stated time all live replicas have equal vectors and fingerprints, nothing waits, and every \
         promised receipt is settled"
    }

    fn reason(&self) -> &'static str {
        "this is what sync is for; a system that is only safe may stand still"
    }

    fn settled(&mut self, settled: &Settled<'_>) -> Result<(), String> {
        if let Some(why) = &settled.unsettled {
            return Err(why.clone());
        }
        if settled.receipts_open > 0 {
            return Err(format!("{} receipts were never settled", settled.receipts_open));
        }
        Ok(())
    }
}
