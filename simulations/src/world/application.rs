//! An application in the world: appends its operations, and hears of what arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anabranch_actors::api::ListQuery;
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::{self, Value};
use anabranch_protocol::wire::Kind;

use super::{Action, WATCH_EVERY, World};
use crate::oracle::{Operation, Outcome};
use crate::workload::{self, Asked};

/// An operation of an application, at its time and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripted {
    /// When, simulated milliseconds.
    pub at_ms: u64,
    /// At which node.
    pub node: usize,
    /// What is appended.
    pub text: String,
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s, node {}: {}", Duration::from_millis(self.at_ms).as_secs_f64(), self.node, self.text)
    }
}

impl World {
    /// The dataset of the application: the first one for appends.
    fn of_application(&self) -> usize {
        self.plans.iter().position(|plan| plan.kind == Kind::Append).unwrap_or(0)
    }

    pub(super) fn append_scripted(&mut self, place: usize) {
        let scripted = self.script[place].clone();
        let dataset = self.of_application();
        let at = workload::collection(workload::SHARED[1]);
        let number = self.history.borrow().len() as u64;
        let text = Value::Text(format!("{}{}", workload::marks(number, dataset), scripted.text)).encode();
        let operation = Operation {
            number,
            node: scripted.node,
            life: 0,
            dataset,
            at_ms: 0,
            writes: vec![(at.clone(), None, Some(text.clone()))],
            keyed: false,
            batch: false,
            replicates: true,
            saw: None,
            outcome: Outcome::Unknown,
        };
        let request = WriteRequest::new(vec![WriteOp { collection: at, op: Op::Append { value: text } }]);
        self.send(scripted.node, Asked { request, ack: 0, times: 1 }, operation);
    }

    /// Every application looks for what is new.
    pub(super) fn watch(&mut self) {
        let (dataset, at) = (self.of_application(), workload::collection(workload::SHARED[1]));
        for node in self.up() {
            let Some(running) = self.nodes[node].running(&self.plans[dataset].id) else { continue };
            let Ok(page) = running.view.list(&at, &ListQuery { limit: 10_000, ..ListQuery::default() }) else { continue };
            let heard = self.heard.entry(node).or_default();
            let known: BTreeSet<String> = heard.iter().cloned().collect();
            let texts = page.documents.iter().filter_map(|record| match value::decode(&record.value) {
                Ok(Value::Text(text)) => Some(text),
                _ => None,
            });
            heard.extend(texts.filter(|text| !known.contains(text)));
        }
        self.after(WATCH_EVERY, Action::Watch);
    }

    /// What each application heard, in order, without the marks.
    pub(super) fn arrived(&self) -> BTreeMap<usize, Vec<String>> {
        let without = |text: &String| text.splitn(3, ';').nth(2).unwrap_or_default().to_owned();
        let there = self.heard.iter().filter(|(node, _)| !self.gone.contains(node));
        there.map(|(node, heard)| (*node, heard.iter().map(without).collect())).collect()
    }
}
