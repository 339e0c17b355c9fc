use std::collections::BTreeSet;

use super::{Invariant, Replica};

/// See its statement.
pub struct Authorised;

impl Invariant for Authorised {
    fn name(&self) -> &'static str {
        "authorised"
    }

    fn statement(&self) -> &'static str {
        "every value that a replica shows is one that a client of some node wrote, whole, to that collection"
    }

    fn reason(&self) -> &'static str {
        "forged, torn and damaged values must never be served, by whatever way they came in"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let of_here = replica.history.iter().filter(|operation| operation.dataset == replica.dataset);
        let written: BTreeSet<_> = of_here
            .flat_map(|operation| operation.writes.iter())
            .filter_map(|(collection, key, value)| Some((collection, key.as_ref(), value.as_ref()?)))
            .collect();
        for collection in replica.collections {
            let Some(shown) = replica.shown.get(collection) else { return Ok(()) };
            for document in shown {
                let keyed = written.contains(&(collection, Some(&document.key), &document.value));
                if !keyed && !written.contains(&(collection, None, &document.value)) {
                    return Err(format!("{} collection {collection}: nobody wrote {}", replica.place(), document.key));
                }
            }
        }
        Ok(())
    }
}
