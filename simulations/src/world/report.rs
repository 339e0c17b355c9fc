//! What came of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::World;
use crate::faults::Fault;
use crate::invariants::Violation;
use crate::network::Traffic;
use crate::options::Options;
use crate::oracle::Outcome;

/// What came of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What it was made of.
    pub options: Options,
    /// The hash of all that happened.
    pub trace: String,
    /// Events in the trace.
    pub events: u64,
    /// Invariants that were broken, the first first; nothing where all held.
    pub violations: Vec<Violation>,
    /// The faults that happened, or were to.
    pub faults: Vec<Fault>,
    /// Requests by outcome.
    pub requests: BTreeMap<String, u64>,
    /// Names of datasets: what is told per dataset has this order.
    pub datasets: Vec<String>,
    /// Commits in the end, per dataset.
    pub commits: Vec<usize>,
    /// Lag and restarts over time.
    pub lag: Vec<Lag>,
    /// When faults and writes ended and all had to converge, simulated milliseconds; nothing where an invariant was broken before.
    pub healing_from_ms: Option<u64>,
    /// How long it took to converge after the last fault, milliseconds; nothing where it did not.
    pub converged_after_ms: Option<u64>,
    /// Restarts of datasets, all nodes together.
    pub restarts: u64,
    /// Starts of nodes.
    pub starts: u64,
    /// When each node was up, and what it restarted; places of peers that never ran a node have no lives.
    pub nodes: Vec<NodeReport>,
    /// What crossed the network.
    pub traffic: Traffic,
    /// Interesting states and how often they were reached.
    pub sometimes: BTreeMap<String, u64>,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
}

/// How far the furthest live replica of a dataset is behind all that is known.
#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    /// When, simulated milliseconds.
    pub at_ms: u64,
    /// Commits, per dataset.
    pub commits: Vec<u64>,
    /// Restarts until then, per dataset, all nodes together.
    pub restarts: Vec<u64>,
}

/// What became of one node.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodeReport {
    /// Its lives.
    pub lives: Vec<LifeSpan>,
    /// Restarts, per dataset.
    pub restarts: Vec<u64>,
}

/// From the start of a node to its death.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LifeSpan {
    /// Simulated milliseconds.
    pub from_ms: u64,
    /// Nothing where it was up to the end.
    pub to_ms: Option<u64>,
}

impl World {
    pub(super) fn report(self, converged_after: Option<Duration>) -> Report {
        let mut requests = BTreeMap::new();
        for operation in self.history.borrow().iter() {
            let outcome = match &operation.outcome {
                Outcome::Unknown => "unknown",
                Outcome::Acked { .. } => "acknowledged",
                Outcome::Refused(_) => "refused",
            };
            *requests.entry(outcome.to_owned()).or_default() += 1;
        }
        let commits = |dataset| self.union(dataset).len();
        let nodes: Vec<NodeReport> = (0..self.nodes.len()).map(|node| self.node_report(node)).collect();
        Report {
            trace: self.trace.hash(),
            events: self.trace.events(),
            violations: self.violated(),
            faults: self.faults.clone(),
            requests,
            datasets: self.names.clone(),
            commits: (0..self.plans.len()).map(commits).collect(),
            lag: self.lag.clone(),
            converged_after_ms: converged_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            healing_from_ms: self.healing_from_ms,
            restarts: nodes.iter().flat_map(|node| &node.restarts).sum(),
            starts: self.nodes.iter().map(|node| node.lives).sum(),
            nodes,
            traffic: self.network.traffic(),
            sometimes: self.sometimes.counts(),
            simulated_ms: self.now_ms(),
            options: self.options,
        }
    }

    fn node_report(&self, node: usize) -> NodeReport {
        NodeReport {
            lives: self.lives.get(&node).cloned().unwrap_or_default(),
            restarts: (0..self.plans.len()).map(|dataset| self.restarts_of(node, dataset)).collect(),
        }
    }
}
