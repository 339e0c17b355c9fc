//! What a swarm is started with: identity, addresses, and every bound it keeps.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anabranch_protocol::access::Peers;
use anabranch_protocol::id::PeerId;
use anabranch_protocol::network_key::Keyring;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;

use super::SwarmError;

/// What a swarm is started with.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// The node's ed25519 key: its `PeerId`.
    pub identity: Keypair,
    /// Where to listen. Port 0 lets the system choose.
    pub listen: Vec<Multiaddr>,
    /// Peers the user told of, with or without a trailing `/p2p/<peer id>`. They are redialed for ever.
    pub peers: Vec<Multiaddr>,
    /// File that remembers accepted peers across restarts.
    pub address_book: PathBuf,
    /// Keys of the private network: addresses and the names of datasets are hidden from who connects. None: an open one.
    pub network_keys: Keyring,
    /// The only peers that may connect.
    pub allow: Peers,
    /// Peers that may not connect.
    pub deny: Vec<PeerId>,
    /// Peers that an operator disabled; they are told so and may not connect until they are enabled again.
    pub disabled: BTreeSet<PeerId>,
    /// Look for peers on the local network, where the build has mDNS.
    pub mdns: bool,
    /// Bounds and deadlines.
    pub limits: SwarmLimits,
}

impl SwarmConfig {
    /// A swarm that neither listens nor knows a peer yet.
    #[must_use]
    pub fn new(identity: Keypair, address_book: PathBuf) -> Self {
        let limits = SwarmLimits::default();
        Self {
            identity,
            listen: Vec::new(),
            peers: Vec::new(),
            address_book,
            network_keys: Keyring::default(),
            allow: Peers::All,
            deny: Vec::new(),
            disabled: BTreeSet::new(),
            mdns: false,
            limits,
        }
    }

    /// The same from the 32 secret bytes of an ed25519 key.
    ///
    /// # Errors
    /// [`SwarmError::Identity`] when libp2p refuses the key.
    pub fn from_secret(mut secret: [u8; 32], address_book: PathBuf) -> Result<Self, SwarmError> {
        let identity = Keypair::ed25519_from_bytes(&mut secret).map_err(|error| SwarmError::Identity(error.to_string()))?;
        Ok(Self::new(identity, address_book))
    }
}

/// Share of the machine's memory that the process may have before it takes no further connections.
pub const MEMORY_SHARE_MAX: f64 = 0.8;

/// Every bound of a swarm. The defaults suit a mesh of some dozens of nodes on anything from loopback to a slow uplink.
#[derive(Debug, Clone)]
pub struct SwarmLimits {
    /// Deadline of a control request, its transfer included. Shorter gives up on slow disks behind slow links.
    pub request_timeout: Duration,
    /// Deadline of a bulk request. A page of one largest frame takes 2 s at 20 Mbit/s.
    pub bulk_timeout: Duration,
    /// Deadline for opening the bulk stream: libp2p's `open_stream` may never return (rust-libp2p issue 6157).
    pub open_stream_timeout: Duration,
    /// Control requests under way to one peer; more are refused as busy.
    pub requests_in_flight_max: usize,
    /// Bulk requests under way to one peer, and as many waiting; more are refused as busy.
    pub bulk_in_flight_max: usize,
    /// Bulk requests of one peer being served at once; past that its stream is not read.
    pub bulk_served_max: usize,
    /// Inbound control requests that wait for the node's answer, all peers together; past that they are refused as busy.
    pub answers_waiting_max: usize,
    /// Memory for large inbound control messages, all peers together; past that they are refused as busy.
    pub inbound_bytes_max: usize,
    /// Established connections, all peers together.
    pub connections_max: u32,
    /// Established connections to one peer. Two nodes that dial each other at once keep both; a third and fourth let a
    /// restarted peer in while its old connections are not yet known to be dead.
    pub connections_per_peer_max: u32,
    /// Connections in their handshake, each way.
    pub connections_pending_max: u32,
    /// Memory of the process, bytes, past which no further connection is taken or made. None: `MEMORY_SHARE_MAX` of the
    /// machine's.
    pub memory_max: Option<usize>,
    /// `Hello`s of one peer in a second. A node says one for each dataset that begins to run, two where there is a network key.
    pub hello_rate_max: NonZeroU32,
    /// `Hello`s of one peer at once: as many as a node may have datasets.
    pub hello_burst_max: NonZeroU32,
    /// Other control requests of one peer in a second, and twice as many at once. More than an honest node gets through one
    /// connection.
    pub request_rate_max: NonZeroU32,
    /// Announcements forwarded by one peer in a second.
    pub announce_rate_max: NonZeroU32,
    /// Requests of one peer over a rate, in one session, after which it is shut out for `refused_for`.
    pub over_rate_max: u32,
    /// First delay before a peer is dialed again.
    pub redial_delay_min: Duration,
    /// Longest delay before a peer is dialed again. Jitter is added on top, up to the same again.
    pub redial_delay_max: Duration,
    /// A connection that stood this long resets the delay.
    pub stable_after: Duration,
    /// How long a peer is not dialed after `disconnect`, and how long one that was shut out may not connect.
    pub refused_for: Duration,
    /// Pause between two pings.
    pub ping_interval: Duration,
    /// A connection whose ping takes longer is closed.
    pub ping_timeout: Duration,
    /// Points for misbehaviour (a malformed message 1, a commit or statement that nobody signed 4), after which a peer is shut out
    /// for `refused_for`. As long without misbehaviour clears them; a new connection does not.
    pub misbehaviour_max: u32,
}

impl Default for SwarmLimits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            bulk_timeout: Duration::from_secs(30),
            open_stream_timeout: Duration::from_secs(10),
            requests_in_flight_max: 64,
            bulk_in_flight_max: 16,
            bulk_served_max: 8,
            answers_waiting_max: 1_024,
            inbound_bytes_max: 128 << 20,
            connections_max: 512,
            connections_per_peer_max: 4,
            connections_pending_max: 64,
            memory_max: None,
            hello_rate_max: rate(16),
            hello_burst_max: rate(1_024),
            request_rate_max: rate(4_000),
            announce_rate_max: rate(5_000),
            over_rate_max: 1_000,
            redial_delay_min: Duration::from_millis(250),
            redial_delay_max: Duration::from_secs(15),
            stable_after: Duration::from_secs(10),
            refused_for: Duration::from_secs(60),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            misbehaviour_max: 32,
        }
    }
}

const fn rate(per_second: u32) -> NonZeroU32 {
    NonZeroU32::new(per_second).expect("a rate of zero would let nobody ask")
}
