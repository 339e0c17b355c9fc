//! The objects of a batch and of an ingest line: `{"op", "collection", "key", "value"}`.

use std::borrow::Cow;

use anabranch_protocol::id::{Collection, Key};
use anabranch_protocol::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use anabranch_protocol::replica::{Op, WriteOp};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use serde::{Deserialize, Deserializer};

/// A write of a batch or an ingest line, for those who read the API's description.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is read as `SentOp`, which borrows; this is its shape")]
#[schema(as = Write)]
pub struct WriteObject {
    op: OpName,
    collection: String,
    /// Not for `append`, where the node chooses it.
    key: Option<String>,
    /// Not for `delete`.
    value: Option<serde_json::Value>,
}

/// One write as it is sent. Unknown members are refused: who sends them counts on them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentOp<'a> {
    op: OpName,
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(default)]
    key: Option<String>,
    /// `null` is a value; left out is none.
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum OpName {
    Put,
    Delete,
    Merge,
    Append,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Turns what was sent into writes of a dataset. Consecutive writes mostly name one collection; its name is kept.
pub struct OpReader<'a> {
    kind: Kind,
    new_key: &'a dyn Fn() -> Key,
    last_collection: Option<Collection>,
}

/// Why an op is not one; the status differs between a batch (400, 409, 413) and an ingest line (422).
#[derive(Debug, PartialEq, Eq)]
pub enum OpError {
    /// A member is missing, superfluous or malformed.
    Malformed(String),
    /// A value over its limit.
    TooLarge(String),
    /// Not for a dataset of this kind.
    WrongKind,
}

impl OpError {
    pub fn detail(&self) -> &str {
        match self {
            Self::Malformed(detail) | Self::TooLarge(detail) => detail,
            Self::WrongKind => "an append dataset takes only the op `append`",
        }
    }
}

impl<'a> OpReader<'a> {
    /// A reader for a dataset of `kind`; `new_key` chooses keys of documents that are appended without one.
    pub fn new(kind: Kind, new_key: &'a dyn Fn() -> Key) -> Self {
        Self { kind, new_key, last_collection: None }
    }

    pub fn read(&mut self, sent: SentOp<'_>) -> Result<WriteOp, OpError> {
        let collection = self.collection(&sent.collection)?;
        if self.kind == Kind::Append && sent.op != OpName::Append {
            return Err(OpError::WrongKind);
        }
        let op = match (sent.op, sent.key, sent.value) {
            (OpName::Put, Some(key), Some(value)) => Op::Put { key: checked_key(&key)?, value: encoded(&value)? },
            (OpName::Merge, Some(key), Some(patch)) => {
                check_depth(&patch)?;
                Op::Merge { key: checked_key(&key)?, patch, must_exist: false }
            }
            (OpName::Delete, Some(key), None) => Op::Delete { key: checked_key(&key)?, must_exist: false },
            (OpName::Append, None, Some(value)) => match self.kind {
                Kind::Append => Op::Append { value: encoded(&value)? },
                Kind::Documents => Op::Put { key: (self.new_key)(), value: encoded(&value)? },
            },
            (name, _, _) => return Err(OpError::Malformed(wants(name).to_owned())),
        };
        Ok(WriteOp { collection, op })
    }

    fn collection(&mut self, name: &str) -> Result<Collection, OpError> {
        match &self.last_collection {
            Some(last) if last.as_str() == name => Ok(last.clone()),
            _ => {
                let collection = Collection::user(name).map_err(|error| OpError::Malformed(error.to_string()))?;
                Ok(self.last_collection.insert(collection).clone())
            }
        }
    }
}

fn wants(name: OpName) -> &'static str {
    match name {
        OpName::Put => "`put` takes `collection`, `key` and `value`",
        OpName::Delete => "`delete` takes `collection` and `key`",
        OpName::Merge => "`merge` takes `collection`, `key` and `value`",
        OpName::Append => "`append` takes `collection` and `value`; the node chooses the key",
    }
}

fn checked_key(key: &str) -> Result<Key, OpError> {
    Key::new(key).map_err(|error| OpError::Malformed(error.to_string()))
}

