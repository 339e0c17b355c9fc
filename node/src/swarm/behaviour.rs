//! The libp2p swarm: transport, protocols, limits.

use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::access::Peers;
use anabranch_protocol::wire::{CONTROL_PROTOCOL, VERSION};
use libp2p::allow_block_list::{self, AllowedPeers, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::upgrade::Version;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};

use super::SwarmError;
use super::address::to_libp2p;
use super::config::SwarmConfig;
use super::control::ControlCodec;
use super::counters::Counters;
use super::gossip::{self, Gossip};

/// Substreams of one connection. Yamux buffers up to 256 KiB for each that nobody reads.
const STREAMS_PER_CONNECTION_MAX: usize = 160;
/// Control requests of one connection, both ways: twice what `requests_in_flight_max` lets an honest node send.
const CONTROL_STREAMS_MAX: usize = 128;
/// Connections are kept until somebody closes them.
const NEVER_IDLE: Duration = Duration::from_secs(u64::MAX);

/// What runs on every connection. The first three say no before anything else is set up.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    deny: allow_block_list::Behaviour<BlockedPeers>,
    /// Peers that misbehaved, for a while.
    pub(super) backed_off: allow_block_list::Behaviour<BlockedPeers>,
    allow: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(super) control: request_response::Behaviour<ControlCodec>,
    pub(super) gossip: Gossip,
    pub(super) bulk: libp2p_stream::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
}

/// Builds the swarm; needs a tokio runtime.
pub(super) fn build(config: &SwarmConfig, counters: &Arc<Counters>) -> Result<Swarm<Behaviour>, SwarmError> {
    let setup = |error: String| SwarmError::Setup(error);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits(config)),
        deny: deny(config),
        backed_off: allow_block_list::Behaviour::default(),
        allow: allow(config),
        control: control(config, counters),
        gossip: gossip::behaviour(&config.identity).map_err(setup)?,
        bulk: libp2p_stream::Behaviour::new(),
        identify: identify(config),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(config.limits.ping_interval).with_timeout(config.limits.ping_timeout),
        ),
    };
    let builder = SwarmBuilder::with_existing_identity(config.identity.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux_config)
        .map_err(|error| setup(error.to_string()))?
        .with_behaviour(move |_| behaviour)
        .map_err(|error| setup(error.to_string()))?;
    // `V1Lazy` sends the first bytes of a substream along with the protocol's name: one round trip less per request.
    let swarm = builder.with_swarm_config(|config| {
        config.with_idle_connection_timeout(NEVER_IDLE).with_substream_upgrade_protocol_override(Version::V1Lazy)
    });
    Ok(swarm.build())
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
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

fn deny(config: &SwarmConfig) -> allow_block_list::Behaviour<BlockedPeers> {
    let mut deny = allow_block_list::Behaviour::<BlockedPeers>::default();
    for peer in config.deny.iter().filter_map(|peer| to_libp2p(*peer)) {
        deny.block_peer(peer);
    }
    deny
}

fn allow(config: &SwarmConfig) -> Toggle<allow_block_list::Behaviour<AllowedPeers>> {
    let Peers::Only(allowed) = &config.allow else { return Toggle::from(None) };
    let mut allow = allow_block_list::Behaviour::<AllowedPeers>::default();
    for peer in allowed.iter().filter_map(|peer| to_libp2p(*peer)) {
        allow.allow_peer(peer);
    }
    Toggle::from(Some(allow))
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
