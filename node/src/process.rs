//! What makes a node a process: its data directory, identity, logs, startup printout and signals.

pub mod data_dir;
pub mod definitions;
#[cfg(feature = "cli")]
pub mod greeting;
pub mod identity;
pub mod incarnation;
#[cfg(feature = "cli")]
pub mod logging;
#[cfg(feature = "cli")]
pub mod signals;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use identity::fuzz as fuzz_identity;

use std::process::ExitCode;

/// Why the process ends with something else than success; each kind has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad arguments or configuration: nothing was started. Exit 2.
    #[error("{0}")]
    Usage(String),
    /// Another process holds the data directory. Exit 3.
    #[error("{0}")]
    InUse(String),
    /// Anything else, a port in use, say. Exit 1.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// A failure of the world, with what was being done.
    pub fn other(doing: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Other(format!("{doing}: {error}"))
    }

    /// The exit code scripts rely on.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::InUse(_) => ExitCode::from(3),
            Self::Other(_) => ExitCode::from(1),
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::Usage(error.0)
    }
}
