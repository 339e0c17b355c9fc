//! Commits of other writers, and of our own past: whether they count, and what they lead to.

use super::branches::Place;
use super::turn::{Rows, Turn, Working};
use super::{Line, Replica};
use crate::commit::{Change, Commit, Section};
use crate::conflict::Stamp;
use crate::fence::Fenced;
use crate::hlc::{Hlc, WallClock};
use crate::id::{PeerId, Tag, WriterId};
use crate::limits::VECTOR_WRITERS_MAX;
use crate::registration::CONTROL_COLLECTION;
use crate::wire::Kind;

/// Writers a replica takes in from others, so that its own next epochs still fit into its vector.
const OTHER_WRITERS_MAX: usize = VECTOR_WRITERS_MAX - 64;

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// In the turn.
    Applied,
    /// Here already.
    Duplicate,
    /// Not in the turn.
    Refused(ReceiveRefusal),
}

/// Why a commit was not taken in. Nothing of it was applied; nothing is skipped, so later commits of the writer wait too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveRefusal {
    /// Earlier commits of the writer are missing.
    #[error("commits after {have} are missing")]
    Gap { have: u64 },
    /// The writer is not among the dataset's writers.
    #[error("{peer} is not among the dataset's writers")]
    Forbidden { peer: PeerId },
    /// Two commits of the writer share a number, or this one does not continue the chain.
    #[error("commit {seq} does not continue the writer's chain: the writer's history forked")]
    Fork { seq: u64 },
    /// Its epoch is what names branches of forked lines.
    #[error("its epoch is none that a writer may open")]
    BranchName,
    /// A vector with one more writer could not be sent any more.
    #[error("a dataset has at most {limit} writers")]
    TooManyWriters { limit: usize },
    /// The clock reading does not grow.
    #[error("the clock reading of commit {seq} does not grow")]
    ClockStands { seq: u64 },
    /// The clock reading lies too far ahead: the writer is held until our clock gets there.
    #[error("the clock reading of commit {seq} is too far ahead of this node's clock")]
    Held { seq: u64, hlc: Hlc },
    /// A section of a collection that is registered here was left out.
    #[error("a section of a registered collection was left out")]
    MissingSections { tags: Vec<Tag> },
    /// An operation that the dataset's kind does not know.
    #[error("an operation that does not fit the dataset's kind")]
    Kind,
}

impl Replica {
    /// Decides about verified commits, in the order given; within a writer they should be in seq order.
    ///
    /// # Errors
    /// Whatever reading a row fails with.
    pub fn receive<R: Rows>(&self, now: WallClock, commits: Vec<Commit>, rows: &R) -> Result<(Turn, Vec<Verdict>), R::Error> {
        let mut working = Working::new(self, rows);
        let mut verdicts = Vec::with_capacity(commits.len());
        for commit in commits {
            match self.admit(&working, now, &commit)? {
                Ok(line) => {
                    self.fold(&mut working, line, commit.keep_only(&self.tags))?;
                    verdicts.push(Verdict::Applied);
                }
                Err(verdict) => verdicts.push(verdict),
            }
        }
        Ok((working.finish(), verdicts))
    }

