//! Logs go to standard error through `tracing`, so that standard output stays the startup printout.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::Failure;

/// What is logged where `--log` is not given: what this node has to say, and of its libraries only what went wrong.
pub const FILTER_DEFAULT: &str = "info,actix_server=warn,libp2p_swarm=warn";

/// How a line of log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. A second call in one process changes nothing.
///
/// # Errors
/// [`Failure::Usage`] for a filter that is not one.
pub fn start(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::Usage(format!("--log {filter:?}: {error}: write it like `info` or `warn,anabranch_node=debug`"))
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Where standard error is a file on a full disk, saying so there would panic, on the thread of whoever logs.
    let logs = logs.log_internal_errors(false);
    // On a terminal, unless NO_COLOR says otherwise.
    let ansi = console::colors_enabled_stderr();
    // Embedders may have their own subscriber already; theirs stays.
    let _ = match format {
        LogFormat::Text => logs.with_ansi(ansi).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    Ok(())
}
