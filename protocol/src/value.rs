//! Document values: JSON in, deterministic CBOR inside, the same JSON out.
//!
//! RFC 8949, section 4.2 (core deterministic encoding): shortest integers and floats, definite lengths, map keys in the order of
//! their encoded bytes, no duplicates; of CBOR only what JSON can say. So one value has one byte string on every node, and
//! hashes of values can be compared. Integers from -2^63 to 2^64-1 stay integers, `1.0` stays a float, `-0.0` keeps its sign.
//! JSON numbers beyond that range are read as the nearest double, as JavaScript does.

mod cbor;
mod json;

use std::collections::BTreeMap;

pub use cbor::{decode, validate};

/// Why bytes or text are not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not the deterministic CBOR of a JSON value.
    #[error("not deterministic CBOR at byte {0}")]
    Cbor(usize),
    /// Nested deeper than [`crate::limits::VALUE_DEPTH_MAX`].
    #[error("nested deeper than {} levels", crate::limits::VALUE_DEPTH_MAX)]
    TooDeep,
    /// Not JSON, or JSON with a duplicate key; the text says where.
    #[error("{0}")]
    Json(String),
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` and `false`
    Bool(bool),
    /// An integer of -2^63 to 2^64-1.
    Integer(i128),
    /// A finite double.
    Float(f64),
    /// UTF-8 text.
    Text(String),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Map(BTreeMap<MapKey, Value>),
}

/// An object's key, in the order of deterministic CBOR: shorter first, then by bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapKey(pub String);

impl Ord for MapKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for MapKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Value {
    /// Reads JSON text.
    ///
    /// # Errors
    /// [`ValueError::Json`] with line and column; [`ValueError::TooDeep`].
    pub fn from_json(text: &[u8]) -> Result<Self, ValueError> {
        let value: Self = serde_json::from_slice(text).map_err(|error| ValueError::Json(error.to_string()))?;
        if value.depth() > crate::limits::VALUE_DEPTH_MAX { Err(ValueError::TooDeep) } else { Ok(value) }
    }

    /// Writes JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only finite floats and text keys exist here, so this can't fail.
        serde_json::to_string(self).expect("a value is always JSON")
    }

    /// The one byte string of this value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        cbor::encode_into(self, &mut bytes);
        bytes
    }

    /// Applies a JSON merge patch (RFC 7396).
    #[must_use]
    pub fn merge_patch(self, patch: Self) -> Self {
        let Self::Map(patch) = patch else { return patch };
        let mut target = if let Self::Map(map) = self { map } else { BTreeMap::new() };
        for (key, change) in patch {
            if change == Self::Null {
                target.remove(&key);
            } else {
                let old = target.remove(&key).unwrap_or(Self::Null);
                target.insert(key, old.merge_patch(change));
            }
        }
        Self::Map(target)
    }

    fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(map) => 1 + map.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// The content hash of a value's bytes: what breaks ties and what a row is checked against.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    hash
}
