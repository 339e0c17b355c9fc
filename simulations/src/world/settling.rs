//! The second phase: faults stop, and within the stated time everything has to be equal and nothing may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use anabranch_actors::dataset::measures::Queue;
use anabranch_actors::dataset::supervisor::Gate;
use anabranch_protocol::id::{PeerId, WriterId};
use tokio::time::Instant;

use super::{FIRST_PHASE, World};
use crate::invariants::{Settled, Violation};
use crate::node::MAX_CLOCK_SKEW;
use crate::oracle::CommitId;

/// How often it is looked whether all is settled.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl World {
    /// Ends all faults and waits; how long it took, if it settled.
    pub(crate) async fn settle(&mut self) -> Option<Duration> {
        if !self.violated().is_empty() {
            return None;
        }
        self.look_at_all();
        let differed = self.difference().is_some();
        self.healing_from_ms = Some(self.now_ms());
        self.end_all_faults();
        let began = Instant::now();
        let limit = Duration::from_secs(self.options.settle_s);
        let mut unsettled = self.difference();
        while began.elapsed() < limit && self.violated().is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
            (self.observer)(FIRST_PHASE + (1_000 - FIRST_PHASE) * began.elapsed().as_secs() / limit.as_secs().max(1));
            self.bury_all();
            self.look_at_all();
            unsettled = self.difference();
            if unsettled.is_none() && *self.receipts_open.borrow() == 0 {
                break;
            }
        }
        let took = began.elapsed();
        self.judge(unsettled.clone());
        self.note_states();
        for node in self.up() {
            self.note_set_aside(node);
        }
        if unsettled.is_some() {
            return None;
        }
        let traffic = self.network.traffic();
        self.sometimes.reached_if(traffic.gossip_lost > 0, "a lost announcement was made good");
        self.sometimes.reached_if(traffic.lost > 0, "a lost request was made good");
        self.sometimes.reached_if(differed, "replicas differed and converged");
        Some(took)
    }

    fn judge(&mut self, unsettled: Option<String>) {
        let union: Vec<_> = (0..self.plans.len()).map(|dataset| self.union(dataset)).collect();
        let nodes: BTreeMap<PeerId, usize> = self.nodes.iter().rev().map(|node| (node.identity.peer(), node.index)).collect();
        let history = self.history.borrow();
        let settled = Settled {
            unsettled,
            union: &union,
            history: &history,
            excuses: &self.excuses,
            gone: &self.gone,
            nodes: &nodes,
            receipts_open: *self.receipts_open.borrow(),
        };
        let mut violations = Vec::new();
        for invariant in self.invariants.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Err(how) = invariant.settled(&settled) {
                violations.push(Violation { invariant: invariant.name().to_owned(), at_ms: self.now_ms(), how });
            }
        }
        drop(history);
        violations.into_iter().for_each(|violation| self.violate(violation));
    }

    /// Where live replicas differ, or are not there; nothing where all are equal.
    fn difference(&self) -> Option<String> {
        let expected: Vec<usize> = self.nodes.iter().map(|node| node.index).filter(|node| !self.gone.contains(node)).collect();
        for dataset in 0..self.plans.len() {
            let name = &self.names[dataset];
            let mut heads: Vec<(usize, BTreeMap<WriterId, u64>)> = Vec::new();
            for node in &expected {
                if self.nodes[*node].running(&self.plans[dataset].id).is_none() {
                    return Some(format!("node {node} dataset {name}: it does not run: {}", self.gate(*node, dataset)));
                }
                heads.push((*node, self.heads(*node, dataset)));
            }
            let Some((first, reference)) = heads.first() else { continue };
            for (node, other) in &heads[1..] {
                let lines: BTreeSet<&WriterId> = reference.keys().chain(other.keys()).collect();
                let differs = |line: &&&WriterId| reference.get(**line) != other.get(**line);
                let mut differing = lines.iter().filter(differs);
                let missed = differing.find(|line| {
                    let (one, two) = (reference.get(**line).copied().unwrap_or(0), other.get(**line).copied().unwrap_or(0));
                    let (lacks, next) = if one < two { (*first, one + 1) } else { (*node, two + 1) };
                    self.has_source(lacks, dataset, &CommitId { line: ***line, seq: next }, &expected)
                });
                if let Some(line) = missed {
                    let (one, two) = (reference.get(*line).unwrap_or(&0), other.get(*line).unwrap_or(&0));
                    return Some(format!(
                        "{name}: node {first} has {one} commits of {line}, node {node} has {two}, and that is all there was time for"
                    ));
                }
            }
            if let Some(why) = self.unequal_states(dataset, &expected) {
                return Some(why);
            }
        }
        self.undrained()
    }

    /// What still waits in a queue.
    fn undrained(&self) -> Option<String> {
        self.waiting().find_map(|waiting| {
            let mut queues = Queue::ALL.into_iter().zip(waiting.queues);
            let (queue, depth) = queues.find(|(_, depth)| *depth > 0)?;
            Some(format!("node {} dataset {}: {depth} wait in its queue of {}", waiting.node, waiting.name, queue.name()))
        })
    }

    /// Whether some node may and can serve a commit as whole as another one wants it. Where none can (whoever had it lost it, or
    /// registers the collection no more) the replica waits for one, and says `no_source`.
    fn has_source(&self, lacks: usize, dataset: usize, commit: &CommitId, nodes: &[usize]) -> bool {
        let id = &self.plans[dataset].id;
        let tags = |node: usize| self.nodes[node].running(id).map(|running| running.view.registered().now().tags.clone());
        let Some(asked) = tags(lacks) else { return true };
        nodes.iter().any(|node| {
            let there = self.seen.get(&(*node, dataset)).and_then(|seen| seen.commits.get(commit));
            there.zip(tags(*node)).is_some_and(|(commit, ours)| commit.unservable(&asked, &ours).is_empty())
        })
    }

    fn gate(&self, node: usize, dataset: usize) -> String {
        let life = self.nodes[node].life.as_ref();
        let handle = life.and_then(|life| life.handle.actors(&self.plans[dataset].id).ok());
        handle.map_or_else(
            || "the node is down".to_owned(),
            |handle| match &*handle.gate().borrow() {
                Gate::Down { state, reason, .. } => format!("{}: {reason}", state.as_str()),
                Gate::Idle | Gate::Opening | Gate::Running(_) => "it is being opened".to_owned(),
            },
        )
    }

    /// The newest commit of each line, without those that wait for clocks.
    fn heads(&self, node: usize, dataset: usize) -> BTreeMap<WriterId, u64> {
        let skew = u64::try_from(MAX_CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
        let most = crate::clock::BEGINNING + self.now_ms() + self.skipped_ms + skew;
        let mut heads = BTreeMap::new();
        let mut waits = BTreeSet::new();
        for (id, commit) in self.seen.get(&(node, dataset)).into_iter().flat_map(|seen| &seen.commits) {
            if commit.header().hlc.millis() > most {
                waits.insert(id.line);
            } else if !waits.contains(&id.line) {
                heads.insert(id.line, id.seq);
            }
        }
        heads
    }

    /// Replicas that register the same show the same, once they have the same commits.
    fn unequal_states(&self, dataset: usize, nodes: &[usize]) -> Option<String> {
        let seen = |node: &usize| self.seen.get(&(*node, dataset));
        for (n, one) in nodes.iter().enumerate() {
            for other in &nodes[n + 1..] {
                let (Some(a), Some(b)) = (seen(one), seen(other)) else { continue };
                let same_commits = a.commits.len() == b.commits.len() && a.commits.keys().eq(b.commits.keys());
                if !same_commits || a.registered != b.registered {
                    continue;
                }
                for collection in &a.registered {
                    let (ours, theirs) = (a.fold.documents(collection), b.fold.documents(collection));
                    if ours != theirs || a.fold.records(collection) != b.fold.records(collection) {
                        let name = &self.names[dataset];
                        return Some(format!(
                            "dataset {name} collection {collection}: nodes {one} and {other} have the same commits and differ"
                        ));
                    }
                }
            }
        }
        None
    }
}
