//! Local writes: a group of requests becomes one commit.

use std::collections::{BTreeMap, BTreeSet};

use super::keyed::{Keyed, Recalled};
use super::request::{put_or_append, record_key};
use super::turn::{LocalBatch, Rows, Turn, Working, local_writer};
use super::{Op, Replica, WriteOp, WriteRefusal, WriteRequest, WriterState, Written};
use crate::commit::{Change, Draft, Entry, Parent};
use crate::conflict::Stamp;
use crate::hlc::{Hlc, WallClock};
use crate::id::{Collection, Epoch, Hash, Key, Salt, WriterId};
use crate::limits::{COMMIT_ENTRIES_MAX, COMMIT_SECTIONS_MAX, VALUE_BYTES_MAX};
use crate::registration::CONTROL_COLLECTION;
use crate::token::Token;
use crate::value::{self, Value};
use crate::wire::Kind;

/// Payload that decide puts into one commit, bytes: with headers and keys it stays below the limit of a frame.
const COMMIT_PAYLOAD_MAX: usize = 3 << 20;

/// What a request is answered.
type Outcome = Result<Written, WriteRefusal>;

/// What a request turned into, before the commit's hash is known.
#[derive(Clone)]
struct Accepted {
    last: Option<Stamp>,
    /// Whether any of it is in the commit.
    committed: bool,
    key: Option<Key>,
    created: bool,
    replicated: bool,
}

/// What a request will be answered.
#[derive(Clone)]
enum Decided {
    /// It is a part of this turn.
    Now(Accepted),
    /// It happened before, under the same key.
    Before(Written),
}

impl Decided {
    fn written(self, token: Option<Token>) -> Written {
        match self {
            Self::Now(accepted) => accepted.written(token),
            Self::Before(written) => written,
        }
    }
}

/// Entries of the commit in the making.
#[derive(Default)]
pub(super) struct Gathered {
    sections: BTreeMap<Collection, Vec<Entry>>,
    local: Vec<(Collection, Entry)>,
    entries: u32,
    weight: usize,
}

impl Replica {
    /// Decides a group of requests, first come first: as many of them as fit one commit. The outcomes are those of the first
    /// requests, one each; the rest have to be asked again. The turn has at most one commit.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn decide<R: Rows>(
        &self,
        now: WallClock,
        requests: &[WriteRequest],
        rows: &R,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(Turn, Vec<Outcome>), R::Error> {
        let mut working = Working::new(self, rows);
        let hlc = self.clock.tick(now);
        let epoch = self.next_epoch(now, entropy);
        let mut gathered = Gathered::default();
        let mut decided: Vec<Result<Decided, WriteRefusal>> = Vec::with_capacity(requests.len());
        let mut keyed = Keyed::default();
        for request in requests {
            let next = match keyed.recall(rows, now, request)? {
                Recalled::Nothing => match self.decide_one(&mut working, &mut gathered, request, hlc, epoch)? {
                    Some(Ok(accepted)) => {
                        keyed.accepted(request, decided.len());
                        Ok(Decided::Now(accepted))
                    }
                    Some(Err(refusal)) => Err(refusal),
                    None => break,
                },
                Recalled::Before(written) => Ok(Decided::Before(written)),
                Recalled::InThisTurn(index) => decided[index].clone(),
                Recalled::OtherRequest => Err(WriteRefusal::KeyReused),
            };
            decided.push(next);
        }
        let token = self.seal(&mut working, gathered, hlc, epoch, entropy);
        let outcomes: Vec<Outcome> = decided.into_iter().map(|outcome| outcome.map(|decided| decided.written(token))).collect();
        working.remember(keyed.remembered(now, &outcomes));
        Ok((working.finish(), outcomes))
    }

    /// Takes a request into the commit in the making; nothing where it has no room there.
    fn decide_one<R: Rows>(
        &self,
        working: &mut Working<'_, R>,
        gathered: &mut Gathered,
        request: &WriteRequest,
        hlc: Hlc,
        epoch: Epoch,
    ) -> Result<Option<Result<Accepted, WriteRefusal>>, R::Error> {
        if let Err(refusal) = fits_alone(request) {
            return Ok(Some(Err(refusal)));
        }
        if !gathered.has_room_for(request) {
            return Ok(None);
        }
        let changes = match self.changes(working, request)? {
            Ok(changes) => changes,
            Err(refusal) => return Ok(Some(Err(refusal))),
        };
        // The results of merges may be larger than the request.
        let weight: usize = changes.iter().map(|(_, change, _)| change.weight()).sum();
        if gathered.weight > 0 && gathered.weight + weight > COMMIT_PAYLOAD_MAX {
            return Ok(None);
        }
        Ok(Some(Ok(self.accept(working, gathered, changes, hlc, epoch)?)))
    }

