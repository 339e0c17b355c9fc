//! Starts a whole node (data directory, network, actors, HTTP) inside a running actix system. `anabranch run` does it through
//! this; so can an application that embeds a node, with its own store engine or clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::dev::ServerHandle;
use anabranch_actors::node::{Clock, DISK_PATIENCE, NodeHandle, NodeSettings};
use anabranch_actors::probe::Probe;
use anabranch_actors::store::StoreEngine;
use anabranch_actors::transport::TransportEvent;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::PeerId;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::hosting::Hosting;
use crate::http::{self, Api, BodyBudget, NodePage};
use crate::joining;
use crate::network::Network;
use crate::peering::Peering;
use crate::process::Failure;
use crate::process::data_dir::DataDir;
use crate::process::definitions::Definitions;
use crate::process::identity::NodeKey;
use crate::process::incarnation;
use crate::swarm::{self, SwarmConfig};

/// Events of the network that wait for the node; while they fill this the network stops reading.
const EVENTS_MAX: usize = 256;
/// File of a data directory that remembers accepted peers.
pub(crate) const ADDRESS_BOOK_FILE: &str = "peers.json";

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> WallClock {
        // A clock before 1970 is broken; the hybrid clock then goes on from its last reading.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallClock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A node that is about to start.
#[derive(Debug, Clone)]
pub struct NodeBuilder {
    config: Config,
    engine: Arc<dyn StoreEngine>,
    clock: Arc<dyn Clock>,
    disk_patience: Duration,
    probe: Option<Arc<dyn Probe>>,
}

impl NodeBuilder {
    /// A node as `config` says, whose stores `engine` opens, on the system's clock.
    #[must_use]
    pub fn new(config: Config, engine: Arc<dyn StoreEngine>) -> Self {
        Self { config, engine, clock: Arc::new(SystemClock), disk_patience: DISK_PATIENCE, probe: None }
    }

    /// Another clock.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Another patience with a disk that hangs than [`DISK_PATIENCE`].
    #[must_use]
    pub fn disk_patience(self, disk_patience: Duration) -> Self {
        Self { disk_patience, ..self }
    }

    /// Looks in where actors start, work and end; for tests.
    #[must_use]
    pub fn probe(self, probe: Option<Arc<dyn Probe>>) -> Self {
        Self { probe, ..self }
    }

    /// Starts the node. It answers HTTP and peers when this returns; datasets may still be opening, and requests to them wait.
    ///
    /// # Errors
    /// [`Failure::InUse`] if another process holds the data directory, otherwise [`Failure::Other`]. What was started is stopped.
    pub async fn start(self) -> Result<RunningNode, Failure> {
        let Self { mut config, engine, clock, disk_patience, probe } = self;
        let join = config.join.take();
        if let Some(invite) = &join {
            joining::check_time(invite, &config.data_dir, clock.now())?;
        }
        let data_dir = DataDir::open(&config.data_dir)?;
        let hosting = Definitions::in_data_dir(data_dir.path())
            .and_then(|definitions| Hosting::start(definitions, &mut config))
            .map_err(|error| Failure::other("can't read what datasets there are", error))?;
        for (dataset, disabled) in &config.disabled {
            tracing::warn!(%dataset, reason = disabled.reason, "the dataset does not run");
        }
        let key = NodeKey::in_dir(data_dir.path())?;
        if let Some(invite) = &join {
            joining::join(invite, key.identity().peer(), data_dir.path(), &mut config)?;
        }
        let peering = Peering::start(data_dir.path())?;
        let incarnation = incarnation::of_dir(data_dir.path())?;
        let listener = http::bind(config.http.addr)
            .map_err(|error| Failure::other(format!("can't serve HTTP on {}", config.http.addr), error))?;
        let addr = listener.local_addr().map_err(|error| Failure::other("can't tell the HTTP address", error))?;

        let (events, received) = mpsc::channel(EVENTS_MAX);
        let network = start_network(&config, &key, &data_dir, peering.disabled(), events).await?;
        let settings = NodeSettings {
            identity: key.identity(),
            incarnation,
            data_dir: data_dir.path().to_owned(),
            cache_bytes: config.cache_bytes,
            max_clock_skew: config.max_clock_skew,
            access: config.access.clone(),
            datasets: config.datasets.clone(),
            disabled: config.disabled.clone(),
            engine,
            clock: Arc::clone(&clock),
            disk_patience,
            probe,
        };
        let node = NodeHandle::start(settings, network.transport(), received);
        let (stop, stopping) = watch::channel(false);
        let api = Api {
            node,
            network,
            network_keys: config.access.network_keys.clone(),
            clock,
            hosting,
            peering,
            addr,
            token: config.http.token.clone(),
            data_dir: data_dir.path().to_owned(),
            started: Instant::now(),
            bodies: BodyBudget::default(),
            stopping,
        };
        let http = http::serve(listener, api.clone()).map_err(|error| Failure::other("can't serve HTTP", error))?;
        Ok(RunningNode { config, api, http, stop, _data_dir: data_dir })
    }
}

async fn start_network(
    config: &Config,
    key: &NodeKey,
    data_dir: &DataDir,
    disabled: BTreeSet<PeerId>,
    events: mpsc::Sender<TransportEvent>,
) -> Result<Arc<dyn Network>, Failure> {
    let mut swarm = SwarmConfig::new(key.keypair(), data_dir.path().join(ADDRESS_BOOK_FILE));
    swarm.listen.clone_from(&config.listen);
    swarm.peers.clone_from(&config.peers);
    swarm.network_keys = config.access.network_keys.clone();
    swarm.allow = config.access.allow.clone();
    swarm.limits = config.limits.clone();
    swarm.mdns = config.mdns;
    swarm.deny = config.access.deny.iter().copied().collect();
    swarm.disabled = disabled;
    match swarm::start(swarm, events).await {
        Ok(swarm) => Ok(Arc::new(swarm)),
        Err(error) => Err(Failure::other("can't start the network", error)),
    }
}

/// A node that runs. It holds its data directory until it is dropped.
#[derive(Debug)]
pub struct RunningNode {
    config: Config,
    api: Api,
    http: ServerHandle,
    stop: watch::Sender<bool>,
    _data_dir: DataDir,
}

impl RunningNode {
    /// What it runs with: the configuration, and the datasets that were created at run time before it started.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the node can be asked.
    #[must_use]
    pub fn handle(&self) -> &NodeHandle {
        &self.api.node
    }

    /// Who the node is and where it listens: the body of `GET /v1/node`.
    #[must_use]
    pub fn page(&self) -> NodePage {
        self.api.node_page()
    }

    /// Stops cleanly: requests under way are answered, commits in flight finish, stores and connections close.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.http.stop(true).await;
        self.api.node.stop().await;
        self.api.network.shutdown().await;
    }
}
