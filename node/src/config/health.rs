//! `[health]`: past what the node calls itself degraded.

use std::time::Duration;

use super::page::HealthPage;
use super::{ConfigError, check_range};

/// Past what the node calls itself degraded. What a dataset itself says is wrong always counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthLimits {
    /// Commits that a peer and this node may be apart in one dataset.
    pub lag_commits_max: u64,
    /// For how long they may; 1 s to 30 days.
    pub lag_time_max: Duration,
    /// Least room on the disk of the data directory, bytes; 0 looks at none.
    pub disk_free_min: u64,
    /// Restarts of one dataset within an hour.
    pub restarts_max: u64,
    /// Damaged stores of one dataset that are set aside.
    pub set_aside_max: u64,
    /// Least peers connected.
    pub peers_min: u64,
}

const LAG_TIME_MIN: Duration = Duration::from_secs(1);
const LAG_TIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            lag_commits_max: 100_000,
            lag_time_max: Duration::from_secs(15 * 60),
            disk_free_min: 256 << 20,
            restarts_max: 3,
            set_aside_max: 0,
            peers_min: 0,
        }
    }
}

/// Judges `[health]`. `connections_max` is what `[limits]` allows.
pub fn health(page: &HealthPage, connections_max: u32) -> Result<HealthLimits, ConfigError> {
    check_range("health.lag_time_max", page.lag_time_max, LAG_TIME_MIN, LAG_TIME_MAX)?;
    if page.peers_min > u64::from(connections_max) {
        return Err(ConfigError(format!(
            "`health.peers_min` ({}) is more than `limits.connections_max` ({connections_max}): the node would be degraded for ever",
            page.peers_min
        )));
    }
    Ok(HealthLimits {
        lag_commits_max: page.lag_commits_max,
        lag_time_max: page.lag_time_max,
        disk_free_min: page.disk_free_min.0,
        restarts_max: page.restarts_max,
        set_aside_max: page.set_aside_max,
        peers_min: page.peers_min,
    })
}
