//! Connections, dials and listeners.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_actors::transport::TransportEvent;
use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, timeout};

use super::{Peer, SwarmTask};
use crate::swarm::SwarmError;
use crate::swarm::address::{Carrier, carrier, from_libp2p, remote_ip, socket, split_peer};
use crate::swarm::behaviour::BehaviourEvent;
use crate::swarm::counters::count;
use crate::swarm::gossip;
use crate::swarm::handle::lock;
use crate::swarm::redial::{Dial, Target};

/// How long a listener may take to say where it listens.
const BIND_TIMEOUT: Duration = Duration::from_secs(10);

/// Listen addresses shown: no more than a `Hello` may carry.
const LISTEN_MAX: usize = 32;

impl SwarmTask {
    /// Listens on every address, and waits until each is bound.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), SwarmError> {
        let refused = |address: &Multiaddr, source| SwarmError::Listen { address: address.clone(), source };
        // libp2p sets SO_REUSEPORT: a port that another node of the same user listens on would be shared in silence. All are
        // tried before the first is kept, because `0.0.0.0` and `::` with one port stand in each other's way only here.
        for address in addresses {
            let (carrier, socket) = socket(address).ok_or_else(|| SwarmError::NotSupported(address.clone()))?;
            probe(carrier, socket).map_err(|source| refused(address, source))?;
        }
        for address in addresses {
            let listener = self.swarm.listen_on(address.clone());
            let listener = listener.map_err(|error| refused(address, io::Error::other(error.to_string())))?;
            self.unbound.insert(listener, address.clone());
        }
        let binding = async {
            while !self.unbound.is_empty() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm_event(event);
            }
        };
        let in_time = timeout(BIND_TIMEOUT, binding).await.is_ok();
        match self.unbound.values().next() {
            Some(address) if !in_time => Err(refused(address, io::ErrorKind::TimedOut.into())),
            _ => Ok(()),
        }
    }

    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint, num_established.get() == 1);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.counters.connections.fetch_sub(1, Ordering::Relaxed);
                self.unwanted.remove(&connection_id);
                self.strangers.remove(&connection_id);
                let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
                tracing::debug!(peer = %peer_id, %connection_id, remaining = num_established, cause, "connection closed");
                if let Some(state) = self.peers.get_mut(&peer_id) {
                    state.dialed_by_us.take_if(|ours| *ours == connection_id);
                }
                if num_established == 0 {
                    self.on_disconnected(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => self.on_dial_failed(connection_id, &error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an inbound connection was not established");
            }
            SwarmEvent::NewListenAddr { listener_id, .. } => {
                self.unbound.remove(&listener_id);
                self.show_listeners();
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.show_listeners(),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed");
                self.show_listeners();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
            _ => {}
        }
    }

    fn show_listeners(&self) {
        let id = *self.swarm.local_peer_id();
        let mut listen: Vec<_> =
            self.swarm.listeners().map(|a| (carrier(a), a.clone().with(Protocol::P2p(id)).to_string())).collect();
        // TCP first: every peer can dial it.
        listen.sort_unstable();
        *lock(&self.view.listen) = listen.into_iter().take(LISTEN_MAX).map(|(_, address)| address).collect();
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint, first: bool) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let address = split_peer(endpoint.get_remote_address()).0;
        let dialed = endpoint.is_dialer();
        tracing::debug!(%peer, %connection, %address, dialed, first, "connection established");
        let through = match self.dials.remove(&connection) {
            Some(Target::Address(told)) => Some(told),
            _ => None,
        };
        self.redial.connected(peer, through, Instant::now());
        let Some(id) = from_libp2p(&peer) else {
            tracing::warn!(%peer, "a peer without an ed25519 key is not one of ours");
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        if !self.lists.let_in(&peer) {
            return self.on_stranger(peer, connection);
        }
        let state = self.peers.entry(peer).or_insert_with(|| Peer {
            id,
            remote_ip: remote_ip(&address),
            dialed: None,
            identified: Vec::new(),
            accepted: false,
            rtt: None,
            over_rate: 0,
            dialed_by_us: None,
            control_in_flight: 0,
            opener: None,
            server: None,
        });
        if dialed {
            // Told of one peer at several addresses we may have dialed it twice. One is enough, and only the side that dialed may
            // close the other: both sides' choices would meet in no connection at all.
            if state.dialed_by_us.is_some() {
                tracing::debug!(%peer, %connection, "a second connection that this node opened is closed");
                self.swarm.close_connection(connection);
                return self.show(peer);
            }
            state.dialed_by_us = Some(connection);
            state.dialed = Some(address.clone());
        }
        if first {
            gossip::set_accepted(self.swarm.behaviour_mut().gossip(), &peer, false);
            self.outbox.push(TransportEvent::Connected { peer: id, dialed, address: address.to_string() });
        }
        self.show(peer);
    }

    fn on_disconnected(&mut self, peer: PeerId) {
        self.redial.disconnected(peer, Instant::now());
        if let Some(state) = self.peers.remove(&peer) {
            self.outbox.push(TransportEvent::Disconnected { peer: state.id });
        }
        self.show(peer);
    }

    pub(super) fn dial(&mut self, dial: Dial, now: Instant) {
        // A port of its own: from the listening port, two nodes that dial each other at once would meet in one TCP
        // connection that both believe to have opened.
        let options = match &dial.target {
            Target::Peer(peer) => DialOpts::peer_id(*peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(dial.addresses)
                .allocate_new_port()
                .build(),
            Target::Address(address) => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, dial.target);
            }
            Err(error) => {
                tracing::debug!(target = ?dial.target, %error, "not dialed");
                self.redial.failed(&dial.target, now);
            }
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(target) = self.dials.remove(&connection) else { return };
        count(&self.counters.dials_failed);
        let now = Instant::now();
        match (error, &target) {
            (DialError::LocalPeerId { address }, _) => {
                tracing::warn!(%address, "a peer address that leads back to this node is ignored from now on");
                self.forget_own_address(&target, address);
            }
            (DialError::WrongPeerId { obtained, address }, Target::Peer(peer)) => {
                tracing::warn!(%peer, %obtained, %address, "another peer answered");
                self.redial.wrong_peer(*peer, split_peer(address).0, now);
            }
            _ => tracing::debug!(?target, %error, "dial failed"),
        }
        self.redial.failed(&target, now);
    }

    fn forget_own_address(&mut self, target: &Target, address: &Multiaddr) {
        match target {
            Target::Address(_) => self.redial.forget(target),
            Target::Peer(peer) => self.redial.wrong_peer(*peer, split_peer(address).0, Instant::now()),
        }
    }
}

/// Whether a port is free. Port 0 always is.
fn probe(carrier: Carrier, socket: SocketAddr) -> io::Result<()> {
    match carrier {
        _ if socket.port() == 0 => Ok(()),
        Carrier::Tcp => TcpListener::bind(socket).map(drop),
        Carrier::Quic => UdpSocket::bind(socket).map(drop),
    }
}
