//! The door: whom our lists let in, and what a connection to anybody else may do.
//!
//! Who is denied, or not among those allowed, keeps a connection just long enough to hear so in answer to its `Hello`. On it only
//! control requests are read, and each is refused: no gossip, no identify, no pages, no pings. So it learns what the handshake of
//! a connection tells anyone, and takes no more than the buffers of a few connections for some seconds.

use std::convert::Infallible;
use std::sync::Arc;
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
}

impl Lists {
    pub(super) fn new(config: &SwarmConfig) -> Arc<Self> {
        Arc::new(Self { allow: config.allow.clone(), deny: config.deny.clone() })
    }

    /// Whether a peer may come in. Keys that are not ed25519 are judged when the connection stands.
    pub(super) fn let_in(&self, peer: &PeerId) -> bool {
        from_libp2p(peer).is_none_or(|peer| self.allow.contains(&peer) && !self.deny.contains(&peer))
    }
}

/// What a peer that is not let in is told.
pub(super) fn not_let_in() -> Refusal {
    Refusal::new(RefusalCode::Forbidden, "the peer's id is denied, or not among those allowed, in `[access]` of the other side")
}

/// A behaviour that has nothing to do with peers that are not let in: it neither hears of their connections nor speaks on them.
pub(super) struct Guarded<B> {
    inner: B,
    lists: Arc<Lists>,
}

impl<B> Guarded<B> {
    pub(super) fn new(inner: B, lists: Arc<Lists>) -> Self {
        Self { inner, lists }
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
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let about = match &event {
            FromSwarm::ConnectionEstablished(event) => Some(event.peer_id),
            FromSwarm::ConnectionClosed(event) => Some(event.peer_id),
            FromSwarm::AddressChange(event) => Some(event.peer_id),
            _ => None,
        };
        if about.is_none_or(|peer| self.lists.let_in(&peer)) {
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
