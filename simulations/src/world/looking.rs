//! Looks at all replicas: directly, between two polls of their nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use anabranch_actors::node::Clock as _;
use anabranch_protocol::commit::{Change, Commit};
use anabranch_protocol::conflict::Stamp;
use anabranch_protocol::id::{Collection, Hash, Key, PeerId};

use super::{Action, Lag, World};
use crate::invariants::{self, Replica, Violation, Waiting};
use crate::oracle::{CommitId, Fold, Operation, Outcome};
use crate::workload;

/// How often a node is looked for that is being started.
const SOON_TRIES: u32 = 100;

/// What was seen of a replica last.
#[derive(Default)]
pub(crate) struct Seen {
    pub commits: BTreeMap<CommitId, Commit>,
    pub fold: Fold,
    pub registered: BTreeSet<Collection>,
    life: u64,
}

impl World {
    pub(crate) fn look_at_all(&mut self) {
        for node in self.up() {
            self.look_at(node);
        }
        self.note_lag();
    }

    /// Looks at a node that was just started, as soon as its datasets run: before peers can have made up for what it lost.
    pub(crate) fn look_soon(&mut self, node: usize, life: u64, tries: u32) {
        if self.nodes[node].life.is_none() || self.nodes[node].lives != life {
            return;
        }
        let all_run = self.plans.iter().all(|plan| self.nodes[node].running(&plan.id).is_some());
        if all_run || tries >= SOON_TRIES {
            self.look_at(node);
        } else {
            self.after(Duration::from_millis(5), Action::LookSoon { node, life, tries: tries + 1 });
        }
    }

    /// Looks at what waits where.
    pub(crate) fn look_at_queues(&self) {
        let mut invariants = self.invariants.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.waiting().find_map(|waiting| {
            invariants.iter_mut().find_map(|one| Some((one.name().to_owned(), one.waiting(&waiting).err()?)))
        });
        drop(invariants);
        if let Some((invariant, how)) = found {
            self.violate(Violation { invariant, at_ms: self.now_ms(), how });
        }
    }

