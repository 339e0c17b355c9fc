//! Numbers the swarm keeps of itself, for the metrics page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_protocol::wire::{Request, Response};

/// What a message is about: a request and its answer count under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// `Hello` and its reply.
    Hello,
    /// `Heads` and its reply.
    Heads,
    /// `Round` and its answer.
    Round,
    /// `Pull` and its page.
    Pull,
    /// `Push` and its confirmation.
    Push,
    /// `Confirm` and its acknowledgement.
    Confirm,
    /// Refusals.
    Refused,
    /// Announcements.
    Announce,
}

impl MessageKind {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 8] =
        [Self::Hello, Self::Heads, Self::Round, Self::Pull, Self::Push, Self::Confirm, Self::Refused, Self::Announce];

    /// The kind's name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Heads => "heads",
            Self::Round => "round",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Confirm => "confirm",
            Self::Refused => "refused",
            Self::Announce => "announce",
        }
    }
}

impl From<&Request> for MessageKind {
    fn from(request: &Request) -> Self {
        match request {
            Request::Hello(_) => Self::Hello,
            Request::Heads(_) => Self::Heads,
            Request::Round(_) => Self::Round,
            Request::Pull(_) => Self::Pull,
            Request::Push(_) => Self::Push,
            Request::Confirm(_) => Self::Confirm,
        }
    }
}

impl From<&Response> for MessageKind {
    fn from(response: &Response) -> Self {
        match response {
            Response::Hello(_) => Self::Hello,
            Response::Heads(_) => Self::Heads,
            Response::Round(_) => Self::Round,
            Response::Page(_) => Self::Pull,
            Response::Pushed(_) => Self::Push,
            Response::Confirmed => Self::Confirm,
            Response::Refused(_) => Self::Refused,
        }
    }
}

/// Counters since start; `requests_in_flight`, `events_waiting` and `connections` are what is now.
#[derive(Debug, Default)]
pub struct Counters {
    bytes_in: [AtomicU64; MessageKind::ALL.len()],
    bytes_out: [AtomicU64; MessageKind::ALL.len()],
    /// Messages that broke the protocol or a limit.
    pub malformed: AtomicU64,
    /// Inbound requests refused because too much was under way.
    pub refused_busy: AtomicU64,
    /// Inbound announcements dropped because the node was behind.
    pub announcements_dropped: AtomicU64,
    /// Own announcements that reached nobody.
    pub announcements_unheard: AtomicU64,
    /// Own announcements dropped by full queues.
    pub announcements_queue_full: AtomicU64,
    /// Own requests under way.
    pub requests_in_flight: AtomicU64,
    /// Events waiting because the node is behind.
    pub events_waiting: AtomicU64,
    /// Established connections.
    pub connections: AtomicU64,
    /// Dials that failed.
    pub dials_failed: AtomicU64,
    /// Bulk streams opened, first time or again.
    pub bulk_streams_opened: AtomicU64,
}

impl Counters {
    /// Bytes of messages read, without the transport's own.
    #[must_use]
    pub fn bytes_in(&self, kind: MessageKind) -> u64 {
        self.bytes_in[kind as usize].load(Ordering::Relaxed)
    }

    /// Bytes of messages written, without the transport's own.
    #[must_use]
    pub fn bytes_out(&self, kind: MessageKind) -> u64 {
        self.bytes_out[kind as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add_in(&self, kind: MessageKind, bytes: usize) {
        self.bytes_in[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_out(&self, kind: MessageKind, bytes: usize) {
        self.bytes_out[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Adds one to a counter.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts a request as under way for as long as it lives.
#[derive(Debug)]
pub(super) struct InFlightGauge(Arc<Counters>);

impl InFlightGauge {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        counters.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for InFlightGauge {
    fn drop(&mut self) {
        self.0.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
