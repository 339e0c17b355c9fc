//! A ledger written anew beside the old one, as if its node's clock had been right: what lies too far ahead comes last, under a new
//! epoch and stamps of now. The old one is only read.
//!
//! Each record is taken in by the rules by which it was taken in first, so nothing in the new ledger is copied that nobody would
//! check: rows, tallies, lines and indexes are made anew. What is no function of the log (enrolments, proofs of forks, what is
//! registered) is carried over before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anabranch_protocol::clock_repair::{AheadLine, AheadOfWall};
use anabranch_protocol::commit::Commit;
use anabranch_protocol::coverage::Coverages;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::WriterId;
use anabranch_protocol::replica::{Line, Past, Record, Turn};

use super::{Ledger, META_ACCEPTED};
use crate::dataset::layout;
use crate::dataset::log::{self, Found};
use crate::store::StoreError;

/// Payload taken in in one turn, bytes; a larger record alone.
const TURN_BYTES: usize = 1 << 20;
/// Records taken in in one turn.
const TURN_RECORDS: usize = 512;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Commits that were issued again.
    pub commits: u64,
    /// Records of writes that don't replicate, which got new stamps.
    pub local: u64,
}

/// Why there is no new ledger; the old one is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Either store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is ahead is not this node's, or not all of it is here.
    #[error("commit {seq} of {writer} can't be issued again: it is not this node's, or a part of it is not here")]
    NotOurs { writer: WriterId, seq: u64 },
    /// The new one does not show what the old one does.
    #[error("the rebuilt store holds {rebuilt} documents, but {here} are here: nothing was changed")]
    Differs { here: u64, rebuilt: u64 },
    /// Nobody waits for it any more.
    #[error("it was broken off: nothing was changed")]
    Abandoned,
}

