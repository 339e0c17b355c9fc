//! The binary `anabranch`.

use std::process::ExitCode;
use std::sync::Arc;

use anabranch_actors::node::DISK_PATIENCE;
use anabranch_actors::store::SledEngine;
use anabranch_node::builder::SystemClock;
use anabranch_node::run::World;

/// A write allocates and frees some dozens of pages and messages on several threads: with glibc's allocator that was a third of
/// its time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anabranch_node::cli::main(World {
        engine: Arc::new(SledEngine::default()),
        clock: Arc::new(SystemClock),
        disk_patience: DISK_PATIENCE,
        probe: None,
    })
}
