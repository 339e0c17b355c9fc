//! Real swarms over real loopback TCP. Every wait is for a condition, with a deadline; nothing sleeps and hopes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anabranch_actors::transport::{Class, Transport, TransportError, TransportEvent};
use anabranch_protocol::id::{DatasetId, PeerId, ShortHash};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{
    Announce, BULK_PROTOCOL, CONTROL_PROTOCOL, Heads, HeadsReply, Page, Pull, Push, RefusalCode, Request, Response,
};
use futures::future::join_all;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::counters::MessageKind;
use super::outbox::OUTBOX_EVENTS_MAX;
use super::{SwarmConfig, SwarmError, SwarmHandle, start};

const DEADLINE: Duration = Duration::from_secs(20);
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
        _ => Response::Heads(HeadsReply { dataset: None, heads: None, held: Vec::new() }),
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
    let homes = [Home::new(1), Home::new(2)];
    let mut a = homes[0].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let mut b = homes[1].start("/ip4/127.0.0.1/tcp/0", &a.addresses()).await;
    assert!(b.connected(a.id()).await, "b dialed");
    assert!(!a.connected(b.id()).await, "a did not");
    (a, b, homes)
}

#[tokio::test]
async fn requests_are_answered_in_both_classes_with_several_in_flight() {
    let (a, b, _homes) = pair().await;
    let to = a.id();
    let a = a.answer_all();
    assert!(matches!(b.ask(to, Class::Interactive, heads()).await, Ok(Response::Heads(_))));

    for class in [Class::Bulk, Class::Interactive] {
        let asked = (0..12).map(|n| b.ask(to, class, pull(n)));
        for (n, answered) in join_all(asked).await.into_iter().enumerate() {
            assert_eq!(page_fill(&answered.unwrap()), (PAGE_BYTES, u8::try_from(n).unwrap()), "each its own answer");
        }
    }
    let counters = b.handle.counters();
    assert_eq!(counters.bulk_streams_opened.load(Ordering::Relaxed), 1, "one stream for all of them");
    assert_eq!(counters.requests_in_flight(), 0);
    assert!(counters.bytes_in(MessageKind::Pull) > 24 * PAGE_BYTES as u64);
    assert!(a.counters().bytes_out(MessageKind::Pull) > 24 * PAGE_BYTES as u64);
}

#[tokio::test]
async fn both_sides_may_ask_in_bulk_at_once() {
    let (a, b, _homes) = pair().await;
    let (to_a, to_b) = (a.id(), b.id());
    let (a, b) = (a.answer_all(), b.answer_all());
    let asked = (0..8).flat_map(|n| [b.request(to_a, Class::Bulk, pull(n)), a.request(to_b, Class::Bulk, pull(n))]);
    for answered in timeout(DEADLINE, join_all(asked)).await.unwrap() {
        assert_eq!(page_fill(&answered.unwrap()).0, PAGE_BYTES);
    }
}

#[tokio::test]
async fn large_pushes_arrive_whole() {
    let (a, b, _homes) = pair().await;
    let to = a.id();
    let _a = a.answer_all();
    let frames = vec![vec![1; 5 << 20].into()];
    let pushed = b.ask(to, Class::Interactive, Request::Push(Push { dataset: None, frames })).await;
    assert_eq!(pushed, Ok(Response::Confirmed));
    let frames = vec![vec![1; 7 << 20].into()];
    let refused = b.ask(to, Class::Interactive, Request::Push(Push { dataset: None, frames })).await;
    assert!(matches!(refused, Err(TransportError::Malformed(_))), "{refused:?}");
}

#[tokio::test]
async fn a_peer_that_is_gone_is_an_error_at_once() {
    let (a, mut b, _homes) = pair().await;
    let to = a.id();
    // Under way when the peer goes: `a` never answers.
    let under_way = [b.handle.request(to, Class::Interactive, heads()), b.handle.request(to, Class::Bulk, heads())];
    eventually("both requests are under way", || a.events.len() >= 2).await;
    let asked = Instant::now();
    a.handle.shutdown().await;
    for answered in timeout(DEADLINE, join_all(under_way)).await.unwrap() {
        assert!(matches!(answered, Err(TransportError::Connection(_))), "{answered:?}");
    }
    b.disconnected(to).await;
    for class in [Class::Interactive, Class::Bulk] {
        assert_eq!(b.ask(to, class, heads()).await, Err(TransportError::NotConnected));
    }
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(b.handle.counters().requests_in_flight(), 0);
}

