//! Writes that happen once, however often they are sent: the `Idempotency-Key` of the IETF draft "The Idempotency-Key HTTP
//! Header Field" (draft-ietf-httpapi-idempotency-key-header).
//!
//! Whoever sends a write under a key and hears nothing sends it again under the same key. What the first one came to is
//! remembered with the very record that made it durable: either both survive a crash, or neither does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::conflict::Stamp;
use crate::hlc::{Hlc, WallClock};
use crate::id::{Key, KeyHash, RequestHash, WriterId};
use crate::limits::SEQ_MAX;
use crate::replica::{Expected, Op, WriteOp, Written};
use crate::token::Token;

/// Longest key, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// For how long a key is remembered, by the wall clock of the node that took the write.
pub const IDEMPOTENCY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client calls a write: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Why text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyKeyError {
    /// Nothing, or too much.
    #[error("it has {0} characters: use 1 to {IDEMPOTENCY_KEY_BYTES_MAX}")]
    Length(usize),
    /// A space, a control character, or not ASCII.
    #[error("it holds a character other than visible ASCII: use letters and digits, a UUID for example")]
    Character,
    /// It begins as a quoted string (RFC 8941) and does not end as one.
    #[error("it begins with a quote, but is no quoted string")]
    Quotes,
}

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    /// Reads the header's value. The draft has it in quotes, many clients send it bare: both name the same key.
    fn from_str(text: &str) -> Result<Self, IdempotencyKeyError> {
        let text = text.trim_matches([' ', '\t']);
        let key = if text.starts_with('"') { unquoted(text)? } else { text.to_owned() };
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(IdempotencyKeyError::Character);
        }
        if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
            return Err(IdempotencyKeyError::Length(key.len()));
        }
        Ok(Self(key))
    }
}

/// A string as RFC 8941 writes it (3.3.3): a backslash before quotes and backslashes, and only there.
fn unquoted(text: &str) -> Result<String, IdempotencyKeyError> {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(IdempotencyKeyError::Quotes)?;
    let mut key = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => key.push(rest.next().filter(|escaped| matches!(escaped, '"' | '\\')).ok_or(IdempotencyKeyError::Quotes)?),
            '"' => return Err(IdempotencyKeyError::Quotes),
            other => key.push(other),
        }
    }
    Ok(key)
}

impl IdempotencyKey {
    /// As the draft writes it into the header: a quoted string.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a write request is known by: its key, and what else was asked under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Of the key. Keys are secrets to nobody, but their owners choose how long they are.
    pub key: KeyHash,
    /// Of the request.
    pub request: RequestHash,
}

impl Idempotency {
    /// A key, and the parts of the request that make it the same request.
    #[must_use]
    pub fn new<'a>(key: &IdempotencyKey, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut request = blake3::Hasher::new_derive_key("anabranch 1 idempotent request");
        for part in parts {
            request.update(&(part.len() as u64).to_be_bytes());
            request.update(part);
        }
        let mut of_key = blake3::Hasher::new_derive_key("anabranch 1 idempotency key");
        of_key.update(key.0.as_bytes());
        let (mut key, mut hash) = (KeyHash::ZERO, RequestHash::ZERO);
        of_key.finalize_xof().fill(&mut key.0);
        request.finalize_xof().fill(&mut hash.0);
        Self { key, request: hash }
    }

    /// A key for operations that are the whole request.
    #[must_use]
    pub fn of_ops(key: &IdempotencyKey, ops: &[WriteOp]) -> Self {
        let mut parts = Vec::with_capacity(ops.len() * 4);
        for WriteOp { collection, op } in ops {
            let (name, of, value) = parts_of(op);
            parts.extend([name.as_bytes().to_vec(), collection.as_str().as_bytes().to_vec()]);
            parts.extend([of.map_or_else(Vec::new, |key| key.as_str().as_bytes().to_vec()), value]);
        }
        Self::new(key, parts.iter().map(Vec::as_slice))
    }
}

/// What an operation is, where, and with what.
fn parts_of(op: &Op) -> (&'static str, Option<&Key>, Vec<u8>) {
    match op {
        Op::Put { key, value } => ("put", Some(key), value.clone()),
        Op::Delete { key, must_exist } => ("delete", Some(key), vec![u8::from(*must_exist)]),
        Op::Merge { key, patch, must_exist } => ("merge", Some(key), [vec![u8::from(*must_exist)], patch.encode()].concat()),
        Op::Append { value } => ("append", None, value.clone()),
        Op::Drop => ("drop", None, Vec::new()),
        Op::Truncate => ("truncate", None, Vec::new()),
        Op::Expect { key, expected } => {
            let expected = match expected {
                Expected::Absent => "absent".to_owned(),
                Expected::Present => "present".to_owned(),
                Expected::AnyOf(stamps) => stamps.iter().map(|stamp| format!("{stamp},")).collect(),
            };
            ("expect", Some(key), expected.into_bytes())
        }
    }
}

/// What a write under a key came to, as it lies on the disk: CBOR
/// `[request 16, until, null or [[peer, epoch], seq, first 4 bytes of the hash as a number], null or [hlc, [peer, epoch], index], null or key, created, replicated]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Remembered {
    /// What was asked under the key.
    pub request: RequestHash,
    /// When the key is forgotten.
    pub until: WallClock,
    /// What was answered.
    pub written: Written,
}

impl Remembered {
    /// Largest one, bytes: a document's key is the only part without a fixed size.
    pub const BYTES_MAX: usize = crate::limits::KEY_BYTES_MAX + 512;

    /// What is remembered of a write that was decided at `now`.
    #[must_use]
    pub fn new(request: RequestHash, now: WallClock, written: Written) -> Self {
        Self { request, until: Self::latest(now), written }
    }

