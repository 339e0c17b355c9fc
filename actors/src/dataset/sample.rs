//! What is seen of a dataset from outside at one moment: status pages, health and metrics are made of it.
//!
//! Only what it holds and how peers stand has to be asked for, and no longer than the asker has patience: all else is told of a
//! dataset that is down, busy or stuck as well.

use std::time::Duration;

use anabranch_protocol::id::PeerId;

use super::DatasetHandle;
use super::clock::Standings;
use super::collections::importing;
use super::handle::{ledger_status, standings};
use super::measures::Measured;
use super::oplog::LedgerStatus;
use super::supervisor::Running;
use crate::api::{DatasetError, DatasetInfo, DatasetState, PeerDataset};

const FULL: &str = "no space left on the disk: it is read, and takes no writes until there is room";
const BUSY: &str = "it is busy and did not answer in time";
const OPENING: &str = "it is being opened";

/// See the module documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetSample {
    /// As status pages show it.
    pub info: DatasetInfo,
    /// How long things took, and what waits.
    pub measured: Measured,
    /// What waits for this dataset's threads and actors, by callers of this node.
    pub waiting: Waiting,
    /// How it stands to its peers, in numbers.
    pub peers: Option<Peers>,
    /// The disk is full: it is read, and takes no writes.
    pub read_only: bool,
    /// Restarts within the last [`RESTARTS_WINDOW`].
    pub restarts_lately: u64,
}

/// Over which restarts are counted as recent ones.
pub const RESTARTS_WINDOW: Duration = Duration::from_secs(60 * 60);

/// What waits for a dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Payload of local writes, KiB; a small write counts as a few.
    pub write_kib: u64,
    /// Reads, those under way included.
    pub reads: u64,
}

/// How a dataset stands to its peers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Peers {
    /// Those that it is synced with.
    pub connected: Vec<PeerSample>,
    /// Those that it was synced with since it was opened, by what they were last known to have.
    pub away: Vec<PeerSample>,
    /// Writers whose history forked.
    pub forked: u64,
    /// What waits for a newer version of this node.
    pub unreadable: u64,
    /// What no connected peer can deliver.
    pub sourceless: u64,
    /// Most connected peers disagree with this node's clock.
    pub own_clock_suspect: bool,
}

/// How a dataset stands to one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSample {
    /// Who.
    pub peer: PeerId,
    /// As status pages show it.
    pub standing: PeerDataset,
    /// For how long the peer or this node has lacked what the other had, by this node's own clock: never more than it really was.
    pub waited: Duration,
}

impl From<&Standings> for Peers {
    fn from(standings: &Standings) -> Self {
        let waited = |peer: &PeerId| standings.waited.get(peer).copied().unwrap_or_default();
        let sample = |(peer, standing): &(PeerId, PeerDataset)| PeerSample {
            peer: *peer,
            standing: standing.clone(),
            waited: waited(peer),
        };
        Self {
            connected: standings.peers.iter().map(sample).collect(),
            away: standings.away.iter().map(sample).collect(),
            forked: standings.forked,
            unreadable: standings.unreadable,
            sourceless: standings.sourceless.len() as u64 + u64::from(standings.sourceless_commits),
            own_clock_suspect: standings.own_clock_suspect,
        }
    }
}

impl DatasetHandle {
    /// What is seen of the dataset now; takes no longer than `patience` and then leaves out what was not answered.
    pub async fn sample(&self, patience: Duration) -> DatasetSample {
        let mut sample = self.glance();
        let running = match tokio::time::timeout(patience, self.running()).await {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                (sample.info.state, sample.info.reason) = down(error);
                return sample;
            }
            Err(_) => {
                (sample.info.state, sample.info.reason) = (DatasetState::Restarting, Some(OPENING.to_owned()));
                return sample;
            }
        };
        sample.read_only = running.full;
        // Each for itself: a store that is busy does not hide how peers stand.
        let status = tokio::time::timeout(patience, ledger_status(&running));
        let standings = tokio::time::timeout(patience, standings(&running));
        let (status, standings) = tokio::join!(status, standings);
        let standings = standings.ok().flatten();
        sample.peers = standings.as_ref().map(Peers::from);
        match status.ok().flatten() {
            Some(status) => self.answered(&mut sample.info, &running, status, standings.unwrap_or_default()),
            None => sample.info.reason = Some(BUSY.to_owned()),
        }
        sample
    }

    /// What needs no answer of anybody.
    fn glance(&self) -> DatasetSample {
        DatasetSample {
            info: DatasetInfo {
                dataset: self.dataset().clone(),
                kind: self.kind(),
                enabled: true,
                state: DatasetState::Running,
                reason: None,
                restarts: self.restarts(),
                contents: None,
                counts: self.counters().counts(),
                set_aside: self.set_aside(),
            },
            measured: self.counters().measures.measured(),
            waiting: self.waiting(),
            peers: None,
            read_only: false,
            restarts_lately: self.restarts_within(RESTARTS_WINDOW),
        }
    }

    fn answered(&self, info: &mut DatasetInfo, running: &Running, status: LedgerStatus, standings: Standings) {
        info.reason = if running.full { Some(FULL.to_owned()) } else { standings.reason.clone() };
        let registered = running.view.registered().now();
        if let Some(importing) = importing(&registered.coverages, &standings.sourceless) {
            info.state = DatasetState::Importing;
            let reason = info.reason.take();
            info.reason = Some(reason.map_or(importing.clone(), |reason| format!("{reason}; {importing}")));
        }
        info.contents = Some(self.contents(status, standings, &registered.registration, running.view.size_bytes()));
    }
}

fn down(error: DatasetError) -> (DatasetState, Option<String>) {
    match error {
        DatasetError::Unavailable { state, reason, .. } => (state, Some(reason)),
        error => (DatasetState::Failed, Some(error.to_string())),
    }
}
