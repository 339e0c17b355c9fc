//! What is registered now, for whoever has to know: the ledger sets it once it is durable, everybody else reads it.

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
