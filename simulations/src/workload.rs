//! What clients ask: puts, deletes, appends, batches, conditional and repeated requests, and local documents.
//!
//! Every value names its write and its dataset, so that a value that is somewhere it does not belong tells of itself.

use std::collections::BTreeSet;

use anabranch_actors::api::{Ack, WriteError};
use anabranch_actors::node::NodeHandle;
use anabranch_protocol::id::{Collection, DatasetId, Key};
use anabranch_protocol::idempotency::IdempotencyKey;
use anabranch_protocol::replica::{Expected, Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use tokio::time::Duration;

use crate::oracle::{Operation, Outcome};
use crate::rng::Rng;

const DATASET_MARK: &str = "dataset-mark-";
const WRITE_MARK: &str = "write-";
const SECRET_MARK: &str = "never-leaves-this-node";
const SOMETIMES_MARK: &str = "only-where-registered";
const TWIN: &str = "twin-";
/// How long a client waits for a receipt.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(10);

/// The collections that every node registers, and what some register.
pub const SHARED: [&str; 2] = ["customers", "orders"];
/// Registered on some nodes, and while all runs.
pub const SOMETIMES: &str = "notes";
/// Registered nowhere.
pub const LOCAL: &str = "drafts";

/// A request that is about to be sent.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is asked.
    pub request: WriteRequest,
    /// On how many peers it has to be durable.
    pub ack: u16,
    /// How often it is sent.
    pub times: u32,
}

/// A collection by name.
///
/// # Panics
/// Where it is no name.
#[must_use]
pub fn collection(name: &str) -> Collection {
    Collection::new(name).expect("a name")
}

/// All collections that clients write to.
#[must_use]
pub fn collections() -> Vec<Collection> {
    SHARED.iter().chain([&SOMETIMES, &LOCAL]).map(|name| collection(name)).collect()
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

/// What every value begins with: its write and its dataset.
#[must_use]
pub fn marks(number: u64, dataset: usize) -> String {
    format!("{WRITE_MARK}{number};{DATASET_MARK}{dataset};")
}

/// What values in a collection are marked with that is not registered everywhere.
fn mark_of(collection: &str) -> &'static str {
    match collection {
        LOCAL => SECRET_MARK,
        SOMETIMES => SOMETIMES_MARK,
        _ => "",
    }
}

/// A value of a write, with a further mark.
#[must_use]
pub fn value(number: u64, dataset: usize, mark: &str, padding: usize) -> Vec<u8> {
    let text = format!("\"{}{mark}{}\"", marks(number, dataset), "x".repeat(padding));
    Value::from_json(text.as_bytes()).expect("a JSON string").encode()
}

/// Draws a request of a client.
pub fn draw(number: u64, (dataset, kind): (usize, Kind), keys: u64, rng: &mut Rng) -> (Asked, Operation) {
    let blank = Operation {
        number,
        node: 0,
        life: 0,
        dataset,
        at_ms: 0,
        writes: Vec::new(),
        keyed: false,
        batch: false,
        replicates: true,
        saw: None,
        outcome: Outcome::Unknown,
    };
    let ack = if rng.chance(0.1) { 1 } else { 0 };
    if kind == Kind::Append {
        return append(blank, rng, ack);
    }
    let names = [SHARED[0], SHARED[1], SHARED[1], SOMETIMES, LOCAL];
    let name = *rng.pick(&names);
    let (at, local) = (collection(name), name == LOCAL);
    let text = value(number, dataset, mark_of(name), rng.below(60));
    let mut operation = Operation { replicates: !local, ..blank };
    let mut ops = Vec::new();
    let chosen = key(&format!("k{}", rng.within(0..keys)));
    match rng.below(20) {
        0..=1 => {
            operation.writes.push((at.clone(), Some(chosen.clone()), None));
            ops.push(Op::Delete { key: chosen, must_exist: false });
        }
        // Twins: never written alone, and never deleted.
        2..=5 if !local => {
            let pair = rng.within(0..4);
            for side in ["a", "b"] {
                let twin = key(&format!("{TWIN}{pair}-{side}"));
                operation.writes.push((at.clone(), Some(twin.clone()), Some(text.clone())));
                ops.push(Op::Put { key: twin, value: text.clone() });
            }
            operation.batch = true;
        }
        6 => {
            operation.writes.push((at.clone(), Some(chosen.clone()), Some(text.clone())));
            ops.push(Op::Expect { key: chosen.clone(), expected: Expected::Absent });
            ops.push(Op::Put { key: chosen, value: text });
        }
        7 if rng.chance(0.1) => ops.push(Op::Truncate),
        _ => {
            operation.writes.push((at.clone(), Some(chosen.clone()), Some(text.clone())));
            ops.push(Op::Put { key: chosen, value: text });
        }
    }
    let ops: Vec<WriteOp> = ops.into_iter().map(|op| WriteOp { collection: at.clone(), op }).collect();
    let asked = repeated(ops, number, &mut operation, rng, ack);
    (asked, operation)
}

