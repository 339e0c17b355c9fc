use super::{Invariant, Message};
use crate::workload;

/// See its statement.
pub struct SelectiveSync;

impl Invariant for SelectiveSync {
    fn name(&self) -> &'static str {
        "selective-sync"
    }

    fn statement(&self) -> &'static str {
        "nothing of a collection that is registered nowhere is ever on the wire"
    }

    fn reason(&self) -> &'static str {
        "what a user keeps local never leaves the machine"
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), String> {
        if workload::has_secret(message.bytes) {
            return Err(format!("a {} from node {} to {} has a local document in it", message.kind, message.from, message.to));
        }
        Ok(())
    }
}
