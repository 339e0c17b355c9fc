//! What the node knows of each peer, and how a `Hello` is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_protocol::handshake::{judge, may_take_on};
use anabranch_protocol::id::{DatasetId, Incarnation, PeerId};
use anabranch_protocol::network_key::Challenge;
use anabranch_protocol::round::Rounds;
use anabranch_protocol::wire::{DatasetHello, DatasetReply, Hello, Refusal, RefusalCode};
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
    /// What the peer has to be told that it is not synced with it any more.
    pub withdrawing: Vec<DatasetReply>,
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
    /// Rounds on this connection, and whether one is under way.
    pub rounds: Rounds,
    pub round_under_way: bool,
    /// An operator removed the peer: nothing is shown of it once its connection has ended.
    pub forget_when_gone: bool,
    /// Counts connections, so that a late answer of an earlier one is not taken for one of this.
    pub connection: u64,
}

impl PeerSession {
    /// Whether another store of this identity than the one that says `Hello` is connected.
    pub fn is_other_store(&self, incarnation: Incarnation) -> bool {
        self.incarnation.is_some_and(|known| known != incarnation)
    }

    /// Forgets a dataset; whether it was synced.
    pub fn forget(&mut self, dataset: &DatasetId) -> bool {
        self.refused.remove(dataset);
        self.retried.remove(dataset);
        self.unanswered.remove(dataset);
        self.greet_next.remove(dataset);
        self.accepted.remove(dataset)
    }
}

/// How the datasets of a peer's `Hello` were judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Ours, for those that were accepted, and for those whose lineage the peer may take on.
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

    /// Adds what the peer withdraws.
    pub fn withdraw(&mut self, hello: &Hello) {
        for reply in &hello.withdrawn {
            self.refused.extend(DatasetId::from_wire(reply.dataset.as_ref()).map(|dataset| (dataset, reply.refusal.by_peer())));
        }
    }
}

/// What comes of one dataset of a `Hello`.
enum Verdict {
    Accepted(DatasetHello),
    /// Only its lineage is in the way, and the peer may take on ours once it knows it.
    Offered(DatasetHello, Refusal),
    Refused(Refusal),
}

/// How long a `Hello` waits for a dataset that is being opened. Peers are greeted for it anew once it runs, so that the others
/// need not wait for it.
const OPENING_PATIENCE: Duration = Duration::from_secs(1);

/// How this node introduces one of its datasets; `None` while it does not run.
async fn introduce(datasets: &Datasets, dataset: &DatasetId) -> Option<DatasetHello> {
    let introduced = async {
        let handle = datasets.get(dataset)?;
        let sync = handle.running().await.ok()?.sync;
        let (reply, hello) = oneshot::channel();
        sync.do_send(Introduce(reply));
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
            Verdict::Accepted(ours) => {
                judged.ours.push(ours);
                judged.accepted.push((dataset, hello));
            }
            Verdict::Offered(ours, refusal) => {
                judged.ours.push(ours);
                judged.refused.push((dataset, refusal));
            }
            Verdict::Refused(refusal) => judged.refused.push((dataset, refusal)),
        }
    }
    judged
}

async fn verdict(datasets: &Datasets, dataset: &DatasetId, theirs: &DatasetHello) -> Verdict {
    let refused = |code, reason| Verdict::Refused(Refusal::new(code, reason));
    let Some(handle) = datasets.get(dataset) else {
        return refused(RefusalCode::UnknownDataset, datasets.absence(dataset).unwrap_or_default());
    };
    let Some(ours) = introduce(datasets, dataset).await else {
        return refused(RefusalCode::Unavailable, format!("dataset {dataset} does not run now"));
    };
    match judge(&ours, theirs) {
        Ok(()) => Verdict::Accepted(ours),
        Err(refusal) if refusal.code == RefusalCode::Lineage && may_take_on(theirs, &ours) => Verdict::Offered(ours, refusal),
        Err(refusal) if refusal.code == RefusalCode::Lineage && may_take_on(&ours, theirs) => {
            // Greeted anew once the store has it.
            let taken = handle.take_on(theirs.lineage).await;
            Verdict::Refused(if taken { Refusal::new(RefusalCode::Unavailable, TAKES_ON) } else { refusal })
        }
        Err(refusal) => Verdict::Refused(refusal),
    }
}

const TAKES_ON: &str = "the dataset is empty and takes on the other one's lineage now";

/// Tells the datasets' sync actors whom they may sync with.
pub(super) fn admit(datasets: &Datasets, peer: PeerId, accepted: Vec<(DatasetId, DatasetHello)>) {
    for (dataset, hello) in accepted {
        if let Some(running) = datasets.running_now(&dataset) {
            running.sync.do_send(Accepted { peer, hello });
        }
    }
}
