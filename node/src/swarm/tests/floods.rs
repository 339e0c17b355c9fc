//! Peers that ask too often, and peers that are not let in: refused, told why, and left alone by identity.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_actors::transport::{Class, Transport, TransportEvent};
use anabranch_protocol::access::Peers;
use anabranch_protocol::id::{Incarnation, Salt};
use anabranch_protocol::wire::{BULK_PROTOCOL, CONTROL_PROTOCOL, Hello, RefusalCode, Request, Response};
use libp2p::StreamProtocol;
use libp2p_stream::OpenStreamError;

use super::nonsense::rude_peer;
use super::{Home, Node, TCP, eventually, heads, pull};
use crate::swarm::address::to_libp2p;
use crate::swarm::config::SwarmConfig;

fn hello() -> Request {
    let incarnation = Incarnation([1; 16]);
    let nonce = Salt([2; 16]);
    Request::Hello(Hello {
        versions: vec![1],
        nonce,
        proofs: Vec::new(),
        incarnation,
        listen: Vec::new(),
        datasets: Vec::new(),
        withdrawn: Vec::new(),
    })
}

fn few_hellos(config: &mut SwarmConfig) {
    config.limits.hello_rate_max = NonZeroU32::MIN;
    config.limits.hello_burst_max = NonZeroU32::new(4).unwrap();
    config.limits.over_rate_max = 8;
}

fn refusal(response: &Response) -> Option<RefusalCode> {
    if let Response::Refused(refusal) = response { Some(refusal.code) } else { None }
}

#[tokio::test]
async fn a_flood_of_hellos_is_refused_as_busy_then_shut_out_by_identity_and_others_are_served() {
    let homes = [Home::new(1), Home::new(2), Home::new(3)];
    let mut config = homes[0].config(TCP, &[]);
    few_hellos(&mut config);
    let a = Node::start(config).await;
    let (to, address, counters) = (a.id(), a.addresses(), a.handle.counters());
    let mut flooding = homes[1].start(TCP, &address).await;
    let mut honest = homes[2].start(TCP, &address).await;
    assert!(flooding.connected(to).await && honest.connected(to).await);
    let flooder = flooding.id();
    let Node { handle: handle_a, mut events } = a;
    let (turned, mut turned_away) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                TransportEvent::Request { request, reply, .. } => drop(reply.send(super::answer(&request))),
                TransportEvent::TurnedAway { peer, refusal } => drop(turned.send((peer, refusal))),
                _ => {}
            }
        }
    });

    eventually("a knows", || handle_a.peers().get(&flooder).is_some_and(|peer| peer.connected)).await;
    let mut busy = 0;
    for asked in 0.. {
        if handle_a.peers().get(&flooder).is_none_or(|peer| !peer.connected) {
            break;
        }
        assert!(asked < 10_000, "never shut out");
        if let Ok(answer) = flooding.ask(to, Class::Interactive, hello()).await {
            busy += u32::from(refusal(&answer) == Some(RefusalCode::Busy));
        }
        // Another kind of request, and another peer, have allowances of their own.
        assert!(matches!(honest.ask(to, Class::Interactive, heads()).await, Ok(Response::Heads(_))));
    }
    assert!(busy >= 7, "told so before it was shut out: {busy}");
    assert!(counters.refused_busy.load(Ordering::Relaxed) >= 8);
    let (peer, refusal) = turned_away.recv().await.expect("the node is told");
    assert_eq!((peer, refusal.code), (flooder, RefusalCode::Busy));
    flooding.disconnected(to).await;

    // Dialing again does not help, from whatever port: it is the identity that is shut out.
    let failed = flooding.handle.counters();
    for _ in 0..3 {
        flooding.handle.dial(&address[0].parse().unwrap()).unwrap();
        eventually("it is closed again", || failed.connections.load(Ordering::Relaxed) == 0).await;
    }
    assert!(handle_a.peers().get(&flooder).is_none_or(|peer| !peer.connected));
    assert!(matches!(honest.ask(to, Class::Bulk, pull(1)).await, Ok(Response::Page(_))));
}

