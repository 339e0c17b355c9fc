//! Datasets that are created and deleted while the node runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::limits::HELLO_DATASETS_MAX;
use anabranch_protocol::wire::{DatasetReply, Refusal, RefusalCode};
use tokio::sync::mpsc;

use super::router::Node;
use super::{DatasetSettings, NodeHandle, NodeSettings};
use crate::api::{CreateError, DatasetError};
use crate::dataset::DatasetHandle;
use crate::dataset::aside::Asides;
use crate::dataset::supervisor::SupervisorContext;
use crate::dataset::sync::Gone;
use crate::dataset::sync::PeerNews;
use crate::transport::SharedTransport;

/// Least cache of a dataset, bytes: below it sled reads from disk for every lookup.
const CACHE_BYTES_MIN: u64 = 1 << 20;
/// What is read of a node's stores when it starts, all datasets together, bytes on disk: about a second. A store that is larger than
/// its dataset's part is audited in the background, soon after.
const AUDIT_BYTES: u64 = 64 << 20;
/// What callers of a dataset that is being deleted are told.
const DELETED: &str = "it is being deleted";

/// What a running dataset tells its node.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub(crate) enum News {
    /// It runs (again): peers are greeted for it.
    Ready(DatasetId),
    /// A peer does not sync it any more.
    Refused(DatasetId, PeerNews),
}

/// What every dataset of a node is started with.
#[derive(Debug, Clone)]
pub(super) struct Hosting {
    pub settings: NodeSettings,
    pub transport: SharedTransport,
    pub news: mpsc::UnboundedSender<News>,
}

impl Hosting {
    /// Starts a dataset among `count`, itself included; its store is opened with the first message. Needs the actix system.
    pub fn start(&self, dataset: DatasetId, settings: DatasetSettings, count: usize) -> DatasetHandle {
        self.transport.subscribe(dataset.clone());
        let cache_bytes = (self.settings.cache_bytes / count.max(1) as u64).max(CACHE_BYTES_MIN);
        DatasetHandle::start(SupervisorContext {
            asides: Asides::in_data_dir(&self.settings.data_dir, &dataset),
            dataset,
            settings,
            node: self.settings.clone(),
            cache_bytes,
            audit_bytes_max: AUDIT_BYTES / count.max(1) as u64,
            transport: self.transport.clone(),
            news: self.news.clone(),
            counters: Arc::default(),
        })
    }
}

#[derive(Message)]
#[rtype(result = "Result<(), CreateError>")]
pub(super) struct Create(DatasetId, DatasetSettings);

/// Takes a dataset out of the node and says so to its peers; the caller stops it.
#[derive(Message)]
#[rtype(result = "Option<Arc<DatasetHandle>>")]
pub(super) struct Remove(DatasetId);

impl NodeHandle {
    /// Starts a dataset and greets all connected peers for it. Does not wait until it is open.
    ///
    /// # Errors
    /// [`CreateError`]; nothing was started.
    pub async fn create(&self, dataset: DatasetId, settings: DatasetSettings) -> Result<(), CreateError> {
        self.node.send(Create(dataset, settings)).await.unwrap_or(Err(CreateError::Stopping))
    }

    /// Stops a dataset, or forgets a disabled one: from now on it is unknown here, to peers too. Its files stay.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub async fn remove(&self, dataset: &DatasetId) -> Result<(), DatasetError> {
        if self.datasets.kind(dataset).is_none() {
            return Err(DatasetError::Unknown(dataset.clone()));
        }
        if let Ok(Some(handle)) = self.node.send(Remove(dataset.clone())).await {
            handle.stop(DELETED).await;
        }
        Ok(())
    }
}

impl Handler<Create> for Node {
    type Result = Result<(), CreateError>;
    fn handle(&mut self, Create(dataset, settings): Create, _: &mut Context<Self>) -> Self::Result {
        if self.datasets.kind(&dataset).is_some() {
            return Err(CreateError::Exists(dataset));
        }
        let count = self.datasets.count() + 1;
        if count > HELLO_DATASETS_MAX {
            return Err(CreateError::TooMany { limit: HELLO_DATASETS_MAX });
        }
        // A system that refuses one more thread must not cost the node.
        let started = catch_unwind(AssertUnwindSafe(|| self.hosting.start(dataset, settings, count)));
        let handle = started.map_err(|_| CreateError::NoThread)?;
        handle.open();
        self.datasets.insert(handle);
        Ok(())
    }
}

impl Handler<Remove> for Node {
    type Result = Option<Arc<DatasetHandle>>;
    fn handle(&mut self, Remove(dataset): Remove, ctx: &mut Context<Self>) -> Self::Result {
        let handle = self.datasets.remove(&dataset);
        self.hosting.transport.unsubscribe(dataset.clone());
        let refusal = Refusal::new(RefusalCode::UnknownDataset, format!("dataset {dataset} was deleted there"));
        for peer in self.forget_dataset(&dataset) {
            self.withdraw(peer, DatasetReply { dataset: dataset.to_wire(), refusal: refusal.clone() }, ctx);
        }
        handle
    }
}

impl Handler<News> for Node {
    type Result = ();
    fn handle(&mut self, news: News, ctx: &mut Context<Self>) {
        match news {
            News::Ready(dataset) => {
                #[cfg(feature = "planted")]
                self.spread(&dataset);
                let connected: Vec<PeerId> = self.peers.iter().filter(|(_, s)| s.connected).map(|(peer, _)| *peer).collect();
                for peer in connected {
                    self.greet(peer, vec![dataset.clone()], ctx);
                }
            }
            News::Refused(dataset, PeerNews { peer, refusal }) => self.refused(peer, dataset, &refusal.by_peer(), ctx),
        }
    }
}

#[cfg(feature = "planted")]
impl Node {
    /// Ends the children of all other datasets once this one was restarted: a bug to be planted.
    fn spread(&self, from: &DatasetId) {
        let restarted = self.datasets.get(from).is_some_and(|handle| handle.restarts() > 0);
        if restarted && anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SpreadPanics) {
            let others = self.datasets.names().into_iter().filter(|name| name != from);
            let running = others.filter_map(|name| self.datasets.running_now(&name));
            running.for_each(|running| running.oplog.do_send(crate::dataset::oplog::Stop));
        }
    }
}

impl Node {
    /// Drops all that is remembered of a dataset; returns the connected peers that it was synced with.
    fn forget_dataset(&mut self, dataset: &DatasetId) -> Vec<PeerId> {
        let mut synced = Vec::new();
        for (peer, session) in &mut self.peers {
            if session.forget(dataset) && session.connected {
                synced.push(*peer);
            }
        }
        synced
    }

    /// Says to a peer that a dataset is not synced with it any more. Said once: a peer that did not hear it is refused when it
    /// asks next.
    fn withdraw(&mut self, peer: PeerId, reply: DatasetReply, ctx: &mut Context<Self>) {
        if let Some(session) = self.peers.get_mut(&peer) {
            session.withdrawing.push(reply);
            self.greet(peer, Vec::new(), ctx);
        }
    }

    /// Ends the session with a peer for one dataset.
    pub(super) fn end_session(&mut self, peer: PeerId, dataset: &DatasetId) {
        let accepted = self.peers.get_mut(&peer).is_some_and(|session| session.accepted.remove(dataset));
        if let (true, Some(running)) = (accepted, self.datasets.running_now(dataset)) {
            running.sync.do_send(Gone(peer));
        }
    }
}
