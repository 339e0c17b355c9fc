//! `GET /metrics`: what is seen of the node, as Prometheus text.
//!
//! Nothing is counted twice: the actors and the swarm count for themselves, and each scrape reads what they hold. Only HTTP is counted
//! here. What a dataset holds has to be asked for; where it does not answer in time, what it last answered is shown.

mod datasets;
mod http;
mod last;
mod node;
mod page;
mod peers;
pub mod series;

use std::time::Duration;

pub use http::{HttpCounts, InFlight};

use crate::health::Health;
use crate::http::Api;
use last::Last;
use page::Page;

/// How long a scrape waits for datasets; twice at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is kept between scrapes.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests answered.
    pub http: HttpCounts,
    last: Last,
}

impl Metrics {
    /// The page as it is now.
    ///
    /// # Errors
    /// When the text can't be made; our own mistake.
    pub async fn page(&self, api: &Api) -> Result<String, prometheus::Error> {
        let mut seen = api.see(PATIENCE).await;
        let health = Health::of(&seen, &api.health);
        // Health is judged by what was answered now; the numbers may be older.
        let answered = self.last.fill_in(&mut seen);
        let mut page = Page::default();
        node::add(&mut page, api, &seen, &health);
        datasets::add(&mut page, &seen, &answered);
        peers::add(&mut page, &seen, &api.network.peers());
        self.http.add(&mut page);
        page.text()
    }
}

#[cfg(test)]
mod tests;
