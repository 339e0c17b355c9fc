//! What a store holds of rows that no chain and no tally covers: enrolments, proofs of forks, what is registered, lines, tallies, and
//! facts that stay true. One row sums them up, and the next start compares: an engine that comes up without one of them, or with one as
//! it once was, is found out.
//!
//! The row follows what it is of: it is put once that passed a barrier, and rides on the next. So it may be older than the store, after a
//! crash or when a version wrote that does not know of it, and says what must be there at least. Each sum comes with a number that grows
//! with every change of its rows; the rows have to add up to the sum only where the store still has that number.

use std::ops::ControlFlow;

use anabranch_protocol::codec;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::Lineage;
use serde::{Deserialize, Serialize};

use super::{Ledger, META_ACCEPTED, META_DIRECTORY, META_FORMAT, META_LARGE_ROWS, META_LINEAGE, META_REGISTRATION, fact, number};
use crate::dataset::layout;
use crate::store::{Store, StoreError};

const META_HELD: &str = "held";

/// Rows of one kind: the number that grows when they change, how many there are, and the sum of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Sum(u64, u64, (u64, u64));

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// A peer was accepted.
    #[serde(rename = "a")]
    accepted: bool,
    /// What is registered and what was, by the number of the registration and one; 0 before the first.
    #[serde(rename = "c")]
    registered: Sum,
    /// It is known whose directory this is.
    #[serde(rename = "d")]
    directory: bool,
    /// Enrolments, by the newest.
    #[serde(rename = "e")]
    enrolments: Sum,
    /// How many proofs of forks: they never change.
    #[serde(rename = "f")]
    forks: u64,
    #[serde(rename = "g")]
    large_rows: bool,
    #[serde(rename = "l")]
    lineage: Lineage,
    #[serde(rename = "m")]
    format: u64,
    /// Tallies, by the newest record.
    #[serde(rename = "t")]
    tallies: Sum,
    /// Lines, by the newest record.
    #[serde(rename = "v")]
    lines: Sum,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 rows that a store holds");
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(value);
        let mut hash = [[0; 8]; 2];
        hasher.finalize_xof().fill(hash.as_flattened_mut());
        let [high, low] = hash.map(u64::from_le_bytes);
        self.1 += 1;
        self.2 = (self.2.0.wrapping_add(high), self.2.1.wrapping_add(low));
    }

    /// Whether rows that added up to this may have become what they are now.
    fn allows(&self, now: &Self) -> bool {
        now == self || (now.0 > self.0 && now.1 >= self.1)
    }

    fn of_rows(store: &dyn Store, prefix: u8, number: u64) -> Result<Self, StoreError> {
        let mut sum = Self(number, 0, (0, 0));
        store.scan(&[prefix], &[prefix + 1], &mut |key, value| {
            sum.add(key, value);
            ControlFlow::Continue(())
        })?;
        Ok(sum)
    }
}

impl Held {
    /// What a store holds now. Whether its rows are whole is seen where they are read.
    fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let last = store.last(b"l", b"m")?.and_then(|(key, _)| layout::parse_log_part(&key));
        let newest = last.map_or(0, |(arrival, _)| arrival);
        let is_there = |name| Ok::<_, StoreError>(store.get(&layout::meta(name))?.is_some());
        Ok(Self {
            accepted: is_there(META_ACCEPTED)?,
            registered: registered(store)?,
            directory: is_there(META_DIRECTORY)?,
            enrolments: enrolments(store)?,
            forks: Sum::of_rows(store, b'f', 0)?.1,
            large_rows: is_there(META_LARGE_ROWS)?,
            lineage: fact(store, META_LINEAGE)?.unwrap_or(Lineage::ZERO),
            format: number(store, META_FORMAT)?,
            tallies: Sum::of_rows(store, b't', newest)?,
            lines: Sum::of_rows(store, b'v', newest)?,
        })
    }

    /// What is gone or older than it was.
    fn differs_from(&self, now: &Self) -> Option<&'static str> {
        let lost = |before: bool, now: bool| before && !now;
        let checks = [
            ("enrolments", self.enrolments.allows(&now.enrolments)),
            ("proofs of forks", now.forks >= self.forks),
            ("registered collections", self.registered.allows(&now.registered)),
            ("tallies", self.tallies.allows(&now.tallies)),
            // Where a line parts no record comes.
            ("lines", now.forks != self.forks || self.lines.allows(&now.lines)),
            ("lineage", self.lineage == Lineage::ZERO || now.lineage == self.lineage),
            ("format", now.format >= self.format),
            ("mark that a peer was accepted", !lost(self.accepted, now.accepted)),
            ("mark that rows are large", !lost(self.large_rows, now.large_rows)),
            ("directory's identity", !lost(self.directory, now.directory)),
        ];
        checks.into_iter().find_map(|(what, whole)| (!whole).then_some(what))
    }
}

