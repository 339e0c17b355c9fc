use super::{Invariant, Replica};
use crate::node::MAX_CLOCK_SKEW;

/// See its statement.
pub struct SkewBound;

impl Invariant for SkewBound {
    fn name(&self) -> &'static str {
        "skew-bound"
    }

    fn statement(&self) -> &'static str {
        "no replica shows a commit of another node whose clock reading was further ahead than `max_clock_skew`"
    }

    fn reason(&self) -> &'static str {
        "one wall clock that is decades ahead must not win every conflict for decades"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let most = replica.highest_clock + u64::try_from(MAX_CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
        let ahead =
            replica.commits.iter().find(|(id, commit)| id.line.peer != replica.peer && commit.header().hlc.millis() > most);
        match ahead {
            Some((id, commit)) => {
                let by = commit.header().hlc.millis() - replica.highest_clock;
                Err(format!("{}: commit {} of {} is {by} ms ahead", replica.place(), id.seq, id.line))
            }
            None => Ok(()),
        }
    }
}