    /// The line that a commit is a part of, or why it is not taken in.
    fn admit<R: Rows>(
        &self,
        working: &Working<'_, R>,
        now: WallClock,
        commit: &Commit,
    ) -> Result<Result<WriterId, Verdict>, R::Error> {
        let (seq, peer) = (commit.header().seq, commit.writer().peer);
        let refuse = |refusal| Ok(Err(Verdict::Refused(refusal)));
        if commit.writer().epoch.is_branch() {
            return refuse(ReceiveRefusal::BranchName);
        }
        let place = self.place(working, commit)?;
        if matches!(place, Place::Known) {
            return Ok(Err(Verdict::Duplicate));
        }
        // Before the gap: what is not taken in need not be asked for. What is here already stays, whoever wrote it.
        if !self.settings.writers.contains(&peer) {
            // What continues a branch of a forked line is a part of the branch, which has a fence of its own.
            let line = if let Place::Next { line, .. } = &place { *line } else { commit.writer() };
            match self.fences.judge(&line, seq, &commit.hash()) {
                Fenced::Within => {}
                Fenced::AnotherChain => return refuse(ReceiveRefusal::Fork { seq }),
                Fenced::Beyond => return refuse(ReceiveRefusal::Forbidden { peer }),
            }
        }
        match place {
            Place::Known => Ok(Err(Verdict::Duplicate)),
            Place::Gap { have } => refuse(ReceiveRefusal::Gap { have }),
            Place::Fork => refuse(ReceiveRefusal::Fork { seq }),
            Place::Next { line, before } => Ok(self
                .admit_next(working, now, commit, &line, before)
                .map_or(Ok(line), |refusal| Err(Verdict::Refused(refusal)))),
        }
    }

    /// Why a commit that continues a line is not taken in.
    fn admit_next<R: Rows>(
        &self,
        working: &Working<'_, R>,
        now: WallClock,
        commit: &Commit,
        line: &WriterId,
        before: Option<Line>,
    ) -> Option<ReceiveRefusal> {
        let (seq, hlc) = (commit.header().seq, commit.header().hlc);
        if working.line(line).is_none() && working.writers() >= OTHER_WRITERS_MAX {
            return Some(ReceiveRefusal::TooManyWriters { limit: OTHER_WRITERS_MAX });
        }
        if before.is_some_and(|line| line.head.hlc >= hlc) {
            return Some(ReceiveRefusal::ClockStands { seq });
        }
        #[cfg(feature = "planted")]
        let now = if crate::planted::is(crate::planted::Bug::SkipSkewBound) { WallClock(u64::MAX) } else { now };
        if hlc.is_ahead_of(now, self.settings.max_clock_skew) {
            return Some(ReceiveRefusal::Held { seq, hlc });
        }
        let tags = commit.missing_for(&self.tags);
        if !tags.is_empty() {
            return Some(ReceiveRefusal::MissingSections { tags });
        }
        (!self.fits_kind(commit)).then_some(ReceiveRefusal::Kind)
    }

    pub(super) fn fits_kind(&self, commit: &Commit) -> bool {
        let appends = self.settings.kind == Kind::Append;
        // The reserved collection holds documents, whatever the dataset holds.
        let wanted = |section: &Section| appends && section.collection.as_str() != CONTROL_COLLECTION;
        let fits = |section: &Section| {
            // What nodes tell each other there nobody drops.
            let fits = |change: &Change| {
                matches!(change, Change::Append { .. }) == wanted(section)
                    && !(change.is_floor() && section.collection.is_reserved())
            };
            section.entries.iter().all(|entry| fits(&entry.change))
        };
        commit.sections().all(fits)
    }

