//! What is seen of the whole node at one moment: health is judged by it, metrics are made of it. Nothing in it waits for long, whatever
//! state the node is in.

use std::time::Duration;

use anabranch_actors::api::{DatasetInfo, DatasetSample, PeerInfo, PeerSample, PeerState, Peers};
use anabranch_actors::node::NodeHandle;
use anabranch_protocol::id::{DatasetId, PeerId};

use crate::disk::{Disk, DiskSpace};

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Datasets that are meant to run.
    pub datasets: Vec<DatasetSample>,
    /// Datasets that are not.
    pub disabled: Vec<DatasetInfo>,
    /// Peers heard of since the start; none where the node did not answer.
    pub peers: Option<Vec<PeerInfo>>,
    /// Room on the disk of the data directory, where it is known.
    pub disk: Option<DiskSpace>,
}

impl Seen {
    /// Looks at everything at once. Takes no longer than about twice `patience`.
    pub async fn look(node: &NodeHandle, disk: &Disk, patience: Duration) -> Self {
        let (datasets, peers, disk) = tokio::join!(node.samples(patience), node.peers_heard_of(patience), disk.space(patience));
        Self { datasets, disabled: node.disabled(), peers, disk }
    }

    /// Peers that are connected, if that is known.
    pub fn connected(&self) -> Option<usize> {
        self.peers.as_ref().map(|peers| peers.iter().filter(|peer| peer.connected).count())
    }

    /// How a dataset stands to the peers it is, or was, synced with. Who is away and refused it is not waited for.
    pub fn standings<'a>(&'a self, dataset: &'a DatasetId, peers: &'a Peers) -> impl Iterator<Item = &'a PeerSample> {
        let away = peers.away.iter().filter(|sample| !self.is_refused(dataset, sample.peer));
        peers.connected.iter().chain(away)
    }

    fn is_refused(&self, dataset: &DatasetId, peer: PeerId) -> bool {
        let info = self.peers.iter().flatten().find(|info| info.peer == peer);
        let named = info.and_then(|info| info.datasets.iter().find(|(name, _)| name == dataset));
        named.is_some_and(|(_, standing)| standing.state == PeerState::Refused)
    }
}
