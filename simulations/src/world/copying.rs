//! Disks that are rolled back, and data directories that are cloned.

use std::time::Duration;

use anabranch_protocol::id::Incarnation;

use super::{Action, World};
use crate::disk::copy_files;
use crate::node::SimulatedNode;

/// How long a node is given to stop.
const STOPPING_TAKES: Duration = Duration::from_secs(3);

impl World {
    /// Half of the backups are made of a node that was stopped for it: a store that was closed goes on where it was.
    pub(super) fn begin_backup(&mut self, number: usize, node: usize) {
        match &self.nodes[node].life {
            Some(life) if self.faults[number].choice.is_multiple_of(2) => {
                let handle = life.handle.clone();
                drop(life.run(async move { handle.stop().await }));
                self.excuses.shaken.insert(node);
                self.stopping.insert(node);
                self.after(STOPPING_TAKES, Action::BackUp { number, node });
            }
            _ => self.back_up(number, node),
        }
    }

    pub(crate) fn finish_backup(&mut self, number: usize, node: usize) {
        self.stopping.remove(&node);
        self.kill(node, false);
        self.back_up(number, node);
        self.start(node);
    }

    pub(super) fn back_up(&mut self, number: usize, node: usize) {
        let files = self.place.path().join(format!("backup-{number}"));
        // A backup that is made while the node writes is one of a running machine, as a snapshot of it is.
        if copy_files(&self.nodes[node].data_dir, &files).is_ok() {
            let disk = self.nodes[node].disk.copy();
            self.backups.insert(number, (disk, files));
        }
    }

    pub(super) fn roll_back(&mut self, number: usize, node: usize) {
        let Some((disk, files)) = self.backups.remove(&number) else { return };
        self.kill(node, false);
        let data_dir = self.place.path().join(format!("node-{node}-rolled-back-{number}"));
        if copy_files(&files, &data_dir).is_err() {
            return;
        }
        disk.crash(&data_dir);
        let now_ms = self.now_ms();
        for dataset in 0..self.plans.len() {
            let lost = self.excuses.lost.entry((node, dataset)).or_default();
            *lost = (*lost).max(now_ms);
        }
        self.excuses.cloned.insert(self.nodes[node].identity.peer());
        let there = &mut self.nodes[node];
        (there.disk, there.data_dir) = (disk, data_dir);
        // A directory that was copied back is another one; a machine that was set back is the same.
        if self.faults[number].choice.is_multiple_of(4) {
            self.rng.fill(&mut there.incarnation.0);
        }
        self.start(node);
    }

    pub(super) fn clone_node(&mut self, number: usize, node: usize) {
        let data_dir = self.place.path().join(format!("clone-{number}"));
        if self.gone.contains(&node) || copy_files(&self.nodes[node].data_dir, &data_dir).is_err() {
            return;
        }
        let disk = self.nodes[node].disk.copy();
        disk.crash(&data_dir);
        let original = &self.nodes[node];
        self.excuses.cloned.insert(original.identity.peer());
        let (identity, datasets) = (original.identity.clone(), original.datasets.clone());
        let dials: Vec<usize> =
            (0..self.nodes.len()).filter(|other| *other != node && !self.gone.contains(other)).take(2).collect();
        let index = self.network.add(identity.peer(), &dials);
        let copy = self.add_node(identity);
        debug_assert_eq!(index, copy);
        let mut incarnation = Incarnation([0; 16]);
        self.rng.fill(&mut incarnation.0);
        let there: &mut SimulatedNode = &mut self.nodes[copy];
        (there.disk, there.data_dir, there.datasets, there.incarnation) = (disk, data_dir, datasets, incarnation);
        self.clones.insert(number, copy);
        self.start(copy);
    }

    pub(super) fn end_clone(&mut self, number: usize) {
        if let Some(copy) = self.clones.remove(&number) {
            self.leave_for_good(copy);
        }
    }
}
