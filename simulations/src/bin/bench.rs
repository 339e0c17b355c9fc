//! Runs the benchmarks. Build the node first, in release: `cargo build --release --bin anabranch`.

use std::time::Duration;

use anabranch_protocol::wire::Kind;
use anabranch_simulations::bench::{clients, many, scenarios};
use clap::{Parser, ValueEnum};

/// As the node has it, so that the bare loop is no slower for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of each kind, all clients together.
const LIVE_REQUESTS: usize = 16_000;

/// Measures real nodes on loopback beside a bare loop that writes the same frames and rows into sled.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything without one.
    scenarios: Vec<Scenario>,
    /// Documents or records.
    #[arg(long, default_value_t = 200_000)]
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Ingest of documents on one node.
    Ingest,
    /// Ingest of append records on one node.
    Append,
    /// Ingest until readable on a connected second node.
    Replicate,
    /// A second node that starts empty.
    CatchUp,
    /// One write every 20 ms, written to visible on the peer.
    Latency,
    /// PUT and GET by 1, 8 and 32 HTTP clients that keep their connections open.
    Live,
    /// PUT with ack=1, one every 20 ms.
    Ack,
    /// Two nodes in sync with 50 datasets that nobody writes to: processor and bytes.
    Idle,
    /// From the start of a node with 50 datasets of 10,000 documents until all serve.
    Start,
}

fn main() {
    let arguments = Arguments::parse();
    let all = Scenario::value_variants().to_vec();
    for scenario in if arguments.scenarios.is_empty() { all } else { arguments.scenarios } {
        match scenario {
            Scenario::Ingest => scenarios::ingest(Kind::Documents, arguments.count, 0.5),
            Scenario::Append => scenarios::ingest(Kind::Append, arguments.count, 0.4),
            Scenario::Replicate => scenarios::replicate(arguments.count, 0.35),
            Scenario::CatchUp => scenarios::catch_up(arguments.count, 0.4),
            Scenario::Latency => scenarios::latency(500),
            Scenario::Live => [1, 8, 32].into_iter().for_each(|clients| clients::live(clients, LIVE_REQUESTS / clients)),
            Scenario::Ack => clients::ack(500),
            Scenario::Idle => many::idle(Duration::from_secs(60)),
            Scenario::Start => many::start(10_000),
        }
    }
}
