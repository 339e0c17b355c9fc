//! What was written while a collection was not registered is said to everybody once it is: in bounded batches, as commits like
//! any other. A flag in the store says that it is not done yet, so that a crash goes on with it.

use std::ops::ControlFlow;

use anabranch_protocol::commit::Change;
use anabranch_protocol::conflict::Row;
use anabranch_protocol::coverage::Scope;
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Collection, Key};
use anabranch_protocol::replica::{LocalRecord, Record, Turn, record_key_prefix};
use anabranch_protocol::wire::Kind;

use super::{Committed, Ledger};
use crate::dataset::layout;
use crate::dataset::log::{self, Found};
use crate::dataset::view::{local_index_keys, local_writer};
use crate::store::StoreError;

/// Rows looked at in one turn.
const LOOKED_AT_MAX: usize = 4_096;
/// Rows or records issued in one turn.
const ISSUED_MAX: usize = 512;
/// Payload issued in one turn, bytes; a larger row goes alone.
const ISSUED_BYTES_MAX: usize = 1 << 20;

/// Index rows that were looked at: their keys and values.
type Looked = Vec<(Vec<u8>, Vec<u8>)>;

impl Ledger {
    /// Issues the next batch of what was written locally; whether there may be more.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn issue(&mut self, now: WallClock, entropy: &mut dyn FnMut(&mut [u8])) -> Result<(Committed, bool), StoreError> {
        let scope = self.coverages.issuing().next().cloned();
        let Some(scope) = scope.filter(|_| self.replica.may_issue()) else { return Ok((self.nothing_committed(), false)) };
        let prefix = self.prefix_of(&scope);
        let from = self.issue_from.take().unwrap_or_else(|| prefix.clone());
        let (looked, ended) = self.look(&from, &layout::after_prefix(&prefix))?;
        let (turn, next) = match self.replica.settings().kind {
            Kind::Documents => self.issue_documents(now, looked, entropy)?,
            Kind::Append => self.issue_records(now, looked, entropy)?,
        };
        let committed = self.commit(turn)?;
        self.issue_from = next;
        if ended && self.issue_from.is_none() {
            self.issued(&scope)?;
        }
        Ok((committed, self.coverages.issuing().next().is_some()))
    }

    fn prefix_of(&self, scope: &Scope) -> Vec<u8> {
        match (self.replica.settings().kind, scope) {
            (Kind::Documents, Scope::All) => b"r".to_vec(),
            (Kind::Append, Scope::All) => b"x".to_vec(),
            (Kind::Documents, Scope::One(collection)) => layout::row_prefix(collection),
            (Kind::Append, Scope::One(collection)) => layout::record_index_prefix(collection),
        }
    }

    /// Some rows from a key on, and whether these were all.
    fn look(&self, from: &[u8], end: &[u8]) -> Result<(Looked, bool), StoreError> {
        let mut looked = Looked::new();
        self.store.scan(from, end, &mut |key, value| {
            // The head of a row says whose it is; its value is read when it is needed.
            looked.push((key.to_vec(), value.to_vec()));
            if looked.len() < LOOKED_AT_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let ended = looked.len() < LOOKED_AT_MAX;
        Ok((looked, ended))
    }

    /// Issues the local ones among some rows; from where to look next, if not all of them were done.
    fn issue_documents(
        &self,
        now: WallClock,
        looked: Looked,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(Turn, Option<Vec<u8>>), StoreError> {
        let mut batch: Option<(Collection, Vec<(Key, Row)>)> = None;
        let (mut bytes, mut next) = (0, None);
        let full = looked.len() == LOOKED_AT_MAX;
        let last = looked.last().map(|(key, _)| [&key[..], &[0]].concat());
        for (at, head) in looked {
            let damaged = || StoreError::Corrupt("a row's head or key fails its checksum".to_owned());
            let (row, _) = layout::decode_row_head(&head).ok_or_else(damaged)?;
            if !self.replica.is_local(&row) {
                continue;
            }
            let (collection, key) = layout::parse_row_key(&at).ok_or_else(damaged)?;
            // Dropped before anybody else knew of it.
            if self.view.hides(&collection, &row.stamp) {
                continue;
            }
            let row = self.view.load_row(&collection, &key)?.ok_or_else(damaged)?;
            let weight = row.value.as_ref().map_or(0, Vec::len) + key.as_str().len();
            let (of, rows) = batch.get_or_insert_with(|| (collection.clone(), Vec::new()));
            let room = rows.len() < ISSUED_MAX && (bytes + weight <= ISSUED_BYTES_MAX || rows.is_empty());
            if *of != collection || !room {
                next = Some(at);
                break;
            }
            bytes += weight;
            rows.push((key, row));
        }
        let next = next.or(last.filter(|_| full));
        let turn = match batch {
            Some((collection, rows)) => self.replica.issue_rows(now, &collection, rows, &self.counted_rows(), entropy)?,
            None => Turn::default(),
        };
        Ok((turn, next))
    }

    /// As [`Ledger::issue_documents`], for the index rows of an `append` dataset.
    fn issue_records(
        &self,
        now: WallClock,
        looked: Looked,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(Turn, Option<Vec<u8>>), StoreError> {
        let ours = record_key_prefix(&anabranch_protocol::conflict::Stamp {
            hlc: Hlc(0),
            writer: local_writer(self.replica.settings().identity.peer()),
            index: 0,
        });
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, None);
        let full = looked.len() == LOOKED_AT_MAX;
        let last = looked.last().map(|(key, _)| [&key[..], &[0]].concat());
        // The writer's part of an index key comes last.
        for (at, place) in looked.into_iter().filter(|(key, _)| key.ends_with(&ours[8..])) {
            let damaged = || StoreError::Corrupt("an index row names no local record".to_owned());
            let collection = layout::parse_record_index(&at).ok_or_else(damaged)?;
            let arrival = place.try_into().map(u64::from_be_bytes).map_err(|_| damaged())?;
            let changes = local_changes(&self.local_record(arrival)?, &collection);
            let weight: usize = changes.iter().map(Change::weight).sum();
            if batch.len() >= ISSUED_MAX || (bytes + weight > ISSUED_BYTES_MAX && !batch.is_empty()) {
                next = Some(at);
                break;
            }
            bytes += weight;
            batch.push(LocalRecord { arrival, collection, changes });
        }
        let next = next.or(last.filter(|_| full));
        Ok((self.replica.issue_records(now, batch, &self.counted_rows(), entropy)?, next))
    }

    fn local_record(&self, arrival: u64) -> Result<Record, StoreError> {
        match log::read(&*self.store, arrival)? {
            Found::Record(stored) => stored.decode(self.replica.settings().lineage),
            Found::Moved(_) | Found::Broken => Err(StoreError::Corrupt(format!("log record {arrival} is missing or broken"))),
        }
    }

    /// Removes the index rows of local records that a record's commit says to everybody.
    pub(super) fn drop_issued(&mut self, record: &Record) -> Result<(), StoreError> {
        let (Some(arrival), Some(commit)) = (record.effects.issues, &record.commit) else { return Ok(()) };
        let local = self.local_record(arrival)?;
        let mut keys = local_index_keys(&local, local_writer(self.replica.settings().identity.peer()));
        for section in commit.sections() {
            if let Some(key) = keys.remove(&section.collection) {
                self.walk_is_told_of_issue(&key, arrival, &section.collection)?;
                self.store.delete(&key)?;
            }
        }
        Ok(())
    }

    /// All of a scope is issued. It rides on the next barrier: whoever lags behind only looks again.
    fn issued(&mut self, scope: &Scope) -> Result<(), StoreError> {
        if let Some(coverage) = self.coverages.scopes.get_mut(scope) {
            coverage.issuing = false;
            let coverage = coverage.clone();
            self.put_head(scope, &coverage)?;
        }
        self.publish();
        Ok(())
    }
}

fn local_changes(record: &Record, collection: &Collection) -> Vec<Change> {
    let entries = record.local.iter().flat_map(|local| &local.entries);
    entries.filter(|(named, _)| named == collection).map(|(_, entry)| entry.change.clone()).collect()
}
