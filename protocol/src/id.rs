//! Names of things: peers, datasets, collections, keys, epochs, writers, lineages.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{COLLECTION_BYTES_MAX, DATASET_ID_BYTES_MAX, KEY_BYTES_MAX};

/// Why a name was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A dataset id outside `[a-z0-9][a-z0-9._-]{0,62}`.
    #[error("{0:?} is not a dataset name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")]
    Dataset(String),
    /// A collection name that is empty, too long, or holds control characters or slashes.
    #[error("{0:?} is not a collection name: use 1 to 128 bytes without control characters or '/', and not '*'")]
    Collection(String),
    /// A collection name beginning with `_`.
    #[error("collection names beginning with '_' are reserved: {0:?}")]
    Reserved(String),
    /// A key that is empty, too long, or holds NUL.
    #[error("a key has 1 to 1024 bytes without NUL")]
    Key,
    /// Text that is not a peer id.
    #[error("{0:?} is not a peer id of an ed25519 key (12D3KooW…)")]
    Peer(String),
    /// Text that is not a lineage.
    #[error("{0:?} is not a lineage: use 32 lower-case hex digits")]
    Lineage(String),
    /// Text that is not a writer.
    #[error("{0:?} is not a writer")]
    Writer(String),
    /// Text that is not a stamp.
    #[error("not a stamp")]
    Stamp,
}

/// Declares a fixed-size byte string that travels as a CBOR byte string.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// All bytes zero.
            pub const ZERO: Self = Self([0; $len]);
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Bytes;
                impl de::Visitor<'_> for Bytes {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes", $len)
                    }
                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        bytes.try_into().map($name).map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }
                deserializer.deserialize_bytes(Bytes)
            }
        }
    };
}

byte_id!(
    /// A node's ed25519 public key. Shown as libp2p shows it: base58 of the identity multihash of the protobuf key.
    PeerId, 32
);
byte_id!(
    /// One unbroken line of commits of a peer: 48 bits of birth time in milliseconds, then 80 random bits. Never a counter, so
    /// that a restored or copied directory can't count to the same value twice.
    Epoch, 16
);
byte_id!(
    /// A hash of an idempotency key: what a write that must happen once is found by.
    KeyHash, 16
);
byte_id!(
    /// A hash of what was asked under an idempotency key.
    RequestHash, 16
);
byte_id!(
    /// Tells two datasets of one name apart; zero for the open default.
    Lineage, 16
);
byte_id!(
    /// One life of one store on disk: random, made when the store is created.
    Incarnation, 16
);
byte_id!(
    /// BLAKE3 hash of a commit.
    Hash, 32
);
byte_id!(
    /// First bytes of a commit's hash: enough to notice a fork, small enough for a vector.
    ShortHash, 8
);
byte_id!(
    /// Names a collection in a header without saying its name to a peer that doesn't know it.
    Tag, 8
);
byte_id!(
    /// Random bytes at the start of a section, so that its digest hides what could be guessed.
    Salt, 16
);
byte_id!(
    /// A strict Ed25519 signature.
    Signature, 64
);

/// What libp2p puts before an ed25519 public key: identity multihash (0x00), 36 bytes, protobuf key type and length.
const MULTIHASH_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl PeerId {
    /// The bytes libp2p uses for this peer id.
    #[must_use]
    pub fn to_multihash(self) -> Vec<u8> {
        [&MULTIHASH_PREFIX[..], &self.0].concat()
    }

    /// Reads the bytes libp2p uses; `None` for ids that are not an inlined ed25519 key.
    #[must_use]
    pub fn from_multihash(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(&MULTIHASH_PREFIX)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_multihash()).into_string())
    }
}

impl FromStr for PeerId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Peer(text.chars().take(80).collect());
        // Reading base58 takes time in the square of its length; a peer id of ours has 52 characters.
        if text.len() > 64 {
            return Err(refused());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| refused())?;
        Self::from_multihash(&bytes).ok_or_else(refused)
    }
}

impl Epoch {
    /// The first byte of a branch's id: as a birth time it would be after the year 8,900, so no writer's epoch begins with it.
    pub(crate) const BRANCH: u8 = 0xff;

    /// The branch id of which all further bytes are `rest`.
    pub(crate) fn branch_with(rest: u8) -> Self {
        let mut bytes = [rest; 16];
        bytes[0] = Self::BRANCH;
        Self(bytes)
    }

    /// Whether this names a branch of a forked line, not an epoch that a writer opened.
    #[must_use]
    pub fn is_branch(&self) -> bool {
        self.0[0] == Self::BRANCH
    }

    /// An epoch born at `millis` since the Unix epoch, with 80 random bits.
    #[must_use]
    pub fn new(millis: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(bytes)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Lineage {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| NameError::Lineage(text.to_owned()))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32HEX_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl FromStr for Epoch {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Writer(text.chars().take(80).collect());
        if text.len() > 32 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refused());
        }
        let bytes = data_encoding::BASE32HEX_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| refused())?;
        bytes.try_into().map(Self).map_err(|_| refused())
    }
}

impl Hash {
    /// The first eight bytes.
    #[must_use]
    pub fn short(self) -> ShortHash {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        ShortHash(short)
    }
}

macro_rules! hex_debug {
    ($($name:ident),*) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), data_encoding::HEXLOWER.encode(&self.0))
            }
        }
    )* };
}
hex_debug!(Lineage, Incarnation, Hash, ShortHash, Tag, Salt, Signature, KeyHash, RequestHash);

macro_rules! display_debug {
    ($($name:ident),*) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )* };
}
display_debug!(PeerId, Epoch);

