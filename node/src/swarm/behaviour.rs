//! The libp2p swarm: transport, protocols, limits.

use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::wire::{CONTROL_PROTOCOL, VERSION};
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::upgrade::Version;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, identify, memory_connection_limits, noise, ping, tcp, yamux};

#[cfg(feature = "mdns")]
use libp2p::{mdns, swarm::behaviour::toggle::Toggle};

use super::SwarmError;
use super::config::{MEMORY_SHARE_MAX, SwarmConfig};
use super::control::ControlCodec;
use super::counters::Counters;
use super::door::{Guarded, Lists};
use super::gossip::{self, Gossip};

/// Substreams of one connection. Yamux buffers up to 256 KiB for each that nobody reads.
const STREAMS_PER_CONNECTION_MAX: usize = 160;
/// Inbound substreams of one QUIC connection: libp2p needs some for itself.
#[cfg(feature = "quic")]
const QUIC_STREAMS_MAX: u32 = 160;
/// Unread bytes of one QUIC stream, and of a whole QUIC connection. At 40 ms round trip the latter is 200 MB/s.
#[cfg(feature = "quic")]
const QUIC_STREAM_BYTES_MAX: u32 = 4 << 20;
#[cfg(feature = "quic")]
const QUIC_CONNECTION_BYTES_MAX: u32 = 8 << 20;
/// Control requests of one connection, both ways: twice what `requests_in_flight_max` lets an honest node send.
const CONTROL_STREAMS_MAX: usize = 128;
/// Connections are kept until somebody closes them.
const NEVER_IDLE: Duration = Duration::from_secs(u64::MAX);

/// What runs on every connection. The first three say no before anything else is set up.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    /// Peers that are left alone for a while.
    pub(super) shut_out: allow_block_list::Behaviour<BlockedPeers>,
    /// Also for peers that are not let in, which hear why.
    pub(super) control: request_response::Behaviour<ControlCodec>,
    pub(super) members: Guarded<Members>,
    #[cfg(feature = "mdns")]
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What runs on connections to peers that are let in.
#[derive(NetworkBehaviour)]
pub(super) struct Members {
    pub(super) gossip: Gossip,
    pub(super) bulk: libp2p_stream::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
}

impl Behaviour {
    pub(super) fn gossip(&mut self) -> &mut Gossip {
        &mut self.members.inner_mut().gossip
    }
}

/// Builds the swarm; needs a tokio runtime.
pub(super) fn build(config: &SwarmConfig, lists: &Arc<Lists>, counters: &Arc<Counters>) -> Result<Swarm<Behaviour>, SwarmError> {
    let setup = |error: String| SwarmError::Setup(error);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits(config)),
        memory: memory_limit(config),
        shut_out: allow_block_list::Behaviour::default(),
        control: control(config, counters),
        members: Guarded::new(members(config)?, Arc::clone(lists)),
        #[cfg(feature = "mdns")]
        mdns: mdns(config).into(),
    };
    let builder = SwarmBuilder::with_existing_identity(config.identity.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux_config)
        .map_err(|error| setup(error.to_string()))?;
    #[cfg(feature = "quic")]
    let builder = builder.with_quic_config(quic_config);
    let builder = builder.with_behaviour(move |_| behaviour).map_err(|error| setup(error.to_string()))?;
    // `V1Lazy` sends the first bytes of a substream along with the protocol's name: one round trip less per request.
    let swarm = builder.with_swarm_config(|config| {
        config.with_idle_connection_timeout(NEVER_IDLE).with_substream_upgrade_protocol_override(Version::V1Lazy)
    });
    Ok(swarm.build())
}

fn members(config: &SwarmConfig) -> Result<Members, SwarmError> {
    Ok(Members {
        gossip: gossip::behaviour(&config.identity).map_err(SwarmError::Setup)?,
        bulk: libp2p_stream::Behaviour::new(),
        identify: identify(config),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(config.limits.ping_interval).with_timeout(config.limits.ping_timeout),
        ),
    })
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
    config
}

/// What a peer may make us hold of its unread streams is bounded for each stream and for the connection as a whole.
#[cfg(feature = "quic")]
fn quic_config(mut config: libp2p::quic::Config) -> libp2p::quic::Config {
    config.max_concurrent_stream_limit = QUIC_STREAMS_MAX;
    config.max_stream_data = QUIC_STREAM_BYTES_MAX;
    config.max_connection_data = QUIC_CONNECTION_BYTES_MAX;
    config
}

fn connection_limits(config: &SwarmConfig) -> ConnectionLimits {
    let limits = &config.limits;
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.connections_pending_max))
        .with_max_pending_outgoing(Some(limits.connections_pending_max))
        .with_max_established(Some(limits.connections_max))
        .with_max_established_per_peer(Some(limits.connections_per_peer_max))
}

/// Looks for peers on the local network. A machine where that does not work starts all the same.
#[cfg(feature = "mdns")]
fn mdns(config: &SwarmConfig) -> Option<mdns::tokio::Behaviour> {
    if !config.mdns {
        return None;
    }
    let started = mdns::tokio::Behaviour::new(mdns::Config::default(), config.identity.public().to_peer_id());
    started.inspect_err(|error| tracing::warn!(%error, "peers are not looked for on the local network: mDNS did not start")).ok()
}

fn memory_limit(config: &SwarmConfig) -> memory_connection_limits::Behaviour {
    match config.limits.memory_max {
        Some(bytes) => memory_connection_limits::Behaviour::with_max_bytes(bytes),
        None => memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE_MAX),
    }
}

fn control(config: &SwarmConfig, counters: &Arc<Counters>) -> request_response::Behaviour<ControlCodec> {
    let codec = ControlCodec::new(Arc::clone(counters), config.limits.inbound_bytes_max);
    let protocols = [(StreamProtocol::new(CONTROL_PROTOCOL), ProtocolSupport::Full)];
    let settings = request_response::Config::default()
        .with_request_timeout(config.limits.request_timeout)
        .with_max_concurrent_streams(CONTROL_STREAMS_MAX);
    request_response::Behaviour::with_codec(codec, protocols, settings)
}

fn identify(config: &SwarmConfig) -> identify::Behaviour {
    let settings = identify::Config::new(format!("/anabranch/{VERSION}"), config.identity.public())
        .with_agent_version(concat!("anabranch/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        // Told before any proof; the accepted `Hello` brings addresses.
        .with_hide_listen_addrs(!config.network_keys.is_open())
        .with_cache_size(0);
    identify::Behaviour::new(settings)
}
