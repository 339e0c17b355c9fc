//! Sections that come later than their commits: written as new records of the log, which take the old ones' places.
//!
//! A record that was replaced stays until its successor is below the mark that a barrier covered: only then no start takes in
//! either of them again, and the index that leads to the successor is durable. It becomes a stub that names the successor, so
//! that no arrival is ever missing; its further parts go once the stub is durable. What a crash leaves behind of this costs
//! space and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anabranch_protocol::commit::Commit;
use anabranch_protocol::coverage::Scope;
use anabranch_protocol::id::{Tag, WriterId};
use anabranch_protocol::registration::TagSet;
use anabranch_protocol::replica::{ReceiveRefusal, Verdict, Widening};

use super::weigh::dropped_in;
use super::{Committed, Ledger};
use crate::dataset::log::{self, Found};
use crate::store::StoreError;

/// Commits that are read in one turn, bytes; a larger one alone.
const LOOKED_AT_BYTES_MAX: usize = 8 << 20;
/// Commits that are looked at in one turn.
const SKIMMED_MAX: usize = 1_024;
/// Records that are cleared away in one turn.
const CLEARED_MAX: usize = 256;

/// What became of old commits that came again.
#[derive(Debug)]
pub struct Widened {
    /// One per commit, without the rest.
    pub verdicts: Vec<Verdict>,
    /// By how many commits scopes got on, all together.
    pub got_on: usize,
    /// Commits for another turn.
    pub rest: Vec<Commit>,
    /// No commits of anybody, but what a turn is told by.
    pub committed: Committed,
}

impl Widened {
    /// Where none of them was looked at.
    pub fn not_yet(commits: Vec<Commit>, committed: Committed) -> Self {
        Self { verdicts: Vec::new(), got_on: 0, rest: commits, committed }
    }
}

/// Records that were replaced and not cleared away yet.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// From where, to where; in ascending order of the latter.
    replaced: VecDeque<(u64, u64)>,
    /// Stubs whose records may have had more parts.
    stubs: Vec<u64>,
}

impl Moves {
    /// The record at `now` replaces the one at `before`.
    pub fn add(&mut self, before: Option<u64>, now: u64) {
        self.replaced.extend(before.map(|before| (before, now)));
    }

    /// Whether something can be cleared away with the mark at `arrival`.
    pub fn any_settled(&self, mark: u64) -> bool {
        !self.stubs.is_empty() || self.replaced.front().is_some_and(|(_, now)| *now <= mark)
    }
}