/// Who made a commit: a peer, in one of its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriterId {
    /// The key that signs.
    #[serde(rename = "p")]
    pub peer: PeerId,
    /// The line of commits.
    #[serde(rename = "e")]
    pub epoch: Epoch,
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.peer, self.epoch)
    }
}

impl FromStr for WriterId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (peer, epoch) = text.split_once('.').ok_or_else(|| NameError::Writer(text.chars().take(80).collect()))?;
        Ok(Self { peer: peer.parse()?, epoch: epoch.parse()? })
    }
}

/// Declares a checked, cheaply cloned name that travels as CBOR text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a name")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_id!(
    /// The unit of isolation: `[a-z0-9][a-z0-9._-]{0,62}`; `primary` where none is named.
    DatasetId
);
text_id!(
    /// A named group of documents in a dataset.
    Collection
);
text_id!(
    /// Names a document in a collection.
    Key
);

impl DatasetId {
    /// Checks and wraps a dataset name.
    ///
    /// # Errors
    /// [`NameError::Dataset`] for any other text.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let rest = |b: u8| first(b) || matches!(b, b'.' | b'_' | b'-');
        let bytes = text.as_bytes();
        let fits = (1..=DATASET_ID_BYTES_MAX).contains(&bytes.len()) && first(bytes[0]) && bytes.iter().all(|b| rest(*b));
        if fits { Ok(Self(text.into())) } else { Err(NameError::Dataset(text.chars().take(80).collect())) }
    }

    /// The dataset that is meant where none is named.
    #[must_use]
    pub fn primary() -> Self {
        Self("primary".into())
    }

    /// Whether this is `primary`.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        &*self.0 == "primary"
    }

    /// As it travels: absent for `primary`, the one and only encoding of it.
    #[must_use]
    pub fn to_wire(&self) -> Option<Self> {
        (!self.is_primary()).then(|| self.clone())
    }

    /// Reads what travelled: absent means `primary`; `primary` spelled out is refused.
    #[must_use]
    pub fn from_wire(wire: Option<&Self>) -> Option<Self> {
        match wire {
            None => Some(Self::primary()),
            Some(id) if id.is_primary() => None,
            Some(id) => Some(id.clone()),
        }
    }
}

impl Collection {
    /// Checks and wraps a collection name, reserved ones included.
    ///
    /// # Errors
    /// [`NameError::Collection`] for text outside the rules.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fits =
            (1..=COLLECTION_BYTES_MAX).contains(&text.len()) && text != "*" && !text.chars().any(|c| c.is_control() || c == '/');
        if fits { Ok(Self(text.into())) } else { Err(NameError::Collection(text.chars().take(80).collect())) }
    }

    /// Checks a name that a user may write to.
    ///
    /// # Errors
    /// [`NameError::Reserved`] for names beginning with `_`, otherwise as [`Collection::new`].
    pub fn user(text: &str) -> Result<Self, NameError> {
        let collection = Self::new(text)?;
        if collection.is_reserved() { Err(NameError::Reserved(text.into())) } else { Ok(collection) }
    }

    /// Whether the name begins with `_`.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The tag that names this collection in headers of a dataset.
    #[must_use]
    pub fn tag(&self, dataset: &DatasetId, lineage: Lineage) -> Tag {
        let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 collection tag");
        hasher.update(&lineage.0);
        #[cfg(feature = "planted")]
        let dataset = if crate::planted::is(crate::planted::Bug::AnyDataset) { &DatasetId::primary() } else { dataset };
        hasher.update(&(dataset.as_str().len() as u64).to_le_bytes());
        hasher.update(dataset.as_str().as_bytes());
        hasher.update(self.0.as_bytes());
        let mut tag = [0; 8];
        hasher.finalize_xof().fill(&mut tag);
        Tag(tag)
    }
}

impl Key {
    /// Checks and wraps a key.
    ///
    /// # Errors
    /// [`NameError::Key`] for an empty or too long key or one with NUL.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fits = (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.as_bytes().contains(&0);
        if fits { Ok(Self(text.into())) } else { Err(NameError::Key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_reads_as_libp2p_writes_it() {
        // The id libp2p-identity prints for the public key of 32 zero-seeded bytes, from its own documentation shape.
        let peer = PeerId([7; 32]);
        let text = peer.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<PeerId>().unwrap(), peer);
        assert!("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse::<PeerId>().is_err());
    }

    #[test]
    fn epochs_sort_by_birth() {
        let early = Epoch::new(1_000, [0xff; 10]);
        let late = Epoch::new(1_001, [0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse::<Epoch>().unwrap(), late);
    }

    #[test]
    fn a_lineage_has_one_spelling() {
        let lineage = Lineage([0xab; 16]);
        assert_eq!(lineage.to_string(), "ab".repeat(16));
        assert_eq!(lineage.to_string().parse::<Lineage>().unwrap(), lineage);
        for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17)] {
            assert!(bad.parse::<Lineage>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_outside_the_rules_are_refused() {
        for bad in ["", "A", "-a", "a/b", &"a".repeat(64), "ä"] {
            assert!(DatasetId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "*", "a\0b", "a/b", &"a".repeat(129)] {
            assert!(Collection::new(bad).is_err(), "{bad:?}");
        }
        assert!(Collection::user("_control").is_err());
        assert!(Key::new("").is_err());
        assert!(Key::new("a\0").is_err());
        assert!(Key::new(&"k".repeat(1_025)).is_err());
        assert!(Key::new("any / text ü").is_ok());
    }

    #[test]
    fn primary_has_one_encoding() {
        assert_eq!(DatasetId::primary().to_wire(), None);
        assert_eq!(DatasetId::from_wire(None), Some(DatasetId::primary()));
        assert_eq!(DatasetId::from_wire(Some(&DatasetId::primary())), None);
    }
}
