//! Where the answer to one of our own requests goes.

use std::sync::Arc;

use anabranch_actors::transport::TransportError;
use anabranch_protocol::wire::Response;
use tokio::sync::oneshot;

use super::counters::{Counters, InFlightGauge};

/// What a request resolves with.
pub(super) type Answer = Result<Response, TransportError>;

/// The sending end, counted as under way until it is used or dropped.
#[derive(Debug)]
pub(super) struct Reply {
    sender: oneshot::Sender<Answer>,
    gauge: InFlightGauge,
}

impl Reply {
    pub(super) fn new(counters: Arc<Counters>) -> (Self, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        (Self { sender, gauge: InFlightGauge::new(counters) }, answer)
    }

    /// Answers; nothing happens if the caller gave up.
    pub(super) fn send(self, answer: Answer) {
        // Counted as done before the caller can look.
        drop(self.gauge);
        let _ = self.sender.send(answer);
    }

    /// Whether the caller gave up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }
}