fn enrolments(store: &dyn Store) -> Result<Sum, StoreError> {
    let mut newest = 0;
    store.scan(b"e", b"f", &mut |_, value| {
        newest = newest.max(value.first_chunk().map_or(0, |since| u64::from_be_bytes(*since)));
        ControlFlow::Continue(())
    })?;
    Sum::of_rows(store, b'e', newest)
}

/// Whether local rows are being issued, and how many spans there are, changes without a new number.
fn registered(store: &dyn Store) -> Result<Sum, StoreError> {
    // Before the first is whole, heads may be there or not.
    let Some(number) = fact::<u64>(store, META_REGISTRATION)? else { return Ok(Sum::default()) };
    let mut sum = Sum(number.saturating_add(1), 0, (0, 0));
    store.scan(b"c", b"d", &mut |key, value| {
        if let Some(head) = layout::decode_coverage_head(value).filter(|_| key.ends_with(&[0])) {
            sum.add(key, &[u8::from(head.registered)]);
        }
        ControlFlow::Continue(())
    })?;
    Ok(sum)
}

/// Checks a store against what it says it held.
///
/// # Errors
/// [`StoreError::Corrupt`] says of what something is gone.
pub(super) fn compare(store: &dyn Store) -> Result<(), StoreError> {
    let Some(held) = fact::<Held>(store, META_HELD)? else { return Ok(()) };
    match held.differs_from(&Held::of(store)?) {
        None => Ok(()),
        Some(what) => Err(StoreError::Corrupt(format!("the store had other {what} when it was last used"))),
    }
}

/// What is known of the row: what it says, and what it is to say.
#[derive(Debug, Default)]
pub(super) struct Holding {
    stored: Option<Held>,
    now: Option<Held>,
}

impl Ledger {
    /// Looks at what the store holds. All of it has to have passed a barrier.
    pub(super) fn look_at_held(&mut self) -> Result<(), StoreError> {
        if self.held.stored.is_none() {
            self.held.stored = fact(&*self.store, META_HELD)?;
        }
        self.held.now = Some(Held::of(&*self.store)?);
        Ok(())
    }

    /// As [`Ledger::look_at_held`], for what changes between turns: rows that turns put may not be durable.
    pub(super) fn look_at_few(&mut self) -> Result<(), StoreError> {
        let registered = registered(&*self.store)?;
        let enrolments = enrolments(&*self.store)?;
        if let Some(now) = &mut self.held.now {
            (now.registered, now.enrolments, now.accepted) = (registered, enrolments, self.accepted);
        }
        Ok(())
    }

    /// Says in the store what it holds. It rides on the next barrier.
    pub(super) fn write_held(&mut self) -> Result<(), StoreError> {
        if let Some(now) = self.held.now.as_ref().filter(|now| self.held.stored.as_ref() != Some(now)) {
            self.store.put(&layout::meta(META_HELD), &layout::sealed(codec::encode(now)))?;
            self.held.stored = Some(now.clone());
        }
        Ok(())
    }

    /// When an enrolment changes: later than all that are there, so that the newest tells of each change.
    pub(super) fn enrolled_at(&self, now: WallClock) -> WallClock {
        let newest = self.held.now.as_ref().map_or(0, |held| held.enrolments.0);
        WallClock(now.0.max(newest.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests;