    /// What waits in each dataset of each node that is up.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Waiting<'_>> {
        self.nodes.iter().flat_map(|node| {
            let datasets = self.plans.iter().zip(&self.names);
            datasets.filter_map(|(plan, name)| {
                let handle = node.life.as_ref()?.handle.actors(&plan.id).ok()?;
                let queues = handle.counters().measures.measured().queues;
                Some(Waiting { node: node.index, name, queues, writes_kib: handle.waiting().write_kib })
            })
        })
    }

    pub(crate) fn look_at(&mut self, node: usize) {
        // What the oracle reads is not on the way through a failing cable.
        let mut flips = 0;
        self.nodes[node].disk.ail(|ailments| flips = std::mem::take(&mut ailments.flips));
        for dataset in 0..self.plans.len() {
            if let Err(violation) = self.look_at_replica(node, dataset) {
                self.violate(violation);
            }
        }
        self.nodes[node].disk.ail(|ailments| ailments.flips = flips);
    }

    /// The newest stamp of what an operation is about to write, as its node shows it.
    pub(crate) fn saw(&self, node: usize, operation: &Operation) -> Option<Stamp> {
        let there = &self.nodes[node];
        let running = there.running(&self.plans[operation.dataset].id)?;
        let mut flips = 0;
        there.disk.ail(|ailments| flips = std::mem::take(&mut ailments.flips));
        let shown =
            |(at, key, _): &(Collection, Option<Key>, _)| running.view.get(at, key.as_ref()?).ok()?.map(|shown| shown.stamp);
        let newest = operation.writes.iter().filter_map(shown).max();
        there.disk.ail(|ailments| ailments.flips = flips);
        newest
    }

    pub(crate) fn violate(&self, violation: Violation) {
        self.trace.note("violated", violation.how.as_bytes());
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    fn look_at_replica(&mut self, node: usize, dataset: usize) -> Result<(), Violation> {
        let id = self.plans[dataset].id.clone();
        let Some(running) = self.nodes[node].running(&id) else { return Ok(()) };
        if self.refresh(node, dataset).is_err() {
            // It is going down, and says why elsewhere.
            return Ok(());
        }
        let there = &self.nodes[node];
        let life = there.life.as_ref().map(|life| life.handle.clone());
        let Some(handle) = life.and_then(|handle| handle.actors(&id).ok()) else { return Ok(()) };
        let (name, collections) = (&self.names[dataset], workload::collections());
        let seen = &self.seen[&(node, dataset)];
        there.clock.now();
        let history = self.history.borrow();
        let read = |at| Some((at, invariants::list(&running.view, at).ok()?));
        let shown = collections.iter().filter_map(read).collect();
        let replica = Replica {
            node,
            life: there.lives,
            dataset,
            name,
            kind: self.plans[dataset].kind,
            peer: there.identity.peer(),
            registered: &seen.registered,
            collections: &collections,
            view: &running.view,
            shown: &shown,
            commits: &seen.commits,
            fold: &seen.fold,
            highest_clock: there.clock.highest(),
            restarts: handle.restarts(),
            history: &history,
            excuses: &self.excuses,
            now_ms: self.now_ms(),
        };
        for invariant in self.invariants.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Err(how) = invariant.look(&replica) {
                return Err(Violation { invariant: invariant.name().to_owned(), at_ms: replica.now_ms, how });
            }
        }
        Ok(())
    }

    /// Reads what is new in a replica's log.
    fn refresh(&mut self, node: usize, dataset: usize) -> Result<(), ()> {
        let id = self.plans[dataset].id.clone();
        let running = self.nodes[node].running(&id).ok_or(())?;
        let current = running.view.registered().now();
        let registered: BTreeSet<Collection> =
            workload::collections().into_iter().filter(|collection| current.registration.contains(collection)).collect();
        let indexed = running.view.indexed().map_err(|_| ())?;
        let ids: BTreeSet<CommitId> = indexed.into_iter().map(|(line, seq)| CommitId { line, seq }).collect();
        let life = self.nodes[node].lives;
        let seen = self.seen.entry((node, dataset)).or_default();
        // Sections of old commits come later, and another life may have lost some.
        let stale = seen.registered != registered || seen.life != life || seen.commits.keys().any(|id| !ids.contains(id));
        if stale || self.options.faults.contains_key(&crate::faults::Kind::Registration) {
            *seen = Seen { registered, life, ..Seen::default() };
        }
        for id in ids {
            if let std::collections::btree_map::Entry::Vacant(place) = seen.commits.entry(id) {
                let commit = running.view.commit(&id.line, id.seq).map_err(|_| ())?.ok_or(())?;
                seen.fold.take(&commit);
                place.insert(commit);
            }
        }
        Ok(())
    }

    /// All commits that live replicas of a dataset hold together, as last seen.
    pub(crate) fn union(&self, dataset: usize) -> BTreeMap<CommitId, Hash> {
        let live = self.seen.iter().filter(|((node, of), _)| *of == dataset && self.nodes[*node].life.is_some());
        live.flat_map(|(_, seen)| seen.commits.iter().map(|(id, commit)| (*id, commit.hash()))).collect()
    }

    fn note_lag(&mut self) {
        let commits = (0..self.plans.len())
            .map(|dataset| {
                let all = self.union(dataset).len();
                let held =
                    self.up().into_iter().filter_map(|node| self.seen.get(&(node, dataset)).map(|seen| seen.commits.len()));
                held.min().map_or(0, |least| all.saturating_sub(least) as u64)
            })
            .collect();
        let restarts = |dataset| (0..self.nodes.len()).map(|node| self.restarts_of(node, dataset)).sum();
        let restarts = (0..self.plans.len()).map(restarts).collect();
        self.lag.push(Lag { at_ms: self.now_ms(), commits, restarts });
    }

    /// Which interesting states the whole history shows.
    pub(crate) fn note_states(&mut self) {
        for dataset in 0..self.plans.len() {
            let mut writers: BTreeMap<(Collection, Key), BTreeSet<PeerId>> = BTreeMap::new();
            let mut epochs: BTreeMap<PeerId, BTreeSet<Stamp>> = BTreeMap::new();
            let (mut truncated, mut forked) = (false, false);
            let replicas = self.seen.iter().filter(|((_, of), _)| *of == dataset);
            let all: BTreeMap<CommitId, &Commit> =
                replicas.flat_map(|(_, seen)| seen.commits.iter().map(|(id, commit)| (*id, commit))).collect();
            let mut lines = BTreeSet::new();
            for (id, commit) in all {
                forked |= id.line.epoch.is_branch();
                if !id.line.epoch.is_branch() && lines.insert(id.line) {
                    let first = Stamp { hlc: commit.header().hlc, writer: id.line, index: 0 };
                    epochs.entry(id.line.peer).or_default().insert(first);
                }
                for section in commit.sections() {
                    for entry in &section.entries {
                        truncated |= matches!(entry.change, Change::Truncate);
                        if let Some(key) = entry.change.key() {
                            writers.entry((section.collection.clone(), key.clone())).or_default().insert(id.line.peer);
                        }
                    }
                }
            }
            self.sometimes.reached_if(writers.values().any(|writers| writers.len() >= 3), "a conflict with three writers");
            self.sometimes.reached_if(epochs.values().any(|epochs| epochs.len() > 1), "a writer began a new epoch");
            self.sometimes.reached_if(truncated, "a truncated collection");
            self.sometimes.reached_if(forked, "a fork was proven and its lines parted");
        }
        let history = self.history.borrow();
        let any = |is: &dyn Fn(&crate::oracle::Operation) -> bool| history.iter().any(is);
        let confirmed = any(&|o| matches!(&o.outcome, Outcome::Acked { confirmed_by, .. } if !confirmed_by.is_empty()));
        let (unknown, refused) = (any(&|o| o.outcome == Outcome::Unknown), any(&|o| matches!(o.outcome, Outcome::Refused(_))));
        let keyed = any(&|o| o.keyed && matches!(o.outcome, Outcome::Acked { .. }));
        drop(history);
        self.sometimes.reached_if(confirmed, "a receipt was confirmed by a peer");
        self.sometimes.reached_if(unknown, "an outcome was unknown to its client");
        self.sometimes.reached_if(refused, "a request was refused");
        self.sometimes.reached_if(keyed, "a repeated request was answered without a second write");
    }

    /// Restarts of a dataset at a node so far, in all its lives.
    pub(crate) fn restarts_of(&self, node: usize, dataset: usize) -> u64 {
        let ended = self.restarts.get(&(node, dataset)).copied().unwrap_or(0);
        let life = self.nodes[node].life.as_ref();
        let now = life.and_then(|life| life.handle.actors(&self.plans[dataset].id).ok()).map_or(0, |handle| handle.restarts());
        ended + now
    }

    /// Keeps the restarts of a life that ends.
    pub(crate) fn count_restarts(&mut self, node: usize) {
        self.note_set_aside(node);
        for dataset in 0..self.plans.len() {
            let restarts = self.restarts_of(node, dataset);
            self.restarts.insert((node, dataset), restarts);
        }
    }

    pub(crate) fn note_set_aside(&mut self, node: usize) {
        for plan in &self.plans {
            let Some(life) = &self.nodes[node].life else { return };
            if let Ok(handle) = life.handle.actors(&plan.id) {
                let aside = !handle.set_aside().is_empty();
                self.sometimes.reached_if(aside, "a store was set aside and rebuilt from peers");
            }
        }
    }
}
