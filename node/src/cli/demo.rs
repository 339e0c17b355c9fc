//! `anabranch demo`

use std::path::PathBuf;

use clap::Args;

use crate::demo::{DemoOptions, demo as live};
use crate::process::Failure;
use crate::run::World;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch demo                       on ports 7070, 7071 and 7072
  anabranch demo --port 0              on free ports
  anabranch demo --data-dir ./demo     keeps the data for the next demo

Ctrl-C stops all three nodes.")]
pub struct DemoArgs {
    /// Where the nodes keep their data [default: a temporary directory that goes with the demo].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// HTTP port of the first node, the others take the next ones; 0 takes free ones.
    #[arg(long, default_value_t = 7070)]
    port: u16,
    /// What to log, such as `info`.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

pub fn demo(args: &DemoArgs, world: &World) -> Result<(), Failure> {
    live(&DemoOptions { data_dir: args.data_dir.clone(), port: args.port, log_filter: args.log.clone() }, world)
}
