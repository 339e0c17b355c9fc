use std::collections::BTreeMap;

use super::{Invariant, Replica};
use crate::workload;

/// See its statement.
pub struct WholeBatches;

impl Invariant for WholeBatches {
    fn name(&self) -> &'static str {
        "whole-batches"
    }

    fn statement(&self) -> &'static str {
        "the twins, documents that are only ever written together in one request, are equal in every listing"
    }

    fn reason(&self) -> &'static str {
        "a request of several writes is one commit: an invoice without its lines is worse than none"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        for collection in replica.registered {
            let Some(shown) = replica.shown.get(collection) else { return Ok(()) };
            let mut twins: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for document in shown {
                if let Some(pair) = workload::twins_of(&document.key) {
                    twins.entry(pair).or_default().push(workload::number_in(&document.value).unwrap_or(0));
                }
            }
            if let Some((pair, numbers)) = twins.iter().find(|(_, numbers)| numbers.len() != 2 || numbers[0] != numbers[1]) {
                return Err(format!("{} collection {collection}: twins {pair} are of writes {numbers:?}", replica.place()));
            }
        }
        Ok(())
    }
}
