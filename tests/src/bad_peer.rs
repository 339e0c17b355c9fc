//! A peer that says a proper `Hello` and then behaves badly: a thread of its own, with raw streams instead of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anabranch_protocol::id::{Incarnation, Lineage, Salt};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{
    BULK_PROTOCOL, CONTROL_PROTOCOL, DatasetHello, HeadsReply, Hello, HelloReply, Kind, PolicyScope, Refusal, RefusalCode,
    Request, Response, VERSION,
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::Control;
use tokio::sync::oneshot;

/// How it behaves badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Sends half a page and nothing more.
    StallMidPage,
    /// Sends its pages a byte a second.
    ByteASecond,
    /// Says `Hello` as fast as it can, in many streams at once.
    FloodHello,
}

/// What it saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its `Hello`s that were accepted.
    pub accepted: AtomicU64,
    /// Its `Hello`s that were refused as busy.
    pub busy: AtomicU64,
    /// Pages it was asked for.
    pub pulls: AtomicU64,
    /// Connections of its that ended.
    pub closed: AtomicU64,
}

/// A running bad peer. Dropped, it leaves.
#[derive(Debug)]
pub struct BadPeer {
    /// Who it is.
    pub peer_id: String,
    /// What it saw.
    pub seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// `Hello`s under way at once.
const FLOOD_STREAMS: usize = 16;
/// Half of what it announces of a page.
const HALF_PAGE: usize = 32 << 10;

impl BadPeer {
    /// Connects to `to`, a multiaddr that ends in a peer id, and comes back whenever it is thrown out. `seed` makes its identity;
    /// `claims` is what it says that it has of `primary`.
    ///
    /// # Panics
    /// When the address is none, or the system has no threads left.
    #[must_use]
    pub fn start(manner: Manner, seed: u8, to: &str, claims: VersionVector) -> Self {
        let to: Multiaddr = to.parse().expect("a multiaddr");
        let keys = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        let peer_id = keys.public().to_peer_id().to_string();
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = oneshot::channel();
        let visit = Visit { manner, claims, seen: Arc::clone(&seen) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = visit.live(keys, to) => {}
                }
            });
        });
        Self { peer_id, seen, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for BadPeer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Visit {
    manner: Manner,
    claims: VersionVector,
    seen: Arc<Seen>,
}

impl Visit {
    async fn live(self, keys: Keypair, to: Multiaddr) {
        let mut swarm = SwarmBuilder::with_existing_identity(keys)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
            .build();
        let Some(libp2p::multiaddr::Protocol::P2p(peer)) = to.iter().last() else { panic!("{to} names no peer") };
        let mut control = swarm.behaviour().new_control();
        let mut asked = control.accept(StreamProtocol::new(CONTROL_PROTOCOL)).expect("nobody else accepts");
        let mut pages = control.accept(StreamProtocol::new(BULK_PROTOCOL)).expect("nobody else accepts");
        let mut again = tokio::time::interval(Duration::from_millis(100));
        let mut greeting = Vec::new();
        loop {
            tokio::select! {
                event = swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { .. } => {
                        let streams = if self.manner == Manner::FloodHello { FLOOD_STREAMS } else { 1 };
                        greeting.extend((0..streams).map(|_| tokio::spawn(self.clone().greet(control.clone(), peer))));
                    }
                    SwarmEvent::ConnectionClosed { .. } => {
                        self.seen.closed.fetch_add(1, Ordering::Relaxed);
                        greeting.drain(..).for_each(|greeting| greeting.abort());
                    }
                    _ => {}
                },
                Some((_, stream)) = asked.next() => drop(tokio::spawn(self.clone().answer(stream))),
                Some((_, stream)) = pages.next() => drop(tokio::spawn(self.clone().serve(stream))),
                _ = again.tick() => {
                    // Refused while a connection stands.
                    let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(vec![to.clone()]);
                    let _ = swarm.dial(dial.build());
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        let dataset = DatasetHello {
            dataset: None,
            lineage: Lineage::ZERO,
            kind: Kind::Documents,
            registration: Registration::all(),
            policies: [(PolicyScope(None), "lww".to_owned())].into(),
            heads: self.claims.clone(),
        };
        let (nonce, incarnation) = (Salt([7; 16]), Incarnation([7; 16]));
        Hello {
            versions: vec![VERSION],
            nonce,
            proofs: Vec::new(),
            incarnation,
            listen: Vec::new(),
            datasets: vec![dataset],
            withdrawn: Vec::new(),
        }
    }

    async fn greet(self, mut control: Control, peer: PeerId) {
        loop {
            let Ok(stream) = control.open_stream(peer, StreamProtocol::new(CONTROL_PROTOCOL)).await else { return };
            match say(stream, &Request::Hello(self.hello())).await {
                Some(Response::Hello(_)) => drop(self.seen.accepted.fetch_add(1, Ordering::Relaxed)),
                Some(Response::Refused(refusal)) if refusal.code == RefusalCode::Busy => {
                    self.seen.busy.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
            if self.manner != Manner::FloodHello {
                return;
            }
        }
    }

    async fn answer(self, mut stream: Stream) {
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).await.is_err() {
            return;
        }
        let answer = match Request::decode(&bytes) {
            Ok(Request::Hello(_)) => Response::Hello(HelloReply { hello: self.hello(), refused: Vec::new() }),
            Ok(Request::Heads(_)) => Response::Heads(HeadsReply {
                dataset: None,
                heads: Some(self.claims.clone()),
                held: Vec::new(),
                forks: Vec::new(),
            }),
            Ok(Request::Confirm(_)) => Response::Confirmed,
            // Pushes are never answered.
            Ok(Request::Push(_)) => return std::future::pending().await,
            _ => Response::Refused(Refusal::new(RefusalCode::Busy, "no")),
        };
        let _ = stream.write_all(&answer.encode()).await;
        let _ = stream.close().await;
    }

    /// Answers the first request on a bulk stream, badly.
    async fn serve(self, mut stream: Stream) {
        let mut head = [0; 13];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        self.seen.pulls.fetch_add(1, Ordering::Relaxed);
        // Length of envelope and body, the request's id, kind 1: an answer.
        let length = u32::try_from(9 + 2 * HALF_PAGE).expect("a small page");
        let mut answer = length.to_be_bytes().to_vec();
        answer.extend(&head[4..12]);
        answer.push(1);
        answer.resize(answer.len() + HALF_PAGE, 0xa5);
        if self.manner == Manner::ByteASecond {
            for byte in answer {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        } else {
            let _ = stream.write_all(&answer).await;
            let _ = stream.flush().await;
        }
        // Kept open: only the other side can end this.
        std::future::pending().await
    }
}

async fn say(mut stream: Stream, request: &Request) -> Option<Response> {
    stream.write_all(&request.encode()).await.ok()?;
    stream.close().await.ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok()?;
    Response::decode(&bytes).ok()
}
