//! The command line of the simulator.

mod campaign;
mod list;
mod run;
mod seeds;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::scale::{self, ScaleArgs};

pub use self::seeds::Seeds;

/// Simulates whole networks of Anabranch nodes on one machine, under virtual time, from one seed.
#[derive(Debug, Parser)]
#[command(name = "anabranch-simulations", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario: nodes, writes and faults, and checks every guarantee.
    ///
    /// Exits with 0 where all held, 1 where an invariant was broken, 2 for bad arguments.
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Lists scenarios, faults and invariants.
    List,
    /// Measures how time, messages and bytes grow as the number of nodes doubles.
    Scale(ScaleArgs),
    /// Runs as many seeds of all scenarios as fit into a time; goes on where it stopped.
    Campaign(campaign::CampaignArgs),
}

/// Runs what the arguments say.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Scale(arguments) => return scale::main(arguments),
        Command::Run(arguments) => run::main(&arguments),
        Command::List => {
            list::main();
            Ok(true)
        }
        Command::Campaign(arguments) => campaign::main(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(wrong) => {
            eprintln!("error: {wrong}");
            ExitCode::from(2)
        }
    }
}
