//! Rebuilding: a replica's past taken in again by an empty one, where stamps of a wrong clock get sane ones.
//!
//! What was stamped sanely goes in as it is, first. What lies too far ahead goes in after it, in its order: this replica's commits
//! as new commits under a new epoch, what it kept local under new stamps. So each row ends with the value that it had, for what was
//! ahead had won over all else, and still comes last.

use super::decide::Gathered;
use super::turn::{LocalBatch, Rows, Turn, Working, local_writer};
use super::{Replica, Written, record_key};
use crate::commit::{Change, Commit};
use crate::conflict::Stamp;
use crate::hlc::{Hlc, WallClock};
use crate::id::{Collection, Epoch, KeyHash, WriterId};
use crate::idempotency::Remembered;
use crate::token::Token;

use super::branches::Place;

/// A record of the log that is rebuilt.
#[derive(Debug, Clone)]
pub struct Past {
    /// The commit, with all the sections that are kept here.
    pub commit: Option<Commit>,
    /// What stayed local.
    pub local: Option<LocalBatch>,
    /// What was answered under idempotency keys.
    pub remembered: Vec<(KeyHash, Remembered)>,
    /// Its commit says to everybody what this record, by its arrival in the new log, kept local.
    pub issues: Option<u64>,
}

/// A log does not follow from itself: nothing was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("commit {seq} of {writer} does not continue its line")]
pub struct Stray {
    /// Whose.
    pub writer: WriterId,
    /// Which.
    pub seq: u64,
}

/// How what lies ahead is stamped again.
struct Again {
    before: Option<WriterId>,
    old: Hlc,
    hlc: Hlc,
    epoch: Epoch,
    /// Old indexes, by new ones.
    indexes: Vec<u32>,
    token: Option<Token>,
}

impl Past {
    /// When it was stamped; nothing where it holds only answers.
    #[must_use]
    pub fn hlc(&self) -> Option<Hlc> {
        let of_commit = self.commit.as_ref().map(|commit| commit.header().hlc);
        of_commit.or_else(|| self.local.as_ref().map(|local| local.hlc))
    }

    /// Every change with its old index, its collection, and whether it goes to others; in the order in which they were made.
    fn changes(&self) -> Vec<(u32, Collection, Change, bool)> {
        let sections = self.commit.iter().flat_map(Commit::sections);
        let shared = sections.flat_map(|section| section.entries.iter().map(|entry| (&section.collection, entry, true)));
        let local = self.local.iter().flat_map(|local| &local.entries).map(|(collection, entry)| (collection, entry, false));
        let all = shared.chain(local).map(|(of, entry, shared)| (entry.index, of.clone(), entry.change.clone(), shared));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(index, ..)| *index);
        all
    }
}

impl Replica {
    /// Takes in records whose stamps stay. Each becomes one record, in their order.
    ///
    /// # Errors
    /// Whatever reading a row fails with; inside, that the log is not one.
    pub fn keep<R: Rows>(&self, now: WallClock, past: Vec<Past>, rows: &R) -> Result<Result<Turn, Stray>, R::Error> {
        let mut working = Working::new(self, rows);
        for Past { commit, local, remembered, issues } in past {
            let line = match &commit {
                None => None,
                Some(commit) => match self.place(&working, commit)? {
                    Place::Next { line, .. } => Some(line),
                    _ => return Ok(Err(Stray { writer: commit.writer(), seq: commit.header().seq })),
                },
            };
            if let Some(commit) = &commit {
                let (hlc, writer) = (commit.header().hlc, commit.writer());
                working.clock = working.clock.receive(hlc);
                for section in commit.sections() {
                    if issues.is_some() {
                        // It was counted where it was written.
                        working.touch(&section.collection);
                        continue;
                    }
                    for entry in &section.entries {
                        working.apply(&section.collection, Stamp { hlc, writer, index: entry.index }, &entry.change)?;
                    }
                }
            }
            if let Some(local) = &local {
                let (hlc, writer) = (local.hlc, local_writer(&self.settings));
                working.clock = working.clock.receive(hlc);
                for (collection, entry) in &local.entries {
                    working.apply(collection, Stamp { hlc, writer, index: entry.index }, &entry.change)?;
                }
            }
            working.record_on(line, commit, local);
            issues.into_iter().for_each(|issues| working.issues(issues));
            let until = Remembered::latest(now);
            working.answered(
                remembered.into_iter().map(|(key, known)| (key, Remembered { until: known.until.min(until), ..known })),
            );
        }
        Ok(Ok(working.finish()))
    }

    /// Takes in records of this replica whose stamps lie too far ahead, under stamps of now and a new epoch. Each becomes one record,
    /// in their order; those that it did not write itself it must not be given.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn stamp_again<R: Rows>(
        &self,
        now: WallClock,
        past: Vec<Past>,
        rows: &R,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Turn, R::Error> {
        let mut working = Working::new(self, rows);
        let mut epoch = None;
        for past in past {
            let changes = past.changes();
            let hlc = working.clock.tick(now);
            let shared = changes.iter().any(|(.., shared)| *shared);
            let epoch = if shared { *epoch.get_or_insert_with(|| self.next_epoch(now, entropy)) } else { Epoch::ZERO };
            let mut again = Again {
                before: past.commit.as_ref().map(Commit::writer),
                old: past.hlc().unwrap_or_default(),
                hlc,
                epoch,
                indexes: Vec::with_capacity(changes.len()),
                token: None,
            };
            let mut gathered = Gathered::default();
            for (old, collection, change, shared) in changes {
                let counted = past.issues.is_some() && shared;
                if counted {
                    working.touch(&collection);
                }
                let index = gathered.push(collection.clone(), change.clone(), shared);
                let writer = if shared { WriterId { peer: self.peer(), epoch } } else { local_writer(&self.settings) };
                if !counted {
                    working.apply(&collection, Stamp { hlc, writer, index }, &change)?;
                }
                again.indexes.push(old);
            }
            again.token = self.seal(&mut working, gathered, hlc, epoch, entropy);
            past.issues.into_iter().for_each(|issues| working.issues(issues));
            working.answered(past.remembered.into_iter().map(|(key, known)| (key, self.answer_again(now, &again, known))));
        }
        Ok(working.finish())
    }

    /// What a repeated request is answered from now on: its write is another commit.
    fn answer_again(&self, now: WallClock, again: &Again, known: Remembered) -> Remembered {
        let Written { token, stamp, key, created, replicated } = known.written;
        let token = token.and_then(|token| if Some(token.writer) == again.before { again.token } else { Some(token) });
        let new = stamp.filter(|stamp| stamp.hlc == again.old).and_then(|stamp| {
            let index = again.indexes.iter().position(|old| *old == stamp.index)?;
            let local = local_writer(&self.settings);
            let writer = if stamp.writer == local { local } else { WriterId { peer: self.peer(), epoch: again.epoch } };
            Some(Stamp { hlc: again.hlc, writer, index: u32::try_from(index).ok()? })
        });
        // A record is named by its stamp.
        let named = stamp.is_some_and(|stamp| key.as_ref() == Some(&record_key(&stamp)));
        let key = new.filter(|_| named).map(|new| record_key(&new)).or(key);
        let written = Written { token, stamp: new.or(stamp), key, created, replicated };
        Remembered { request: known.request, until: known.until.min(Remembered::latest(now)), written }
    }
}
