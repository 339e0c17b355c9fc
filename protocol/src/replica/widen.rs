//! Widening: sections of commits that are here already, taken in after their collection was registered.

use std::collections::BTreeSet;

use super::Replica;
use super::receive::{ReceiveRefusal, Verdict};
use super::turn::{Rows, Turn, Working};
use crate::commit::Commit;
use crate::conflict::Stamp;
use crate::id::WriterId;

/// A commit as the log has it, and a verified copy of it that may have more sections.
#[derive(Debug, Clone)]
pub struct Widening {
    /// The line that it is a part of.
    pub line: WriterId,
    /// As it is kept here.
    pub here: Commit,
    /// Its arrival.
    pub arrival: u64,
    /// As a peer has it.
    pub came: Commit,
}

impl Replica {
    /// Decides about copies of commits that are here: [`Verdict::Applied`] where one brings sections that are registered and were
    /// left out so far, [`Verdict::Duplicate`] where it brings nothing, a fork where it is another commit of that number. What the
    /// log had is not counted again; heads, vector and clock stay as they are.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn widen<R: Rows>(&self, widenings: Vec<Widening>, rows: &R) -> Result<(Turn, Vec<Verdict>), R::Error> {
        let mut working = Working::new(self, rows);
        let mut seen: BTreeSet<(WriterId, u64)> = BTreeSet::new();
        let mut verdicts = Vec::with_capacity(widenings.len());
        for Widening { line, here, arrival, came } in widenings {
            let place = (line, here.header().seq);
            let verdict = match here.widen(&came.keep_only(&self.tags)) {
                None => Verdict::Refused(ReceiveRefusal::Fork { seq: place.1 }),
                Some((wider, _)) if !self.fits_kind(&wider) => Verdict::Refused(ReceiveRefusal::Kind),
                // A second copy in one turn would be joined with what the first one replaces.
                Some((_, new)) if new.is_empty() || !seen.insert(place) => Verdict::Duplicate,
                Some((wider, new)) => {
                    let (hlc, writer) = (wider.header().hlc, wider.writer());
                    for section in wider.sections() {
                        // The record takes the other one's place, so it says all that the other one said.
                        working.touch(&section.collection);
                        if !new.contains(&section.collection.tag(&self.settings.dataset, self.settings.lineage)) {
                            continue;
                        }
                        for entry in &section.entries {
                            working.apply(&section.collection, Stamp { hlc, writer, index: entry.index }, &entry.change)?;
                        }
                    }
                    working.record_widened(line, wider, arrival);
                    Verdict::Applied
                }
            };
            verdicts.push(verdict);
        }
        Ok((working.finish(), verdicts))
    }
}