impl Ledger {
    /// What lies further ahead of `now` than may be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ahead_of(&self, now: WallClock) -> Result<AheadOfWall, StoreError> {
        let settings = self.replica.settings();
        let skew = settings.max_clock_skew;
        let mut ahead = AheadOfWall { clock: self.replica.clock().is_ahead_of(now, skew), ..AheadOfWall::default() };
        for (writer, head) in self.replica.vector().iter().filter(|(_, head)| head.hlc.is_ahead_of(now, skew)) {
            if writer.peer != settings.identity.peer() {
                ahead.others.push(*writer);
                continue;
            }
            ahead.forked |= writer.epoch.is_branch() || !self.replica.forks().of(writer).is_empty();
            // Readings grow with numbers.
            let (mut first, mut last) = (1, head.seq);
            while first < last && !writer.epoch.is_branch() {
                let middle = first + (last - first) / 2;
                let is_ahead = self.commit_in_line(writer, middle)?.header().hlc.is_ahead_of(now, skew);
                (first, last) = if is_ahead { (first, middle) } else { (middle + 1, last) };
            }
            ahead.own.push(AheadLine { writer: *writer, first, last: head.seq });
        }
        Ok(ahead)
    }

    fn commit_in_line(&self, writer: &WriterId, seq: u64) -> Result<Commit, StoreError> {
        let damaged = || StoreError::Corrupt(format!("commit {seq} of {writer} is missing or broken"));
        let arrival = self.view.arrival(writer, seq)?.ok_or_else(damaged)?;
        let Found::Record(stored) = log::read(&*self.store, arrival)? else { return Err(damaged()) };
        stored.commit(self.replica.settings().lineage)?.ok_or_else(damaged)
    }

    /// Writes this ledger anew into `new`, which is empty. `go_on` is asked before each turn.
    ///
    /// # Errors
    /// [`RebuildError`]: `new` is good for nothing.
    pub fn rebuild_into(
        &mut self,
        new: &mut Self,
        now: WallClock,
        entropy: &mut dyn FnMut(&mut [u8]),
        go_on: &dyn Fn() -> bool,
    ) -> Result<Rebuilt, RebuildError> {
        // Then whatever was replaced says where it is now.
        self.settle()?;
        self.carry_over(new)?;
        let mut rebuilding = Rebuilding { new, now, places: BTreeMap::new(), batch: Vec::new(), bytes: 0, again: false };
        let (mut ahead, mut done) = (Vec::new(), Rebuilt::default());
        for arrival in 1..=self.arrival {
            let Some(past) = self.past(arrival)? else { continue };
            let skew = self.replica.settings().max_clock_skew;
            if past.is_ahead(now, skew) {
                self.is_ours_whole(&past)?;
                ahead.push(arrival);
            } else {
                rebuilding.take_in(arrival, past, entropy, go_on)?;
            }
        }
        rebuilding.flush(entropy, go_on)?;
        rebuilding.again = true;
        for arrival in ahead {
            let Some(past) = self.past(arrival)? else { continue };
            if past.past.commit.is_some() {
                done.commits += 1
            } else {
                done.local += 1
            }
            rebuilding.take_in(arrival, past, entropy, go_on)?;
        }
        rebuilding.flush(entropy, go_on)?;
        self.finish(new)?;
        Ok(done)
    }

    /// What the log does not say.
    fn carry_over(&self, new: &mut Self) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        self.store.scan(b"e", b"f", &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        rows.iter().try_for_each(|(key, value)| new.store.put(key, value))?;
        if self.accepted {
            new.store.put(&layout::meta(META_ACCEPTED), &[1])?;
        }
        new.store.barrier()?;
        (new.accepted, new.enrolments) = (self.accepted, self.enrolments.clone());
        new.learn_forks(self.replica.forks().iter().map(|fork| fork.proof().clone()).collect())?;
        Ok(())
    }

    /// The record as it is now; nothing where it is told elsewhere, or there is nothing in it.
    fn past(&self, arrival: u64) -> Result<Option<Told>, StoreError> {
        let record = match log::read(&*self.store, arrival)? {
            // It stands where it came first, with what it has by now.
            Found::Moved(_) => self.record_after_moves(arrival)?,
            Found::Record(stored) => {
                let record = stored.decode(self.replica.settings().lineage)?;
                if record.effects.widens.is_some() {
                    return Ok(None);
                }
                self.widest(arrival, record)?
            }
            Found::Broken => return Err(StoreError::Corrupt(format!("log record {arrival} is missing or broken"))),
        };
        let Record { commit, local, effects } = record;
        let empty = commit.is_none() && local.is_none() && effects.remembered.is_empty();
        let past = Past { commit, local, remembered: effects.remembered, issues: None };
        Ok((!empty).then_some(Told { past, issues: effects.issues }))
    }

    /// A crash may have left a record as it was before more sections came: then the index leads to a later one.
    fn widest(&self, arrival: u64, mut record: Record) -> Result<Record, StoreError> {
        let Some(commit) = record.commit.as_ref().filter(|commit| commit.left_out().next().is_some()) else { return Ok(record) };
        let (writer, seq, hash) = (commit.writer(), commit.header().seq, commit.hash());
        let branches = self.replica.vector().iter().map(|(line, _)| *line);
        let branches = branches.filter(|line| line.peer == writer.peer && line.epoch.is_branch());
        for line in std::iter::once(writer).chain(branches) {
            let Some(place) = self.store.get(&layout::seq_index(&line, seq))? else { continue };
            let place = place.try_into().map_or(0, u64::from_be_bytes);
            if place > arrival && place <= self.arrival {
                let wider = self.record_at(place)?.commit.filter(|wider| wider.hash() == hash);
                record.commit = wider.or(record.commit);
            }
        }
        Ok(record)
    }

    fn is_ours_whole(&self, found: &Told) -> Result<(), RebuildError> {
        let Some(commit) = &found.past.commit else { return Ok(()) };
        let ours = commit.writer().peer == self.replica.settings().identity.peer();
        if ours && commit.left_out().next().is_none() {
            return Ok(());
        }
        Err(RebuildError::NotOurs { writer: commit.writer(), seq: commit.header().seq })
    }

    /// What is registered, and the proof that nothing is missing.
    fn finish(&self, new: &mut Self) -> Result<(), RebuildError> {
        new.change(cut(self.coverages.clone(), &new.replica))?;
        new.settle()?;
        let (here, rebuilt) = (self.replica.documents(), new.replica.documents());
        if here != rebuilt {
            return Err(RebuildError::Differs { here, rebuilt });
        }
        new.check()?;
        Ok(())
    }
}

