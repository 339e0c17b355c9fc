//! `anabranch run`: a node as a process, from its flags to its exit code.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch_actors::node::Clock;
use anabranch_actors::probe::Probe;
use anabranch_actors::store::StoreEngine;

use crate::builder::NodeBuilder;
use crate::config::Overrides;
use crate::node::Node;
use crate::process::data_dir::write_whole;
use crate::process::logging::{self, LogFormat};
use crate::process::signals::StopSignals;
use crate::process::{Failure, greeting};

/// The ready file is written by then, also when a dataset takes longer to open.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// What a process takes from its surroundings; tests bring an engine that fails and a clock that is wrong.
#[derive(Debug, Clone)]
pub struct World {
    /// Opens stores.
    pub engine: Arc<dyn StoreEngine>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long a call to the disk may take until its dataset is given up.
    pub disk_patience: Duration,
    /// Looks in where actors start, work and end; the shipped program has none.
    pub probe: Option<Arc<dyn Probe>>,
}

/// What `run` is asked to do.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub config_file: Option<PathBuf>,
    pub overrides: Overrides,
    pub ready_file: Option<PathBuf>,
    pub log_filter: String,
    pub log_format: LogFormat,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// Why it could not start; its kind decides the exit code.
pub fn run(options: &RunOptions, world: World) -> Result<(), Failure> {
    logging::start(&options.log_filter, options.log_format)?;
    actix::System::new().block_on(live(options, world))
}

async fn live(options: &RunOptions, world: World) -> Result<(), Failure> {
    // Before anything is started, so that no signal finds it half started.
    let mut signals = StopSignals::listen()?;
    let node = NodeBuilder::of_process(options.config_file.clone(), options.overrides.clone())
        .engine(world.engine)
        .clock(world.clock)
        .disk_patience(world.disk_patience)
        .probe(world.probe)
        .start()
        .await?;
    say_hello(&node);
    let signal = tokio::select! {
        biased;
        signal = signals.first() => signal,
        failure = become_ready(&node, options.ready_file.as_deref()) => {
            if let Err(failure) = failure {
                node.stop().await;
                return Err(failure);
            }
            signals.first().await
        }
    };
    tracing::info!(signal, "stopping");
    tokio::select! {
        () = node.stop() => {}
        () = signals.abort_on_second() => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens every dataset and then writes the ready file.
async fn become_ready(node: &Node, ready_file: Option<&Path>) -> Result<(), Failure> {
    let late = tokio::time::timeout(READY_WITHIN, node.handle().open_all()).await.is_err();
    if late {
        tracing::warn!("a dataset is still opening after {READY_WITHIN:?}; requests to it wait");
    }
    if let Some(path) = ready_file {
        let page = serde_json::to_vec(&node.page()).expect("texts and numbers are JSON");
        write_whole(path, &page).map_err(|error| Failure::other(format!("can't write {}", path.display()), error))?;
    }
    Ok(())
}

fn say_hello(node: &Node) {
    let program = std::env::args().next().unwrap_or_else(|| "anabranch".to_owned());
    let text = greeting::text(node.config(), &node.page(), &program);
    // Who started the node may have closed its standard output; the node runs all the same.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