fn append(blank: Operation, rng: &mut Rng, ack: u16) -> (Asked, Operation) {
    let at = collection(SHARED[1]);
    let text = value(blank.number, blank.dataset, "", rng.below(100));
    let mut operation = blank;
    operation.writes.push((at.clone(), None, Some(text.clone())));
    let ops = vec![WriteOp { collection: at, op: Op::Append { value: text } }];
    let number = operation.number;
    let asked = repeated(ops, number, &mut operation, rng, ack);
    (asked, operation)
}

/// Some requests carry an idempotency key, and some of those are sent again.
fn repeated(ops: Vec<WriteOp>, number: u64, operation: &mut Operation, rng: &mut Rng, ack: u16) -> Asked {
    if !rng.chance(0.2) {
        return Asked { request: WriteRequest::new(ops), ack, times: 1 };
    }
    operation.keyed = true;
    let key: IdempotencyKey =
        format!("\"request-{number}\"").parse().or_else(|_| format!("request-{number}").parse()).expect("a key");
    Asked { request: WriteRequest::once(ops, &key), ack, times: if rng.chance(0.5) { 2 } else { 1 } }
}

/// Sends a request to a node, as a client of it does.
pub async fn send(node: NodeHandle, dataset: DatasetId, asked: Asked) -> Outcome {
    let mut outcome = Outcome::Unknown;
    let collections: Vec<Collection> = asked.request.ops.iter().map(|write| write.collection.clone()).collect();
    for _ in 0..asked.times {
        let written = match node.write(&dataset, asked.request.clone()).await {
            Ok(written) => written,
            Err(WriteError::Dataset(error)) if outcome == Outcome::Unknown => return Outcome::Refused(error.to_string()),
            Err(WriteError::Refused(refusal)) if outcome == Outcome::Unknown => return Outcome::Refused(refusal.to_string()),
            Err(_) => return outcome,
        };
        let mut confirmed_by = Vec::new();
        if let (Some(token), true) = (written.token, asked.ack > 0) {
            let confirmed = node.confirmed(&dataset, token, collections.clone(), Ack::Peers(asked.ack), RECEIPT_PATIENCE).await;
            confirmed_by = confirmed.map(|confirmed| confirmed.by).unwrap_or_default();
        }
        outcome = Outcome::Acked { token: written.token, stamp: written.stamp, confirmed_by };
    }
    outcome
}

/// Which twins a document is one of.
#[must_use]
pub fn twins_of(key: &Key) -> Option<String> {
    let pair = key.as_str().strip_prefix(TWIN)?;
    Some(pair.rsplit_once('-')?.0.to_owned())
}

/// The number of the write that made a value.
#[must_use]
pub fn number_in(value: &[u8]) -> Option<u64> {
    number_after(value, WRITE_MARK.as_bytes()).map(|(number, _)| number)
}

/// The datasets whose values are in these bytes.
#[must_use]
pub fn datasets_in(bytes: &[u8]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut rest = bytes;
    while let Some((dataset, after)) = number_after(rest, DATASET_MARK.as_bytes()) {
        found.insert(dataset);
        rest = &rest[after..];
    }
    found
}

/// Whether a value is one of this dataset.
#[must_use]
pub fn belongs_to(value: &[u8], dataset: usize) -> bool {
    datasets_in(value).into_iter().eq([dataset as u64])
}

/// Whether something of the collection that only some register is in these bytes.
#[must_use]
pub fn has_notes(bytes: &[u8]) -> bool {
    position(bytes, SOMETIMES_MARK.as_bytes()).is_some()
}

/// Whether something that is registered nowhere is in these bytes.
#[must_use]
pub fn has_secret(bytes: &[u8]) -> bool {
    position(bytes, SECRET_MARK.as_bytes()).is_some()
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let first = mark.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        if bytes[from + at..].starts_with(mark) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn number_after(bytes: &[u8], mark: &[u8]) -> Option<(u64, usize)> {
    let at = position(bytes, mark)? + mark.len();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&bytes[at..at + digits]).ok()?.parse().ok()?;
    Some((number, at + digits))
}
