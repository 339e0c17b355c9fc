//! `[limits]`: what peers may take of the node.

use std::num::NonZeroU32;
use std::time::Duration;

use super::page::LimitsPage;
use super::{ConfigError, check_range};
use crate::swarm::SwarmLimits;

const CONNECTIONS_MAX: u32 = 65_536;
const CONNECTIONS_PER_PEER_MAX: u32 = 64;
const RATE_MAX: u32 = 1_000_000;
const MEMORY_MIN: bytesize::ByteSize = bytesize::ByteSize::mib(64);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);

/// Judges `[limits]`.
pub fn limits(page: &LimitsPage) -> Result<SwarmLimits, ConfigError> {
    check_range("limits.request_timeout", page.request_timeout, TIMEOUT_MIN, TIMEOUT_MAX)?;
    check_range("limits.transfer_timeout", page.transfer_timeout, TIMEOUT_MIN, TIMEOUT_MAX)?;
    check_range("limits.shut_out_time", page.shut_out_time, TIMEOUT_MIN, TIMEOUT_MAX * 6)?;
    let memory_max = page.memory_max.map(|size| {
        let bytes = usize::try_from(size.0).ok().filter(|_| size >= MEMORY_MIN);
        bytes.ok_or_else(|| ConfigError(format!("`limits.memory_max` is {size}: use {MEMORY_MIN} or more")))
    });
    Ok(SwarmLimits {
        connections_max: count("connections_max", page.connections_max, CONNECTIONS_MAX)?.get(),
        connections_per_peer_max: count("connections_per_peer_max", page.connections_per_peer_max, CONNECTIONS_PER_PEER_MAX)?
            .get(),
        hello_rate_max: count("hello_rate_max", page.hello_rate_max, RATE_MAX)?,
        hello_burst_max: count("hello_burst_max", page.hello_burst_max, RATE_MAX)?,
        request_rate_max: count("request_rate_max", page.request_rate_max, RATE_MAX)?,
        announce_rate_max: count("announce_rate_max", page.announce_rate_max, RATE_MAX)?,
        request_timeout: page.request_timeout,
        bulk_timeout: page.transfer_timeout,
        refused_for: page.shut_out_time,
        memory_max: memory_max.transpose()?,
        ..SwarmLimits::default()
    })
}

fn count(key: &str, value: u32, most: u32) -> Result<NonZeroU32, ConfigError> {
    let refused = || ConfigError(format!("`limits.{key}` is {value}: use 1 to {most}"));
    NonZeroU32::new(value).filter(|value| value.get() <= most).ok_or_else(refused)
}
