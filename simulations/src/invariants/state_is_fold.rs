use std::collections::{BTreeMap, BTreeSet};

use anabranch_protocol::wire::Kind;

use super::{Invariant, Replica};

/// See its statement.
pub struct StateIsFold;

impl Invariant for StateIsFold {
    fn name(&self) -> &'static str {
        "state-is-fold"
    }

    fn statement(&self) -> &'static str {
        "what a replica shows of a replicated collection is the fold of the commits in its log, byte for byte: each commit whole, \
         nothing else, nothing damaged"
    }

    fn reason(&self) -> &'static str {
        "replicas with equal commits are equal only if state is a function of commits"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        for collection in replica.registered {
            let Some(shown) = replica.shown.get(collection) else { return Ok(()) };
            let place = || format!("{} collection {collection}", replica.place());
            if replica.kind == Kind::Append {
                let shown: BTreeSet<_> = shown.iter().map(|record| (record.stamp, record.value.clone())).collect();
                let due = replica.fold.records(collection);
                if shown != due {
                    return Err(format!("{}: shows {} records, the fold has {}", place(), shown.len(), due.len()));
                }
                continue;
            }
            let shown: BTreeMap<_, _> = shown.iter().map(|d| (d.key.clone(), (d.stamp, d.value.clone()))).collect();
            let due = replica.fold.documents(collection);
            if shown != due {
                let differs = shown.iter().find(|(key, row)| due.get(key) != Some(row)).map(|(key, _)| key);
                let missing = due.keys().find(|key| !shown.contains_key(*key));
                return Err(format!(
                    "{}: shows {} documents, the fold has {}; differs {:?}, missing {:?}",
                    place(),
                    shown.len(),
                    due.len(),
                    differs.map(|key| (key, shown[key].0, due.get(key).map(|row| row.0))),
                    missing.map(|key| (key, due[key].0))
                ));
            }
        }
        Ok(())
    }
}
