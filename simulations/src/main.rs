//! Runs simulations.

use std::process::ExitCode;

use anabranch_simulations::cli;
use clap::Parser as _;

/// Small objects by the million: as the node has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main(cli::Arguments::parse())
}
