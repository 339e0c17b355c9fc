//! Notices a dead child: actix's own supervisor does not survive a panic and keeps the old struct.
//!
//! The watch is a field of the child. Whatever ends the child drops it, a panic too, and the drop sends one message. Nothing else
//! happens in `Drop`: a second panic there would abort the process.

use actix::prelude::*;

/// A child of this generation ended.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct ChildEnded {
    /// Which set of children it belonged to.
    pub generation: u64,
    /// Which child.
    pub child: &'static str,
    /// Why, if it could tell; a panic can't.
    pub reason: Option<String>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct DeathWatch {
    supervisor: Recipient<ChildEnded>,
    ended: ChildEnded,
}

impl DeathWatch {
    pub(super) fn new(supervisor: Recipient<ChildEnded>, generation: u64, child: &'static str) -> Self {
        Self { supervisor, ended: ChildEnded { generation, child, reason: None } }
    }

    /// Leaves word why the child is about to stop.
    pub(super) fn because(&mut self, reason: String) {
        self.ended.reason = Some(reason);
    }
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        self.supervisor.do_send(self.ended.clone());
    }
}
