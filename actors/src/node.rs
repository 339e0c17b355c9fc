//! The node: supervises datasets, routes by dataset id, owns the transport handle.

mod access;
mod hosted;
mod hosting;
mod members;
mod operate;
mod rounds;
mod router;
mod sessions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Key, KeyHash, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{WriteRequest, Written};
use anabranch_protocol::token::Token;
use anabranch_protocol::wire::Kind;

use actix::prelude::*;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::access::AccessSettings;
pub(crate) use self::hosted::Datasets;
pub use self::hosted::DisabledDataset;
use self::hosting::Hosting;
pub(crate) use self::hosting::News;
use self::router::{AskPeers, Event, Node};
use crate::api::{
    Ack, AfterError, CollectionInfo, Confirmed, DatasetError, DatasetInfo, DatasetSample, Document, LineageSetting, ListQuery,
    Listing, PeerInfo, RegistrationError, WriteError,
};
use crate::dataset::DatasetHandle;
use crate::probe::Probe;
use crate::runtime::Runtime;
use crate::store::StoreEngine;
use crate::transport::{SharedTransport, TransportEvent};

/// The wall clock, injected.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> WallClock;
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Who the node is.
    pub identity: Identity,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Where `datasets/` is.
    pub data_dir: PathBuf,
    /// All datasets' caches together, bytes.
    pub cache_bytes: u64,
    /// How far ahead of the wall clock a remote stamp may be.
    pub max_clock_skew: Duration,
    /// Who may connect.
    pub access: AccessSettings,
    /// Datasets, by name.
    pub datasets: BTreeMap<DatasetId, DatasetSettings>,
    /// Datasets that are known and don't run.
    pub disabled: BTreeMap<DatasetId, DisabledDataset>,
    /// Opens stores.
    pub engine: Arc<dyn StoreEngine>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where everything runs: [`Runtime::Threads`] outside of simulations.
    pub runtime: Runtime,
    /// How long a call to the disk may take until its dataset is given up for as long as the disk hangs. It is about hanging, not
    /// about being slow: [`DISK_PATIENCE`] outside of tests.
    pub disk_patience: Duration,
    /// Looks in where actors start, work and end: none outside of tests.
    pub probe: Option<Arc<dyn Probe>>,
}

/// How long a call to a disk may take; what a busy disk or its controller retries is over by then.
pub const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// What a dataset is started with.
#[derive(Debug, Clone)]
pub struct DatasetSettings {
    /// What it holds.
    pub kind: Kind,
    /// What it has to have in common with those it syncs with.
    pub lineage: LineageSetting,
    /// What it replicates. What was registered or unregistered at run time is remembered beside it.
    pub registration: Registration,
    /// What may be registered at run time.
    pub collections_max: Registration,
    /// Who may sync it.
    pub readers: Peers,
    /// Whose commits count. All nodes of a dataset have to share the list, or they don't converge.
    pub writers: Peers,
    /// How it syncs.
    pub sync: SyncSettings,
}

/// How a dataset syncs.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// Announcements are gathered this long; zero announces every commit at once.
    pub announce_interval: Duration,
    /// How often a digest is compared with each peer though nothing was heard.
    pub anti_entropy_interval: Duration,
    /// Most peers that are pulled from at once; the others wait for their turn.
    pub max_peers: usize,
    /// Between two slices of the audit of rows in the background.
    pub maintenance_interval: Duration,
}

