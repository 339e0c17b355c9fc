//! Nodes that come, go, and return after months.

use std::time::Duration;

use super::{World, identity};
use crate::faults::Kind;

/// How long a node is away.
const AWAY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

impl World {
    /// Where nodes came, went, or took to other collections, all that are left dial each other: what one of them lacks another has.
    pub(super) fn mesh(&self) {
        let moved =
            [Kind::Registration, Kind::Leave, Kind::Join, Kind::Clone].iter().any(|kind| self.options.faults.contains_key(kind));
        let there: Vec<usize> = (0..self.nodes.len()).filter(|node| moved && !self.gone.contains(node)).collect();
        for (n, one) in there.iter().enumerate() {
            for other in &there[n + 1..] {
                self.network.dials(*other, *one);
            }
        }
    }

    pub(super) fn leave_for_good(&mut self, node: usize) {
        self.kill(node, true);
        self.gone.insert(node);
    }

    pub(super) fn join(&mut self) {
        let there: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.gone.contains(node)).collect();
        let identity = identity(&mut self.rng);
        let dials = [*self.rng.pick(&there), *self.rng.pick(&there)];
        self.network.add(identity.peer(), &dials);
        let node = self.add_node(identity);
        self.nodes[node].clock.set_right(self.skipped_ms);
        self.start(node);
    }

    pub(super) fn leave(&mut self, node: usize) {
        // Who stays has to be enough to be a network.
        if self.nodes.len() - self.gone.len() > 3 {
            self.leave_for_good(node);
            self.bridge_over(node);
        }
    }

    /// The neighbours of a node that left dial each other, so that all that stay reach each other.
    pub(super) fn bridge_over(&mut self, node: usize) {
        let neighbours: Vec<usize> =
            self.network.neighbours(node).into_iter().filter(|other| !self.gone.contains(other)).collect();
        for pair in neighbours.windows(2) {
            self.network.dials(pair[0], pair[1]);
        }
    }

    /// On the clocks of all that run.
    pub(super) fn months_pass(&mut self) {
        self.skipped_ms += u64::try_from(AWAY.as_millis()).unwrap_or(0);
        let now_ms = self.now_ms();
        self.excuses.days_ahead.extend((0..self.nodes.len()).map(|node| (node, now_ms)));
        for node in &self.nodes {
            node.clock.step(i64::try_from(AWAY.as_millis()).unwrap_or(0));
        }
    }
}
