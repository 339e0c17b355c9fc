//! Starting and stopping.

use std::time::{Duration, Instant};

use anabranch_actors::transport::{Class, Transport, TransportError, TransportEvent};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{DEADLINE, Home, Node, heads, pair};
use crate::swarm::{SwarmError, start};

#[tokio::test]
async fn a_port_in_use_and_an_unsupported_address_are_clear_errors() {
    let home = Home::new(1);
    let (sender, _events) = mpsc::channel(1);
    let node = home.start("/ip4/127.0.0.1/tcp/0", &[]).await;
    let taken = node.addresses()[0].split("/p2p/").next().unwrap().to_owned();
    let error = start(Home::new(2).config(&taken, &[]), sender.clone()).await.unwrap_err();
    assert!(matches!(error, SwarmError::Listen { .. }) && error.to_string().contains(&taken), "{error}");

    // Also beside one that works: who asked for it counts on it.
    let unsupported = if cfg!(feature = "quic") { "/ip4/127.0.0.1/udp/0" } else { "/ip4/127.0.0.1/udp/0/quic-v1" };
    let mut config = Home::new(2).config(unsupported, &[]);
    config.listen.push("/ip4/127.0.0.1/tcp/0".parse().unwrap());
    let error = start(config, sender).await.unwrap_err();
    assert!(matches!(error, SwarmError::NotSupported(_)) && error.to_string().contains(unsupported), "{error}");
}

#[tokio::test]
async fn shutdown_frees_the_port_at_once_and_ends_everything() {
    let (mut a, mut b, homes) = pair().await;
    let address = a.addresses()[0].clone();
    let unanswered = a.handle.request(b.id(), Class::Interactive, heads());
    b.until(|event| matches!(event, TransportEvent::Request { .. }).then_some(())).await;
    let began = Instant::now();
    a.handle.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
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

#[tokio::test]
async fn an_unspecified_address_is_shown_as_real_ones() {
    let a = Home::new(1).start("/ip4/0.0.0.0/tcp/0", &[]).await;
    let real = |address: &String| address.ends_with(&format!("/p2p/{}", a.id())) && !address.contains("/tcp/0/");
    assert!(!a.addresses().is_empty() && a.addresses().iter().all(real), "{:?}", a.addresses());
    let loopback = a.addresses().into_iter().find(|address| address.starts_with("/ip4/127.0.0.1/"));
    let mut b = Home::new(2).start("/ip4/127.0.0.1/tcp/0", &[loopback.expect("loopback among them")]).await;
    b.connected(a.id()).await;
}
