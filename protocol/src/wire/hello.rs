//! The handshake. Nothing is served to or taken from a peer before its `Hello` was accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{Refusal, dataset_is_valid};
use crate::codec::{self, DecodeError};
use crate::id::{Collection, DatasetId, Hash, Incarnation, Lineage, Salt};
use crate::limits::HELLO_DATASETS_MAX;
use crate::registration::Registration;
use crate::vector::VersionVector;

/// Most versions, proofs and addresses in one `Hello`.
const VERSIONS_MAX: usize = 16;
const PROOFS_MAX: usize = crate::network_key::NETWORK_KEYS_MAX;
const LISTEN_MAX: usize = 32;

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
    #[serde(rename = "v", deserialize_with = "codec::at_most::<u64, _, _, VERSIONS_MAX>")]
    pub versions: Vec<u64>,
    /// Fresh random bytes; a proof of the network key covers both sides'.
    #[serde(rename = "x")]
    pub nonce: Salt,
    /// Keyed hash over both peer ids and both nonces, one per network key in use; empty on an open network.
    #[serde(
        rename = "k",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "codec::at_most::<Hash, _, _, PROOFS_MAX>"
    )]
    pub proofs: Vec<Hash>,
    /// The life of the node's data directory: a second live copy of one identity shows by another value.
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
    /// Where the node listens, as multiaddrs.
    #[serde(
        rename = "a",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "codec::at_most::<String, _, _, LISTEN_MAX>"
    )]
    pub listen: Vec<String>,
    /// The datasets.
    #[serde(rename = "s", deserialize_with = "codec::at_most::<DatasetHello, _, _, HELLO_DATASETS_MAX>")]
    pub datasets: Vec<DatasetHello>,
    /// Datasets the receiver accepted before and the sender no longer syncs with it, and why.
    #[serde(
        rename = "w",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "codec::at_most::<DatasetReply, _, _, HELLO_DATASETS_MAX>"
    )]
    pub withdrawn: Vec<DatasetReply>,
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
    #[serde(
        rename = "r",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "codec::at_most::<DatasetReply, _, _, HELLO_DATASETS_MAX>"
    )]
    pub refused: Vec<DatasetReply>,
}

/// Why a dataset of a `Hello` was refused, or is withdrawn.
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
        if self.listen.iter().any(|address| address.len() > 256) {
            return Err(DecodeError::OutOfBounds("an address of at most 256 bytes"));
        }
        self.withdrawn.iter().try_for_each(DatasetReply::check)?;
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
        self.refused.iter().try_for_each(DatasetReply::check)
    }
}

impl DatasetReply {
    fn check(&self) -> Result<(), DecodeError> {
        dataset_is_valid(self.dataset.as_ref())?;
        self.refusal.check()
    }
}
