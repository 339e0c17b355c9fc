//! A node's end of the network.

use std::sync::MutexGuard;
use std::time::Duration;

use anabranch_actors::transport::{Class, Transport, TransportError};
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::wire::{Announce, Request, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::delivery::{Delivery, kind_of_request};
use super::{Inner, Network, pair_of};

/// Deadlines as the shipped swarm has them (`anabranch_node::swarm::SwarmLimits`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const BULK_TIMEOUT: Duration = Duration::from_secs(30);
/// A version of the protocol that nobody speaks yet.
pub(super) const OTHER_VERSION: u64 = 99;

/// One node's transport, for one of its lives.
#[derive(Debug)]
pub struct Wire {
    pub(super) network: Network,
    pub(super) node: usize,
    pub(super) life: u64,
}

impl Wire {
    /// The network, while this life of the node is the current one.
    fn alive(&self) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.network.inner();
        (inner.endpoints[self.node].life == self.life).then_some(inner)
    }

    fn send(&self, peer: PeerId, class: Class, mut request: Request) -> Result<oneshot::Receiver<Vec<u8>>, TransportError> {
        let mut inner = self.alive().ok_or(TransportError::NotConnected)?;
        let to = inner.index_of(&peer, self.node).ok_or(TransportError::NotConnected)?;
        let connection = inner.pairs.get(&pair_of(self.node, to)).and_then(|pair| pair.connection);
        let connection = connection.ok_or(TransportError::NotConnected)?;
        if let (Request::Hello(hello), true) = (&mut request, inner.endpoints[self.node].other_version) {
            hello.versions = vec![OTHER_VERSION];
        }
        let bytes = request.encode();
        inner.count(self.node, to, kind_of_request(&request), &bytes);
        let (reply, answer) = oneshot::channel();
        let link = inner.link(self.node, to);
        if inner.rng.chance(link.requests_lost) {
            inner.traffic.lost += 1;
            inner.never_answer(self.node, to, connection, reply);
            return Ok(answer);
        }
        let (from, takes) = (self.node, inner.transit(self.node, to, class, bytes.len()));
        if inner.rng.chance(link.duplication) {
            inner.traffic.duplicated += 1;
            let again = takes + inner.rng.time(Duration::ZERO..Duration::from_secs(2));
            inner.put(again, Delivery::Request { from, to, connection, class, bytes: bytes.clone(), reply: None });
        }
        inner.put(takes, Delivery::Request { from, to, connection, class, bytes, reply: Some(reply) });
        drop(inner);
        self.network.changed.notify_one();
        Ok(answer)
    }
}

impl Transport for Wire {
    fn request(&self, peer: PeerId, class: Class, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let sent = self.send(peer, class, request);
        let limit = if class == Class::Bulk { BULK_TIMEOUT } else { REQUEST_TIMEOUT };
        async move {
            let bytes = match tokio::time::timeout(limit, sent?).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(_)) => return Err(TransportError::Connection("it broke".to_owned())),
                Err(_) => return Err(TransportError::Timeout),
            };
            Response::decode(&bytes).map_err(|error| TransportError::Malformed(error.to_string()))
        }
        .boxed()
    }

    fn announce(&self, announce: Announce) {
        let Some(mut inner) = self.alive() else { return };
        let bytes = announce.encode();
        inner.gossip += 1;
        let message = inner.gossip;
        inner.seen.insert((message, self.node));
        inner.gossip_on(self.node, message, &announce, &bytes);
        drop(inner);
        self.network.changed.notify_one();
    }

    fn subscribe(&self, dataset: DatasetId) {
        if let Some(mut inner) = self.alive() {
            inner.endpoints[self.node].subscribed.insert(dataset);
        }
    }

    fn unsubscribe(&self, dataset: DatasetId) {
        if let Some(mut inner) = self.alive() {
            inner.endpoints[self.node].subscribed.remove(&dataset);
        }
    }

    fn accepted(&self, _: PeerId, _: Vec<String>) {}

    fn disconnect(&self, peer: PeerId, _: &str) {
        if let Some(mut inner) = self.alive()
            && let Some(other) = inner.index_of(&peer, self.node)
        {
            inner.leave_alone(pair_of(self.node, other));
        }
        self.network.changed.notify_one();
    }

    fn misbehaved(&self, peer: PeerId, _: &str) {
        if let Some(mut inner) = self.alive()
            && let Some(other) = inner.index_of(&peer, self.node)
        {
            inner.misbehaved(self.node, other, 4);
        }
        self.network.changed.notify_one();
    }

    fn listen_addresses(&self) -> Vec<String> {
        vec![format!("/memory/{}", self.node)]
    }
}
