//! Which collections of a dataset a node replicates.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::id::{Collection, DatasetId, Lineage, Tag};
use crate::limits::REGISTRATION_COLLECTIONS_MAX;

/// A numbered set of collections. An empty one means nothing; all of them must be spelled out with [`Registration::all`].
/// [`CONTROL_COLLECTION`] is always in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registration {
    /// Grows with every change, so that a confirmation can say which registration it was made under.
    #[serde(rename = "n")]
    pub number: u64,
    /// Every collection, present and future: `*`.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The collections, where not all.
    #[serde(
        rename = "c",
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        deserialize_with = "codec::at_most::<Collection, _, _, REGISTRATION_COLLECTIONS_MAX>"
    )]
    pub collections: BTreeSet<Collection>,
}

impl Registration {
    /// Every collection.
    #[must_use]
    pub fn all() -> Self {
        Self { number: 1, all: true, collections: BTreeSet::new() }
    }

    /// These collections only.
    #[must_use]
    pub fn of(collections: impl IntoIterator<Item = Collection>) -> Self {
        Self { number: 1, all: false, collections: collections.into_iter().collect() }
    }

    /// Whether `collection` replicates here.
    #[must_use]
    pub fn contains(&self, collection: &Collection) -> bool {
        self.all || collection.as_str() == CONTROL_COLLECTION || self.collections.contains(collection)
    }

    /// Whether this is within what the protocol allows and has one encoding.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.collections.len() <= REGISTRATION_COLLECTIONS_MAX && (!self.all || self.collections.is_empty())
    }

    /// The registration as headers name collections.
    #[must_use]
    pub fn tags(&self, dataset: &DatasetId, lineage: Lineage) -> TagSet {
        if self.all {
            return TagSet::All;
        }
        let control = Collection::new(CONTROL_COLLECTION).expect("a fixed, valid name");
        TagSet::Some(self.collections.iter().chain([&control]).map(|c| c.tag(dataset, lineage)).collect())
    }
}

/// The reserved collection that holds members, demotions, fences and policies. Never left out.
pub const CONTROL_COLLECTION: &str = "_control";

/// A registration, as section tables name collections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagSet {
    /// Every section.
    All,
    /// The sections with these tags.
    Some(BTreeSet<Tag>),
}

impl TagSet {
    /// Whether sections with `tag` are in the registration.
    #[must_use]
    pub fn contains(&self, tag: &Tag) -> bool {
        match self {
            Self::All => true,
            Self::Some(tags) => tags.contains(tag),
        }
    }
}
