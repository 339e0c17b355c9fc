//! Request bodies: read whole up to a limit, and drained a little further so that a client that is still sending can read why it
//! was refused.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Payload;
use futures::StreamExt as _;

use super::problem::Problem;
use super::target;

/// Largest body that is one JSON value: JSON is at most about four times its CBOR in what people send.
pub const VALUE_BODY_MAX: usize = 4 << 20;
/// Largest body of a batch, whose commit may hold 3 MiB.
pub const BATCH_BODY_MAX: usize = 12 << 20;
/// Bodies of all requests that are being served, KiB: many clients with large bodies are told to wait, memory stays flat.
const BODIES_KIB_MAX: usize = 64 << 10;
/// Read and thrown away before a refusal is sent; who sends more finds the connection closed.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What all bodies together may take. A dataset may take no more than it leaves free (the dynamic thresholds of Choudhury and Hahne,
/// 1998): one that is flooded gets half of all, two get a third each, and there is always room for the others.
#[derive(Debug, Clone, Default)]
pub struct BodyBudget(Arc<Mutex<BTreeMap<String, usize>>>);

impl BodyBudget {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, owner: &str, kib: usize) -> bool {
        let mut taken = self.taken();
        let free = BODIES_KIB_MAX.saturating_sub(taken.values().sum());
        let own = taken.get(owner).copied().unwrap_or(0);
        let fits = own + kib <= free.saturating_sub(kib);
        if fits {
            taken.insert(owner.to_owned(), own + kib);
        }
        fits
    }

    fn give_back(&self, owner: &str, kib: usize) {
        let mut taken = self.taken();
        if let Some(own) = taken.get_mut(owner) {
            *own = own.saturating_sub(kib);
            if *own == 0 {
                taken.remove(owner);
            }
        }
    }
}

/// A body that was read whole. Its share of the budget is given back when it is dropped.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    budget: BodyBudget,
    owner: String,
    kib: usize,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.budget.give_back(&self.owner, self.kib);
    }
}

impl Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    /// Takes a chunk in; `false` where the budget is spent.
    fn take(&mut self, chunk: &[u8]) -> bool {
        let kib = (self.bytes.len() + chunk.len()).div_ceil(1 << 10);
        let more = kib - self.kib;
        if more > 0 {
            if !self.budget.take(&self.owner, more) {
                return false;
            }
            self.kib = kib;
        }
        self.bytes.extend_from_slice(chunk);
        true
    }
}

/// The whole body of a request, on the account of the dataset that its path names.
pub async fn read(request: &HttpRequest, payload: &mut Payload, limit: usize, budget: &BodyBudget) -> Result<Body, Problem> {
    let owner = target::dataset(request).map_or_else(|_| String::new(), |dataset| dataset.to_string());
    let mut body = Body { bytes: Vec::new(), budget: budget.clone(), owner, kib: 0 };
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if body.bytes.len() + chunk.len() > limit {
            drop(body);
            drain(payload).await;
            return Err(Problem::too_large(format!("the body is over the limit of {limit} bytes; nothing was written")));
        }
        if !body.take(&chunk) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooded_dataset_leaves_room_for_the_others() {
        let budget = BodyBudget::default();
        let flood = |owner: &str| std::iter::from_fn(|| budget.take(owner, 1_024).then_some(1)).count();
        assert_eq!(flood("a"), 32);
        assert_eq!(flood("b"), 16);
        assert!(budget.take("c", 4_096) && !budget.take("a", 1));
        budget.give_back("c", 4_096);
        budget.give_back("b", 16 << 10);
        budget.give_back("a", 32 << 10);
        assert!(budget.taken().is_empty());
        // The largest body there is fits at any time at which nobody floods.
        assert!(budget.take("a", BATCH_BODY_MAX >> 10));
    }
}
