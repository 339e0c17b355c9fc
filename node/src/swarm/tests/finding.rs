//! Finding peers again: redials, the address book, told addresses.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_actors::transport::{Class, Transport, TransportEvent};
use anabranch_protocol::id::PeerId;
use anabranch_protocol::wire::Response;
use tokio::time::timeout;

use super::{DEADLINE, Home, eventually, heads, pair};
use crate::swarm::SwarmError;

fn book_has(path: &Path, peer: PeerId) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&peer.to_string()))
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
    b.handle.forget(id_a).await.unwrap();
    assert!(!book_has(&homes[1].book(), id_a), "also on its disk");
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