#[tokio::test]
async fn who_was_shut_out_may_come_back_after_a_while() {
    let homes = [Home::new(1), Home::new(2)];
    let mut config = homes[0].config(TCP, &[]);
    few_hellos(&mut config);
    config.limits.refused_for = Duration::from_millis(300);
    let mut a = Node::start(config).await;
    let mut flooding = homes[1].start(TCP, &a.addresses()).await;
    flooding.connected(a.id()).await;
    a.connected(flooding.id()).await;
    let flood: Vec<_> = (0..64).map(|_| flooding.handle.request(a.id(), Class::Interactive, hello())).collect();
    a.disconnected(flooding.id()).await;
    drop(flood);
    a.connected(flooding.id()).await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_and_gets_nothing_else() {
    let homes = [Home::new(1), Home::new(2)];
    let denied = homes[1].start(TCP, &[]).await;
    let mut config = homes[0].config(TCP, &[]);
    config.deny = vec![denied.id()];
    let mut a = Node::start(config).await;
    let mut denied = denied;
    denied.handle.dial(&a.addresses()[0].parse().unwrap()).unwrap();
    assert!(denied.connected(a.id()).await);
    for request in [hello(), heads()] {
        let answer = denied.ask(a.id(), Class::Interactive, request).await;
        assert!(answer.as_ref().is_ok_and(|answer| refusal(answer) == Some(RefusalCode::Forbidden)), "{answer:?}");
    }
    // No stream for pages, no introduction.
    let answer = denied.ask(a.id(), Class::Bulk, pull(1)).await;
    assert!(answer.is_err(), "{answer:?}");
    denied.disconnected(a.id()).await;
    let mut heard = Vec::new();
    while let Ok(event) = a.events.try_recv() {
        heard.push(event);
    }
    let told = |event: &TransportEvent| matches!(event, TransportEvent::TurnedAway { peer, refusal } if *peer == denied.id() && refusal.code == RefusalCode::Forbidden);
    assert!(!heard.is_empty() && heard.iter().all(told), "the node hears of nothing else: {heard:?}");
    assert!(!a.handle.peers().get(&denied.id()).is_some_and(|peer| peer.connected));
}

#[tokio::test]
async fn on_a_connection_of_a_peer_that_is_not_let_in_only_control_requests_are_read() {
    let home = Home::new(1);
    let mut config = home.config(TCP, &[]);
    config.allow = Peers::Only([].into());
    let a = Node::start(config).await;
    let peer = to_libp2p(a.id()).unwrap();
    let mut rude = rude_peer(&a.addresses()[0]).await;
    for protocol in [BULK_PROTOCOL, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0"] {
        let opened = rude.open_stream(peer, StreamProtocol::new(protocol)).await;
        assert!(matches!(opened, Err(OpenStreamError::UnsupportedProtocol(_))), "{protocol}: {opened:?}");
    }
    rude.open_stream(peer, StreamProtocol::new(CONTROL_PROTOCOL)).await.unwrap();
}

#[tokio::test]
async fn connections_of_peers_that_are_not_let_in_are_few() {
    let home = Home::new(1);
    let mut config = home.config(TCP, &[]);
    config.allow = Peers::Only([].into());
    let a = Node::start(config).await;
    let address = a.addresses();
    let mut strangers = Vec::new();
    for seed in 2..26 {
        let home = Home::new(seed);
        strangers.push((home.start(TCP, &address).await, home));
    }
    let counters = a.handle.counters();
    eventually("sixteen of them stand", || counters.connections.load(Ordering::Relaxed) == 16).await;
    // None for long, although it says nothing.
    let first = &mut strangers[0].0;
    first.connected(a.id()).await;
    first.disconnected(a.id()).await;
}
