//! Clients of nodes.

use super::World;
use crate::node::DatasetPlan;
use crate::oracle::{Operation, Outcome};
use crate::workload;

impl World {
    /// A client sends something to some node.
    pub(super) fn write(&mut self) {
        let up = self.up();
        if up.is_empty() {
            return;
        }
        let node = *self.rng.pick(&up);
        let dataset = self.rng.below(self.plans.len());
        let number = self.history.borrow().len() as u64;
        let kind = self.plans[dataset].kind;
        let (asked, operation) = workload::draw(number, (dataset, kind), self.options.keys, &mut self.rng);
        self.send(node, asked, operation);
    }

    pub(crate) fn send(&mut self, node: usize, asked: workload::Asked, operation: Operation) {
        let Some(life) = &self.nodes[node].life else { return };
        let number = operation.number;
        let at_ms = self.now_ms();
        let asked_for_receipt = asked.ack > 0;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let registered = |plan: &DatasetPlan| operation.writes.iter().all(|(c, _, _)| plan.registered.contains(c));
        let replicates = operation.replicates && registered(&self.nodes[node].datasets[operation.dataset]);
        let dataset = self.plans[operation.dataset].id.clone();
        let saw = self.saw(node, &operation);
        let operation = Operation { node, life: self.nodes[node].lives, at_ms, replicates, saw, ..operation };
        self.history.borrow_mut().push(operation);
        let answered = life.run(workload::send(life.handle.clone(), dataset, asked));
        let (history, receipts, trace) = (self.history.clone(), self.receipts_open.clone(), self.trace.clone());
        *receipts.borrow_mut() += u64::from(asked_for_receipt);
        tokio::task::spawn_local(async move {
            let outcome = answered.await.unwrap_or(Outcome::Unknown);
            *receipts.borrow_mut() -= u64::from(asked_for_receipt);
            trace.note("answered", format!("{number} {outcome:?}").as_bytes());
            if let Some(operation) = history.borrow_mut().get_mut(place) {
                operation.outcome = outcome;
            }
        });
    }
}
