//! What a run is made of: everything that decides it, beside the code.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::Kind;

/// The options of a run. With one seed they decide everything that happens.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What it is called.
    pub scenario: String,
    /// What is special about it.
    pub about: String,
    /// Decides all draws.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Datasets, the same on every node: every third one is an `append` dataset.
    pub datasets: usize,
    /// How long faults and writes go on, simulated seconds.
    pub duration_s: u64,
    /// How long after that everything may take to converge, simulated seconds.
    pub settle_s: u64,
    /// Requests that write, a second, all nodes and datasets together.
    pub writes_per_second: f64,
    /// Keys that are written to, in each collection.
    pub keys: u64,
    /// Between two looks at all nodes, simulated seconds.
    pub look_every_s: u64,
    /// Neighbours that each node dials beside the next one in the ring.
    pub degree: usize,
    /// Makes all faults so many times as frequent.
    pub intensity: f64,
    /// Faults a minute, by kind; none of those that are not named.
    pub faults: BTreeMap<Kind, f64>,
    /// Only these faults of the plan happen, by their numbers; all where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<usize>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scenario: "default".to_owned(),
            about: String::new(),
            seed: 1,
            nodes: 5,
            datasets: 3,
            duration_s: 300,
            settle_s: 180,
            writes_per_second: 5.0,
            keys: 40,
            look_every_s: 10,
            degree: 1,
            intensity: 1.0,
            faults: BTreeMap::new(),
            only: None,
        }
    }
}

impl Options {
    /// How long faults and writes go on.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.duration_s)
    }

    /// What is wrong with them.
    ///
    /// # Errors
    /// The first thing, in words.
    pub fn check(&self) -> Result<(), String> {
        let bounds = [
            ("nodes", self.nodes as u64, 1, 64),
            ("datasets", self.datasets as u64, 1, 64),
            ("duration", self.duration_s, 1, 86_400),
            ("settle_s", self.settle_s, 1, 86_400),
            ("keys", self.keys, 1, 100_000),
            ("look_every_s", self.look_every_s, 1, 3_600),
        ];
        for (name, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(format!("`{name}` is {value}; it has to be from {least} to {most}"));
            }
        }
        if !(0.0..=10_000.0).contains(&self.writes_per_second) {
            return Err(format!("`writes_per_second` is {}; it has to be from 0 to 10000", self.writes_per_second));
        }
        if !(0.0..=100.0).contains(&self.intensity) {
            return Err(format!("`intensity` is {}; it has to be from 0 to 100", self.intensity));
        }
        match self.faults.iter().find(|(_, rate)| !(0.0..=600.0).contains(*rate)) {
            Some((kind, rate)) => Err(format!("the rate of `{kind}` is {rate} a minute; it has to be from 0 to 600")),
            None => Ok(()),
        }
    }
}
