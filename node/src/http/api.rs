//! What every handler needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch_actors::node::{Clock, NodeHandle};
use anabranch_protocol::id::{DatasetId, Key};
use anabranch_protocol::replica::{WriteRequest, Written};
use anabranch_protocol::wire::Kind;
use tokio::sync::watch;

use super::body::BodyBudget;
use super::problem::Problem;
use crate::config::HealthLimits;
use crate::disk::Disk;
use crate::hosting::Hosting;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::node::NodePage;
use crate::seen::Seen;

/// The node as HTTP sees it.
#[derive(Clone)]
pub struct Api {
    /// Answers.
    pub node: NodeHandle,
    /// Dials and knows addresses.
    pub network: Arc<dyn Network>,
    /// Tells the time; keys chosen here sort by it.
    pub clock: Arc<dyn Clock>,
    /// Creates and deletes datasets.
    pub hosting: Hosting,
    /// Where HTTP really listens.
    pub addr: SocketAddr,
    /// What `Authorization: Bearer` must hold, where a token is set.
    pub token: Option<String>,
    /// Absolute.
    pub data_dir: PathBuf,
    /// What the bodies of all requests may take together.
    pub bodies: BodyBudget,
    /// Past what the node calls itself degraded.
    pub health: HealthLimits,
    /// Room on the disk of the data directory.
    pub(crate) disk: Disk,
    /// What is counted of HTTP, and what was last seen of the rest.
    pub metrics: Arc<Metrics>,
    /// When the node was started.
    pub started: Instant,
    /// Turns true when the node is told to stop: streams end then instead of holding the stop up.
    pub stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Api {
    /// The body of `GET /v1/node`.
    #[must_use]
    pub fn node_page(&self) -> NodePage {
        NodePage::of(&self.node, &*self.network, Some(self.addr.to_string()), &self.data_dir, self.started)
    }

    /// What is seen of the node now.
    pub(crate) async fn see(&self, patience: Duration) -> Seen {
        Seen::look(&self.node, &self.disk, patience).await
    }

    /// What a dataset of this node holds.
    pub(super) fn kind(&self, dataset: &DatasetId) -> Result<Kind, Problem> {
        self.node.kind(dataset).ok_or_else(|| Problem::unknown_dataset(dataset.as_str()))
    }

    pub(super) async fn write(&self, dataset: &DatasetId, request: WriteRequest) -> Result<Written, Problem> {
        self.node.write(dataset, request).await.map_err(|error| Problem::of_write(&error, dataset))
    }

    /// A key for a document whose client left the choice to the node: it sorts by time and does not repeat.
    pub(super) fn new_key(&self) -> Key {
        let (high, low): (u16, u64) = (rand::random(), rand::random());
        let millis = self.clock.now().0 & ((1 << 48) - 1);
        Key::new(&format!("{millis:012x}{high:04x}{low:016x}")).expect("32 hex digits are a key")
    }
}
