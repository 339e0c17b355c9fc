use super::{Invariant, Replica};

/// See its statement.
pub struct ContiguousPrefix;

impl Invariant for ContiguousPrefix {
    fn name(&self) -> &'static str {
        "contiguous-prefix"
    }

    fn statement(&self) -> &'static str {
        "of every line a replica has the commits from the first on without a gap, each following the one before"
    }

    fn reason(&self) -> &'static str {
        "a vector says all that a replica has by one number a writer; with a gap it would lie, and the gap never be filled"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let mut before: Option<(&crate::oracle::CommitId, anabranch_protocol::id::Hash)> = None;
        for (id, commit) in replica.commits {
            let follows = before.filter(|(last, _)| last.line == id.line);
            // A branch begins where the line parted.
            let expected = follows.map_or(if id.line.epoch.is_branch() { id.seq } else { 1 }, |(last, _)| last.seq + 1);
            if id.seq != expected || commit.header().seq != id.seq {
                return Err(format!("{}: commit {} of {} where {expected} was due", replica.place(), id.seq, id.line));
            }
            if follows.is_some_and(|(_, hash)| commit.header().previous != hash) {
                return Err(format!("{}: commit {} of {} does not follow the one before it", replica.place(), id.seq, id.line));
            }
            before = Some((id, commit.hash()));
        }
        Ok(())
    }
}
