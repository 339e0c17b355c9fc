//! Starts a whole node (data directory, network, actors, HTTP) inside a running actix system. `anabranch run` does it through
//! this; so does an application that embeds a node, with its own store engine or clock if it likes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anabranch_actors::node::{Clock, DISK_PATIENCE, NodeHandle, NodeSettings};
use anabranch_actors::probe::Probe;
use anabranch_actors::store::{SledEngine, StoreEngine};
use anabranch_actors::transport::TransportEvent;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::PeerId;
use anabranch_protocol::invite::Invite;
use tokio::sync::mpsc;

use crate::config::{Config, ConfigError, DatasetFlag, Overrides};
#[cfg(feature = "http")]
use crate::disk::Disk;
use crate::hosting::Hosting;
#[cfg(feature = "http")]
use crate::http::{self, Api, BodyBudget};
use crate::joining;
use crate::network::Network;
use crate::node::Node;
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
///
/// Nothing is read but what is named here and what the node keeps in its data directory: no environment, no configuration file. Without a word it keeps its data in `./anabranch-data`,
/// listens on port 4001 of 127.0.0.1, runs the dataset `primary` with every collection, and serves no HTTP.
#[derive(Debug, Clone)]
pub struct NodeBuilder {
    file: Option<PathBuf>,
    said: Overrides,
    /// As they were said; judged at the start.
    datasets: Vec<String>,
    #[cfg(feature = "cli")]
    with_environment: bool,
    #[cfg(feature = "http")]
    serve_http: bool,
    engine: Arc<dyn StoreEngine>,
    clock: Arc<dyn Clock>,
    disk_patience: Duration,
    probe: Option<Arc<dyn Probe>>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            file: None,
            said: Overrides::default(),
            datasets: Vec::new(),
            #[cfg(feature = "cli")]
            with_environment: false,
            #[cfg(feature = "http")]
            serve_http: false,
            engine: Arc::new(SledEngine::default()),
            clock: Arc::new(SystemClock),
            disk_patience: DISK_PATIENCE,
            probe: None,
        }
    }
}

impl NodeBuilder {
    /// What `anabranch run` starts: the environment counts, and HTTP is served.
    #[cfg(feature = "cli")]
    pub(crate) fn of_process(file: Option<PathBuf>, said: Overrides) -> Self {
        Self { file, said, with_environment: true, serve_http: true, ..Self::default() }
    }

    /// What `anabranch demo` starts: HTTP is served, and a variable that is meant for the user's node counts for none of its nodes.
    #[cfg(feature = "cli")]
    pub(crate) fn of_demo(said: Overrides) -> Self {
        Self { said, serve_http: true, ..Self::default() }
    }

