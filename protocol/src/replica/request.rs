//! What a client asks to be written, and what it is told.

use crate::commit::Change;
use crate::conflict::Stamp;
use crate::id::{Collection, Key};
use crate::idempotency::{Idempotency, IdempotencyKey};
use crate::token::Token;
use crate::value::{Value, ValueError};

/// Writes that happen together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteRequest {
    /// In order; later ones see earlier ones.
    pub ops: Vec<WriteOp>,
    /// What it is known by, where it must happen once however often it is sent.
    pub idempotency: Option<Idempotency>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteOp {
    /// Where.
    pub collection: Collection,
    /// What.
    pub op: Op,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Sets a document; the value is deterministic CBOR.
    Put { key: Key, value: Vec<u8> },
    /// Deletes a document. Where there is none: refused if `must_exist`, else nothing happens.
    Delete { key: Key, must_exist: bool },
    /// Applies a JSON merge patch (RFC 7396). Where there is no document: refused if `must_exist`, else patches an empty one.
    Merge { key: Key, patch: Value, must_exist: bool },
    /// Adds a record under a key that the node chooses.
    Append { value: Vec<u8> },
    /// Removes all that was written to the collection before, and the collection from listings until it is written to again.
    Drop,
    /// Removes all that was written to the collection before.
    Truncate,
    /// Writes nothing: the whole request is refused unless the document, as it was before the request, is as expected.
    Expect { key: Key, expected: Expected },
}

/// What a document has to be for a request to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Not there.
    Absent,
    /// There, whatever it is.
    Present,
    /// There, and made by one of these entries.
    AnyOf(Vec<Stamp>),
}

impl Expected {
    /// Whether a document made by `current` is as expected.
    #[must_use]
    pub fn holds(&self, current: Option<&Stamp>) -> bool {
        match (self, current) {
            (Self::Absent, current) => current.is_none(),
            (Self::Present, current) => current.is_some(),
            (Self::AnyOf(stamps), Some(current)) => stamps.contains(current),
            (Self::AnyOf(_), None) => false,
        }
    }
}

impl Op {
    /// Bytes this adds to a commit, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Put { key, value } => key.as_str().len() + value.len() + 16,
            Self::Append { value } => value.len() + 32,
            Self::Delete { key, .. } | Self::Expect { key, .. } => key.as_str().len() + 16,
            Self::Drop | Self::Truncate => 16,
            // The result may be as large as the document; it is bounded again when it is known.
            Self::Merge { key, .. } => key.as_str().len() + 1_024,
        }
    }
}

impl WriteRequest {
    /// Writes that happen as often as they are sent.
    #[must_use]
    pub fn new(ops: Vec<WriteOp>) -> Self {
        Self { ops, idempotency: None }
    }

    /// Writes that happen once, however often they are sent under this key within a day.
    #[must_use]
    pub fn once(ops: Vec<WriteOp>, key: &IdempotencyKey) -> Self {
        let idempotency = Some(Idempotency::of_ops(key, &ops));
        Self { ops, idempotency }
    }

    /// Bytes this adds to a commit, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.ops.iter().map(|write| write.op.weight()).sum()
    }
}

/// What became of a write request that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Names the commit; none where everything stayed local or nothing had to be written.
    pub token: Option<Token>,
    /// Stamp of the request's last entry.
    pub stamp: Option<Stamp>,
    /// Key of the request's last put or append.
    pub key: Option<Key>,
    /// Whether the last put made a document that was not there.
    pub created: bool,
    /// Whether all of it replicates; `false` where a collection is not registered here.
    pub replicated: bool,
}

