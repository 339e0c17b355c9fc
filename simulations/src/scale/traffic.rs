//! What was sent, by kind.

use std::collections::BTreeMap;

use serde::Serialize;

use super::message::Kind;

/// Messages and bytes of a while.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    by_kind: BTreeMap<Kind, Sent>,
    sent: Vec<u64>,
    /// Bytes that arrived, per node.
    pub received: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    messages: u64,
    bytes: u64,
}

/// What a node sent, in the mean; as much is received.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PerNode {
    /// Messages, answers included, all kinds together.
    pub messages: f64,
    /// Bytes, all kinds together.
    pub bytes: f64,
    /// Bytes of the node that sent most.
    pub bytes_max: u64,
    /// Messages by kind.
    pub messages_by_kind: BTreeMap<Kind, f64>,
    /// Bytes by kind.
    pub bytes_by_kind: BTreeMap<Kind, f64>,
}

impl Traffic {
    pub fn new(nodes: u32) -> Self {
        let none = vec![0; nodes as usize];
        Self { by_kind: BTreeMap::new(), sent: none.clone(), received: none }
    }

    pub fn sent(&mut self, from: u32, kind: Kind, bytes: u64) {
        let sent = self.by_kind.entry(kind).or_default();
        sent.messages += 1;
        sent.bytes += bytes;
        self.sent[from as usize] += bytes;
    }

    /// Bytes that a node sent and received.
    pub fn of(&self, node: u32) -> u64 {
        self.sent[node as usize] + self.received[node as usize]
    }

    pub fn per_node(&self) -> PerNode {
        let nodes = self.sent.len();
        let messages = |sent: &Sent| mean(sent.messages, nodes);
        let bytes = |sent: &Sent| mean(sent.bytes, nodes);
        PerNode {
            messages: self.by_kind.values().map(messages).sum(),
            bytes: self.by_kind.values().map(bytes).sum(),
            bytes_max: self.sent.iter().copied().max().unwrap_or(0),
            messages_by_kind: self.by_kind.iter().map(|(kind, sent)| (*kind, messages(sent))).collect(),
            bytes_by_kind: self.by_kind.iter().map(|(kind, sent)| (*kind, bytes(sent))).collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn mean(sum: u64, nodes: usize) -> f64 {
    sum as f64 / nodes as f64
}