#[tokio::test]
async fn a_dropped_reply_closes_the_request_and_a_missing_one_times_out() {
    let homes = [Home::new(1), Home::new(2)];
    let mut a = homes[0].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let mut config = homes[1].config("/ip4/127.0.0.1/tcp/0", &a.addresses());
    config.limits.request_timeout = Duration::from_millis(300);
    config.limits.bulk_timeout = Duration::from_millis(300);
    let mut b = Node::start(config).await;
    b.connected(a.id()).await;
    for class in [Class::Interactive, Class::Bulk] {
        let asked = b.handle.request(a.id(), class, heads());
        a.until(|event| matches!(event, TransportEvent::Request { .. }).then_some(())).await;
        let answered = timeout(DEADLINE, asked).await.unwrap();
        assert!(matches!(answered, Err(TransportError::Connection(_))), "{class:?}: {answered:?}");

        let asked = b.handle.request(a.id(), class, heads());
        let held = a.until(|event| if let TransportEvent::Request { reply, .. } = event { Some(reply) } else { None }).await;
        assert_eq!(timeout(DEADLINE, asked).await.unwrap(), Err(TransportError::Timeout), "{class:?}");
        drop(held);
    }
}

#[tokio::test]
async fn more_requests_than_the_limit_are_refused_as_busy() {
    let homes = [Home::new(1), Home::new(2)];
    let a = homes[0].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let mut config = homes[1].config("/ip4/127.0.0.1/tcp/0", &a.addresses());
    config.limits.requests_in_flight_max = 4;
    config.limits.bulk_in_flight_max = 4;
    let mut b = Node::start(config).await;
    b.connected(a.id()).await;
    // Nobody answers, so what is taken stays under way.
    let mut asked: Vec<_> = (0..5).map(|_| b.handle.request(a.id(), Class::Interactive, heads())).collect();
    assert_eq!(timeout(DEADLINE, asked.pop().unwrap()).await.unwrap(), Err(TransportError::Busy));
    let bulk: Vec<_> = (0..40).map(|_| b.handle.request(a.id(), Class::Bulk, heads())).collect();
    let (busy, rest) = futures::future::select_all(bulk).map_first().await;
    assert_eq!(busy, Err(TransportError::Busy));
    assert!(rest >= 4);
}

/// `select_all`, reduced to the first answer and how many are left.
trait FirstOf {
    async fn map_first(self) -> (Result<Response, TransportError>, usize);
}

impl<F: Future<Output = Result<Response, TransportError>> + Unpin> FirstOf for futures::future::SelectAll<F> {
    async fn map_first(self) -> (Result<Response, TransportError>, usize) {
        let (first, _, rest) = timeout(DEADLINE, self).await.unwrap();
        (first, rest.len())
    }
}

fn announce(dataset: &DatasetId) -> Announce {
    Announce { dataset: dataset.to_wire(), digest: ShortHash([9; 8]), heads: VersionVector::default() }
}

