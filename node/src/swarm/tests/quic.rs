//! The same over QUIC, and peers that are reached by both carriers.

use std::sync::atomic::Ordering;

use anabranch_actors::transport::{Class, Transport, TransportEvent};
use anabranch_protocol::id::{DatasetId, ShortHash};
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Announce, Push, Request, Response};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{DEADLINE, Home, Node, PAGE_BYTES, TCP, eventually, heads, page_fill, pair_on, pull};
use crate::swarm::{SwarmError, start};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Listens by both carriers.
async fn start_both(home: &Home, peers: &[String]) -> Node {
    let mut config = home.config(TCP, peers);
    config.listen.push(QUIC.parse().unwrap());
    Node::start(config).await
}

#[tokio::test]
async fn requests_pages_and_pushes_travel_by_quic() {
    let (a, b, _homes) = pair_on(QUIC).await;
    assert!(a.addresses()[0].contains("/quic-v1/p2p/"), "{:?}", a.addresses());
    let to = a.id();
    let _a = a.answer_all();
    assert!(matches!(b.ask(to, Class::Interactive, heads()).await, Ok(Response::Heads(_))));
    let asked = (0..12).map(|n| b.ask(to, Class::Bulk, pull(n)));
    for (n, answered) in join_all(asked).await.into_iter().enumerate() {
        assert_eq!(page_fill(&answered.unwrap()), (PAGE_BYTES, u8::try_from(n).unwrap()), "each its own answer");
    }
    let frames = vec![vec![1; 5 << 20].into()];
    let pushed = b.ask(to, Class::Interactive, Request::Push(Push { dataset: None, frames })).await;
    assert_eq!(pushed, Ok(Response::Confirmed));
    assert_eq!(b.handle.counters().bulk_streams_opened.load(Ordering::Relaxed), 1, "one stream for all pages");
}

#[tokio::test]
async fn announcements_travel_by_quic_once_accepted() {
    let (mut a, b, _homes) = pair_on(QUIC).await;
    for node in [&a, &b] {
        node.handle.subscribe(DatasetId::primary());
    }
    a.handle.accepted(b.id(), Vec::new());
    b.handle.accepted(a.id(), Vec::new());
    let announce = Announce { dataset: None, digest: ShortHash([9; 8]), heads: VersionVector::default() };
    let (repeat, said) = (b.handle.clone(), announce.clone());
    let talking = tokio::spawn(async move {
        loop {
            repeat.announce(said.clone());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let heard = a.until(|event| if let TransportEvent::Announced { announce, .. } = event { Some(announce) } else { None });
    assert_eq!(heard.await, announce);
    talking.abort();
}

#[tokio::test]
async fn a_restarted_peer_is_found_again_by_quic() {
    let (mut a, b, homes) = pair_on(QUIC).await;
    let (id_b, listen) = (b.id(), b.addresses());
    // `b` dialed: `a` knows where it listens only by its word.
    a.handle.accepted(id_b, listen.clone());
    eventually("a's book is written", || std::fs::read_to_string(homes[0].book()).is_ok_and(|book| book.contains("quic-v1")))
        .await;
    b.handle.shutdown().await;
    a.disconnected(id_b).await;
    let mut b = homes[1].start(listen[0].split("/p2p/").next().unwrap(), &[]).await;
    assert!(a.connected(id_b).await, "a dialed");
    b.connected(a.id()).await;
}

#[tokio::test]
async fn a_udp_port_in_use_is_a_clear_error() {
    let (sender, _events) = mpsc::channel(1);
    let node = Home::new(1).start(QUIC, &[]).await;
    let taken = node.addresses()[0].split("/p2p/").next().unwrap().to_owned();
    let error = start(Home::new(2).config(&taken, &[]), sender).await.unwrap_err();
    assert!(matches!(error, SwarmError::Listen { .. }) && error.to_string().contains(&taken), "{error}");
}

#[tokio::test]
async fn a_peer_reached_by_both_carriers_keeps_one_connection() {
    let homes = [Home::new(1), Home::new(2)];
    let mut a = start_both(&homes[0], &[]).await;
    let id_a = a.id();
    assert_eq!(a.addresses().len(), 2, "{:?}", a.addresses());
    assert!(a.addresses()[0].contains("/tcp/"), "TCP is shown first: {:?}", a.addresses());
    // Told of both without knowing that they are one peer: both are dialed, one connection is kept.
    let bare: Vec<_> = a.addresses().iter().map(|address| address.split("/p2p/").next().unwrap().to_owned()).collect();
    let mut b = start_both(&homes[1], &bare).await;
    assert!(b.connected(id_a).await);
    a.connected(b.id()).await;
    eventually("both addresses are known to be one peer's", || b.handle.peer_addresses(id_a).len() == 2).await;
    let counters = [a.handle.counters(), b.handle.counters()];
    eventually("one connection is left", || counters.iter().all(|c| c.connections.load(Ordering::Relaxed) == 1)).await;
    // `a` may see the second connection come and go before it sees the first one: one loss, and never one at the side that dialed.
    let mut lost = 0;
    for _ in 0..20 {
        let asked = b.handle.request(id_a, Class::Interactive, heads());
        let reply = a.until(|event| match event {
            TransportEvent::Request { reply, .. } => Some(reply),
            TransportEvent::Disconnected { .. } => {
                lost += 1;
                None
            }
            _ => None,
        });
        let _ = reply.await.send(Response::Confirmed);
        assert_eq!(timeout(DEADLINE, asked).await.unwrap(), Ok(Response::Confirmed));
    }
    assert!(lost <= 1, "flapping: {lost}");
    let late = std::iter::from_fn(|| b.events.try_recv().ok());
    assert!(!late.into_iter().any(|event| matches!(event, TransportEvent::Disconnected { .. })), "flapping");

    // Known by name and both addresses, it is dialed by one carrier at a time.
    let c = start_both(&Home::new(3), &a.addresses()).await;
    eventually("c is connected", || c.handle.peers().get(&id_a).is_some_and(|peer| peer.connected)).await;
    assert_eq!(c.handle.counters().connections.load(Ordering::Relaxed), 1);
}