fn encoded(value: &Value) -> Result<Vec<u8>, OpError> {
    check_depth(value)?;
    let bytes = value.encode();
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(OpError::TooLarge(format!("a value of {} bytes is over the limit of {VALUE_BYTES_MAX}", bytes.len())));
    }
    Ok(bytes)
}

/// The parser's own limit guards the stack; this one is the protocol's.
fn check_depth(value: &Value) -> Result<(), OpError> {
    fn fits(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => levels > 0 && items.iter().all(|item| fits(item, levels - 1)),
            Value::Map(map) => levels > 0 && map.values().all(|item| fits(item, levels - 1)),
            _ => true,
        }
    }
    if fits(value, VALUE_DEPTH_MAX) {
        Ok(())
    } else {
        Err(OpError::Malformed(format!("the value is nested deeper than {VALUE_DEPTH_MAX} levels")))
    }
}

/// Reads what was sent: accepted keys, names and values are within the protocol's limits.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz<'a>(kind: Kind, sent: impl IntoIterator<Item = SentOp<'a>>) {
    let new_key = || Key::new("chosen").expect("a key");
    let mut reader = OpReader::new(kind, &new_key);
    for sent in sent {
        let Ok(WriteOp { collection, op }) = reader.read(sent) else { continue };
        assert!(!collection.is_reserved());
        if let Op::Put { value, .. } | Op::Append { value } = &op {
            anabranch_protocol::value::validate(value).expect("an accepted value is one that every replica takes");
            assert!(value.len() <= VALUE_BYTES_MAX);
        }
        assert_eq!(kind == Kind::Append, matches!(op, Op::Append { .. }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, json: &str) -> Result<WriteOp, OpError> {
        let sent: SentOp<'_> = serde_json::from_str(json).map_err(|error| OpError::Malformed(error.to_string()))?;
        OpReader::new(kind, &|| Key::new("chosen").unwrap()).read(sent)
    }

    #[test]
    fn each_op_takes_its_own_members() {
        let documents = |json| read(Kind::Documents, json);
        assert!(matches!(documents(r#"{"op":"put","collection":"c","key":"k","value":null}"#).unwrap().op, Op::Put { .. }));
        assert!(matches!(
            documents(r#"{"op":"delete","collection":"c","key":"k"}"#).unwrap().op,
            Op::Delete { must_exist: false, .. }
        ));
        assert!(
            matches!(documents(r#"{"op":"append","collection":"c","value":1}"#).unwrap().op, Op::Put { key, .. } if key.as_str() == "chosen")
        );
        for bad in [
            r#"{"op":"put","collection":"c","key":"k"}"#,
            r#"{"op":"put","collection":"c","value":1}"#,
            r#"{"op":"delete","collection":"c","key":"k","value":1}"#,
            r#"{"op":"append","collection":"c","key":"k","value":1}"#,
            r#"{"op":"put","collection":"_control","key":"k","value":1}"#,
            r#"{"op":"put","collection":"c","key":"","value":1}"#,
            r#"{"op":"put","collection":"c","key":"k","value":1,"ttl":5}"#,
            r#"{"op":"put","collection":"c","key":"k","value":{"a":1,"a":2}}"#,
            r#"{"op":"upsert","collection":"c","key":"k","value":1}"#,
            r#"[1]"#,
        ] {
            assert!(matches!(documents(bad), Err(OpError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn an_append_dataset_takes_only_appends() {
        assert!(matches!(read(Kind::Append, r#"{"op":"append","collection":"c","value":1}"#).unwrap().op, Op::Append { .. }));
        assert_eq!(read(Kind::Append, r#"{"op":"put","collection":"c","key":"k","value":1}"#), Err(OpError::WrongKind));
    }

    #[test]
    fn values_are_bounded() {
        let deep = |levels: usize| {
            let value = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            read(Kind::Documents, &format!(r#"{{"op":"put","collection":"c","key":"k","value":{value}}}"#))
        };
        assert!(deep(VALUE_DEPTH_MAX).is_ok());
        assert!(matches!(deep(VALUE_DEPTH_MAX + 1), Err(OpError::Malformed(_))));
        let large = "x".repeat(VALUE_BYTES_MAX);
        let large = format!(r#"{{"op":"put","collection":"c","key":"k","value":"{large}"}}"#);
        assert!(matches!(read(Kind::Documents, &large), Err(OpError::TooLarge(_))));
    }
}
