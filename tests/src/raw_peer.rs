//! A peer that says exactly the bytes it is given: an older version, or one that means no good.

use std::io;

use anabranch_protocol::wire::CONTROL_PROTOCOL;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::request_response::{self, Behaviour, Codec, Event, Message, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identity::Keypair, noise, tcp, yamux};
use tokio::runtime::Runtime;

use crate::process::DEADLINE;

/// Bytes, ended by the end of the substream.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// A peer that only asks. What it is asked it leaves unanswered.
pub struct RawPeer {
    runtime: Runtime,
    swarm: Swarm<Behaviour<Bytes>>,
    node: PeerId,
}

impl RawPeer {
    /// Connects to a node.
    ///
    /// # Panics
    /// When there is no connection within [`DEADLINE`].
    #[must_use]
    pub fn connect(secret: [u8; 32], address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let key = Keypair::ed25519_from_bytes(secret).expect("32 bytes are a secret key");
        let address: Multiaddr = address.parse().expect("an address");
        let mut swarm = {
            let _inside = runtime.enter();
            let protocols = [(StreamProtocol::new(CONTROL_PROTOCOL), ProtocolSupport::Full)];
            let behaviour = Behaviour::with_codec(Bytes, protocols, request_response::Config::default());
            SwarmBuilder::with_existing_identity(key)
                .with_tokio()
                .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
                .expect("TCP")
                .with_behaviour(|_| behaviour)
                .expect("a behaviour")
                .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
                .build()
        };
        let connected = async {
            swarm.dial(address).expect("an address to dial");
            loop {
                if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                    return peer_id;
                }
            }
        };
        let connected = runtime.block_on(async { tokio::time::timeout(DEADLINE, connected).await });
        let node = connected.expect("a connection in time");
        Self { runtime, swarm, node }
    }

    /// Sends a request and returns the answer, byte for byte.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`].
    #[must_use]
    pub fn ask(&mut self, request: Vec<u8>) -> Vec<u8> {
        let (swarm, node) = (&mut self.swarm, self.node);
        let asked = async {
            let id = swarm.behaviour_mut().send_request(&node, request);
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::Behaviour(Event::Message { message: Message::Response { request_id, response }, .. })
                        if request_id == id =>
                    {
                        return response;
                    }
                    SwarmEvent::Behaviour(Event::OutboundFailure { request_id, error, .. }) if request_id == id => {
                        panic!("no answer: {error}");
                    }
                    _ => {}
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(DEADLINE, asked).await }).expect("an answer in time")
    }
}