#[tokio::test]
async fn announcements_reach_accepted_peers_only() {
    let (mut a, b, _homes) = pair().await;
    let logs = DatasetId::new("logs").unwrap();
    for node in [&a, &b] {
        node.handle.subscribe(logs.clone());
        node.handle.subscribe(DatasetId::primary());
    }
    // `b` believes in `a`, which does not believe in `b` yet: whatever `b` says is not taken.
    b.handle.accepted(a.id(), Vec::new());
    let counters = b.handle.counters();
    let sent = || counters.bytes_out(MessageKind::Announce);
    let early = async {
        while sent() == 0 {
            b.handle.announce(announce(&logs));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, early).await.unwrap();
    // A round trip behind it: had the announcement been taken, it would be in the queue by now.
    let asked = b.handle.request(a.id(), Class::Interactive, heads());
    a.until(|event| match event {
        TransportEvent::Announced { .. } => panic!("taken from a peer that was not accepted"),
        TransportEvent::Request { .. } => Some(()),
        _ => None,
    })
    .await;
    drop(asked);

    a.handle.accepted(b.id(), Vec::new());
    let from = b.id();
    let repeat = b.handle.clone();
    let talking = tokio::spawn(async move {
        loop {
            repeat.announce(announce(&DatasetId::primary()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let heard =
        a.until(|event| if let TransportEvent::Announced { peer, announce } = event { Some((peer, announce)) } else { None });
    assert_eq!(heard.await, (from, announce(&DatasetId::primary())));
    talking.abort();
}

/// A libp2p node that speaks no protocol of ours and says what it likes on raw streams.
async fn rude_peer(to: &str) -> libp2p_stream::Control {
    let mut swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    let control = swarm.behaviour().new_control();
    swarm.dial(to.parse::<Multiaddr>().unwrap()).unwrap();
    loop {
        if let SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await {
            break;
        }
    }
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    control
}

/// Says `bytes` on a stream of `protocol` and returns what came back until the other side closed it.
async fn say(control: &mut libp2p_stream::Control, to: PeerId, protocol: &'static str, bytes: &[u8]) -> Vec<u8> {
    let peer = super::address::to_libp2p(to).unwrap();
    let stream = control.open_stream(peer, StreamProtocol::new(protocol)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut heard = Vec::new();
    let speaking = async {
        // The other side may hang up in the middle.
        let _ = writer.write_all(bytes).await;
        let _ = writer.close().await;
    };
    let listening = async {
        let _ = reader.read_to_end(&mut heard).await;
    };
    timeout(DEADLINE, futures::future::join(speaking, listening)).await.expect("an end in time");
    heard
}

#[tokio::test]
async fn malformed_control_messages_are_refused_and_honest_peers_served() {
    let (a, b, _homes) = pair().await;
    let to = a.id();
    let mut rude = rude_peer(&a.addresses()[0]).await;
    let a = a.answer_all();
    let mut trailing = heads().encode();
    trailing.push(0);
    let too_large = vec![0x40; anabranch_protocol::limits::CONTROL_BYTES_MAX + 4_096];
    for bytes in [&b""[..], b"\xff", b"GET / HTTP/1.1\r\n\r\n", &trailing, &too_large] {
        let heard = say(&mut rude, to, CONTROL_PROTOCOL, bytes).await;
        let Ok(Response::Refused(refusal)) = Response::decode(&heard) else { panic!("{} bytes heard", heard.len()) };
        assert_eq!(refusal.code, RefusalCode::Malformed, "{refusal}");
    }
    assert_eq!(a.counters().malformed.load(Ordering::Relaxed), 5);
    assert!(matches!(b.ask(to, Class::Interactive, heads()).await, Ok(Response::Heads(_))));
}

#[tokio::test]
async fn malformed_bulk_frames_close_the_stream_and_honest_peers_are_served() {
    let (a, b, _homes) = pair().await;
    let to = a.id();
    let mut rude = rude_peer(&a.addresses()[0]).await;
    let a = a.answer_all();
    // A whole frame with a body that is no request is answered; the stream goes on until it is closed.
    let heard = say(&mut rude, to, BULK_PROTOCOL, &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0xff]).await;
    assert_eq!(heard[4..13], [0, 0, 0, 0, 0, 0, 0, 5, 1]);
    assert!(matches!(Response::decode(&heard[13..]), Ok(Response::Refused(r)) if r.code == RefusalCode::Malformed));
    // A length of 4 GiB, too short a frame, an unknown kind and an answer that nobody asked for are not.
    let bad: [&[u8]; 4] =
        [&[255; 64], &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 7], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1]];
    for bytes in bad {
        assert_eq!(say(&mut rude, to, BULK_PROTOCOL, bytes).await, b"");
    }
    assert_eq!(a.counters().malformed.load(Ordering::Relaxed), 5);
    assert_eq!(page_fill(&b.ask(to, Class::Bulk, pull(3)).await.unwrap()).0, PAGE_BYTES);
}

#[tokio::test]
async fn a_peer_that_keeps_talking_nonsense_is_disconnected() {
    let home = Home::new(1);
    let mut config = home.config("/ip4/127.0.0.1/tcp/0", &[]);
    config.limits.malformed_max = 3;
    let mut a = Node::start(config).await;
    let mut rude = rude_peer(&a.addresses()[0]).await;
    let peer = a.until(|event| if let TransportEvent::Connected { peer, .. } = event { Some(peer) } else { None }).await;
    for _ in 0..3 {
        say(&mut rude, a.id(), CONTROL_PROTOCOL, b"nonsense").await;
    }
    a.disconnected(peer).await;
}

#[tokio::test]
async fn a_restarted_peer_is_found_on_its_old_and_on_its_new_port() {
    let (mut a, b, homes) = pair().await;
    let (id_a, id_b) = (a.id(), b.id());
    let port = |addresses: &[String]| addresses[0].split('/').nth(4).unwrap().to_owned();
    let listen_b = b.addresses();
    a.handle.accepted(id_b, listen_b.clone());
    b.handle.accepted(id_a, a.addresses());
    eventually("b's book is written", || book_has(&homes[1].book(), id_a)).await;
    b.handle.shutdown().await;
    a.disconnected(id_b).await;

    // On its old port, knowing nobody: only `a` can find `b`.
    std::fs::remove_file(homes[1].book()).unwrap();
    let mut b = homes[1].start(&format!("/ip4/127.0.0.1/tcp/{}", port(&listen_b)), &[]).await;
    assert!(a.connected(id_b).await, "a dialed");
    assert!(!b.connected(id_a).await);
    b.handle.accepted(id_a, a.addresses());
    eventually("b's book is written", || book_has(&homes[1].book(), id_a)).await;
    b.handle.shutdown().await;
    a.disconnected(id_b).await;

    // On a new port: `b` finds `a` by its book and tells where it listens now.
    let b = homes[1].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    assert_ne!(port(&b.addresses()), port(&listen_b));
    assert!(!a.connected(id_b).await, "b dialed");
    a.handle.accepted(id_b, b.addresses());
    let listen_b = b.addresses();
    let expected = listen_b[0].replace(&format!("/p2p/{id_b}"), "");
    eventually("a learned the new address", || a.handle.peer_addresses(id_b) == [expected.clone()]).await;
    b.handle.shutdown().await;
    a.disconnected(id_b).await;

    // There again, knowing nobody: `a` goes to where it was told.
    std::fs::remove_file(homes[1].book()).unwrap();
    let _b = homes[1].start(&format!("/ip4/127.0.0.1/tcp/{}", port(&listen_b)), &[]).await;
    assert!(a.connected(id_b).await, "a dialed");
}

fn book_has(path: &Path, peer: PeerId) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&peer.to_string()))
}

#[tokio::test]
async fn the_address_book_survives_a_restart_and_holds_inbound_peers() {
    let (a, b, homes) = pair().await;
    let (id_a, id_b) = (a.id(), b.id());
    // `b` dialed, so `a` knows where it is only by its word; an unspecified address becomes the one it was seen at.
    let told = b.addresses()[0].replace("127.0.0.1", "0.0.0.0");
    a.handle.accepted(id_b, vec![told]);
    eventually("written at once", || book_has(&homes[0].book(), id_b)).await;
    a.handle.shutdown().await;
    let mut b = b;
    b.disconnected(id_a).await;
    b.handle.forget(id_a).unwrap();
    eventually("b forgot a", || !b.handle.peers().contains_key(&id_a)).await;

    let mut a = homes[0].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    assert!(a.connected(id_b).await, "a dialed from its book");
    assert!(!b.connected(id_a).await);
}

#[tokio::test]
async fn told_addresses_work_without_a_peer_id_and_own_ones_are_ignored() {
    let (a, b) = (Home::new(1), Home::new(2));
    let mut a = a.start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let bare = a.addresses()[0].split("/p2p/").next().unwrap().to_owned();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = format!("/ip4/127.0.0.1/tcp/{port}");
    let b_id = b.start("/ip4/127.0.0.1/tcp/0", &[]).await.id();
    let mut b = b.start(&own, &[own.clone(), format!("{own}/p2p/{b_id}"), bare]).await;
    assert!(b.connected(a.id()).await);
    assert!(!a.connected(b.id()).await);
    assert!(!b.handle.peers().contains_key(&b.id()));
    let refused = b.handle.dial(&b.addresses()[0].parse().unwrap());
    assert!(matches!(refused, Err(SwarmError::OwnAddress(_))), "{refused:?}");
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_settle() {
    let homes = [Home::new(1), Home::new(2)];
    let mut a = homes[0].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let mut b = homes[1].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    a.handle.dial(&b.addresses()[0].parse().unwrap()).unwrap();
    b.handle.dial(&a.addresses()[0].parse().unwrap()).unwrap();
    let dialed = [a.connected(b.id()).await, b.connected(a.id()).await];
    assert!(dialed[0] || dialed[1], "somebody says Hello first");
    let (id_a, id_b) = (a.id(), b.id());
    for _ in 0..20 {
        let asked = b.handle.request(id_a, Class::Interactive, heads());
        let reply = a.until(|event| match event {
            TransportEvent::Request { reply, .. } => Some(reply),
            TransportEvent::Disconnected { .. } => panic!("flapping"),
            _ => None,
        });
        let _ = reply.await.send(Response::Confirmed);
        assert_eq!(timeout(DEADLINE, asked).await.unwrap(), Ok(Response::Confirmed));
    }
    let connections = a.handle.counters().connections.load(Ordering::Relaxed);
    assert!((1..=2).contains(&connections), "{connections}");
    assert!(a.handle.peers()[&id_b].connected && b.handle.peers()[&id_a].connected);
}

#[tokio::test]
async fn a_disconnected_peer_is_left_alone_for_a_while() {
    let (a, mut b, _homes) = pair().await;
    let id_a = a.id();
    b.handle.disconnect(id_a, "test");
    b.disconnected(id_a).await;
    let dials = b.handle.counters().dials_failed.load(Ordering::Relaxed);
    // Ten times the longest delay of these tests without a dial; `a` was not told of `b`, so it doesn't dial either.
    let again = timeout(Duration::from_secs(2), b.events.recv()).await;
    assert!(again.is_err(), "{again:?}");
    assert_eq!(b.handle.counters().dials_failed.load(Ordering::Relaxed), dials);
    // The user's word counts for more.
    b.handle.dial(&a.addresses()[0].parse().unwrap()).unwrap();
    assert!(b.connected(id_a).await);
}

#[tokio::test]
async fn a_full_node_slows_its_peers_and_loses_no_request() {
    let home = Home::new(1);
    let (sender, mut events) = mpsc::channel(1);
    let a = start(home.config("/ip4/127.0.0.1/tcp/0", &[]), sender).await.unwrap();
    let (to, counters) = (a.peer_id(), a.counters());
    let mut asked = Vec::new();
    let mut askers = Vec::new();
    for seed in 2..8 {
        let home = Home::new(seed);
        let mut asker = home.start("/ip4/127.0.0.1/tcp/0", &a.listen_addresses()).await;
        asker.connected(to).await;
        asked.extend((0..50).map(|_| asker.handle.request(to, Class::Interactive, heads())));
        asked.extend((0..4).map(|_| asker.handle.request(to, Class::Bulk, heads())));
        askers.push((home, asker));
    }
    eventually("the outbox is full", || counters.events_waiting.load(Ordering::Relaxed) >= OUTBOX_EVENTS_MAX as u64).await;
    // Commands are still taken.
    let unknown = PeerId([9; 32]);
    let answered = timeout(DEADLINE, a.request(unknown, Class::Interactive, heads())).await.unwrap();
    assert_eq!(answered, Err(TransportError::NotConnected));
    assert!(counters.events_waiting.load(Ordering::Relaxed) <= OUTBOX_EVENTS_MAX as u64);

    let serving = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let TransportEvent::Request { reply, .. } = event {
                let _ = reply.send(Response::Confirmed);
            }
        }
    });
    for answered in timeout(DEADLINE, join_all(asked)).await.unwrap() {
        assert_eq!(answered, Ok(Response::Confirmed));
    }
    serving.abort();
}

