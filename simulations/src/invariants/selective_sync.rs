use std::collections::BTreeSet;

use anabranch_protocol::id::DatasetId;
use anabranch_protocol::wire::{Hello, Request, Response};

use super::{Invariant, Message};
use crate::workload;

/// See its statement.
#[derive(Default)]
pub struct SelectiveSync {
    /// Nodes that ever said to register the collection that only some do, by dataset.
    registered: BTreeSet<(usize, String)>,
    /// Nodes that said `Hello`. What a hostile peer says is not shown, so nobody knows what it registers.
    greeted: BTreeSet<usize>,
}

impl Invariant for SelectiveSync {
    fn name(&self) -> &'static str {
        "selective-sync"
    }

    fn statement(&self) -> &'static str {
        "nothing of a collection that is registered nowhere is ever on the wire, and nothing of one that only some register is sent to \
         a node that never did"
    }

    fn reason(&self) -> &'static str {
        "what a user keeps local never leaves the machine, and nobody gets what he did not ask for"
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), String> {
        let (from, to, kind) = (message.from, message.to, message.kind);
        match kind {
            "hello" => {
                if let Ok(Request::Hello(hello)) = Request::decode(message.bytes) {
                    self.note(from, &hello);
                }
            }
            "hello reply" => {
                if let Ok(Response::Hello(reply)) = Response::decode(message.bytes) {
                    self.note(from, &reply.hello);
                }
            }
            _ => {}
        }
        if workload::has_secret(message.bytes) {
            return Err(format!("a {kind} from node {from} to {to} has a local document in it"));
        }
        if self.greeted.contains(&to) && workload::has_notes(message.bytes) {
            let inside = workload::datasets_in(message.bytes);
            let mut names = inside.iter().filter_map(|dataset| message.datasets.get(usize::try_from(*dataset).ok()?));
            if let Some(name) = names.find(|name| !self.registered.contains(&(to, (*name).clone()))) {
                return Err(format!(
                    "a {kind} from node {from} to {to} has documents of dataset {name} in it that node {to} never registered"
                ));
            }
        }
        Ok(())
    }
}

impl SelectiveSync {
    fn note(&mut self, node: usize, hello: &Hello) {
        self.greeted.insert(node);
        let notes = workload::collection(workload::SOMETIMES);
        for said in hello.datasets.iter().filter(|said| said.registration.contains(&notes)) {
            self.registered.extend(DatasetId::from_wire(said.dataset.as_ref()).map(|dataset| (node, dataset.to_string())));
        }
    }
}
