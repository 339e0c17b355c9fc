//! Real swarms over real loopback TCP and QUIC. Every wait is for a condition, with a deadline; nothing sleeps and hopes.

mod finding;
mod floods;
mod life;
mod nonsense;
#[cfg(feature = "quic")]
mod quic;
mod requests;

use std::path::PathBuf;
use std::time::Duration;

use anabranch_actors::transport::{Class, Transport, TransportError, TransportEvent};
use anabranch_protocol::id::{PeerId, ShortHash};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::wire::{Heads, HeadsReply, Page, Pull, Request, Response};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{SwarmConfig, SwarmHandle, start};

const DEADLINE: Duration = Duration::from_secs(20);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const EVENTS_MAX: usize = 64;
const PAGE_BYTES: usize = 1 << 20;

/// A swarm and what it told.
struct Node {
    handle: SwarmHandle,
    events: mpsc::Receiver<TransportEvent>,
}

/// What a node keeps across restarts.
struct Home {
    seed: u8,
    directory: TempDir,
}

impl Home {
    fn new(seed: u8) -> Self {
        Self { seed, directory: tempfile::tempdir().unwrap() }
    }

    fn book(&self) -> PathBuf {
        self.directory.path().join("address_book.json")
    }

    fn config(&self, listen: &str, peers: &[String]) -> SwarmConfig {
        let mut config = SwarmConfig::from_secret([self.seed; 32], self.book()).unwrap();
        config.listen = vec![listen.parse().unwrap()];
        config.peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        config.limits.redial_delay_min = Duration::from_millis(20);
        config.limits.redial_delay_max = Duration::from_millis(200);
        config
    }

    async fn start(&self, listen: &str, peers: &[String]) -> Node {
        Node::start(self.config(listen, peers)).await
    }
}

impl Node {
    async fn start(config: SwarmConfig) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        Self { handle: start(config, sender).await.unwrap(), events }
    }

    fn id(&self) -> PeerId {
        self.handle.peer_id()
    }

    fn addresses(&self) -> Vec<String> {
        self.handle.listen_addresses()
    }

    /// The first event that `wanted` takes; others are passed over.
    async fn until<T>(&mut self, mut wanted: impl FnMut(TransportEvent) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the swarm runs");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, waiting).await.expect("the event in time")
    }

    async fn connected(&mut self, to: PeerId) -> bool {
        self.until(|event| match event {
            TransportEvent::Connected { peer, dialed, .. } if peer == to => Some(dialed),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, from: PeerId) {
        self.until(|event| matches!(event, TransportEvent::Disconnected { peer } if peer == from).then_some(())).await;
    }

    /// Answers everything from now on.
    fn answer_all(mut self) -> SwarmHandle {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            while let Some(event) = self.events.recv().await {
                if let TransportEvent::Request { request, reply, .. } = event {
                    let _ = reply.send(answer(&request));
                }
            }
        });
        handle
    }

    async fn ask(&self, peer: PeerId, class: Class, request: Request) -> Result<Response, TransportError> {
        timeout(DEADLINE, self.handle.request(peer, class, request)).await.expect("an answer in time")
    }
}

fn answer(request: &Request) -> Response {
    match request {
        Request::Pull(pull) => {
            let fill = u8::try_from(pull.bytes_max % 251).unwrap();
            let frames = vec![vec![fill; PAGE_BYTES].into()];
            Response::Page(Page { dataset: None, frames, more: false, incomplete: Vec::new() })
        }
        Request::Push(_) => Response::Confirmed,
        _ => Response::Heads(HeadsReply { dataset: None, heads: None, held: Vec::new(), forks: Vec::new() }),
    }
}

fn heads() -> Request {
    Request::Heads(Heads { dataset: None, digest: ShortHash([7; 8]) })
}

fn pull(bytes_max: u64) -> Request {
    Request::Pull(Pull { dataset: None, registration: Registration::default(), wants: Vec::new(), bytes_max })
}

fn page_fill(response: &Response) -> (usize, u8) {
    match response {
        Response::Page(page) => (page.frames[0].len(), page.frames[0][0]),
        other => panic!("not a page: {other:?}"),
    }
}

/// Waits until `holds`, looking again every few milliseconds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Two connected nodes; the second dialed the first.
async fn pair() -> (Node, Node, [Home; 2]) {
    pair_on(TCP).await
}

/// The same, where both listen on nothing but `listen`.
async fn pair_on(listen: &str) -> (Node, Node, [Home; 2]) {
    let homes = [Home::new(1), Home::new(2)];
    let mut a = homes[0].start(listen, &[]).await;
    let mut b = homes[1].start(listen, &a.addresses()).await;
    assert!(b.connected(a.id()).await, "b dialed");
    assert!(!a.connected(b.id()).await, "a did not");
    (a, b, homes)
}
