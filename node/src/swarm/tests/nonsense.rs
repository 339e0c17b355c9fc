//! Peers that break the protocol, and peers that may not connect.

use std::sync::atomic::Ordering;

use anabranch_actors::transport::{Class, TransportEvent};
use anabranch_protocol::id::PeerId;
use anabranch_protocol::wire::{BULK_PROTOCOL, CONTROL_PROTOCOL, RefusalCode, Response};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use tokio::time::timeout;

use super::{DEADLINE, Home, Node, PAGE_BYTES, eventually, heads, page_fill, pair, pull};
use crate::swarm::address::to_libp2p;

/// A libp2p node that speaks no protocol of ours and says what it likes on raw streams.
pub(super) async fn rude_peer(to: &str) -> libp2p_stream::Control {
    rude_peer_as(Keypair::generate_ed25519(), to).await
}

async fn rude_peer_as(identity: Keypair, to: &str) -> libp2p_stream::Control {
    let mut swarm = SwarmBuilder::with_existing_identity(identity)
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
    let peer = to_libp2p(to).unwrap();
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
    let too_large = vec![0x40; anabranch_protocol::limits::CONTROL_BYTES_MAX + (4 << 20)];
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
    config.limits.misbehaviour_max = 3;
    let mut a = Node::start(config).await;
    let mut rude = rude_peer(&a.addresses()[0]).await;
    let peer = a.until(|event| if let TransportEvent::Connected { peer, .. } = event { Some(peer) } else { None }).await;
    for _ in 0..3 {
        say(&mut rude, a.id(), CONTROL_PROTOCOL, b"nonsense").await;
    }
    a.disconnected(peer).await;
}

#[tokio::test]
async fn who_was_backed_off_is_not_let_in_under_the_same_identity_until_its_time_is_over() {
    let home = Home::new(1);
    let mut config = home.config("/ip4/127.0.0.1/tcp/0", &[]);
    config.limits.misbehaviour_max = 3;
    config.limits.refused_for = std::time::Duration::from_secs(3);
    let mut a = Node::start(config).await;
    let identity = Keypair::generate_ed25519();
    let mut rude = rude_peer_as(identity.clone(), &a.addresses()[0]).await;
    let peer = a.until(|event| if let TransportEvent::Connected { peer, .. } = event { Some(peer) } else { None }).await;
    // Two connections, three messages: the points are the identity's.
    say(&mut rude, a.id(), CONTROL_PROTOCOL, b"nonsense").await;
    drop(rude);
    let mut again = rude_peer_as(identity.clone(), &a.addresses()[0]).await;
    for _ in 0..2 {
        say(&mut again, a.id(), CONTROL_PROTOCOL, b"nonsense").await;
    }
    let reason = a
        .until(|event| match event {
            TransportEvent::TurnedAway { peer: who, refusal } if who == peer => Some(refusal.to_string()),
            _ => None,
        })
        .await;
    assert!(reason.contains("malformed messages"), "{reason}");
    // Each attempt is hung up on, and none is an event of the node's, until the time is over.
    let mut attempts = 0;
    let let_in = async {
        loop {
            let _control = rude_peer_as(identity.clone(), &a.addresses()[0]).await;
            attempts += 1;
            let connected = a.until(|event| matches!(event, TransportEvent::Connected { .. }).then_some(()));
            if timeout(std::time::Duration::from_millis(200), connected).await.is_ok() {
                break;
            }
        }
    };
    timeout(DEADLINE, let_in).await.expect("let in again");
    assert!(attempts > 1, "the first attempt was let in");
}

#[tokio::test]
async fn peers_that_are_not_allowed_do_not_connect() {
    let homes = [Home::new(1), Home::new(2), Home::new(3)];
    let friend = homes[1].start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let mut config = homes[0].config("/ip4/127.0.0.1/tcp/0", &[]);
    config.allow = anabranch_protocol::access::Peers::Only([friend.id()].into());
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
