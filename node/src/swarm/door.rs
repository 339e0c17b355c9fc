//! The door: whom our lists let in, and what a connection to anybody else may do.
//!
//! Who is denied, or not among those allowed, keeps a connection just long enough to hear so in answer to its `Hello`. On it only
//! control requests are read, and each is refused: no gossip, no identify, no pages, no pings. So it learns what the handshake of
//! a connection tells anyone, and takes no more than the buffers of a few connections for some seconds.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use anabranch_protocol::access::Peers;
use anabranch_protocol::wire::{Refusal, RefusalCode};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::address::from_libp2p;
use super::config::SwarmConfig;

/// Whom configuration lets in.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    allow: Peers,
    deny: Vec<anabranch_protocol::id::PeerId>,
    /// By an operator, while the node runs.
    disabled: Arc<RwLock<BTreeSet<anabranch_protocol::id::PeerId>>>,
}

impl Lists {
    pub(super) fn new(config: &SwarmConfig) -> Arc<Self> {
        let disabled = Arc::new(RwLock::new(config.disabled.clone()));
        Arc::new(Self { allow: config.allow.clone(), deny: config.deny.clone(), disabled })
    }

    /// From now on a peer is disabled, or no more.
    pub(super) fn set_disabled(&self, peer: anabranch_protocol::id::PeerId, disabled: bool) {
        let mut peers = self.disabled.write().unwrap_or_else(PoisonError::into_inner);
        if disabled {
            peers.insert(peer);
        } else {
            peers.remove(&peer);
        }
    }

    /// Whether an operator disabled a peer.
    pub(super) fn is_disabled(&self, peer: &PeerId) -> bool {
        let peers = self.disabled.read().unwrap_or_else(PoisonError::into_inner);
        !peers.is_empty() && from_libp2p(peer).is_some_and(|peer| peers.contains(&peer))
    }

    /// What a peer that is not let in is told.
    pub(super) fn refusal(&self, peer: &PeerId) -> Refusal {
        let why = if self.is_disabled(peer) { DISABLED } else { NOT_ALLOWED };
        Refusal::new(RefusalCode::Forbidden, why)
    }

    /// Whether a peer may come in. Keys that are not ed25519 are judged when the connection stands.
    pub(super) fn let_in(&self, peer: &PeerId) -> bool {
        let listed = |peer| self.allow.contains(&peer) && !self.deny.contains(&peer);
        from_libp2p(peer).is_none_or(listed) && !self.is_disabled(peer)
    }
}

const NOT_ALLOWED: &str = "the peer's id is denied, or not among those allowed, in `[access]` of the other side";
const DISABLED: &str = "an operator disabled the peer; `anabranch peers enrol` on that node lets it in again";

/// A behaviour that has nothing to do with peers that are not let in: it neither hears of their connections nor speaks on them.
pub(super) struct Guarded<B> {
    inner: B,
    lists: Arc<Lists>,
    /// Connections that were not let in when they were made. Lists change, and what a behaviour heard the beginning of it has to
    /// hear the end of.
    strangers: HashSet<ConnectionId>,
}

impl<B> Guarded<B> {
    pub(super) fn new(inner: B, lists: Arc<Lists>) -> Self {
        Self { inner, lists, strangers: HashSet::new() }
    }

    pub(super) const fn inner(&self) -> &B {
        &self.inner
    }

    pub(super) const fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Guarded<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.lists.let_in(&peer) {
            self.strangers.insert(connection);
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.lists.let_in(&peer) {
            self.strangers.insert(connection);
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let strange = match &event {
            FromSwarm::ConnectionEstablished(event) => self.strangers.contains(&event.connection_id),
            FromSwarm::AddressChange(event) => self.strangers.contains(&event.connection_id),
            FromSwarm::ConnectionClosed(event) => self.strangers.remove(&event.connection_id),
            // Another behaviour said no after this one was asked.
            FromSwarm::DialFailure(event) => {
                self.strangers.remove(&event.connection_id);
                false
            }
            FromSwarm::ListenFailure(event) => {
                self.strangers.remove(&event.connection_id);
                false
            }
            _ => false,
        };
        if !strange {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Either::Right(never) => match never as Infallible {},
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context).map(|to_swarm| to_swarm.map_in(Either::Left))
    }
}