    fn fold<R: Rows>(&self, working: &mut Working<'_, R>, line: WriterId, commit: Commit) -> Result<(), R::Error> {
        let (hlc, writer) = (commit.header().hlc, commit.writer());
        for section in commit.sections() {
            for entry in &section.entries {
                #[cfg(feature = "planted")]
                if crate::planted::is(crate::planted::Bug::HalfACommit)
                    && entry.index > 0
                    && Some(entry) == section.entries.last()
                {
                    continue;
                }
                working.apply(&section.collection, Stamp { hlc, writer, index: entry.index }, &entry.change)?;
            }
        }
        #[cfg(feature = "planted")]
        let hlc = if crate::planted::is(crate::planted::Bug::SkipReceiveClock) { Hlc::ZERO } else { hlc };
        working.clock = working.clock.receive(hlc);
        // A commit of the very line we write under, from elsewhere: our directory is older than our own past.
        if writer.peer == self.peer() && working.epoch == Some(writer.epoch) {
            working.epoch = None;
        }
        working.record_on(Some(line), Some(commit), None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Peers;
    use crate::commit::{Draft, Entry, Identity};
    use crate::id::{Collection, DatasetId, Epoch, Hash, Key, Lineage, PeerId, Salt, ShortHash, WriterId};
    use crate::registration::Registration;
    use crate::replica::{Line, ReplicaSettings, Saved};
    use crate::vector::Head;

    struct NoRows;

    impl Rows for NoRows {
        type Error = std::convert::Infallible;
        fn row(&self, _: &Collection, _: &Key) -> Result<Option<crate::conflict::Row>, Self::Error> {
            Ok(None)
        }
        fn above(&self, _: &Collection, _: &crate::floor::Floor) -> Result<crate::fingerprint::Tally, Self::Error> {
            Ok(crate::fingerprint::Tally::default())
        }
        fn commit(&self, _: &WriterId, _: u64) -> Result<Option<Line>, Self::Error> {
            Ok(None)
        }
        fn remembered(&self, _: &crate::id::KeyHash) -> Result<Option<crate::idempotency::Remembered>, Self::Error> {
            Ok(None)
        }
    }

    fn first_commit(epoch: u8) -> Commit {
        let entry = Entry { index: 0, change: Change::Put { key: Key::new("k").unwrap(), value: vec![0] } };
        let sections = vec![(Collection::new("c").unwrap(), Salt::ZERO, vec![entry])];
        let (dataset, epoch, hlc) = (&DatasetId::primary(), Epoch([epoch; 16]), Hlc(1));
        let draft = Draft { dataset, lineage: Lineage::ZERO, epoch, seq: 1, previous: Hash::ZERO, parent: None, hlc, sections };
        draft.seal(&Identity::from_secret(&[1; 32]))
    }

    fn settings(writers: Peers) -> ReplicaSettings {
        ReplicaSettings {
            dataset: DatasetId::primary(),
            lineage: Lineage::ZERO,
            kind: Kind::Documents,
            identity: Identity::from_secret(&[2; 32]),
            registration: Registration::all(),
            max_clock_skew: std::time::Duration::from_secs(1),
            writers,
        }
    }

    #[test]
    fn a_peer_that_may_not_write_is_refused_and_what_it_wrote_before_stays() {
        let author = first_commit(1).writer().peer;
        let mut replica = Replica::load(settings(Peers::All), Saved::default());
        let (turn, verdicts) = replica.receive(WallClock(1), vec![first_commit(1)], &NoRows).unwrap();
        assert_eq!(verdicts, [Verdict::Applied]);
        replica.evolve(&turn);
        replica.settings.writers = Peers::Only([replica.peer()].into());
        let (turn, verdicts) = replica.receive(WallClock(1), vec![first_commit(1), first_commit(2)], &NoRows).unwrap();
        assert_eq!(verdicts, [Verdict::Duplicate, Verdict::Refused(ReceiveRefusal::Forbidden { peer: author })]);
        assert!(turn.records.is_empty());
    }

    #[test]
    fn a_writer_too_many_is_refused_before_vectors_can_no_longer_be_sent() {
        let settings = settings(Peers::All);
        let line = Line { head: Head { seq: 1, hlc: Hlc(1), hash: ShortHash([0; 8]) }, hash: Hash::ZERO };
        let writer = |n: usize| WriterId { peer: PeerId([3; 32]), epoch: Epoch((n as u128).to_be_bytes()) };
        let lines = (1..OTHER_WRITERS_MAX).map(|n| (writer(n), line)).collect();
        let replica = Replica::load(settings, Saved { lines, ..Saved::default() });
        let commits = vec![first_commit(1), first_commit(2), first_commit(1)];
        let (_, verdicts) = replica.receive(WallClock(1), commits, &NoRows).unwrap();
        let full = Verdict::Refused(ReceiveRefusal::TooManyWriters { limit: OTHER_WRITERS_MAX });
        assert_eq!(verdicts, [Verdict::Applied, full, Verdict::Duplicate]);
    }
}
