//! Strict CBOR for everything on the wire and in frames: one encoding per value, nothing behind it.
//!
//! ciborium accepts trailing bytes, longer integers than needed and duplicate keys. [`decode`] refuses them all by requiring
//! that what was decoded encodes to the very bytes it came from; hashes and signatures then cover one thing only.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};

/// Nesting that any message of ours needs, with room to spare; deeper input is refused before it is walked.
const RECURSION_MAX: usize = 32;

/// Why bytes are not a message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Over the limit for this kind of message; nothing was parsed.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Not CBOR, or not of the expected shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Well-formed, but not the one encoding of its value: trailing bytes, a longer integer, a duplicate or unordered key.
    #[error("not the canonical encoding")]
    NotCanonical,
    /// Well-formed, but outside what the protocol allows.
    #[error("out of bounds: {0}")]
    OutOfBounds(&'static str),
}

/// Encodes `value`. Types of this crate always encode.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_with_capacity(value, 256)
}

/// Encodes `value` into a buffer presized to `capacity` bytes.
#[must_use]
pub fn encode_with_capacity<T: Serialize>(value: &T, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    // A Vec never fails to write, and our types have no shape CBOR lacks: an error here is our own mistake.
    ciborium::into_writer(value, &mut bytes).expect("protocol types always encode");
    bytes
}

/// How many bytes [`encode`] would make of `value`, without making them.
#[must_use]
pub fn encoded_len<T: Serialize>(value: &T) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    ciborium::into_writer(value, &mut count).expect("protocol types always encode");
    count.0
}

/// Decodes `bytes` of at most `limit`, strictly.
///
/// # Errors
/// [`DecodeError`] with the first thing that is wrong.
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    let value = decode_loose(bytes, limit)?;
    if encode_with_capacity(&value, bytes.len()) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

/// Decodes without the comparison; for our own bytes that were checked when they came in and carry a checksum since.
pub(crate) fn decode_loose<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), limit });
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, RECURSION_MAX)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

/// Reads a list of at most `MAX` items. A list of one-byte items takes two dozen times its size in memory, so the first item too
/// many ends it, instead of a look at the length once all are there.
pub(crate) fn at_most<'de, T, C, D, const MAX: usize>(deserializer: D) -> Result<C, D::Error>
where
    T: Deserialize<'de>,
    C: Default + Extend<T>,
    D: Deserializer<'de>,
{
    struct Items<T, C, const MAX: usize>(PhantomData<(T, C)>);
    impl<'de, T: Deserialize<'de>, C: Default + Extend<T>, const MAX: usize> de::Visitor<'de> for Items<T, C, MAX> {
        type Value = C;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<C, A::Error> {
            let mut items = C::default();
            let mut count = 0;
            while let Some(item) = seq.next_element()? {
                count += 1;
                if count > MAX {
                    return Err(de::Error::custom(format_args!("more than at most {MAX} items")));
                }
                items.extend([item]);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Items::<T, C, MAX>(PhantomData))
}
