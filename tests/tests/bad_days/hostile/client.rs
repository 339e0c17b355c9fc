//! A peer without manners: libp2p on the real port of a real node, and on it whatever bytes it likes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage, PeerId, Salt};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{
    BULK_PROTOCOL, CONTROL_PROTOCOL, DatasetHello, Hello, Kind, PolicyScope, Push, Request, Response, VERSION,
};
use anabranch_tests::process::{DEADLINE, Node};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Stream, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long the node may take to hang up on somebody whom it does not let in.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(20);

/// What the hostile peer answers when the node asks it on the bulk stream.
type Answers = Arc<Mutex<Vec<u8>>>;

/// A connected hostile peer.
pub struct Hostile {
    runtime: Runtime,
    control: libp2p_stream::Control,
    to: libp2p::PeerId,
    pub identity: Identity,
    /// The body of every answer to a pull.
    pub page: Answers,
}

fn secret(seed: u64) -> [u8; 32] {
    let mut secret = [0x5a; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    secret
}

impl Hostile {
    /// Connects under the identity of this seed; the same seed is the same peer again.
    pub fn connect(seed: u64, node: &Node) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let address: Multiaddr = node.listen[0].parse().expect("an address");
        let to = node.peer_id.parse().expect("a peer id");
        let keypair = Keypair::ed25519_from_bytes(secret(seed)).expect("a key");
        let mut control = runtime.block_on(open(keypair, address));
        let page = Answers::default();
        let pages = control.accept(StreamProtocol::new(BULK_PROTOCOL)).expect("one listener");
        runtime.spawn(answer_pulls(pages, page.clone()));
        Self { runtime, control, to, identity: Identity::from_secret(&secret(seed)), page }
    }

    /// Says bytes on a stream of its own; what came back until the node closed it. None where the node hung up.
    pub fn say(&mut self, protocol: &'static str, bytes: &[u8]) -> Option<Vec<u8>> {
        let (control, to) = (&mut self.control, self.to);
        let saying = async {
            let stream = control.open_stream(to, StreamProtocol::new(protocol)).await.ok()?;
            let (mut reader, mut writer) = stream.split();
            let speaking = async {
                // The other side may hang up in the middle.
                let _ = writer.write_all(bytes).await;
                let _ = writer.close().await;
            };
            let mut heard = Vec::new();
            let (_, read) = futures::future::join(speaking, reader.read_to_end(&mut heard)).await;
            read.ok().map(|_| heard)
        };
        self.runtime.block_on(async { timeout(HANGS_UP_WITHIN, saying).await }).ok().flatten()
    }

    /// Asks over the control protocol; none where the node hung up.
    pub fn ask_bytes(&mut self, bytes: &[u8]) -> Option<Response> {
        let heard = self.say(CONTROL_PROTOCOL, bytes)?;
        Response::decode(&heard).ok()
    }

    pub fn ask(&mut self, request: &Request) -> Option<Response> {
        self.ask_bytes(&request.encode())
    }

    /// A bulk frame around a body, answered or not.
    pub fn bulk(&mut self, request: &Request) -> Option<Response> {
        let body = request.encode();
        let mut frame = u32::try_from(body.len() + 9).expect("a small request").to_be_bytes().to_vec();
        frame.extend_from_slice(&7_u64.to_be_bytes());
        frame.push(0);
        frame.extend_from_slice(&body);
        let heard = self.say(BULK_PROTOCOL, &frame)?;
        Response::decode(heard.get(13..)?).ok()
    }

    /// Introduces itself with these heads.
    pub fn greet(&mut self, heads: VersionVector) -> Option<Response> {
        self.ask(&hello(heads, Lineage::ZERO))
    }

    /// Pushes one frame.
    pub fn push(&mut self, frame: Vec<u8>) -> Option<Response> {
        self.ask(&Request::Push(Push { dataset: None, frames: vec![frame.into()] }))
    }

    pub fn peer(&self) -> PeerId {
        self.identity.peer()
    }
}

/// A `Hello` for `primary`, with everything registered.
pub fn hello(heads: VersionVector, lineage: Lineage) -> Request {
    let dataset = DatasetHello {
        dataset: DatasetId::primary().to_wire(),
        lineage,
        kind: Kind::Documents,
        registration: Registration::all(),
        policies: [(PolicyScope(None), "lww".to_owned())].into(),
        heads,
    };
    Request::Hello(Hello {
        versions: vec![VERSION],
        nonce: Salt([3; 16]),
        proofs: Vec::new(),
        incarnation: Incarnation([4; 16]),
        listen: Vec::new(),
        datasets: vec![dataset],
        withdrawn: Vec::new(),
    })
}

async fn open(keypair: Keypair, address: Multiaddr) -> libp2p_stream::Control {
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("streams")
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    let control = swarm.behaviour().new_control();
    swarm.dial(address).expect("an address to dial");
    let connected = async { while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {} };
    timeout(DEADLINE, connected).await.expect("a connection");
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    control
}

async fn answer_pulls(mut streams: libp2p_stream::IncomingStreams, page: Answers) {
    while let Some((_, stream)) = streams.next().await {
        tokio::spawn(answer_stream(stream, page.clone()));
    }
}

/// Answers each frame with the body that is set, under the id that was asked with.
async fn answer_stream(mut stream: Stream, page: Answers) {
    let mut head = [0; 13];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let mut asked = vec![0; length - 9];
        if stream.read_exact(&mut asked).await.is_err() {
            return;
        }
        let body = page.lock().expect("nobody panics with it").clone();
        let mut answer = u32::try_from(body.len() + 9).expect("a page").to_be_bytes().to_vec();
        answer.extend_from_slice(&head[4..12]);
        answer.push(1);
        answer.extend_from_slice(&body);
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