/// Why a write request was refused. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    /// This node is not among the dataset's writers: what it wrote would be refused by everybody else.
    #[error("this node is not among the dataset's `writers`: only collections that are not replicated can be written here")]
    NotAWriter,
    /// The key was used for another request.
    #[error(
        "the idempotency key was used for another request within the last 24 hours; nothing was written: use a new key for every \
         new request, and the same body, path and conditions for one that is sent again"
    )]
    KeyReused,
    /// A document is not as the request expects it.
    #[error("document {key:?} in collection {collection:?} is not as expected: {}", current.map_or_else(|| "it is not there".to_owned(), |stamp| format!("its stamp is {stamp}")))]
    NotAsExpected { collection: Collection, key: Key, current: Option<Stamp> },
    /// The document to delete or patch is not there.
    #[error("no document {key:?} in collection {collection:?}")]
    NotFound { collection: Collection, key: Key },
    /// An `append` dataset takes only appends of new records.
    #[error("an append dataset only takes new records: use POST, or the op `append`")]
    AppendOnly,
    /// A `documents` dataset has no records to append.
    #[error("`append` is for append datasets: put a document instead")]
    DocumentsOnly,
    /// Records of an `append` dataset are immutable: only their age removes them.
    #[error("records of an append dataset can't be dropped: they are immutable, and go by retention alone")]
    RecordsStay,
    /// A drop of a collection that is not registered here would reach nobody, and what is here of others would come to differ.
    #[error(
        "collection {collection:?} is not registered here, so that a drop would reach nobody: register it if it shall \
         be dropped everywhere, or delete its documents"
    )]
    DropsNothingShared { collection: Collection },
    /// Reserved collections are the nodes' own.
    #[error("collection {collection:?} is reserved")]
    Reserved { collection: Collection },
    /// The value is over its limit.
    #[error("a value of {bytes} bytes is over the limit of {limit}")]
    ValueTooLarge { bytes: usize, limit: usize },
    /// The value is not the deterministic CBOR of a JSON value, or nested too deep.
    #[error("not a value: {0}")]
    InvalidValue(ValueError),
    /// The request does not fit into one commit.
    #[error("the request does not fit into one commit ({0}): split it")]
    TooLarge(&'static str),
}

/// The key of a record in an `append` dataset: it sorts by time, then by a hash of the writer, then by place in the commit.
#[must_use]
pub fn record_key(stamp: &Stamp) -> Key {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&stamp.hlc.0.to_be_bytes());
    bytes[8..18].copy_from_slice(&writer_bytes(stamp));
    // A commit has at most 4,096 entries.
    bytes[18..].copy_from_slice(&u16::try_from(stamp.index).unwrap_or(u16::MAX).to_be_bytes());
    let text = data_encoding::BASE32HEX_NOPAD.encode(&bytes).to_ascii_lowercase();
    Key::new(&text).expect("32 letters and digits are a key")
}

/// Ten bytes that stand for a writer in record keys.
fn writer_bytes(stamp: &Stamp) -> [u8; 10] {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 record key");
    hasher.update(&stamp.writer.peer.0);
    hasher.update(&stamp.writer.epoch.0);
    let mut bytes = [0; 10];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The part of a record key that its commit decides; the rest is the index.
#[must_use]
pub fn record_key_prefix(stamp: &Stamp) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[..8].copy_from_slice(&stamp.hlc.0.to_be_bytes());
    bytes[8..].copy_from_slice(&writer_bytes(stamp));
    bytes
}

/// Reads a record key: the part its commit decides, and the index.
#[must_use]
pub fn parse_record_key(key: &Key) -> Option<([u8; 18], u32)> {
    if key.as_str().bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let bytes = data_encoding::BASE32HEX_NOPAD.decode(key.as_str().to_ascii_uppercase().as_bytes()).ok()?;
    let bytes: [u8; 20] = bytes.try_into().ok()?;
    let mut prefix = [0; 18];
    prefix.copy_from_slice(&bytes[..18]);
    Some((prefix, u32::from(u16::from_be_bytes([bytes[18], bytes[19]]))))
}

/// The change that an operation with a known outcome makes.
pub(super) fn put_or_append(key: Option<Key>, value: Vec<u8>) -> Change {
    match key {
        Some(key) => Change::Put { key, value },
        None => Change::Append { value },
    }
}
