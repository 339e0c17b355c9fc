use super::{Invariant, Replica, Settled};
use crate::oracle::{CommitId, Operation, Outcome};

/// See its statement.
pub struct AckedDurable;

impl Invariant for AckedDurable {
    fn name(&self) -> &'static str {
        "acked-durable"
    }

    fn statement(&self) -> &'static str {
        "a write that was acknowledged is in the log of the node that acknowledged it, and in the end on every replica"
    }

    fn reason(&self) -> &'static str {
        "an acknowledgement is a promise that no crash breaks; an order that was taken may not vanish"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let lost = replica.excuses.lost.get(&(replica.node, replica.dataset)).copied();
        let here = |operation: &&Operation| {
            operation.node == replica.node && operation.dataset == replica.dataset && lost.is_none_or(|at| operation.at_ms > at)
        };
        for operation in replica.history.iter().filter(here) {
            let Some(id) = commit_of(operation) else { continue };
            if !has(&id, |id| replica.commits.contains_key(id), replica.commits.keys()) {
                return Err(format!("{}: write {} was acknowledged there and is gone", replica.place(), operation.number));
            }
        }
        Ok(())
    }

    fn settled(&mut self, settled: &Settled<'_>) -> Result<(), String> {
        for operation in settled.history {
            let (Some(id), Outcome::Acked { confirmed_by, .. }) = (commit_of(operation), &operation.outcome) else { continue };
            let keeps = |node: usize| {
                let lost = settled.excuses.lost.get(&(node, operation.dataset));
                !settled.gone.contains(&node) && lost.is_none_or(|at| operation.at_ms > *at)
            };
            let holders = confirmed_by.iter().filter_map(|peer| settled.nodes.get(peer).copied());
            let safe = std::iter::once(operation.node).chain(holders).any(keeps);
            let union = &settled.union[operation.dataset];
            if safe && !has(&id, |id| union.contains_key(id), union.keys()) {
                return Err(format!(
                    "write {} was acknowledged by node {} and confirmed by {} more, and no replica has it",
                    operation.number,
                    operation.node,
                    confirmed_by.len()
                ));
            }
        }
        Ok(())
    }
}

fn commit_of(operation: &Operation) -> Option<CommitId> {
    match &operation.outcome {
        Outcome::Acked { token: Some(token), .. } => Some(CommitId { line: token.writer, seq: token.seq }),
        _ => None,
    }
}

/// Whether the commit is there, under its writer or on a branch of a line that forked.
fn has<'a>(id: &CommitId, contains: impl Fn(&CommitId) -> bool, mut all: impl Iterator<Item = &'a CommitId>) -> bool {
    contains(id) || all.any(|other| other.line.peer == id.line.peer && other.line.epoch.is_branch() && other.seq == id.seq)
}