    /// A configuration file (TOML, as of `anabranch run --config`); everything else that is said here goes over it. Its `[http]`
    /// counts once [`NodeBuilder::http`] says that HTTP is served.
    #[must_use]
    pub fn config_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Where everything of the node is kept.
    #[must_use]
    pub fn data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.said.data_dir = Some(data_dir.into());
        self
    }

    /// A dataset, as `anabranch run --dataset` takes it: `NAME[:KIND][=COLLECTION,…]`, such as `primary=orders` or
    /// `logs:append=*`. Where any is named, exactly the named ones run.
    #[must_use]
    pub fn dataset(mut self, dataset: impl Into<String>) -> Self {
        self.datasets.push(dataset.into());
        self
    }

    /// A multiaddr to listen on for peers; port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.said.listen.push(address.into());
        self
    }

    /// A multiaddr of a peer to keep in sync with.
    #[must_use]
    pub fn peer(mut self, address: impl Into<String>) -> Self {
        self.said.peers.push(address.into());
        self
    }

    /// A file with the key of the private network.
    #[must_use]
    pub fn network_key_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.said.network_keys.push(file.into());
        self
    }

    /// Joins the node that made an invite: its network key and address are kept in the data directory, so that later starts
    /// need none.
    #[must_use]
    pub fn join(mut self, invite: Invite) -> Self {
        self.said.join = Some(invite);
        self
    }

    /// Serves the HTTP API on an address, such as `127.0.0.1:0`.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http(mut self, addr: impl Into<String>) -> Self {
        self.serve_http = true;
        self.said.http = Some(addr.into());
        self
    }

    /// Another store engine than sled.
    #[must_use]
    pub fn engine(self, engine: Arc<dyn StoreEngine>) -> Self {
        Self { engine, ..self }
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

    /// Starts the node. It answers peers (and HTTP) when this returns; datasets may still be opening, and requests to them wait.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what can't be configured so, [`Failure::InUse`] if another process holds the data directory,
    /// otherwise [`Failure::Other`]. What was started is stopped.
    pub async fn start(self) -> Result<Node, Failure> {
        let mut config = self.config()?;
        let join = config.join.take();
        if let Some(invite) = &join {
            joining::check_time(invite, &config.data_dir, self.clock.now())?;
        }
        let data_dir = DataDir::open(&config.data_dir)?;
        let hosting = start_hosting(&data_dir, &mut config)?;
        let key = NodeKey::in_dir(data_dir.path())?;
        let peering = Peering::start(data_dir.path())?;
        let incarnation = incarnation::of_dir(data_dir.path())?;
        // Before anything is joined or runs, so that a port in use is noticed while there is nothing to take back.
        #[cfg(feature = "http")]
        let listener = if self.serve_http { Some(bind(&config)?) } else { None };
        if let Some(invite) = &join {
            joining::join(invite, key.identity().peer(), data_dir.path(), &mut config)?;
        }

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
            engine: self.engine,
            clock: Arc::clone(&self.clock),
            disk_patience: self.disk_patience,
            probe: self.probe,
        };
        let handle = NodeHandle::start(settings, network.transport(), received);
        let node = Node {
            config,
            handle,
            network,
            hosting,
            peering,
            data_dir,
            started: Instant::now(),
            #[cfg(feature = "http")]
            http: None,
        };
        #[cfg(feature = "http")]
        let node = serve(node, self.clock, listener).await?;
        Ok(node)
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let flag = |text: &String| text.parse::<DatasetFlag>().map_err(|why| ConfigError(format!("the dataset {text:?}: {why}")));
        let mut said = self.said.clone();
        for dataset in &self.datasets {
            said.datasets.push(flag(dataset)?);
        }
        #[cfg(feature = "cli")]
        if self.with_environment {
            return Config::load(self.file.as_deref(), said);
        }
        Config::of_file(self.file.as_deref(), said)
    }
}

fn start_hosting(data_dir: &DataDir, config: &mut Config) -> Result<Hosting, Failure> {
    let hosting = Definitions::in_data_dir(data_dir.path())
        .and_then(|definitions| Hosting::start(definitions, config))
        .map_err(|error| Failure::other("can't read what datasets there are", error))?;
    for (dataset, disabled) in &config.disabled {
        tracing::warn!(%dataset, reason = disabled.reason, "the dataset does not run");
    }
    Ok(hosting)
}

#[cfg(feature = "http")]
fn bind(config: &Config) -> Result<std::net::TcpListener, Failure> {
    let addr = config.http.addr;
    http::bind(addr).map_err(|error| Failure::other(format!("can't serve HTTP on {addr}"), error))
}

#[cfg(feature = "http")]
async fn serve(mut node: Node, clock: Arc<dyn Clock>, listener: Option<std::net::TcpListener>) -> Result<Node, Failure> {
    let Some(listener) = listener else { return Ok(node) };
    let api = |addr, stopping| Api {
        node: node.handle.clone(),
        network: Arc::clone(&node.network),
        clock,
        hosting: node.hosting.clone(),
        network_keys: node.config.access.network_keys.clone(),
        peering: node.peering.clone(),
        addr,
        token: node.config.http.token.clone(),
        data_dir: node.data_dir.path().to_owned(),
        health: node.config.health.clone(),
        disk: Disk::of(node.data_dir.path()),
        metrics: Arc::default(),
        started: node.started,
        bodies: BodyBudget::default(),
        stopping,
    };
    match http::serve(listener, api) {
        Ok(served) => node.http = Some(served),
        Err(error) => {
            node.stop().await;
            return Err(Failure::other("can't serve HTTP", error));
        }
    }
    Ok(node)
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
