//! Request bodies: read whole up to a limit, and drained a little further so that a client that is still sending can read why it
//! was refused.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Payload;
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Largest body that is one JSON value: JSON is at most about four times its CBOR in what people send.
pub const VALUE_BODY_MAX: usize = 4 << 20;
/// Largest body of a batch, whose commit may hold 3 MiB.
pub const BATCH_BODY_MAX: usize = 12 << 20;
/// Bodies of all requests that are being served, KiB: many clients with large bodies are told to wait, memory stays flat.
const BODIES_KIB_MAX: usize = 64 << 10;
/// Read and thrown away before a refusal is sent; who sends more finds the connection closed.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What all bodies together may take.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_KIB_MAX)))
    }
}

/// A body that was read whole. Its share of the budget is given back when it is dropped.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    shares: Vec<OwnedSemaphorePermit>,
    kib: usize,
}

impl Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    /// Takes a chunk in; `false` where the budget is spent.
    fn take(&mut self, chunk: &[u8], budget: &BodyBudget) -> bool {
        let kib = (self.bytes.len() + chunk.len()).div_ceil(1 << 10);
        let more = u32::try_from(kib - self.kib).unwrap_or(u32::MAX);
        if more > 0 {
            let Ok(share) = budget.0.clone().try_acquire_many_owned(more) else { return false };
            self.shares.push(share);
            self.kib = kib;
        }
        self.bytes.extend_from_slice(chunk);
        true
    }
}

/// The whole body.
pub async fn read(payload: &mut Payload, limit: usize, budget: &BodyBudget) -> Result<Body, Problem> {
    let mut body = Body { bytes: Vec::new(), shares: Vec::new(), kib: 0 };
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if body.bytes.len() + chunk.len() > limit {
            drop(body);
            drain(payload).await;
            return Err(Problem::too_large(format!("the body is over the limit of {limit} bytes; nothing was written")));
        }
        if !body.take(&chunk, budget) {
            drop(body);
            drain(payload).await;
            return Err(Problem::busy("the bodies of requests under way take all the memory they may; nothing was written"));
        }
    }
    Ok(body)
}

/// Throws away what the client still sends, within bounds.
pub async fn drain(payload: &mut Payload) {
    let discard = async {
        let mut drained = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            drained += chunk.len();
            if drained > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    // Past the time limit the answer is sent all the same.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, discard).await;
}
