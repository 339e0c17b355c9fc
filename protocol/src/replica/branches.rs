//! Lines that part: where a writer's history forked, each branch goes on as a line of its own.

use super::turn::Working;
use super::{Line, Replica, Rows};
use crate::commit::{Commit, Fork, Forks, branch};
use crate::hlc::Hlc;
use crate::id::{Epoch, Hash, WriterId};
use crate::vector::{Head, VersionVector};

/// Where a commit belongs.
pub(super) enum Place {
    /// It continues what `before` ends, as a part of `line`.
    Next { line: WriterId, before: Option<Line> },
    /// It is here.
    Known,
    /// Commits after this number are missing.
    Gap { have: u64 },
    /// It contradicts what is here.
    Fork,
}

/// A known line that a fork parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    /// The line, which ends before the fork.
    pub line: WriterId,
    /// Its end; none where the fork is at its first commit.
    pub end: Option<Line>,
    /// The first commit past the end.
    pub from_seq: u64,
    /// The line that the commits from there on are a part of.
    pub branch: WriterId,
}

/// A line that goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Which.
    pub line: WriterId,
    /// Its end; none where nothing of it is left.
    pub end: Option<Head>,
}

impl Cut {
    /// Takes what lies past the end out of a vector: whoever says so has not heard of the fork.
    pub fn apply(&self, vector: &mut VersionVector) {
        if vector.seq(&self.line) > self.end.map_or(0, |end| end.seq) {
            match self.end {
                Some(end) => vector.set(self.line, end),
                None => vector.remove(&self.line),
            }
        }
    }
}

impl Replica {
    /// Forks that were proven.
    #[must_use]
    pub fn forks(&self) -> &Forks {
        &self.forks
    }

    /// Takes in a proof that is durable; `false` if it is known or one too many.
    pub fn learn_fork(&mut self, fork: Fork) -> bool {
        self.forks.insert(fork)
    }

    /// Where the lines that are known here go no further.
    #[must_use]
    pub fn cuts(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for fork in self.forks.iter() {
            let ends =
                |(id, line): &(WriterId, Line)| (line.hash == fork.previous).then_some(Cut { line: *id, end: Some(line.head) });
            cuts.extend(self.family(&fork.writer).iter().filter_map(ends));
        }
        for fork in self.forks.lowest() {
            // Past the fork it would be on a branch of a lower one, which is still to be found.
            let below = self.lines.get(&fork.writer).is_none_or(|line| line.head.seq + 1 < fork.seq);
            if below && cuts.iter().all(|cut| cut.line != fork.writer) {
                // Not there yet: what its end will be the proof says, but for the clock.
                let end = Head { seq: fork.seq - 1, hlc: Hlc(0), hash: fork.previous.short() };
                cuts.push(Cut { line: fork.writer, end: (fork.seq > 1).then_some(end) });
            }
        }
        cuts
    }

    /// The lines of a writer: its own, and, where it forked, branches of its peer.
    fn family(&self, writer: &WriterId) -> Vec<(WriterId, Line)> {
        let name = |rest| WriterId { peer: writer.peer, epoch: Epoch::branch_with(rest) };
        let branches = self.lines.range(name(0)..=name(0xff));
        let own = self.lines.get_key_value(writer).into_iter();
        own.chain(branches).map(|(id, line)| (*id, *line)).collect()
    }

    /// The known line that `fork` parts, if there is one.
    ///
    /// # Errors
    /// Whatever reading the log fails with.
    pub fn parting<R: Rows>(&self, fork: &Fork, rows: &R) -> Result<Option<Parting>, R::Error> {
        for (id, line) in self.family(&fork.writer) {
            if line.head.seq < fork.seq {
                continue;
            }
            let end = if fork.seq == 1 { None } else { rows.commit(&id, fork.seq - 1)? };
            let follows = if fork.seq == 1 { id == fork.writer } else { end.is_some_and(|end| end.hash == fork.previous) };
            let first = if line.head.seq == fork.seq { Some(line) } else { rows.commit(&id, fork.seq)? };
            if let (true, Some(first)) = (follows, first) {
                return Ok(Some(Parting { line: id, end, from_seq: fork.seq, branch: branch(&fork.writer, &first.hash) }));
            }
        }
        Ok(None)
    }

    /// Parts a line, once the store has done it.
    pub fn part(&mut self, parting: &Parting) {
        let Some(line) = self.lines.remove(&parting.line) else { return };
        self.vector.remove(&parting.line);
        let rest = parting.end.map(|end| (parting.line, end));
        for (id, line) in rest.into_iter().chain([(parting.branch, line)]) {
            self.lines.insert(id, line);
            self.vector.set(id, line.head);
        }
    }

    /// Where a verified commit belongs, after what was taken in before it.
    pub(super) fn place<R: Rows>(&self, working: &Working<'_, R>, commit: &Commit) -> Result<Place, R::Error> {
        let (writer, seq, previous) = (commit.writer(), commit.header().seq, commit.header().previous);
        let lines = working.family(&writer, !self.forks.of(&writer).is_empty());
        #[cfg(feature = "planted")]
        let previous = match lines.first().filter(|_| crate::planted::is(crate::planted::Bug::AcceptFork)) {
            Some((_, line)) if line.head.seq + 1 == seq => line.hash,
            _ => previous,
        };
        let before = lines.iter().find(|(_, line)| line.head.seq + 1 == seq && line.hash == previous);
        if before.is_some() || seq == 1 {
            let parts = self.forks.parts(&writer, seq, &previous);
            let line = if parts { commit.branch() } else { before.map_or(writer, |(id, _)| *id) };
            match working.line(&line) {
                Some(_) if parts => return Ok(Place::Known),
                Some(_) if seq == 1 => {}
                _ => return Ok(Place::Next { line, before: before.map(|(_, line)| *line) }),
            }
        }
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::AcceptGap) && lines.iter().all(|(_, line)| line.head.seq + 1 < seq) {
            return Ok(Place::Next { line: writer, before: working.line(&writer) });
        }
        known(&lines, seq, commit.hash(), |line| working.commit(line, seq))
    }
}

/// Whether a commit that continues no line is here, contradicts what is here, or comes too early.
fn known<E>(
    lines: &[(WriterId, Line)],
    seq: u64,
    hash: Hash,
    commit: impl Fn(&WriterId) -> Result<Option<Line>, E>,
) -> Result<Place, E> {
    let have = lines.iter().map(|(_, line)| line.head.seq).max().unwrap_or(0);
    if seq > have + 1 {
        return Ok(Place::Gap { have });
    }
    let mut contradicted = seq == have + 1;
    for (id, line) in lines.iter().filter(|(_, line)| line.head.seq >= seq) {
        let found = if line.head.seq == seq { Some(*line) } else { commit(id)? };
        match found {
            Some(found) if found.hash == hash => return Ok(Place::Known),
            found => contradicted |= found.is_some(),
        }
    }
    Ok(if contradicted { Place::Fork } else { Place::Known })
}

impl<R: Rows> Working<'_, R> {
    /// The lines of a writer as this turn would leave them.
    fn family(&self, writer: &WriterId, branches: bool) -> Vec<(WriterId, Line)> {
        let own = self.line(writer).map(|line| (*writer, line));
        if !branches {
            return own.into_iter().collect();
        }
        let mut lines: std::collections::BTreeMap<WriterId, Line> = self.replica.family(writer).into_iter().collect();
        let made = self.lines.iter().filter(|(id, _)| **id == *writer || (id.peer == writer.peer && id.epoch.is_branch()));
        lines.extend(made.map(|(id, line)| (*id, *line)));
        lines.into_iter().collect()
    }
}
