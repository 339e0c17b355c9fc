//! How the protocol scales: its pure rules, without actors, for so many nodes as one machine holds in memory.
//!
//! A discrete-event simulation ([`measure()`]): virtual time, one random sequence, ordered collections only, so that one seed gives one
//! trace. What a node does is what the shipped actors do (`dataset`, `node`), with the protocol's own replicas, vectors, plans,
//! rounds and messages, whose bytes are those of the real encodings. `docs/simulation.md` has the results and what they mean.

mod dataset;
mod graph;
mod measure;
mod message;
mod node;
mod node_set;
mod outside;
mod plot;
mod queue;
mod report;
mod traffic;
mod weights;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

pub use self::measure::{Convergence, Measured, SETTLING, Settings, measure};
pub use self::message::Kind;
pub use self::outside::Rules;
pub use self::traffic::PerNode;
pub use self::weights::{Weights, weigh};

use self::report::Report;

/// The smallest network that is measured.
const NODES_MIN: u32 = 8;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct ScaleArgs {
    /// The number of nodes doubles from 8 up to this.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(2..=8_192))]
    pub nodes_max: u32,
    /// Datasets that every node has; every third holds records, the others documents.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub datasets: u32,
    /// Where the random sequence begins: the same seed gives the same trace.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Neighbours of each node, an even number.
    #[arg(long, default_value_t = 8, value_parser = even_degree)]
    pub degree: u32,
    /// Writes `scale.html` and `scale.json` there.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

fn even_degree(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(degree) if (2..=12).contains(&degree) && degree % 2 == 0 => Ok(degree),
        _ => Err("use an even number from 2 to 12: the mesh of gossip has room for 12".to_owned()),
    }
}

/// Measures, prints tables, writes the report. Fails where some size did not converge or nodes were not equal in the end.
#[must_use]
pub fn main(arguments: ScaleArgs) -> ExitCode {
    let ScaleArgs { nodes_max, datasets, seed, degree, report } = arguments;
    let command = format!(
        "cargo run --release -p anabranch-simulations -- scale --nodes-max {nodes_max} --datasets {datasets} --seed {seed} --degree {degree}"
    );
    println!("seed {seed}: {command}");
    let first = nodes_max.min(NODES_MIN);
    let doubled = std::iter::successors(Some(first), |nodes| Some(nodes * 2)).take_while(|nodes| *nodes <= nodes_max);
    let mut sizes = Vec::new();
    for nodes in doubled {
        let size = measure(&Settings::of(nodes, degree, datasets, seed));
        println!("{nodes} nodes: {} events in {:.1} s, trace: {}", size.events, size.took_s, size.trace);
        sizes.push(size);
    }
    let weights = sizes.iter().map(|size| weigh(size.nodes, datasets)).collect();
    let whole = Report { command, seed, degree, datasets, sizes, weights };
    println!("\n{}", whole.text());
    if let Some(Err(error)) = report.as_ref().map(|directory| whole.write(directory)) {
        eprintln!("the report could not be written: {error}");
        return ExitCode::from(2);
    }
    if whole.sizes.iter().all(Measured::converged) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
