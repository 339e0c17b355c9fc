//! What a node wants of its network beyond sending: to dial, to show addresses, to stop. The swarm is one; a node that only
//! serves its own users needs none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anabranch_actors::transport::{Class, SharedTransport, Transport, TransportError};
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::wire::{Announce, Request, Response};
use futures::future::{BoxFuture, ready};
use libp2p::Multiaddr;

use crate::swarm::{Counters, SwarmError, SwarmHandle};

/// A network that a node is started with.
pub trait Network: Send + Sync + fmt::Debug {
    /// What the node's actors send through.
    fn transport(&self) -> SharedTransport;
    /// Where this node listens, as multiaddrs ending in `/p2p/<peer id>`.
    fn listen_addresses(&self) -> Vec<String>;
    /// Dials now and keeps redialing. Returns at once.
    ///
    /// # Errors
    /// Why the address can't be dialed, in words.
    fn dial(&self, address: &Multiaddr) -> Result<(), String>;
    /// Every peer that is known, connected or not, and where it is or would be dialed.
    fn peers(&self) -> BTreeMap<PeerId, Vec<String>>;
    /// Closes the connections to a peer and does not dial it any more by itself, also after a restart. It may come back.
    ///
    /// # Errors
    /// Why the network did not take the order, or that it may not hold after a restart.
    fn forget(&self, peer: PeerId) -> BoxFuture<'static, Result<(), SwarmError>>;
    /// Refuses to talk to a peer from now on, and tells it so; or no more.
    fn set_disabled(&self, peer: PeerId, disabled: bool);
    /// Numbers for metrics, where it keeps any.
    fn counters(&self) -> Option<Arc<Counters>> {
        None
    }
    /// Closes listeners and connections.
    fn shutdown(&self) -> BoxFuture<'static, ()>;
}

impl Network for SwarmHandle {
    fn transport(&self) -> SharedTransport {
        Arc::new(self.clone())
    }
    fn listen_addresses(&self) -> Vec<String> {
        Self::listen_addresses(self)
    }
    fn dial(&self, address: &Multiaddr) -> Result<(), String> {
        Self::dial(self, address).map_err(|error| error.to_string())
    }
    fn peers(&self) -> BTreeMap<PeerId, Vec<String>> {
        Self::peers(self).into_iter().map(|(peer, view)| (peer, view.addresses)).collect()
    }
    fn forget(&self, peer: PeerId) -> BoxFuture<'static, Result<(), SwarmError>> {
        let swarm = self.clone();
        Box::pin(async move { Self::forget(&swarm, peer).await })
    }
    fn set_disabled(&self, peer: PeerId, disabled: bool) {
        Self::set_disabled(self, peer, disabled);
    }
    fn counters(&self) -> Option<Arc<Counters>> {
        Some(Self::counters(self))
    }
    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let swarm = self.clone();
        Box::pin(async move { Self::shutdown(&swarm).await })
    }
}

/// No network: every peer is out of reach.
#[derive(Debug, Clone, Copy, Default)]
pub struct Isolated;

impl Network for Isolated {
    fn transport(&self) -> SharedTransport {
        Arc::new(*self)
    }
    fn listen_addresses(&self) -> Vec<String> {
        Vec::new()
    }
    fn dial(&self, _: &Multiaddr) -> Result<(), String> {
        Err("this node has no network".to_owned())
    }
    fn peers(&self) -> BTreeMap<PeerId, Vec<String>> {
        BTreeMap::new()
    }
    fn forget(&self, _: PeerId) -> BoxFuture<'static, Result<(), SwarmError>> {
        Box::pin(ready(Ok(())))
    }
    fn set_disabled(&self, _: PeerId, _: bool) {}
    fn shutdown(&self) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }
}

impl Transport for Isolated {
    fn request(&self, _: PeerId, _: Class, _: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        Box::pin(ready(Err(TransportError::NotConnected)))
    }
    fn announce(&self, _: Announce) {}
    fn subscribe(&self, _: DatasetId) {}
    fn unsubscribe(&self, _: DatasetId) {}
    fn accepted(&self, _: PeerId, _: Vec<String>) {}
    fn disconnect(&self, _: PeerId, _: &str) {}

    fn misbehaved(&self, _: PeerId, _: &str) {}
    fn listen_addresses(&self) -> Vec<String> {
        Vec::new()
    }
}
