//! A local write on its way through the oplog. Dropped, it never leaves its client without an answer: what was not begun goes back
//! whole, so that it can be handed in again after a restart; what was begun is called unknown, never refused.

use std::time::Duration;

use anabranch_protocol::id::DatasetId;
use anabranch_protocol::replica::{WriteRequest, Written};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::api::WriteError;
use crate::store::StoreError;

/// What becomes of a write that was handed in.
#[derive(Debug)]
pub enum Outcome {
    /// It was decided, or what it came to is not known.
    Done(Result<Written, WriteError>),
    /// The oplog ended before it was begun: here it is again, with its place in the bounded queue.
    NotBegun(WriteRequest, OwnedSemaphorePermit),
}

/// A write that waits for its turn.
#[derive(Debug)]
pub struct Ticket {
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    request: WriteRequest,
    permit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Outcome>,
    handed_in: Instant,
}

impl Ticket {
    /// Takes a write and its place in the bounded queue; the outcome comes through `reply`.
    #[must_use]
    pub fn new(request: WriteRequest, permit: OwnedSemaphorePermit, reply: oneshot::Sender<Outcome>) -> Self {
        Self { body: Some(Body { request, permit, reply, handed_in: Instant::now() }) }
    }

    /// Bytes the write adds to a commit, about.
    pub(super) fn weight(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.request.weight())
    }

    /// From now on the write may have happened.
    pub(super) fn begin(mut self, dataset: &DatasetId) -> (WriteRequest, Begun) {
        let Body { request, permit, reply, handed_in } = self.body.take().expect("only `begin` and `drop` take it");
        (request, Begun { reply: Some(reply), permit: Some(permit), dataset: dataset.clone(), handed_in })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(Body { request, permit, reply, .. }) = self.body.take() {
            // A client that went away takes nothing back.
            let _ = reply.send(Outcome::NotBegun(request, permit));
        }
    }
}

/// A write that was begun and waits for its outcome.
#[derive(Debug)]
pub(super) struct Begun {
    reply: Option<oneshot::Sender<Outcome>>,
    permit: Option<OwnedSemaphorePermit>,
    dataset: DatasetId,
    handed_in: Instant,
}

impl Begun {
    /// For how long the write has waited since this oplog was handed it.
    pub fn waited(&self) -> Duration {
        self.handed_in.elapsed()
    }

    pub fn answer(&mut self, outcome: Result<Written, WriteError>) {
        self.permit = None;
        if let Some(reply) = self.reply.take() {
            // A client that went away does not undo its write.
            let _ = reply.send(Outcome::Done(outcome));
        }
    }

    pub fn answer_failure(&mut self, error: &StoreError) {
        match error {
            StoreError::NoSpace => self.answer(Err(WriteError::NoSpace { dataset: self.dataset.clone() })),
            other => self.answer_unknown(other),
        }
    }

    pub fn answer_unknown(&mut self, error: &dyn std::fmt::Display) {
        self.answer(Err(WriteError::Unknown { dataset: self.dataset.clone(), reason: error.to_string() }));
    }

    /// It did not fit the commit that was made: it waits for its turn again.
    pub fn again(mut self, request: WriteRequest) -> Option<Ticket> {
        let (reply, permit) = self.reply.take().zip(self.permit.take())?;
        Some(Ticket { body: Some(Body { request, permit, reply, handed_in: self.handed_in }) })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let reason = "the dataset went down while it was written".to_owned();
        self.answer(Err(WriteError::Unknown { dataset: self.dataset.clone(), reason }));
    }
}
