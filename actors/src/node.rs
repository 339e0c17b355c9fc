//! The node: supervises datasets, routes by dataset id, owns the transport handle.

mod access;
mod operate;
mod router;
mod sessions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::access::Peers;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Key, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{WriteRequest, Written};
use anabranch_protocol::wire::Kind;

use actix::prelude::*;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::access::AccessSettings;
use self::router::{AskPeers, DatasetReady, Event, Node};
use crate::api::{
    CollectionInfo, DatasetError, DatasetInfo, Document, ListQuery, Listing, PeerInfo, RegistrationError, WriteError,
};
use crate::dataset::DatasetHandle;
use crate::dataset::aside::Asides;
use crate::dataset::supervisor::SupervisorContext;
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
    /// Opens stores.
    pub engine: Arc<dyn StoreEngine>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What a dataset is started with.
#[derive(Debug, Clone)]
pub struct DatasetSettings {
    /// What it holds.
    pub kind: Kind,
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
    /// How often vectors are compared with each peer though nothing was heard.
    pub anti_entropy_interval: Duration,
    /// Most peers that are pulled from at once; the others wait for their turn.
    pub max_peers: usize,
}

/// A running node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    peer: PeerId,
    datasets: Datasets,
    node: Addr<Node>,
    pump: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

/// The datasets of a node, by name.
pub(crate) type Datasets = Arc<BTreeMap<DatasetId, DatasetHandle>>;

impl NodeHandle {
    /// Starts the actors of a node inside the running actix system. Network events come in through `events`.
    #[must_use]
    pub fn start(settings: NodeSettings, transport: SharedTransport, mut events: mpsc::Receiver<TransportEvent>) -> Self {
        let peer = settings.identity.peer();
        let cache_bytes = settings.cache_bytes / (settings.datasets.len().max(1) as u64);
        let (ready, mut readies) = mpsc::unbounded_channel();
        let start = |(dataset, dataset_settings): (&DatasetId, &DatasetSettings)| {
            transport.subscribe(dataset.clone());
            let context = SupervisorContext {
                dataset: dataset.clone(),
                settings: dataset_settings.clone(),
                node: settings.clone(),
                cache_bytes,
                transport: transport.clone(),
                ready: ready.clone(),
                asides: Asides::in_data_dir(&settings.data_dir, dataset),
            };
            (dataset.clone(), DatasetHandle::start(context))
        };
        let datasets: Datasets = Arc::new(settings.datasets.iter().map(start).collect());
        let node = Node::new(&settings, transport, datasets.clone()).start();
        let address = node.clone();
        let pump = actix::spawn(async move {
            loop {
                // Awaiting each event keeps the transport's bounded channel the only queue.
                let delivered = tokio::select! {
                    biased;
                    Some(dataset) = readies.recv() => address.send(DatasetReady(dataset)).await,
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

    fn find(&self, dataset: &DatasetId) -> Result<&DatasetHandle, DatasetError> {
        self.datasets.get(dataset).ok_or_else(|| DatasetError::Unknown(dataset.clone()))
    }

    /// All datasets.
    pub async fn datasets(&self) -> Vec<DatasetInfo> {
        join_all(self.datasets.values().map(DatasetHandle::info)).await
    }

    /// One dataset.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub async fn dataset(&self, dataset: &DatasetId) -> Result<DatasetInfo, DatasetError> {
        Ok(self.find(dataset)?.info().await)
    }

    /// Opens every dataset and waits until each runs or was found not to.
    pub async fn open_all(&self) {
        join_all(self.datasets.values().map(|dataset| async { drop(dataset.running().await) })).await;
    }

    /// Collections of a dataset: those registered and those that hold something.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn collections(&self, dataset: &DatasetId) -> Result<Vec<CollectionInfo>, DatasetError> {
        self.find(dataset)?.collections().await
    }

    /// Registers a collection: from now on it replicates, and its past is pulled. Whether it was not registered before.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub async fn register(&self, dataset: &DatasetId, collection: &Collection) -> Result<bool, RegistrationError> {
        self.find(dataset)?.register(collection.clone()).await
    }

    /// Unregisters a collection: nothing of it leaves or enters this node from now on; what is here stays. Whether it was
    /// registered before.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub async fn unregister(&self, dataset: &DatasetId, collection: &Collection) -> Result<bool, RegistrationError> {
        self.find(dataset)?.unregister(collection.clone()).await
    }

    /// All peers heard of since the start.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let Ok(mut peers) = self.node.send(AskPeers).await else { return Vec::new() };
        for (dataset, handle) in self.datasets.iter() {
            let Some(standings) = handle.standings().await else { continue };
            for (peer, standing) in standings.peers {
                if let Some(info) = peers.iter_mut().find(|info| info.peer == peer) {
                    info.datasets.push((dataset.clone(), standing));
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
        self.find(dataset)?.write(request).await
    }

    /// A document.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn get(&self, dataset: &DatasetId, collection: &Collection, key: &Key) -> Result<Option<Document>, DatasetError> {
        self.find(dataset)?.get(collection.clone(), key.clone()).await
    }

    /// A page of documents.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn list(&self, dataset: &DatasetId, collection: &Collection, query: ListQuery) -> Result<Listing, DatasetError> {
        self.find(dataset)?.list(collection.clone(), query).await
    }

    /// Stops: stores are settled and closed.
    pub async fn stop(&self) {
        if let Some(pump) = self.pump.lock().ok().and_then(|mut pump| pump.take()) {
            pump.abort();
        }
        join_all(self.datasets.values().map(DatasetHandle::stop)).await;
    }
}