impl Ledger {
    /// Takes in copies of commits that are here, for the sections they bring, until one turn's work is done; durable when it
    /// returns. The others are returned.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn widen(&mut self, commits: Vec<Commit>) -> Result<Widened, StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let imported_before = self.coverages.importing().count();
        let dropped = dropped_in(&commits);
        let mut commits = commits.into_iter();
        while bytes < LOOKED_AT_BYTES_MAX {
            let Some(came) = commits.next() else { break };
            let widening = self.widening(came)?;
            bytes += widening.as_ref().map_or(0, |widening| widening.here.weight() + widening.came.weight());
            batch.push(widening);
        }
        let (verdicts, got_on) = self.widen_batch(batch)?;
        if commits.len() == 0 {
            self.weighed(&dropped);
        }
        self.publish();
        // What is complete now was not stated so far: whoever states it has to hear of it.
        let completed = self.coverages.importing().count() < imported_before;
        let committed = Committed { got_on: completed, ..self.nothing_committed() };
        Ok(Widened { verdicts, got_on, rest: commits.collect(), committed })
    }

    /// A commit beside what the log has of it, or how many the log has of its writer.
    fn widening(&self, came: Commit) -> Result<Result<Widening, u64>, StoreError> {
        let (writer, seq) = (came.writer(), came.header().seq);
        if let Some(widening) = self.widening_on(writer, &came)? {
            return Ok(Ok(widening));
        }
        // Of a forked writer it may be on a branch.
        let branches = self.replica.vector().iter().map(|(line, _)| *line);
        let branches: Vec<_> = branches.filter(|line| line.peer == writer.peer && line.epoch.is_branch()).collect();
        for line in branches {
            if let Some(widening) = self.widening_on(line, &came)?.filter(|widening| widening.here.hash() == came.hash()) {
                return Ok(Ok(widening));
            }
        }
        Ok(Err(self.replica.vector().seq(&writer).min(seq - 1)))
    }

    /// As [`Ledger::widening`], if the commit is on `line`.
    fn widening_on(&self, line: WriterId, came: &Commit) -> Result<Option<Widening>, StoreError> {
        let seq = came.header().seq;
        if seq > self.replica.vector().seq(&line) {
            return Ok(None);
        }
        let damaged = || StoreError::Corrupt(format!("commit {seq} of {line} is missing or broken"));
        let Some(arrival) = self.view.arrival(&line, seq)? else {
            // A branch has no commits below its fork.
            return if line.epoch.is_branch() { Ok(None) } else { Err(damaged()) };
        };
        let Found::Record(stored) = log::read(&*self.store, arrival)? else { return Err(damaged()) };
        let here = stored.commit(self.replica.settings().lineage)?.ok_or_else(damaged)?;
        Ok(Some(Widening { line, here, arrival, came: came.clone() }))
    }

    fn widen_batch(&mut self, batch: Vec<Result<Widening, u64>>) -> Result<(Vec<Verdict>, usize), StoreError> {
        let mut gaps = Vec::new();
        let mut widenings = Vec::new();
        // What each commit will still lack, so that scopes get on by those that lack nothing of theirs.
        let mut lacking: Vec<((WriterId, u64), BTreeSet<Tag>)> = Vec::new();
        for widening in batch {
            gaps.push(widening.as_ref().err().copied());
            if let Ok(widening) = widening {
                let came = widening.came.clone().keep_only(self.replica.tags());
                let wider = widening.here.widen(&came).map(|(wider, _)| wider);
                let left_out = wider.as_ref().map_or_else(BTreeSet::new, |wider| wider.left_out().collect());
                lacking.push(((widening.line, came.header().seq), left_out));
                widenings.push(widening);
            }
        }
        let (turn, decided) = self.replica.widen(widenings, &self.counted_rows())?;
        self.commit(turn)?;
        let got_on = self.get_on(&lacking, &decided)?;
        let mut decided = decided.into_iter();
        let verdicts = gaps.into_iter().map(|gap| match gap {
            Some(have) => Verdict::Refused(ReceiveRefusal::Gap { have }),
            None => decided.next().expect("one verdict for each widening"),
        });
        Ok((verdicts.collect(), got_on))
    }

    /// Gets on over commits that lack nothing of what is imported, as most do; whether there may be more. Only the others need a
    /// peer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn skim(&mut self) -> Result<(Committed, bool), StoreError> {
        let spans = self.coverages.importing().filter_map(|(scope, _)| self.coverages.scopes.get(scope));
        let spans = spans.flat_map(|coverage| &coverage.spans).filter(|(_, span)| span.missing() > 0);
        let places: BTreeSet<(WriterId, u64)> = spans.map(|(writer, span)| (*writer, span.next)).collect();
        let (mut left, mut bytes, mut got_on) = (SKIMMED_MAX, 0, 0);
        for (writer, mut seq) in places {
            while left > 0 {
                let here = self.commit_here(&writer, seq)?;
                // A branch has no commits below its fork: nothing is missing there.
                if here.is_none() && !writer.epoch.is_branch() {
                    break;
                }
                bytes += here.as_ref().map_or(0, Commit::weight);
                left = if bytes < LOOKED_AT_BYTES_MAX { left - 1 } else { 0 };
                let left_out = here.iter().flat_map(Commit::left_out).collect();
                let steps = self.get_on(&[((writer, seq), left_out)], &[Verdict::Duplicate])?;
                if steps == 0 {
                    break;
                }
                (seq, got_on) = (seq + 1, got_on + steps);
            }
        }
        self.publish();
        Ok((Committed { got_on: got_on > 0, ..self.nothing_committed() }, left == 0 && got_on > 0))
    }

    fn commit_here(&self, writer: &WriterId, seq: u64) -> Result<Option<Commit>, StoreError> {
        let Some(arrival) = self.view.arrival(writer, seq)? else { return Ok(None) };
        match log::read(&*self.store, arrival)? {
            Found::Record(stored) => stored.commit(self.replica.settings().lineage),
            Found::Moved(_) | Found::Broken => Err(StoreError::Corrupt(format!("commit {seq} of {writer} is missing or broken"))),
        }
    }

    /// Notes what is durable now.
    fn get_on(&mut self, lacking: &[((WriterId, u64), BTreeSet<Tag>)], verdicts: &[Verdict]) -> Result<usize, StoreError> {
        let settings = self.replica.settings();
        let importing = self.coverages.importing().map(|(scope, _)| scope);
        let tags = |scope: &Scope| match scope {
            Scope::All => TagSet::All,
            Scope::One(collection) => TagSet::Some([collection.tag(&settings.dataset, settings.lineage)].into()),
        };
        let tags: BTreeMap<Scope, TagSet> = importing.map(|scope| (scope.clone(), tags(scope))).collect();
        let (mut got_on, mut steps) = (BTreeSet::new(), 0);
        for (((writer, seq), left_out), verdict) in lacking.iter().zip(verdicts) {
            if matches!(verdict, Verdict::Applied | Verdict::Duplicate) {
                let whole = |scope: &Scope| tags.get(scope).is_some_and(|tags| !left_out.iter().any(|tag| tags.contains(tag)));
                let scopes = self.coverages.took(writer, *seq, whole);
                steps += scopes.len();
                got_on.extend(scopes.into_iter().map(|scope| (scope, *writer)));
            }
        }
        self.put_spans(&got_on)?;
        Ok(steps)
    }

    /// Clears away what was replaced by records below the mark. Call it behind a barrier.
    pub(super) fn clear_moved(&mut self) -> Result<(), StoreError> {
        if !self.moves.any_settled(self.mark.arrival) {
            return Ok(());
        }
        // Readers that look a place up and then read it are kept out of the step in between.
        let view = self.view.clone();
        let mut applying = view.applying();
        for arrival in std::mem::take(&mut self.moves.stubs) {
            log::drop_parts(&*self.store, arrival)?;
        }
        for _ in 0..CLEARED_MAX {
            let Some((before, now)) = self.moves.replaced.pop_front_if(|(_, now)| *now <= self.mark.arrival) else { break };
            log::move_record(&*self.store, before, now)?;
            self.moves.stubs.push(before);
        }
        applying.done();
        Ok(())
    }
}
