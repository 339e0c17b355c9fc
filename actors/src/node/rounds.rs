//! Rounds with each peer: one small question for all datasets, and the datasets compare themselves only if the answer says so.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, PeerId, ShortHash};
use anabranch_protocol::round;
use anabranch_protocol::wire::{RefusalCode, Request, Response, Round};
use futures::future::join_all;
use tokio::sync::oneshot;

use super::Datasets;
use super::router::{Node, refuse, say};
use crate::dataset::sync::{AskState, CompareWith};
use crate::transport::Class;

/// Between two rounds of a node that started without datasets.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long a dataset may take to say what it has. One that does not counts as one that has nothing, so all is compared.
const STATE_PATIENCE: Duration = Duration::from_secs(2);

impl Node {
    pub(super) fn start_rounds(&self, ctx: &mut Context<Self>) {
        // One question is about all datasets: those that are in the least hurry are asked about along with the others.
        let intervals = self.hosting.settings.datasets.values().map(|dataset| dataset.sync.anti_entropy_interval);
        let interval = intervals.min().unwrap_or(INTERVAL).max(Duration::from_millis(100));
        ctx.run_interval(interval, |actor, ctx| {
            let connected: Vec<PeerId> =
                actor.peers.iter().filter(|(_, session)| session.connected).map(|(peer, _)| *peer).collect();
            connected.into_iter().for_each(|peer| actor.begin_round(peer, ctx));
        });
    }

    fn begin_round(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        #[cfg(feature = "planted")]
        if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SayOnce) {
            return;
        }
        let Some(session) = self.peers.get_mut(&peer) else { return };
        if session.round_under_way || session.accepted.is_empty() {
            return;
        }
        session.round_under_way = true;
        let connection = session.connection;
        let shared: Vec<DatasetId> = session.accepted.iter().cloned().collect();
        let (datasets, transport) = (self.datasets.clone(), self.transport.clone());
        let asked = async move {
            let mine = digest(&datasets, shared).await;
            (mine, transport.request(peer, Class::Interactive, Request::Round(Round { digest: mine })).await)
        };
        ctx.spawn(asked.into_actor(self).map(move |(mine, answer), actor, ctx| {
            if !actor.is_current(peer, connection) {
                return;
            }
            match answer {
                Ok(Response::Round(theirs)) => actor.end_round(peer, mine, theirs.digest, ctx),
                // A peer that is busy, or knows no rounds: as if it had said that something is different.
                other => {
                    tracing::debug!(%peer, answer = ?other, "a round was not answered");
                    actor.compare_all(peer, None, ctx);
                }
            }
        }));
    }

    fn end_round(&mut self, peer: PeerId, mine: ShortHash, theirs: ShortHash, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        if session.rounds.must_compare(mine, theirs) {
            self.compare_all(peer, Some((mine, theirs)), ctx);
        } else {
            self.round_ended(peer);
        }
    }

    /// Lets each dataset compare its heads with the peer's; a round is complete when all of them have.
    fn compare_all(&mut self, peer: PeerId, digests: Option<(ShortHash, ShortHash)>, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get(&peer) else { return };
        let connection = session.connection;
        let running = session.accepted.iter().filter_map(|dataset| self.datasets.running_now(dataset));
        let compared: Vec<_> = running
            .map(|running| {
                let (done, told) = oneshot::channel();
                running.sync.do_send(CompareWith { peer, done });
                told
            })
            .collect();
        ctx.spawn(join_all(compared).into_actor(self).map(move |all, actor, _| {
            if !actor.is_current(peer, connection) {
                return;
            }
            let complete = all.iter().all(|one| matches!(one, Ok(true)));
            if let (true, Some((mine, theirs)), Some(session)) = (complete, digests, actor.peers.get_mut(&peer)) {
                session.rounds.compared(mine, theirs);
            }
            actor.round_ended(peer);
        }));
    }

    fn round_ended(&mut self, peer: PeerId) {
        if let Some(session) = self.peers.get_mut(&peer) {
            session.round_under_way = false;
        }
    }

    /// A peer asks what this node has of all that both sync.
    pub(super) fn answer_round(&mut self, peer: PeerId, reply: oneshot::Sender<Response>, ctx: &mut Context<Self>) {
        let Some(session) = self.peers.get(&peer).filter(|session| session.connected && !session.accepted.is_empty()) else {
            return refuse(reply, RefusalCode::HelloFirst, "say Hello for a dataset first");
        };
        let shared: Vec<DatasetId> = session.accepted.iter().cloned().collect();
        let datasets = self.datasets.clone();
        let answered = async move { say(reply, Response::Round(Round { digest: digest(&datasets, shared).await })) };
        ctx.spawn(answered.into_actor(self));
    }
}

async fn digest(datasets: &Datasets, shared: Vec<DatasetId>) -> ShortHash {
    let asked = shared.into_iter().map(|dataset| async move {
        let (reply, told) = oneshot::channel();
        if let Some(running) = datasets.running_now(&dataset) {
            running.sync.do_send(AskState(reply));
        }
        let state = tokio::time::timeout(STATE_PATIENCE, told).await.ok().and_then(Result::ok);
        (dataset, state.unwrap_or(ShortHash([0; 8])))
    });
    round::of_all(&join_all(asked).await.into_iter().collect::<BTreeMap<_, _>>())
}
