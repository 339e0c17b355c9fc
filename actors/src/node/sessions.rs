//! What the node knows of each peer, and how a `Hello` is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_protocol::handshake::judge;
use anabranch_protocol::id::{DatasetId, Incarnation, PeerId};
use anabranch_protocol::network_key::Challenge;
use anabranch_protocol::wire::{DatasetHello, DatasetReply, Refusal, RefusalCode};
use futures::future::join_all;
use tokio::sync::oneshot;

use super::Datasets;
use super::access::part_readers;
use crate::dataset::sync::{Accepted, Introduce};

/// A peer, connected or not.
#[derive(Debug, Default)]
pub(super) struct PeerSession {
    pub connected: bool,
    /// This node dialed: it says `Hello`.
    pub dialed: bool,
    pub addresses: BTreeSet<String>,
    pub rtt: Option<Duration>,
    pub incarnation: Option<Incarnation>,
    /// Datasets whose `Hello` was accepted on this connection.
    pub accepted: BTreeSet<DatasetId>,
    /// Datasets that one side refused, and why.
    pub refused: BTreeMap<DatasetId, String>,
    /// Refused datasets that will be asked about again: one time each, or two nodes that refuse each other would double their
    /// questions with every answer.
    pub retried: BTreeSet<DatasetId>,
    /// Datasets whose `Hello` was not answered yet.
    pub unanswered: BTreeSet<DatasetId>,
    /// What the peer's next `Hello` has to answer, where there are network keys.
    pub challenge: Challenge,
    /// Why the peer as a whole is not synced with; stays after it left.
    pub turned_away: Option<String>,
    /// A `Hello` with a network key is under way.
    pub greeting: bool,
    /// Datasets that the next one names.
    pub greet_next: BTreeSet<DatasetId>,
    /// The peer was asked about datasets that it did not name.
    pub asked_for_rest: bool,
    /// Counts connections, so that a late answer of an earlier one is not taken for one of this.
    pub connection: u64,
}

impl PeerSession {
    /// Whether another store of this identity than the one that says `Hello` is connected.
    pub fn is_other_store(&self, incarnation: Incarnation) -> bool {
        self.incarnation.is_some_and(|known| known != incarnation)
    }
}

/// How the datasets of a peer's `Hello` were judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Ours, for those that were accepted.
    pub ours: Vec<DatasetHello>,
    /// Theirs, for those that were accepted.
    pub accepted: Vec<(DatasetId, DatasetHello)>,
    /// The others.
    pub refused: Vec<(DatasetId, Refusal)>,
}

impl Judged {
    /// The refusals as they travel.
    pub fn replies(&self) -> Vec<DatasetReply> {
        let reply =
            |(dataset, refusal): &(DatasetId, Refusal)| DatasetReply { dataset: dataset.to_wire(), refusal: refusal.clone() };
        self.refused.iter().map(reply).collect()
    }
}

/// How long a `Hello` waits for a dataset that is being opened. Peers are greeted for it anew once it runs, so that the others
/// need not wait for it.
const OPENING_PATIENCE: Duration = Duration::from_secs(1);

/// How this node introduces one of its datasets; `None` while it does not run.
async fn introduce(datasets: &Datasets, dataset: &DatasetId) -> Option<DatasetHello> {
    let introduced = async {
        let running = datasets.get(dataset)?.running().await.ok()?;
        let (reply, hello) = oneshot::channel();
        running.sync.do_send(Introduce(reply));
        hello.await.ok()
    };
    tokio::time::timeout(OPENING_PATIENCE, introduced).await.ok().flatten()
}

/// How this node introduces some of its datasets; those that don't run are left out.
pub(super) async fn introduce_all(datasets: &Datasets, named: &[DatasetId]) -> Vec<DatasetHello> {
    let hellos = join_all(named.iter().map(|dataset| introduce(datasets, dataset))).await;
    hellos.into_iter().flatten().collect()
}

/// Judges each dataset of a peer's `Hello`.
pub(super) async fn judge_all(datasets: &Datasets, peer: PeerId, theirs: Vec<DatasetHello>) -> Judged {
    let (readable, refused) = part_readers(datasets, peer, theirs);
    let mut judged = Judged { refused, ..Judged::default() };
    // A decoded message never spells `primary` out.
    let named = readable.into_iter().filter_map(|hello| Some((DatasetId::from_wire(hello.dataset.as_ref())?, hello)));
    let verdicts = named.map(|(dataset, hello)| async { (verdict(datasets, &dataset, &hello).await, dataset, hello) });
    for (verdict, dataset, hello) in join_all(verdicts).await {
        match verdict {
            Ok(ours) => {
                judged.ours.push(ours);
                judged.accepted.push((dataset, hello));
            }
            Err(refusal) => judged.refused.push((dataset, refusal)),
        }
    }
    judged
}

async fn verdict(datasets: &Datasets, dataset: &DatasetId, theirs: &DatasetHello) -> Result<DatasetHello, Refusal> {
    if !datasets.contains_key(dataset) {
        let reason = format!("no dataset {dataset} on this node");
        return Err(Refusal::new(RefusalCode::UnknownDataset, reason));
    }
    let ours = introduce(datasets, dataset).await;
    let ours = ours.ok_or_else(|| Refusal::new(RefusalCode::Unavailable, format!("dataset {dataset} does not run now")))?;
    judge(&ours, theirs).map(|()| ours)
}

/// Tells the datasets' sync actors whom they may sync with.
pub(super) fn admit(datasets: &Datasets, peer: PeerId, accepted: Vec<(DatasetId, DatasetHello)>) {
    for (dataset, hello) in accepted {
        if let Some(running) = datasets.get(&dataset).and_then(crate::dataset::DatasetHandle::running_now) {
            running.sync.do_send(Accepted { peer, hello });
        }
    }
}