/// A running node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    peer: PeerId,
    datasets: Datasets,
    node: Addr<Node>,
    pump: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl NodeHandle {
    /// Starts the actors of a node inside the running actix system. Network events come in through `events`.
    #[must_use]
    pub fn start(settings: NodeSettings, transport: SharedTransport, mut events: mpsc::Receiver<TransportEvent>) -> Self {
        let peer = settings.identity.peer();
        let (news, mut told) = mpsc::unbounded_channel();
        let datasets = Datasets::new(settings.disabled.clone());
        let hosting = Hosting { settings, transport, news };
        let count = hosting.settings.datasets.len();
        for (dataset, dataset_settings) in &hosting.settings.datasets {
            datasets.insert(hosting.start(dataset.clone(), dataset_settings.clone(), count));
        }
        let node = Node::new(hosting, datasets.clone()).start();
        let address = node.clone();
        let pump = actix::spawn(async move {
            loop {
                // Awaiting each event keeps the transport's bounded channel the only queue.
                let delivered = tokio::select! {
                    biased;
                    Some(news) = told.recv() => address.send(news).await,
                    event = events.recv() => match event {
                        Some(event) => address.send(Event(event)).await,
                        None => return tracing::error!("the transport ended: this node is without peers until it is started again"),
                    },
                };
                if delivered.is_err() {
                    return;
                }
            }
        });
        Self { peer, datasets, node, pump: Arc::new(std::sync::Mutex::new(Some(pump))) }
    }

    /// This node's peer id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The actors of a dataset: [`DatasetHandle::running`] gives their addresses, whose messages are public. What they refuse
    /// and when they are replaced is the supervisor's business, so prefer the methods here where they do.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub fn actors(&self, dataset: &DatasetId) -> Result<Arc<DatasetHandle>, DatasetError> {
        self.datasets.find(dataset)
    }

    /// What a dataset of this node holds, whether it runs or not.
    #[must_use]
    pub fn kind(&self, dataset: &DatasetId) -> Option<Kind> {
        self.datasets.kind(dataset)
    }

    /// All datasets, disabled ones too, by name.
    pub async fn datasets(&self) -> Vec<DatasetInfo> {
        let handles = self.datasets.all();
        let mut all = join_all(handles.iter().map(|dataset| dataset.info())).await;
        all.extend(self.datasets.disabled());
        all.sort_by(|a, b| a.dataset.cmp(&b.dataset));
        all
    }

    /// What is seen now of each dataset that is meant to run, by name. Takes no longer than about `patience` twice, whatever state they
    /// are in; what was not answered by then is left out.
    pub async fn samples(&self, patience: Duration) -> Vec<DatasetSample> {
        let handles = self.datasets.all();
        join_all(handles.iter().map(|dataset| dataset.sample(patience))).await
    }

    /// The datasets that are known and not meant to run.
    #[must_use]
    pub fn disabled(&self) -> Vec<DatasetInfo> {
        self.datasets.disabled()
    }

    /// Peers heard of since the start, without how they stand; none where the node does not answer within `patience`.
    pub async fn peers_heard_of(&self, patience: Duration) -> Option<Vec<PeerInfo>> {
        tokio::time::timeout(patience, self.node.send(AskPeers)).await.ok()?.ok()
    }

    /// The names of the datasets that are meant to run.
    #[must_use]
    pub fn enabled(&self) -> Vec<DatasetId> {
        self.datasets.names()
    }

    /// One dataset.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub async fn dataset(&self, dataset: &DatasetId) -> Result<DatasetInfo, DatasetError> {
        if let Some(disabled) = self.datasets.disabled_info(dataset) {
            return Ok(disabled);
        }
        Ok(self.actors(dataset)?.info().await)
    }

    /// Opens every dataset and waits until each runs or was found not to.
    pub async fn open_all(&self) {
        let handles = self.datasets.all();
        join_all(handles.iter().map(|dataset| async { drop(dataset.running().await) })).await;
    }

    /// Collections of a dataset: those registered and those that hold something.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn collections(&self, dataset: &DatasetId) -> Result<Vec<CollectionInfo>, DatasetError> {
        self.actors(dataset)?.collections().await
    }

    /// Registers a collection: from now on it replicates, and its past is pulled. Whether it was not registered before.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub async fn register(&self, dataset: &DatasetId, collection: &Collection) -> Result<bool, RegistrationError> {
        self.actors(dataset)?.register(collection.clone()).await
    }

    /// Unregisters a collection: nothing of it leaves or enters this node from now on; what is here stays. Whether it was
    /// registered before.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub async fn unregister(&self, dataset: &DatasetId, collection: &Collection) -> Result<bool, RegistrationError> {
        self.actors(dataset)?.unregister(collection.clone()).await
    }

    /// All peers heard of since the start.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let Ok(mut peers) = self.node.send(AskPeers).await else { return Vec::new() };
        for handle in self.datasets.all() {
            let Some(standings) = handle.standings().await else { continue };
            for (peer, standing) in standings.peers {
                if let Some(info) = peers.iter_mut().find(|info| info.peer == peer) {
                    info.datasets.push((handle.dataset().clone(), standing));
                }
            }
        }
        peers
    }

    /// Writes; resolves once the write is durable here.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(&self, dataset: &DatasetId, request: WriteRequest) -> Result<Written, WriteError> {
        self.actors(dataset)?.write(request).await
    }

    /// Waits until a write is durable elsewhere, at most `patience`; it stands whatever comes of it.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub async fn confirmed(
        &self,
        dataset: &DatasetId,
        token: Token,
        collections: Vec<Collection>,
        ack: Ack,
        patience: Duration,
    ) -> Result<Confirmed, DatasetError> {
        let handle = self.actors(dataset)?;
        let confirmed = handle.confirmed(token, collections, ack, patience).await;
        handle.counters().measures.waited(confirmed.enough);
        Ok(confirmed)
    }

    /// Waits until a write of any node to `collection` has arrived here, at most `patience`.
    ///
    /// # Errors
    /// [`AfterError`].
    pub async fn arrived(
        &self,
        dataset: &DatasetId,
        collection: &Collection,
        token: Token,
        patience: Duration,
    ) -> Result<(), AfterError> {
        self.actors(dataset)?.arrived(collection, token, patience).await
    }

    /// A document.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn get(&self, dataset: &DatasetId, collection: &Collection, key: &Key) -> Result<Option<Document>, DatasetError> {
        self.actors(dataset)?.get(collection.clone(), key.clone()).await
    }

    /// Whether a write happened under an idempotency key that is remembered.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn remembers(&self, dataset: &DatasetId, key: KeyHash) -> Result<bool, DatasetError> {
        self.actors(dataset)?.remembers(key).await
    }

    /// A page of documents.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn list(&self, dataset: &DatasetId, collection: &Collection, query: ListQuery) -> Result<Listing, DatasetError> {
        self.actors(dataset)?.list(collection.clone(), query).await
    }

    /// Stops: stores are settled and closed.
    pub async fn stop(&self) {
        if let Some(pump) = self.pump.lock().ok().and_then(|mut pump| pump.take()) {
            pump.abort();
        }
        let handles = self.datasets.all();
        join_all(handles.iter().map(|dataset| dataset.stop("the node is stopping"))).await;
    }
}