/// What is not here of writers' pasts, without what is no past any more.
fn cut(mut coverages: Coverages, replica: &anabranch_protocol::replica::Replica) -> Coverages {
    let me = replica.settings().identity.peer();
    for coverage in coverages.scopes.values_mut() {
        for (writer, span) in coverage.spans.iter_mut().filter(|(writer, _)| writer.peer == me) {
            let last = replica.line(writer).map_or(0, |Line { head, .. }| head.seq);
            span.until = span.until.min(last);
            span.next = span.next.min(last + 1);
        }
    }
    coverages
}

/// A record, and what it issues by its arrival in the old log.
struct Told {
    past: Past,
    issues: Option<u64>,
}

impl Told {
    fn is_ahead(&self, now: WallClock, skew: std::time::Duration) -> bool {
        self.past.hlc().is_some_and(|hlc| hlc.is_ahead_of(now, skew))
    }

    fn weight(&self) -> usize {
        let local = self.past.local.iter().flat_map(|local| &local.entries).map(|(_, entry)| entry.change.weight());
        self.past.commit.as_ref().map_or(0, Commit::weight) + local.sum::<usize>()
    }
}

/// A new ledger in the making.
struct Rebuilding<'a> {
    new: &'a mut Ledger,
    now: WallClock,
    /// Where local records are now that may be named by those that issue them.
    places: BTreeMap<u64, u64>,
    batch: Vec<Past>,
    bytes: usize,
    /// They get new stamps.
    again: bool,
}

impl Rebuilding<'_> {
    fn take_in(
        &mut self,
        arrival: u64,
        found: Told,
        entropy: &mut dyn FnMut(&mut [u8]),
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), RebuildError> {
        let weight = found.weight();
        if self.batch.len() >= TURN_RECORDS || (self.bytes + weight > TURN_BYTES && !self.batch.is_empty()) {
            self.flush(entropy, go_on)?;
        }
        let Told { mut past, issues } = found;
        if let Some(issues) = issues {
            let place = self.places.get(&issues).copied();
            let lost = || StoreError::Corrupt(format!("log record {arrival} issues record {issues}, which is not local"));
            past.issues = Some(place.ok_or_else(lost)?);
        }
        if past.local.is_some() && self.new.replica.settings().kind == anabranch_protocol::wire::Kind::Append {
            // Each becomes one record.
            self.places.insert(arrival, self.new.arrival + self.batch.len() as u64 + 1);
        }
        self.bytes += weight;
        self.batch.push(past);
        Ok(())
    }

    fn flush(&mut self, entropy: &mut dyn FnMut(&mut [u8]), go_on: &dyn Fn() -> bool) -> Result<(), RebuildError> {
        if !go_on() {
            return Err(RebuildError::Abandoned);
        }
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let turn = self.decide(batch, entropy)?;
        self.new.commit(turn)?;
        Ok(())
    }

    fn decide(&self, batch: Vec<Past>, entropy: &mut dyn FnMut(&mut [u8])) -> Result<Turn, StoreError> {
        let (replica, rows) = (&self.new.replica, self.new.counted_rows());
        if self.again {
            return replica.stamp_again(self.now, batch, &rows, entropy);
        }
        replica.keep(self.now, batch, &rows)?.map_err(|stray| StoreError::Corrupt(stray.to_string()))
    }
}

#[cfg(test)]
mod tests;
