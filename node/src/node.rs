//! A node that runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anabranch_actors::node::NodeHandle;
use anabranch_actors::typed::Dataset;
use anabranch_protocol::id::{DatasetId, NameError};
use libp2p::Multiaddr;
use serde::Serialize;

use crate::builder::NodeBuilder;
use crate::config::{Config, multiaddr};
use crate::hosting::Hosting;
#[cfg(feature = "http")]
use crate::http::Served;
use crate::network::Network;
use crate::process::data_dir::DataDir;

/// A node that runs. It holds its data directory until it is dropped; [`Node::stop`] stops it cleanly.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) handle: NodeHandle,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) hosting: Hosting,
    pub(crate) data_dir: DataDir,
    pub(crate) started: Instant,
    #[cfg(feature = "http")]
    pub(crate) http: Option<Served>,
}

impl Node {
    /// A node that is about to start, with the defaults of an application that embeds it: see [`NodeBuilder`].
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// What it runs with: the configuration, and the datasets that were created at run time before it started.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the node can be asked, and the actors behind it. Cheap to clone, and to send to other threads.
    #[must_use]
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// A dataset, with an application's own types. Whether the node has it shows with the first use.
    ///
    /// # Errors
    /// [`NameError`] where no dataset can have that name.
    pub fn dataset(&self, name: &str) -> Result<Dataset, NameError> {
        Ok(Dataset::new(self.handle.clone(), DatasetId::new(name)?))
    }

    /// Creates and deletes datasets while the node runs.
    #[must_use]
    pub fn hosting(&self) -> &Hosting {
        &self.hosting
    }

    /// Dials a peer and keeps redialing it. Returns at once.
    ///
    /// # Errors
    /// What is wrong with the address, in words.
    pub fn dial(&self, address: &str) -> Result<(), String> {
        let address: Multiaddr = multiaddr(address)?;
        self.network.dial(&address)
    }

    /// Who the node is and where it listens: the body of `GET /v1/node`.
    #[must_use]
    pub fn page(&self) -> NodePage {
        #[cfg(feature = "http")]
        let http = self.http.as_ref().map(|http| http.addr().to_string());
        #[cfg(not(feature = "http"))]
        let http = None;
        NodePage::of(&self.handle, &*self.network, http, self.data_dir.path(), self.started)
    }

    /// Stops cleanly: requests under way are answered, commits in flight finish, stores and connections close.
    pub async fn stop(self) {
        #[cfg(feature = "http")]
        if let Some(http) = self.http {
            http.stop().await;
        }
        self.handle.stop().await;
        self.network.shutdown().await;
    }
}

/// Who the node is and where it listens.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct NodePage {
    pub peer_id: String,
    pub version: &'static str,
    /// Multiaddrs to paste, each ending in `/p2p/<peer id>`.
    pub listen: Vec<String>,
    /// `host:port`, where it serves HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    pub data_dir: String,
    pub uptime_seconds: u64,
}

impl NodePage {
    pub(crate) fn of(node: &NodeHandle, network: &dyn Network, http: Option<String>, data_dir: &Path, started: Instant) -> Self {
        Self {
            peer_id: node.peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            listen: network.listen_addresses(),
            http,
            data_dir: data_dir.display().to_string(),
            uptime_seconds: started.elapsed().as_secs(),
        }
    }
}
