//! Runs simulations.

use std::process::ExitCode;

use anabranch_simulations::scale::{self, ScaleArgs};
use clap::{Parser, Subcommand};

/// Small objects by the million: as the node has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates many nodes on one machine, under virtual time, from one seed.
#[derive(Debug, Parser)]
#[command(name = "anabranch-simulations")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures how time, messages and bytes grow as the number of nodes doubles.
    Scale(ScaleArgs),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Scale(arguments) => scale::main(arguments),
    }
}
