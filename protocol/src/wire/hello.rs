//! The handshake. Nothing is served to or taken from a peer before its `Hello` was accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{Refusal, dataset_is_valid};
use crate::codec::DecodeError;
use crate::id::{Collection, DatasetId, Hash, Incarnation, Lineage, Salt};
use crate::limits::HELLO_DATASETS_MAX;
use crate::registration::Registration;
use crate::vector::VersionVector;

/// What a dataset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Key → JSON document, mutable.
    Documents,
    /// Immutable records.
    Append,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Documents => "documents",
            Self::Append => "append",
        })
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "documents" => Ok(Self::Documents),
            "append" => Ok(Self::Append),
            other => Err(format!("{other:?} is not a kind: use `documents` or `append`")),
        }
    }
}

/// A node introduces itself, with all its datasets or with those that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Protocol versions the node can speak.
    #[serde(rename = "v")]
    pub versions: Vec<u64>,
    /// Fresh random bytes; a proof of the network key covers both sides'.
    #[serde(rename = "x")]
    pub nonce: Salt,
    /// Keyed hash over both peer ids and both nonces, one per network key in use; empty on an open network.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Hash>,
    /// The life of the node's data directory: a second live copy of one identity shows by another value.
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
    /// Where the node listens, as multiaddrs.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    /// The datasets.
    #[serde(rename = "s")]
    pub datasets: Vec<DatasetHello>,
}

/// A dataset in a `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetHello {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Two datasets of one name and different lineage refuse each other.
    #[serde(rename = "l")]
    pub lineage: Lineage,
    /// What it holds.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// What it replicates.
    #[serde(rename = "r")]
    pub registration: Registration,
    /// Policies by collection; `""` is the default of the others.
    #[serde(rename = "p")]
    pub policies: BTreeMap<PolicyScope, String>,
    /// What the sender has: peers see from it what it knows of their own writers.
    #[serde(rename = "h")]
    pub heads: VersionVector,
}

/// Empty for the dataset's default policy, else a collection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PolicyScope(pub Option<Collection>);

impl From<PolicyScope> for String {
    fn from(scope: PolicyScope) -> Self {
        scope.0.map_or_else(Self::new, |collection| collection.to_string())
    }
}

impl TryFrom<String> for PolicyScope {
    type Error = crate::id::NameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Self(None)) } else { Collection::new(&text).map(|c| Self(Some(c))) }
    }
}

/// The answer to a `Hello`: the answerer's own, and a word about each dataset that was named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelloReply {
    /// The answerer's own `Hello`, with the datasets it accepted.
    #[serde(rename = "h")]
    pub hello: Hello,
    /// Datasets that were refused, and why.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<DatasetReply>,
}

/// Why a dataset of a `Hello` was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetReply {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// The reason.
    #[serde(rename = "r")]
    pub refusal: Refusal,
}

impl Hello {
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        let small = self.versions.len() <= 16 && self.proofs.len() <= 8 && self.listen.len() <= 32;
        if !small || self.datasets.len() > HELLO_DATASETS_MAX || self.listen.iter().any(|a| a.len() > 256) {
            return Err(DecodeError::OutOfBounds("a Hello names at most 16 versions, 8 proofs, 32 addresses, 1024 datasets"));
        }
        self.datasets.iter().try_for_each(DatasetHello::check)
    }
}

impl DatasetHello {
    fn check(&self) -> Result<(), DecodeError> {
        dataset_is_valid(self.dataset.as_ref())?;
        let small = self.policies.len() <= 1_025 && self.policies.values().all(|name| name.len() <= 64);
        if small && self.registration.is_valid() { Ok(()) } else { Err(DecodeError::OutOfBounds("registration or policies")) }
    }
}

impl HelloReply {
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        self.hello.check()?;
        if self.refused.len() > HELLO_DATASETS_MAX {
            return Err(DecodeError::OutOfBounds("too many refusals"));
        }
        self.refused.iter().try_for_each(|reply| {
            dataset_is_valid(reply.dataset.as_ref())?;
            reply.refusal.check()
        })
    }
}
