use std::collections::BTreeMap;

use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::WriterId;

use super::{Invariant, Replica};

/// See its statement.
#[derive(Default)]
pub struct NoRegress {
    /// The newest commit of each line, by node and dataset, and when it was seen.
    seen: BTreeMap<(usize, usize), (u64, BTreeMap<WriterId, u64>)>,
}

impl Invariant for NoRegress {
    fn name(&self) -> &'static str {
        "no-regress"
    }

    fn statement(&self) -> &'static str {
        "what a replica once showed of a line it has ever after, and clock readings rise along every line"
    }

    fn reason(&self) -> &'static str {
        "peers believe vectors and confirmations; one that goes back unnoticed makes them wait for, or prune, what is gone"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        let mut heads: BTreeMap<WriterId, u64> = BTreeMap::new();
        let mut last: Option<(WriterId, Hlc)> = None;
        for (id, commit) in replica.commits {
            let hlc = commit.header().hlc;
            if last.is_some_and(|(line, before)| line == id.line && hlc <= before) {
                return Err(format!("{}: the clock of {} does not rise at commit {}", replica.place(), id.line, id.seq));
            }
            last = Some((id.line, hlc));
            heads.insert(id.line, id.seq);
        }
        let place = (replica.node, replica.dataset);
        let lost = replica.excuses.lost.get(&place).copied();
        let before = self.seen.insert(place, (replica.now_ms, heads.clone()));
        // A line may part, which leaves it shorter, once its identity lived twice.
        let may_part = |line: &WriterId| replica.excuses.cloned.contains(&line.peer);
        for (line, seq) in before.filter(|(at, _)| lost.is_none_or(|lost| lost < *at)).into_iter().flat_map(|(_, heads)| heads) {
            let now = heads.get(&line).copied().unwrap_or(0);
            if now < seq && !may_part(&line) {
                return Err(format!("{}: it had {seq} commits of {line} and has {now}", replica.place()));
            }
        }
        Ok(())
    }
}
