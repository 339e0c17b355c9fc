//! For applications: put your own merge function under faults.
//!
//! An application that keeps its state as records of an `append` dataset folds them with a function of its own. Records arrive at each
//! node in another order, so that function has to make the same of them in any order; whether it does is what [`Cluster::check`] finds
//! out: it runs the shipped actors under virtual time and faults, lets each node fold what arrives as it arrives, compares the states,
//! and where they differ shrinks the operations to as few as it takes.
//!
//! ```
//! use anabranch_simulations::cluster::{Application, Cluster};
//! use anabranch_simulations::rng::Rng;
//!
//! /// A counter that adds up.
//! struct Counter;
//!
//! impl Application for Counter {
//!     type State = u64;
//!     fn draw(&self, rng: &mut Rng) -> String {
//!         rng.within(1..10).to_string()
//!     }
//!     fn merge(&self, state: &mut u64, operation: &str) {
//!         *state += operation.parse::<u64>().unwrap_or(0);
//!     }
//! }
//!
//! Cluster::new(3).operations(12).check(&Counter, 1..=1).expect("adding up is commutative");
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::faults::Kind;
use crate::options::Options;
use crate::rng::Rng;
use crate::world::{self, Scripted};

/// What an application does with its records.
pub trait Application {
    /// What it makes of them.
    type State: Default + PartialEq + fmt::Debug;
    /// An operation, as text; it becomes one record.
    fn draw(&self, rng: &mut Rng) -> String;
    /// Takes one more operation into the state. It has to be commutative.
    fn merge(&self, state: &mut Self::State, operation: &str);
}

/// How an application is tried.
#[derive(Debug, Clone)]
pub struct Cluster {
    options: Options,
    operations: usize,
}

/// An application whose nodes end in different states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed}: node {one} and node {other} have the same records and different states: {one_state} and {other_state}; it takes {} \
     operations:\n{}", operations.len(), operations.join("\n")
)]
pub struct Diverged {
    /// Reproduces it.
    pub seed: u64,
    /// One node.
    pub one: usize,
    /// Another.
    pub other: usize,
    /// Its state.
    pub one_state: String,
    /// And the other's.
    pub other_state: String,
    /// The fewest operations found that it takes, with their nodes and times.
    pub operations: Vec<String>,
}

impl Cluster {
    /// So many nodes, with partitions, kills and slow links.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let faults = BTreeMap::from([(Kind::Partition, 4.0), (Kind::Kill, 2.0), (Kind::BadLink, 4.0)]);
        let options = Options {
            scenario: "cluster".to_owned(),
            nodes,
            datasets: 3,
            duration_s: 30,
            writes_per_second: 0.0,
            faults,
            ..Options::default()
        };
        Self { options, operations: 60 }
    }

    /// Operations of a run.
    #[must_use]
    pub fn operations(mut self, operations: usize) -> Self {
        self.operations = operations;
        self
    }

    /// Faults a minute, by kind.
    #[must_use]
    pub fn faults(mut self, faults: BTreeMap<Kind, f64>) -> Self {
        self.options.faults = faults;
        self
    }

    /// Runs these seeds.
    ///
    /// # Errors
    /// [`Diverged`], with as few operations as were found to be enough.
    pub fn check<A: Application>(&self, application: &A, seeds: RangeInclusive<u64>) -> Result<(), Box<Diverged>> {
        for seed in seeds {
            let script = self.script(application, seed);
            if let Some(found) = self.diverges(application, seed, &script) {
                return Err(Box::new(self.shrink(application, seed, script, found)));
            }
        }
        Ok(())
    }

    fn script<A: Application>(&self, application: &A, seed: u64) -> Vec<Scripted> {
        let mut rng = Rng::of(seed, "operations");
        let mut scripted: Vec<Scripted> = (0..self.operations)
            .map(|_| Scripted {
                at_ms: rng.within(500..self.options.duration_s * 1_000 - 1_000),
                node: rng.below(self.options.nodes),
                text: application.draw(&mut rng),
            })
            .collect();
        scripted.sort_by_key(|scripted| scripted.at_ms);
        scripted
    }

    fn diverges<A: Application>(&self, application: &A, seed: u64, script: &[Scripted]) -> Option<Diverged> {
        let options = Options { seed, ..self.options.clone() };
        let arrived = world::run_script(&options, script.to_vec());
        let mut states = Vec::new();
        for (node, records) in &arrived {
            let mut state = A::State::default();
            records.iter().for_each(|record| application.merge(&mut state, record));
            let mut all = records.clone();
            all.sort();
            states.push((*node, all, state));
        }
        let (one, records, state) = states.first()?;
        let other = states.iter().find(|(_, theirs, other)| theirs == records && other != state)?;
        Some(Diverged {
            seed,
            one: *one,
            other: other.0,
            one_state: format!("{state:?}"),
            other_state: format!("{:?}", other.2),
            operations: script.iter().map(ToString::to_string).collect(),
        })
    }

    /// Leaves out as many operations as can be.
    fn shrink<A: Application>(&self, application: &A, seed: u64, mut script: Vec<Scripted>, mut found: Diverged) -> Diverged {
        let mut size = script.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            let mut shrunk = false;
            while from < script.len() {
                let mut fewer = script.clone();
                fewer.drain(from..(from + size).min(script.len()));
                match self.diverges(application, seed, &fewer) {
                    Some(smaller) => (script, found, shrunk) = (fewer, smaller, true),
                    None => from += size,
                }
            }
            if size == 1 && !shrunk {
                break;
            }
            size = if size == 1 { 1 } else { size.div_ceil(2).max(1) };
        }
        found
    }
}
