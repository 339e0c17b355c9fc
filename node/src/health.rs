//! How the node is, in one word, and why it isn't better: judged by what is seen of it and by the thresholds of `[health]`.

use std::time::Duration;

use anabranch_actors::api::{DatasetSample, DatasetState, PeerSample};

use crate::config::HealthLimits;
use crate::seen::Seen;

/// How the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Nothing is wrong.
    Healthy,
    /// It serves, and something is wrong.
    Degraded,
    /// No dataset that is meant to run serves.
    Unhealthy,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The word that pages and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How the node is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In a word.
    pub condition: Condition,
    /// What is wrong, each thing in a sentence.
    pub why: Vec<String>,
    /// Datasets that are meant to run and don't serve.
    pub not_running: Vec<String>,
}

impl Health {
    /// Judges what is seen.
    #[must_use]
    pub(crate) fn of(seen: &Seen, limits: &HealthLimits) -> Self {
        // While collections are imported a dataset serves all that it has.
        let serves = |sample: &&DatasetSample| matches!(sample.info.state, DatasetState::Running | DatasetState::Importing);
        let (running, others): (Vec<_>, Vec<_>) = seen.datasets.iter().partition(serves);
        let mut why: Vec<String> = seen.datasets.iter().filter_map(out_of_order).collect();
        why.extend(seen.datasets.iter().flat_map(|sample| over_limits(seen, sample, limits)));
        why.extend(node_over_limits(seen, limits));
        let condition = match (running.is_empty(), why.is_empty()) {
            (true, _) if !others.is_empty() => Condition::Unhealthy,
            (_, true) => Condition::Healthy,
            (_, false) => Condition::Degraded,
        };
        Self { condition, why, not_running: others.iter().map(|sample| sample.info.dataset.to_string()).collect() }
    }
}

/// What a dataset says of itself.
fn out_of_order(sample: &DatasetSample) -> Option<String> {
    let info = &sample.info;
    let reason = info.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let wrong = info.state != DatasetState::Running || info.reason.is_some();
    wrong.then(|| format!("{} is {}{reason}", info.dataset, info.state.as_str()))
}

fn over_limits(seen: &Seen, sample: &DatasetSample, limits: &HealthLimits) -> Vec<String> {
    let info = &sample.info;
    let mut why: Vec<String> = far_apart(seen, sample, limits).into_iter().collect();
    let (aside, aside_max) = (info.set_aside.len() as u64, limits.set_aside_max);
    if aside > aside_max {
        why.push(format!(
            "{}: {aside} stores are set aside and wait to be looked at (health.set_aside_max is {aside_max})",
            info.dataset
        ));
    }
    let (restarts, restarts_max) = (sample.restarts_lately, limits.restarts_max);
    if restarts > restarts_max {
        why.push(format!(
            "{}: restarted {restarts} times within the last hour (health.restarts_max is {restarts_max})",
            info.dataset
        ));
    }
    why
}

/// The peer that is furthest apart, and how many others are too far.
fn far_apart(seen: &Seen, sample: &DatasetSample, limits: &HealthLimits) -> Option<String> {
    let dataset = &sample.info.dataset;
    let too_far = |peer: &&PeerSample| peer.standing.lag_commits > limits.lag_commits_max || peer.waited > limits.lag_time_max;
    let standings = sample.peers.iter().flat_map(|peers| seen.standings(dataset, peers));
    let far: Vec<_> = standings.filter(too_far).collect();
    let worst = far.iter().max_by_key(|peer| (peer.standing.lag_commits, peer.waited))?;
    let more = if far.len() > 1 { format!(", and {} more", far.len() - 1) } else { String::new() };
    let seconds = Duration::from_secs(worst.waited.as_secs());
    Some(format!(
        "{dataset}: peer {} has been apart for {}, by {} commits{more} (health.lag_time_max is {}, health.lag_commits_max is {})",
        worst.peer,
        humantime::format_duration(seconds),
        worst.standing.lag_commits,
        humantime::format_duration(limits.lag_time_max),
        limits.lag_commits_max,
    ))
}

fn node_over_limits(seen: &Seen, limits: &HealthLimits) -> Vec<String> {
    let mut why = Vec::new();
    if let Some(disk) = seen.disk.filter(|disk| disk.free < limits.disk_free_min) {
        let [free, least] = [disk.free, limits.disk_free_min].map(bytesize::ByteSize);
        why.push(format!("{free} are free on the disk of the data directory (health.disk_free_min is {least})"));
    }
    match seen.connected() {
        Some(connected) if (connected as u64) < limits.peers_min => {
            why.push(format!("{connected} peers are connected (health.peers_min is {})", limits.peers_min));
        }
        Some(_) => {}
        None => why.push("the node's peers are not known: it is busy and did not answer in time".to_owned()),
    }
    why
}

#[cfg(test)]
mod tests;
