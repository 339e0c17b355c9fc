use std::collections::{BTreeMap, BTreeSet};

use anabranch_protocol::commit::Change;

use super::{Invariant, Replica};
use crate::oracle::{CommitId, Operation};
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
        let once = |operation: &&Operation| operation.keyed && !replica.excuses.may_forget_key(operation);
        let once: BTreeSet<u64> = replica.history.iter().filter(once).map(|operation| operation.number).collect();
        let mut made: BTreeMap<u64, CommitId> = BTreeMap::new();
        for (id, commit) in replica.commits {
            for section in commit.sections() {
                for entry in &section.entries {
                    let (Change::Put { value, .. } | Change::Append { value }) = &entry.change else { continue };
                    let Some(number) = workload::number_in(value) else { continue };
                    let forked = replica.excuses.cloned.contains(&id.line.peer);
                    if once.contains(&number) && !forked && made.insert(number, *id).is_some_and(|other| other != *id) {
                        return Err(format!("{}: write {number} was made twice", replica.place()));
                    }
                }
            }
        }
        Ok(())
    }
}