    /// Until when what is answered at `now` is remembered.
    #[must_use]
    pub fn latest(now: WallClock) -> WallClock {
        let lifetime = u64::try_from(IDEMPOTENCY_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        WallClock(now.0.saturating_add(lifetime))
    }

    /// Whether it is forgotten at `now`.
    #[must_use]
    pub fn is_over(&self, now: WallClock) -> bool {
        self.until <= now
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored(RequestHash, u64, Option<StoredToken>, Option<(Hlc, StoredWriter, u32)>, Option<Key>, bool, bool);

type StoredWriter = (crate::id::PeerId, crate::id::Epoch);
/// Writer, number, and the first bytes of the hash as a number.
type StoredToken = (StoredWriter, u64, u32);

impl From<Remembered> for Stored {
    fn from(Remembered { request, until, written }: Remembered) -> Self {
        let writer = |writer: WriterId| (writer.peer, writer.epoch);
        let token = written.token.map(|token| (writer(token.writer), token.seq, u32::from_be_bytes(token.hash)));
        let stamp = written.stamp.map(|stamp| (stamp.hlc, writer(stamp.writer), stamp.index));
        Self(request, until.0, token, stamp, written.key, written.created, written.replicated)
    }
}

impl TryFrom<Stored> for Remembered {
    type Error = &'static str;

    fn try_from(Stored(request, until, token, stamp, key, created, replicated): Stored) -> Result<Self, &'static str> {
        let writer = |(peer, epoch)| WriterId { peer, epoch };
        if token.is_some_and(|(_, seq, _)| !(1..=SEQ_MAX).contains(&seq)) {
            return Err("a sequence number out of bounds");
        }
        let token = token.map(|(of, seq, hash)| Token { writer: writer(of), seq, hash: hash.to_be_bytes() });
        let stamp = stamp.map(|(hlc, of, index)| Stamp { hlc, writer: writer(of), index });
        Ok(Self { request, until: WallClock(until), written: Written { token, stamp, key, created, replicated } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Collection;

    fn key(text: &str) -> Result<String, IdempotencyKeyError> {
        text.parse().map(|key: IdempotencyKey| key.to_string())
    }

    #[test]
    fn a_key_is_bare_or_quoted_and_bounded() {
        let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
        for (sent, meant) in
            [("a", "a"), ("\"a\"", "a"), (" a ", "a"), (r#""a\"b\\""#, r#"a"b\"#), ("a\"b", "a\"b"), (&longest, &longest)]
        {
            assert_eq!(key(sent).as_deref(), Ok(meant), "{sent}");
        }
        assert_eq!(key(&format!("\"{longest}\"")), Ok(longest));
        let odd: IdempotencyKey = r#"a"b\"#.parse().unwrap();
        assert_eq!(odd.quoted().parse(), Ok(odd));
        assert_eq!([key(""), key("\"\""), key(&too_long)], [0, 0, 256].map(|length| Err(IdempotencyKeyError::Length(length))));
        for bad in ["a b", "\"a b\"", "ü", "a\u{7f}", "a\tb"] {
            assert_eq!(key(bad), Err(IdempotencyKeyError::Character), "{bad:?}");
        }
        for bad in ["\"", "\"a", "\"a\"b\"", "\"a\\\"", "\"a\\b\"", "\"a\";p=1"] {
            assert_eq!(key(bad), Err(IdempotencyKeyError::Quotes), "{bad:?}");
        }
    }

    #[test]
    fn parts_are_kept_apart_and_keys_do_not_change_the_request() {
        let (a, b): (IdempotencyKey, IdempotencyKey) = ("a".parse().unwrap(), "b".parse().unwrap());
        let of = |key: &IdempotencyKey, parts: &[&str]| Idempotency::new(key, parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&a, &["x", "y"]), of(&a, &["x", "y"]));
        assert_ne!(of(&a, &["x", "y"]).request, of(&a, &["xy", ""]).request);
        assert_eq!(of(&a, &["x"]).request, of(&b, &["x"]).request);
        assert_ne!(of(&a, &["x"]).key, of(&b, &["x"]).key);
    }

    #[test]
    fn operations_that_differ_are_other_requests() {
        let (a, k) = ("a".parse().unwrap(), Key::new("k").unwrap());
        let ops = [
            Op::Put { key: k.clone(), value: vec![1] },
            Op::Put { key: k.clone(), value: vec![2] },
            Op::Put { key: Key::new("l").unwrap(), value: vec![1] },
            Op::Append { value: vec![1] },
            Op::Delete { key: k.clone(), must_exist: true },
            Op::Delete { key: k.clone(), must_exist: false },
            Op::Merge { key: k.clone(), patch: crate::value::Value::Null, must_exist: false },
            Op::Merge { key: k.clone(), patch: crate::value::Value::Null, must_exist: true },
            Op::Expect { key: k.clone(), expected: Expected::Absent },
            Op::Expect { key: k, expected: Expected::Present },
            Op::Drop,
            Op::Truncate,
        ];
        let mut hashes = Vec::new();
        for name in ["c", "d"] {
            let write = |op: &Op| WriteOp { collection: Collection::new(name).unwrap(), op: op.clone() };
            hashes.extend(ops.iter().map(|op| Idempotency::of_ops(&a, &[write(op)]).request));
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn a_key_is_remembered_for_a_day() {
        let written = Written { token: None, stamp: None, key: None, created: false, replicated: true };
        let remembered = Remembered::new(RequestHash::ZERO, WallClock(5), written);
        assert!(!remembered.is_over(WallClock(5 + 86_400_000 - 1)));
        assert!(remembered.is_over(WallClock(5 + 86_400_000)));
    }
}
