//! Requests under idempotency keys: one that happened is answered as it was then, and does not happen again.
//!
//! Turns follow each other, so a request that comes again finds the first one either remembered or in its own turn: nobody has
//! to be told that a key is in use.

use std::collections::BTreeMap;

use super::turn::Rows;
use super::{WriteRefusal, WriteRequest, Written};
use crate::hlc::WallClock;
use crate::id::{KeyHash, RequestHash};
use crate::idempotency::Remembered;

/// Keys of the requests that this turn accepted, and their places among its outcomes.
#[derive(Default)]
pub(super) struct Keyed(BTreeMap<KeyHash, (RequestHash, usize)>);

/// What is known of a request.
pub(super) enum Recalled {
    /// It has no key, or one that is not known.
    Nothing,
    /// What it came to.
    Before(Written),
    /// It comes to what this request of the turn comes to.
    InThisTurn(usize),
    /// Its key was used for another request.
    OtherRequest,
}

impl Keyed {
    /// What is known of a request at `now`. What was refused, or is over, is not.
    pub fn recall<R: Rows>(&self, rows: &R, now: WallClock, request: &WriteRequest) -> Result<Recalled, R::Error> {
        let Some(idempotency) = &request.idempotency else { return Ok(Recalled::Nothing) };
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::ForgetKeys) {
            return Ok(Recalled::Nothing);
        }
        let (asked, recalled) = match self.0.get(&idempotency.key) {
            Some((asked, index)) => (*asked, Recalled::InThisTurn(*index)),
            None => match rows.remembered(&idempotency.key)?.filter(|remembered| !remembered.is_over(now)) {
                Some(Remembered { request, written, .. }) => (request, Recalled::Before(written)),
                None => return Ok(Recalled::Nothing),
            },
        };
        Ok(if asked == idempotency.request { recalled } else { Recalled::OtherRequest })
    }

    /// A request was accepted; its outcome is to be at `index`.
    pub fn accepted(&mut self, request: &WriteRequest, index: usize) {
        if let Some(idempotency) = &request.idempotency {
            self.0.insert(idempotency.key, (idempotency.request, index));
        }
    }

    /// What is to be remembered of a turn with these outcomes.
    pub fn remembered(self, now: WallClock, outcomes: &[Result<Written, WriteRefusal>]) -> Vec<(KeyHash, Remembered)> {
        let answer = |(key, (request, index)): (KeyHash, (RequestHash, usize))| {
            let written = outcomes.get(index)?.as_ref().ok()?.clone();
            Some((key, Remembered::new(request, now, written)))
        };
        self.0.into_iter().filter_map(answer).collect()
    }
}
