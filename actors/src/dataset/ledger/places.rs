//! The index of an `append` dataset, walked over in the background together with the log that it is of.

use std::ops::ControlFlow;

use anabranch_protocol::audit::places::{Differs, Indexed, Next, PlaceWalk};
use anabranch_protocol::id::Collection;

use super::Ledger;
use super::rows::SLICE_BYTES_MAX;
use super::scans::scan_on_checked;
use crate::dataset::log::{self, Found};
use crate::store::StoreError;

/// Where index rows lie.
const FIRST: &[u8] = b"x";
const END: &[u8] = b"y";

impl Ledger {
    /// Goes on with a walk for one slice, and keeps it unless that was the last: then how much was read.
    pub(super) fn audit_places(&mut self, mut walk: PlaceWalk, rows_max: usize) -> Result<Option<u64>, StoreError> {
        let ended = match walk.next() {
            Next::Record(_) => self.read_log(&mut walk, rows_max).map(|()| false),
            Next::Row(_) => self.read_index(&mut walk, rows_max),
        };
        if ended? {
            return Ok(Some(walk.read()));
        }
        self.rows.places = Some(walk);
        Ok(None)
    }

    /// Reads records in order of arrival, and looks each of them up.
    fn read_log(&self, walk: &mut PlaceWalk, records_max: usize) -> Result<(), StoreError> {
        let (mut left, mut bytes) = (records_max, 0);
        while let Next::Record(arrival) = walk.next() {
            if arrival > self.arrival {
                return walk.log_ends().map_err(differs);
            }
            if left == 0 || bytes >= SLICE_BYTES_MAX {
                break;
            }
            left -= 1;
            bytes += self.read_logged(walk, arrival)?;
        }
        Ok(())
    }

    /// Reads the record with this arrival; its bytes.
    fn read_logged(&self, walk: &mut PlaceWalk, arrival: u64) -> Result<usize, StoreError> {
        let stored = match log::read(&*self.store, arrival)? {
            Found::Record(stored) => stored,
            // What is to be found of it is found where it is now, which the walk still comes by.
            Found::Moved(now) if now > arrival && now <= self.arrival => {
                walk.read_record(&Indexed::default());
                return Ok(0);
            }
            Found::Moved(_) | Found::Broken => {
                return Err(StoreError::Corrupt(format!("log record {arrival} is missing or broken")));
            }
        };
        let record = stored.decode(self.replica.settings().lineage)?;
        if let Some(commit) = &record.commit {
            self.audit_place(arrival, commit)?;
        }
        walk.read_record(&self.index_of(arrival, &record)?);
        Ok(stored.len())
    }

    /// Reads index rows in key order; whether these were the last, and are what the log says.
    fn read_index(&self, walk: &mut PlaceWalk, rows_max: usize) -> Result<bool, StoreError> {
        let from = match walk.next() {
            Next::Row(Some(cursor)) => [cursor, &[0]].concat(),
            Next::Row(None) | Next::Record(_) => FIRST.to_vec(),
        };
        let (mut left, mut stopped) = (rows_max, None);
        scan_on_checked(&*self.store, FIRST, &from, END, &mut |key, value| {
            match (left.checked_sub(1), places_in(value)) {
                (Some(fewer), Ok(places)) => {
                    left = fewer;
                    walk.read_row(key, &places);
                    return ControlFlow::Continue(());
                }
                (None, _) => stopped = Some(Ok(false)),
                (Some(_), Err(error)) => stopped = Some(Err(error)),
            }
            ControlFlow::Break(())
        })?;
        stopped.unwrap_or_else(|| walk.index_ends().map(|()| true).map_err(differs))
    }

    /// Tells the walk of an index row that is about to be put. Whatever puts one comes by here.
    pub(super) fn walk_is_told_of_places(&mut self, key: &[u8], new: &[u8]) -> Result<(), StoreError> {
        let Some(walk) = &mut self.rows.places else { return Ok(()) };
        let old = self.store.get(key)?.map_or_else(|| Ok(Vec::new()), |old| places_in(&old))?;
        walk.replaced(key, &old, &places_in(new)?);
        Ok(())
    }

    /// Tells the walk of an index row that is about to be removed, for what was local is issued.
    pub(super) fn walk_is_told_of_issue(&mut self, key: &[u8], local: u64, collection: &Collection) -> Result<(), StoreError> {
        let Some(walk) = &mut self.rows.places else { return Ok(()) };
        if let Some(old) = self.store.get(key)? {
            walk.replaced(key, &places_in(&old)?, &[]);
            walk.issued(local, collection);
        }
        Ok(())
    }
}

/// The arrivals that an index row leads to.
fn places_in(value: &[u8]) -> Result<Vec<u64>, StoreError> {
    match value.as_chunks::<8>() {
        (places, []) if !places.is_empty() => Ok(places.iter().map(|place| u64::from_be_bytes(*place)).collect()),
        _ => Err(StoreError::Corrupt("an index row of records names no places".to_owned())),
    }
}

fn differs(what: Differs) -> StoreError {
    StoreError::Corrupt(what.to_string())
}
