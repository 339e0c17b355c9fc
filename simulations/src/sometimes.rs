//! *Sometimes* checks: a campaign that never reached its interesting states has not tested them.

use std::collections::BTreeMap;

/// Interesting states, by how often they were reached.
#[derive(Debug, Clone, Default)]
pub struct Sometimes(BTreeMap<&'static str, u64>);

/// All states that a campaign over all scenarios has to reach.
pub const STATES: [&str; 17] = [
    "a conflict with three writers",
    "a dataset restarted after a panic",
    "a fork was proven and its lines parted",
    "a lost announcement was made good",
    "a lost request was made good",
    "a node was killed in the middle of a write",
    "a receipt was confirmed by a peer",
    "a repeated request was answered without a second write",
    "a request was refused",
    "a store was set aside and rebuilt from peers",
    "a truncated collection",
    "a writer began a new epoch",
    "a writer was held back for its clock",
    "an outcome was unknown to its client",
    "part of the last batch survived a crash",
    "replicas differed and converged",
    "unflushed operations were lost in a crash",
];

impl Sometimes {
    /// A state was reached.
    pub fn reached(&mut self, state: &'static str) {
        debug_assert!(STATES.contains(&state), "{state}");
        *self.0.entry(state).or_default() += 1;
    }

    /// A state was reached where `is` holds.
    pub fn reached_if(&mut self, is: bool, state: &'static str) {
        if is {
            self.reached(state);
        }
    }

    /// How often each was reached; also those that never were.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        STATES.iter().map(|state| ((*state).to_owned(), self.0.get(state).copied().unwrap_or(0))).collect()
    }
}