    pub(super) fn next_epoch(&self, now: WallClock, entropy: &mut dyn FnMut(&mut [u8])) -> Epoch {
        if let WriterState::Open(epoch) = self.writer {
            return epoch;
        }
        let mut random = [0; 10];
        entropy(&mut random);
        Epoch::new(now.0, random)
    }

    fn accept<R: Rows>(
        &self,
        working: &mut Working<'_, R>,
        gathered: &mut Gathered,
        changes: Changes,
        hlc: Hlc,
        epoch: Epoch,
    ) -> Result<Accepted, R::Error> {
        let mut accepted = Accepted { last: None, committed: false, key: None, created: false, replicated: true };
        let last = changes.len().saturating_sub(1);
        for (n, (collection, change, created)) in changes.into_iter().enumerate() {
            let replicated = self.settings.registration.contains(&collection);
            #[cfg(feature = "planted")]
            let replicated = replicated || crate::planted::is(crate::planted::Bug::LeakCollection);
            let writer = if replicated { WriterId { peer: self.peer(), epoch } } else { local_writer(&self.settings) };
            let stamp = Stamp { hlc, writer, index: gathered.entries };
            accepted.replicated &= replicated;
            accepted.committed |= replicated;
            accepted.last = Some(stamp);
            accepted.created = created;
            // A record's key takes a hash: of thousands that a stream brings only the last one is told.
            if n == last {
                accepted.key = match &change {
                    Change::Append { .. } => Some(record_key(&stamp)),
                    other => other.key().cloned(),
                };
            }
            working.apply(&collection, stamp, &change)?;
            gathered.push(collection, change, replicated);
        }
        Ok(accepted)
    }

    /// The changes a request leads to, each with whether it makes a new document; nothing is applied yet, so that a refusal of
    /// the last operation leaves nothing of the first.
    fn changes<R: Rows>(
        &self,
        working: &mut Working<'_, R>,
        request: &WriteRequest,
    ) -> Result<Result<Changes, WriteRefusal>, R::Error> {
        let mut changes = Vec::with_capacity(request.ops.len());
        let mut weight = 0;
        let mut staged = Staged::default();
        for WriteOp { collection, op } in &request.ops {
            if let Err(refusal) = self.op_fits(collection, op).and_then(|()| self.may_write(collection)) {
                return Ok(Err(refusal));
            }
            if let Op::Expect { key, expected } = op {
                let row = working.row(collection, key)?.filter(|row| row.value.is_some());
                let current = row.map(|row| row.stamp);
                if !expected.holds(current.as_ref()) {
                    let (collection, key) = (collection.clone(), key.clone());
                    return Ok(Err(WriteRefusal::NotAsExpected { collection, key, current }));
                }
                continue;
            }
            let key = op.key();
            let current = match key {
                None => None,
                Some(key) => match staged.value(collection, key) {
                    Some(value) => value,
                    None => working.row(collection, key)?.and_then(|row| row.value.clone()),
                },
            };
            let created = current.is_none() && !op.is_floor();
            let change = match change_of(collection, op, current) {
                Ok(Some(change)) => change,
                Ok(None) => continue,
                Err(refusal) => return Ok(Err(refusal)),
            };
            // Only now is it known how large a merge's result is; four thousand of them must not be gathered first.
            weight += change.weight();
            if weight > COMMIT_PAYLOAD_MAX {
                return Ok(Err(WriteRefusal::TooLarge("more than 3 MiB")));
            }
            if request.ops.len() > 1 {
                staged.note(collection, key, &change);
            }
            changes.push((collection.clone(), change, created));
        }
        Ok(Ok(changes))
    }

    fn may_write(&self, collection: &Collection) -> Result<(), WriteRefusal> {
        let allowed = self.settings.writers.contains(&self.peer()) || !self.settings.registration.contains(collection);
        if allowed { Ok(()) } else { Err(WriteRefusal::NotAWriter) }
    }

