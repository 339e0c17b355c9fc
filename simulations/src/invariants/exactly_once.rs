use std::collections::BTreeMap;

use super::{Invariant, Replica};
use crate::workload;

/// See its statement.
pub struct ExactlyOnce;

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly-once"
    }

    fn statement(&self) -> &'static str {
        "a request under an idempotency key is in one commit, however often it was sent"
    }

    fn reason(&self) -> &'static str {
        "a client that heard nothing sends again; two orders from one click are one too many"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let mut made: BTreeMap<u64, crate::oracle::CommitId> = BTreeMap::new();
        for (id, commit) in replica.commits {
            for section in commit.sections() {
                for entry in &section.entries {
                    use anabranch_protocol::commit::Change;
                    let (Change::Put { value, .. } | Change::Append { value }) = &entry.change else { continue };
                    let Some(number) = workload::number_in(value) else { continue };
                    let keyed = replica.history.iter().any(|operation| operation.number == number && operation.keyed);
                    let forked = replica.excuses.cloned.contains(&id.line.peer);
                    if keyed && !forked && made.insert(number, *id).is_some_and(|other| other != *id) {
                        return Err(format!("{}: write {number} was made twice", replica.place()));
                    }
                }
            }
        }
        Ok(())
    }
}
