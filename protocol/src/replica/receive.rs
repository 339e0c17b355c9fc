//! Commits of other writers, and of our own past: whether they count, and what they lead to.

use super::Replica;
use super::turn::{Rows, Turn, Working};
use crate::commit::{Change, Commit, Section};
use crate::conflict::Stamp;
use crate::fence::Fenced;
use crate::hlc::{Hlc, WallClock};
use crate::id::{PeerId, Tag};
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
            match self.admit(&working, now, &commit) {
                Verdict::Applied => {
                    self.fold(&mut working, commit.keep_only(&self.tags))?;
                    verdicts.push(Verdict::Applied);
                }
                other => verdicts.push(other),
            }
        }
        Ok((working.finish(), verdicts))
    }

    fn admit<R: Rows>(&self, working: &Working<'_, R>, now: WallClock, commit: &Commit) -> Verdict {
        let header = commit.header();
        let seq = header.seq;
        let line = working.line(&commit.writer());
        let have = line.map_or(0, |line| line.head.seq);
        let refuse = Verdict::Refused;
        // Before the gap: what is not taken in need not be asked for. What is here already stays, whoever wrote it.
        let peer = commit.writer().peer;
        if seq > have && !self.settings.writers.contains(&peer) {
            match self.fences.judge(&commit.writer(), seq, &commit.hash()) {
                Fenced::Within => {}
                Fenced::AnotherChain => return refuse(ReceiveRefusal::Fork { seq }),
                Fenced::Beyond => return refuse(ReceiveRefusal::Forbidden { peer }),
            }
        }
        if seq > have + 1 {
            return refuse(ReceiveRefusal::Gap { have });
        }
        if seq <= have {
            let forked = line.is_some_and(|line| line.head.seq == seq && line.hash != commit.hash());
            return if forked { refuse(ReceiveRefusal::Fork { seq }) } else { Verdict::Duplicate };
        }
        if line.is_none() && working.writers() >= OTHER_WRITERS_MAX {
            return refuse(ReceiveRefusal::TooManyWriters { limit: OTHER_WRITERS_MAX });
        }
        if line.is_some_and(|line| line.hash != header.previous) {
            return refuse(ReceiveRefusal::Fork { seq });
        }
        if line.is_some_and(|line| line.head.hlc >= header.hlc) {
            return refuse(ReceiveRefusal::ClockStands { seq });
        }
        if header.hlc.is_ahead_of(now, self.settings.max_clock_skew) {
            return refuse(ReceiveRefusal::Held { seq, hlc: header.hlc });
        }
        let tags = commit.missing_for(&self.tags);
        if !tags.is_empty() {
            return refuse(ReceiveRefusal::MissingSections { tags });
        }
        if self.fits_kind(commit) { Verdict::Applied } else { refuse(ReceiveRefusal::Kind) }
    }

    fn fits_kind(&self, commit: &Commit) -> bool {
        let appends = self.settings.kind == Kind::Append;
        // The reserved collection holds documents, whatever the dataset holds.
        let wanted = |section: &Section| appends && section.collection.as_str() != CONTROL_COLLECTION;
        let fits = |section: &Section| {
            section.entries.iter().all(|entry| matches!(entry.change, Change::Append { .. }) == wanted(section))
        };
        commit.sections().all(fits)
    }

    fn fold<R: Rows>(&self, working: &mut Working<'_, R>, commit: Commit) -> Result<(), R::Error> {
        let (hlc, writer) = (commit.header().hlc, commit.writer());
        for section in commit.sections() {
            for entry in &section.entries {
                working.apply(&section.collection, Stamp { hlc, writer, index: entry.index }, &entry.change)?;
            }
        }
        working.clock = working.clock.receive(hlc);
        // A commit of the very line we write under, from elsewhere: our directory is older than our own past.
        if writer.peer == self.peer() && working.epoch == Some(writer.epoch) {
            working.epoch = None;
        }
        working.record(Some(commit), None);
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
