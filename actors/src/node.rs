//! The node: supervises datasets, routes by dataset id, owns the transport handle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{Collection, DatasetId, Incarnation, Key, PeerId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{WriteRequest, Written};
use anabranch_protocol::wire::Kind;

use crate::api::{CollectionInfo, DatasetError, DatasetInfo, Document, ListQuery, Listing, PeerInfo, WriteError};
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
    /// What it replicates.
    pub registration: Registration,
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
    /// Most peers that are pushed to and pulled from at once.
    pub max_peers: usize,
}

/// A running node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeHandle {}

impl NodeHandle {
    /// Starts the actors of a node inside the running actix system. Network events come in through `events`.
    pub fn start(
        settings: NodeSettings,
        transport: SharedTransport,
        events: tokio::sync::mpsc::Receiver<TransportEvent>,
    ) -> Self {
        let _ = (settings, transport, events);
        Self {}
    }
    /// This node's peer id.
    pub fn peer_id(&self) -> PeerId {
        todo!()
    }
    /// All datasets.
    pub async fn datasets(&self) -> Vec<DatasetInfo> {
        todo!()
    }
    /// One dataset.
    pub async fn dataset(&self, dataset: &DatasetId) -> Result<DatasetInfo, DatasetError> {
        let _ = dataset;
        todo!()
    }
    /// Opens every dataset and waits until each runs or was found not to.
    pub async fn open_all(&self) {
        todo!()
    }
    /// Collections of a dataset.
    pub async fn collections(&self, dataset: &DatasetId) -> Result<Vec<CollectionInfo>, DatasetError> {
        let _ = dataset;
        todo!()
    }
    /// All peers heard of since the start.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        todo!()
    }
    /// Writes; resolves once the write is durable here.
    pub async fn write(&self, dataset: &DatasetId, request: WriteRequest) -> Result<Written, WriteError> {
        let _ = (dataset, request);
        todo!()
    }
    /// A document.
    pub async fn get(&self, dataset: &DatasetId, collection: &Collection, key: &Key) -> Result<Option<Document>, DatasetError> {
        let _ = (dataset, collection, key);
        todo!()
    }
    /// A page of documents.
    pub async fn list(&self, dataset: &DatasetId, collection: &Collection, query: ListQuery) -> Result<Listing, DatasetError> {
        let _ = (dataset, collection, query);
        todo!()
    }
    /// Stops: writes in flight finish, stores are closed.
    pub async fn stop(&self) {
        todo!()
    }
}
