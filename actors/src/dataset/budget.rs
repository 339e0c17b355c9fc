//! How often a dataset may be rebuilt, and how long it waits each time. Supervisors come and go, their budget stays.

use std::collections::VecDeque;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::api::DatasetState;

/// Restarts within [`BUDGET_WINDOW`] before the dataset counts as failed.
const RESTARTS_MAX: usize = 10;
/// Over which the budget of restarts counts.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
/// How often a failed dataset is tried again.
pub(super) const FAILED_RETRY: Duration = Duration::from_secs(30);

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Budget {
    recent: VecDeque<Instant>,
    backoff: ExponentialBackoff,
}

impl Default for Budget {
    fn default() -> Self {
        Self { recent: VecDeque::new(), backoff: backoff() }
    }
}

impl Budget {
    /// Counts a restart: what to call the dataset until then, and how long it waits.
    pub fn spend(&mut self, now: Instant) -> (DatasetState, Duration) {
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| now.duration_since(*at) > BUDGET_WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() == 1 {
            self.backoff = backoff();
        }
        if self.recent.len() > RESTARTS_MAX {
            return (DatasetState::Failed, FAILED_RETRY);
        }
        (DatasetState::Restarting, self.backoff.next().unwrap_or(FAILED_RETRY))
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_budget_it_is_failed_and_tried_slowly_until_the_window_is_over() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for _ in 0..RESTARTS_MAX {
            let (state, delay) = budget.spend(start);
            assert_eq!(state, DatasetState::Restarting);
            assert!(delay <= Duration::from_secs(10), "{delay:?}");
        }
        assert_eq!(budget.spend(start), (DatasetState::Failed, FAILED_RETRY));
        let later = start + BUDGET_WINDOW + Duration::from_secs(1);
        let (state, delay) = budget.spend(later);
        assert!(state == DatasetState::Restarting && delay < Duration::from_millis(100), "{state:?} {delay:?}");
    }
}