    fn op_fits(&self, collection: &Collection, op: &Op) -> Result<(), WriteRefusal> {
        if op.is_floor() && collection.is_reserved() {
            return Err(WriteRefusal::Reserved { collection: collection.clone() });
        }
        let control = collection.as_str() == CONTROL_COLLECTION;
        match (if control { Kind::Documents } else { self.settings.kind }, op) {
            (Kind::Append, Op::Append { .. })
            | (Kind::Documents, Op::Put { .. } | Op::Delete { .. } | Op::Merge { .. } | Op::Expect { .. }) => Ok(()),
            (Kind::Append, Op::Drop | Op::Truncate) => Err(WriteRefusal::RecordsStay),
            (Kind::Documents, Op::Drop | Op::Truncate) if !self.settings.registration.contains(collection) => {
                Err(WriteRefusal::DropsNothingShared { collection: collection.clone() })
            }
            (Kind::Documents, Op::Drop | Op::Truncate) => Ok(()),
            (Kind::Append, _) => Err(WriteRefusal::AppendOnly),
            (Kind::Documents, Op::Append { .. }) => Err(WriteRefusal::DocumentsOnly),
        }
    }

    /// Seals what was gathered into records of the turn; the token of the commit, if there is one.
    pub(super) fn seal<R: Rows>(
        &self,
        working: &mut Working<'_, R>,
        gathered: Gathered,
        hlc: Hlc,
        epoch: Epoch,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Token> {
        if gathered.entries == 0 {
            return None;
        }
        working.clock = hlc;
        let local = (!gathered.local.is_empty()).then_some(LocalBatch { hlc, entries: gathered.local });
        if gathered.sections.is_empty() {
            working.record(None, local);
            return None;
        }
        let writer = WriterId { peer: self.peer(), epoch };
        let last = working.line(&writer);
        let with_salt = |(collection, entries): (Collection, Vec<Entry>)| {
            let mut salt = Salt::ZERO;
            entropy(&mut salt.0);
            (collection, salt, entries)
        };
        let draft = Draft {
            dataset: &self.settings.dataset,
            lineage: self.settings.lineage,
            epoch,
            seq: last.map_or(1, |line| line.head.seq + 1),
            previous: last.map_or(Hash::ZERO, |line| line.hash),
            parent: if last.is_none() { self.parent_of(epoch) } else { None },
            hlc,
            sections: gathered.sections.into_iter().map(with_salt).collect(),
        };
        let commit = draft.seal(&self.settings.identity);
        let token = Token::new(commit.writer(), commit.header().seq, commit.hash());
        working.epoch = Some(epoch);
        working.record(Some(commit), local);
        Some(token)
    }

    /// Our newest line before `epoch`.
    fn parent_of(&self, epoch: Epoch) -> Option<Parent> {
        let ours = |writer: &WriterId| writer.peer == self.peer() && writer.epoch != epoch && !writer.epoch.is_branch();
        let own = self.lines.iter().filter(|(writer, _)| ours(writer));
        own.max_by_key(|(_, line)| line.head.hlc).map(|(writer, line)| Parent(writer.epoch, line.head.seq, line.hash))
    }
}

type Changes = Vec<(Collection, Change, bool)>;

impl Op {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Merge { key, .. } => Some(key),
            Self::Append { .. } | Self::Expect { .. } | Self::Drop | Self::Truncate => None,
        }
    }

    fn is_floor(&self) -> bool {
        matches!(self, Self::Drop | Self::Truncate)
    }
}

/// What earlier operations of a request make of documents, where it has more than one.
#[derive(Default)]
struct Staged<'a> {
    values: BTreeMap<(&'a Collection, &'a Key), Option<Vec<u8>>>,
    /// Collections of which nothing is left but what is staged.
    dropped: BTreeSet<&'a Collection>,
}

impl<'a> Staged<'a> {
    fn note(&mut self, collection: &'a Collection, key: Option<&'a Key>, change: &Change) {
        if change.is_floor() {
            self.values.retain(|(of, _), _| *of != collection);
            self.dropped.insert(collection);
        }
        if let Some(key) = key {
            let value = if let Change::Put { value, .. } = change { Some(value.clone()) } else { None };
            self.values.insert((collection, key), value);
        }
    }

    /// The value that a document would have by now; nothing where the request has not touched it.
    fn value(&self, collection: &Collection, key: &Key) -> Option<Option<Vec<u8>>> {
        let staged = self.values.get(&(collection, key)).cloned();
        staged.or_else(|| self.dropped.contains(collection).then_some(None))
    }
}

