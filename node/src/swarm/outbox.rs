//! Events on their way to the node, in order and bounded.
//!
//! The node's channel may be full. Then events wait here, and while the outbox is full as well the swarm is not polled: its
//! connections stop being read and the peers feel it. Commands, deadlines and redials go on meanwhile, so the node can always
//! get out of its own way. Hints (announcements, round trip times) never take the second half of the room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anabranch_actors::transport::TransportEvent;

use super::counters::Counters;

/// Events that may wait before the swarm is no longer polled. One poll adds at most one, and every request in it holds a share
/// of the memory for inbound messages.
pub(super) const OUTBOX_EVENTS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Outbox {
    events: VecDeque<TransportEvent>,
    counters: Arc<Counters>,
}

impl Outbox {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { events: VecDeque::new(), counters }
    }

    pub(super) fn has_room(&self) -> bool {
        self.events.len() < OUTBOX_EVENTS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Queues what may not be lost. The caller polled its source only while there was room.
    pub(super) fn push(&mut self, event: TransportEvent) {
        self.events.push_back(event);
        self.show();
    }

    /// Queues a hint, or says `false` when the node is behind.
    pub(super) fn offer(&mut self, event: TransportEvent) -> bool {
        let behind = self.events.len() >= OUTBOX_EVENTS_MAX / 2;
        if !behind {
            self.push(event);
        }
        !behind
    }

    pub(super) fn pop(&mut self) -> Option<TransportEvent> {
        let event = self.events.pop_front();
        self.show();
        event
    }

    fn show(&self) {
        self.counters.events_waiting.store(self.events.len() as u64, Ordering::Relaxed);
    }
}