#[tokio::test]
async fn a_port_in_use_and_an_unsupported_address_are_clear_errors() {
    let home = Home::new(1);
    let (sender, _events) = mpsc::channel(1);
    let node = home.start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let taken = node.addresses()[0].split("/p2p/").next().unwrap().to_owned();
    let error = start(Home::new(2).config(&taken, &[]), sender.clone()).await.unwrap_err();
    assert!(matches!(error, SwarmError::Listen { .. }) && error.to_string().contains(&taken), "{error}");

    let quic = "/ip4/127.0.0.1/udp/0/quic-v1";
    let error = start(Home::new(2).config(quic, &[]), sender.clone()).await.unwrap_err();
    assert!(matches!(error, SwarmError::NotSupported(_)) && error.to_string().contains(quic), "{error}");

    // Beside one that works it is skipped.
    let mut config = Home::new(2).config(quic, &[]);
    config.listen.push("/ip4/127.0.0.1/tcp/0".parse().unwrap());
    let node = start(config, sender).await.unwrap();
    assert_eq!(node.listen_addresses().len(), 1);
}

#[tokio::test]
async fn peers_that_are_not_allowed_do_not_connect() {
    let homes = [Home::new(1), Home::new(2), Home::new(3)];
    let friend = homes[1].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let mut config = homes[0].config("/ip4/127.0.0.1/tcp/0", &[]);
    config.allow = vec![friend.id()];
    let mut a = Node::start(config).await;
    let stranger = homes[2].start("/ip4/127.0.0.1/tcp/0", &a.addresses()).await;
    let counters = stranger.handle.counters();
    eventually("the stranger tried", || {
        let tried = counters.dials_failed.load(Ordering::Relaxed) > 0 || !stranger.events.is_empty();
        tried && counters.connections.load(Ordering::Relaxed) == 0
    })
    .await;
    friend.handle.dial(&a.addresses()[0].parse().unwrap()).unwrap();
    let first = a.until(|event| if let TransportEvent::Connected { peer, .. } = event { Some(peer) } else { None }).await;
    assert_eq!(first, friend.id());
}

