use std::collections::BTreeMap;

use anabranch_protocol::confirmation::SignedStatement;
use anabranch_protocol::id::{DatasetId, PeerId, WriterId};
use anabranch_protocol::wire::{Request, Response};

use super::{Invariant, Message, Replica};
use crate::oracle::{CommitId, Outcome};

/// See its statement.
#[derive(Default)]
pub struct ConfirmedIsDurable {
    /// The most that each peer stated to have, by dataset.
    stated: BTreeMap<(PeerId, String), BTreeMap<WriterId, u64>>,
}

impl Invariant for ConfirmedIsDurable {
    fn name(&self) -> &'static str {
        "confirmed-is-durable"
    }

    fn statement(&self) -> &'static str {
        "what a node signed to have, it has after any crash, and so has every peer that a receipt names"
    }

    fn reason(&self) -> &'static str {
        "receipts and pruning count confirmations; one that is ahead of the disk turns a crash into a loss"
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), String> {
        let statements = match message.kind {
            "confirm" => match Request::decode(message.bytes) {
                Ok(Request::Confirm(confirm)) => confirm.statements,
                _ => Vec::new(),
            },
            "pushed" => match Response::decode(message.bytes) {
                Ok(Response::Pushed(pushed)) => vec![pushed.confirmation],
                _ => Vec::new(),
            },
            _ => return Ok(()),
        };
        for statement in &statements {
            self.note(message, statement);
        }
        Ok(())
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let lost = replica.excuses.lost.contains_key(&(replica.node, replica.dataset));
        if lost || replica.excuses.cloned.contains(&replica.peer) {
            return Ok(());
        }
        let Some(stated) = self.stated.get(&(replica.peer, replica.name.to_owned())) else { return Ok(()) };
        for (line, seq) in stated {
            let id = CommitId { line: *line, seq: *seq };
            if !replica.commits.contains_key(&id) && !replica.excuses.cloned.contains(&line.peer) {
                return Err(format!("{}: it signed to have {seq} commits of {line} and has not", replica.place()));
            }
        }
        for operation in replica.history.iter().filter(|operation| operation.dataset == replica.dataset) {
            let Outcome::Acked { token: Some(token), confirmed_by, .. } = &operation.outcome else { continue };
            let id = CommitId { line: token.writer, seq: token.seq };
            let counted = confirmed_by.contains(&replica.peer) && !replica.excuses.cloned.contains(&id.line.peer);
            if counted && !replica.commits.contains_key(&id) {
                let number = operation.number;
                return Err(format!("{}: the receipt of write {number} says that it is there, and it is not", replica.place()));
            }
        }
        Ok(())
    }
}

impl ConfirmedIsDurable {
    /// Notes what the sender says of itself; what it passes on was noted before.
    fn note(&mut self, message: &Message<'_>, statement: &SignedStatement) {
        let Ok(said) = statement.unverified() else { return };
        let Some(dataset) = DatasetId::from_wire(said.dataset.as_ref()).filter(|_| said.peer == message.peer) else { return };
        let stated = self.stated.entry((said.peer, dataset.to_string())).or_default();
        for (line, head) in said.vector.iter() {
            let most = stated.entry(*line).or_default();
            *most = (*most).max(head.seq);
        }
    }
}