/// The change an operation makes of a document's current value; `None` where there is nothing to do.
fn change_of(collection: &Collection, op: &Op, current: Option<Vec<u8>>) -> Result<Option<Change>, WriteRefusal> {
    let missing = |key: &Key| WriteRefusal::NotFound { collection: collection.clone(), key: key.clone() };
    match op {
        Op::Put { key, value } => checked(value.clone()).map(|value| Some(put_or_append(Some(key.clone()), value))),
        Op::Append { value } => checked(value.clone()).map(|value| Some(put_or_append(None, value))),
        Op::Delete { key, must_exist } => match (current, must_exist) {
            (Some(_), _) => Ok(Some(Change::Delete { key: key.clone() })),
            (None, true) => Err(missing(key)),
            (None, false) => Ok(None),
        },
        Op::Drop => Ok(Some(Change::Drop)),
        Op::Truncate => Ok(Some(Change::Truncate)),
        // Looked at before anything is changed.
        Op::Expect { .. } => Ok(None),
        Op::Merge { key, must_exist: true, .. } if current.is_none() => Err(missing(key)),
        Op::Merge { key, patch, .. } => {
            // A stored value was validated when it came in; should it not decode after all, the patch stands alone.
            let old = current.and_then(|bytes| value::decode(&bytes).ok()).unwrap_or(Value::Null);
            let merged = old.merge_patch(patch.clone()).encode();
            checked(merged).map(|value| Some(Change::Put { key: key.clone(), value }))
        }
    }
}

/// A value that every replica takes. One that they refuse must never be signed: it would hold our line for good.
fn checked(value: Vec<u8>) -> Result<Vec<u8>, WriteRefusal> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(WriteRefusal::ValueTooLarge { bytes: value.len(), limit: VALUE_BYTES_MAX });
    }
    value::validate(&value).map_err(WriteRefusal::InvalidValue)?;
    Ok(value)
}

/// Whether a request would fit a commit of its own.
fn fits_alone(request: &WriteRequest) -> Result<(), WriteRefusal> {
    let collections: BTreeSet<_> = request.ops.iter().map(|write| &write.collection).collect();
    if request.ops.len() > COMMIT_ENTRIES_MAX {
        return Err(WriteRefusal::TooLarge("more than 4096 entries"));
    }
    if collections.len() > COMMIT_SECTIONS_MAX {
        return Err(WriteRefusal::TooLarge("more than 64 collections"));
    }
    if request.weight() > COMMIT_PAYLOAD_MAX {
        return Err(WriteRefusal::TooLarge("more than 3 MiB"));
    }
    let mut dropped = BTreeSet::new();
    let mut drops = request.ops.iter().filter(|write| write.op.is_floor());
    if drops.any(|write| !dropped.insert(&write.collection)) {
        return Err(WriteRefusal::TooLarge("a collection is dropped twice"));
    }
    Ok(())
}

impl Gathered {
    fn has_room_for(&self, request: &WriteRequest) -> bool {
        let new = request.ops.iter().map(|write| &write.collection).filter(|collection| !self.sections.contains_key(collection));
        self.entries as usize + request.ops.len() <= COMMIT_ENTRIES_MAX
            && self.sections.len() + new.collect::<BTreeSet<_>>().len() <= COMMIT_SECTIONS_MAX
            && (self.entries == 0 || self.weight + request.weight() <= COMMIT_PAYLOAD_MAX)
            && !request.ops.iter().any(|write| write.op.is_floor() && self.drops(&write.collection))
    }

    /// Whether the collection's section has the one drop that it may have.
    fn drops(&self, collection: &Collection) -> bool {
        self.sections.get(collection).is_some_and(|entries| entries.iter().any(|entry| entry.change.is_floor()))
    }

    /// Adds an entry; its index.
    pub fn push(&mut self, collection: Collection, change: Change, replicated: bool) -> u32 {
        self.weight += change.weight();
        let entry = Entry { index: self.entries, change };
        self.entries += 1;
        if replicated {
            self.sections.entry(collection).or_default().push(entry);
        } else {
            self.local.push((collection, entry));
        }
        self.entries - 1
    }
}

impl Accepted {
    fn written(self, token: Option<Token>) -> Written {
        Written {
            token: token.filter(|_| self.committed),
            stamp: self.last,
            key: self.key,
            created: self.created,
            replicated: self.replicated,
        }
    }
}