#[tokio::test]
async fn shutdown_frees_the_port_at_once_and_ends_everything() {
    let (mut a, mut b, homes) = pair().await;
    let address = a.addresses()[0].clone();
    let unanswered = a.handle.request(b.id(), Class::Interactive, heads());
    b.until(|event| matches!(event, TransportEvent::Request { .. }).then_some(())).await;
    let began = Instant::now();
    a.handle.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(timeout(DEADLINE, unanswered).await.unwrap().is_err());
    b.disconnected(a.id()).await;
    // The events end, calls after the end are errors, a second shutdown is nothing.
    timeout(DEADLINE, async { while a.events.recv().await.is_some() {} }).await.unwrap();
    assert_eq!(a.ask(b.id(), Class::Bulk, heads()).await, Err(TransportError::NotConnected));
    assert!(matches!(a.handle.dial(&b.addresses()[0].parse().unwrap()), Err(SwarmError::Stopped)));
    a.handle.shutdown().await;
    let a = homes[0].start(address.split("/p2p/").next().unwrap(), &[]).await;
    assert_eq!(a.addresses(), [address]);
    assert!(b.connected(a.id()).await);
}

#[tokio::test]
async fn a_swarm_ends_with_its_last_handle() {
    let (a, mut b, _homes) = pair().await;
    let id_a = a.id();
    let Node { handle, mut events } = a;
    drop(handle);
    timeout(DEADLINE, async { while events.recv().await.is_some() {} }).await.unwrap();
    b.disconnected(id_a).await;
}
