//! What is registered now, for whoever has to know: the ledger sets it once it is durable, everybody else reads it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use anabranch_protocol::coverage::{Coverages, Scope};
use anabranch_protocol::id::Collection;
use anabranch_protocol::registration::{Registration, TagSet};
use anabranch_protocol::replica::ReplicaSettings;

/// The registration of one dataset, while it runs.
#[derive(Debug)]
pub struct Registered(RwLock<Arc<Current>>);

/// A registration, and how much of its past is here.
#[derive(Debug, Clone)]
pub struct Current {
    /// What replicates.
    pub registration: Registration,
    /// The same, as headers name collections.
    pub tags: TagSet,
    /// By scope.
    pub coverages: Coverages,
}

impl Current {
    /// What replicates and is here, past and all. Only of that this node may say that it has what its vector says.
    #[must_use]
    pub fn complete(&self) -> Registration {
        let mut complete = self.registration.clone();
        for (scope, _) in self.coverages.importing() {
            match scope {
                Scope::All => (complete.all, complete.collections) = (false, BTreeSet::new()),
                Scope::One(collection) => drop(complete.collections.remove(collection)),
            }
        }
        complete
    }

    /// Whether some of a collection's past is still to come.
    #[must_use]
    pub fn is_importing(&self, collection: &Collection) -> bool {
        let covers = |scope: &Scope| match scope {
            Scope::All => true,
            Scope::One(one) => one == collection,
        };
        self.coverages.importing().any(|(scope, _)| covers(scope))
    }
}

impl Registered {
    pub(super) fn new(settings: &ReplicaSettings) -> Self {
        let registration = settings.registration.clone();
        let tags = registration.tags(&settings.dataset, settings.lineage);
        let coverages = Coverages::configured(&registration);
        Self(RwLock::new(Arc::new(Current { registration, tags, coverages })))
    }

    /// As of now.
    #[must_use]
    pub fn now(&self) -> Arc<Current> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, current: Current) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::hlc::Hlc;
    use anabranch_protocol::id::{Epoch, PeerId, ShortHash, WriterId};
    use anabranch_protocol::vector::{Head, VersionVector};

    use super::*;

    /// Who states to have a vector under a registration is counted as having all of it.
    #[test]
    fn what_is_imported_is_not_stated_to_be_here() {
        let (orders, notes) = (Collection::new("orders").unwrap(), Collection::new("notes").unwrap());
        let writer = WriterId { peer: PeerId([1; 32]), epoch: Epoch([2; 16]) };
        let vector: VersionVector = [(writer, Head { seq: 2, hlc: Hlc(1), hash: ShortHash([3; 8]) })].into_iter().collect();
        let mut coverages = Coverages::configured(&Registration::of([orders.clone()]));
        assert_eq!(coverages.register(&notes, &vector), Ok(true));
        let complete = |coverages: &Coverages| {
            let (registration, coverages) = (coverages.registration(), coverages.clone());
            Current { registration, tags: TagSet::All, coverages }.complete()
        };
        let now = complete(&coverages);
        assert!(coverages.registration().contains(&notes) && !now.contains(&notes) && now.contains(&orders));
        coverages.took(&writer, 1, |_| true);
        assert!(!complete(&coverages).contains(&notes));
        coverages.took(&writer, 2, |_| true);
        assert_eq!(complete(&coverages), coverages.registration());
    }
}
