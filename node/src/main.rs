//! The binary `anabranch`.

use std::process::ExitCode;
use std::sync::Arc;

use anabranch_actors::node::DISK_PATIENCE;
use anabranch_actors::store::SledEngine;
use anabranch_node::builder::SystemClock;
use anabranch_node::run::World;

fn main() -> ExitCode {
    anabranch_node::cli::main(World {
        engine: Arc::new(SledEngine::default()),
        clock: Arc::new(SystemClock),
        disk_patience: DISK_PATIENCE,
        probe: None,
    })
}
