//! Requests and announcements between nodes that mean well.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anabranch_actors::transport::{Class, Transport, TransportError, TransportEvent};
use anabranch_protocol::id::{DatasetId, PeerId, ShortHash};
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Announce, Push, Request, Response};
use futures::future::{join_all, select_all};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{DEADLINE, Home, Node, PAGE_BYTES, eventually, heads, page_fill, pair, pull};
use crate::swarm::counters::MessageKind;
use crate::swarm::outbox::OUTBOX_EVENTS_MAX;
use crate::swarm::start;

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
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
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
    let (busy, _, rest) = timeout(DEADLINE, select_all(bulk)).await.unwrap();
    assert_eq!(busy, Err(TransportError::Busy));
    assert!(rest.len() >= 4);
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
        askers.push((home, asker));
    }
    // Once the outbox is full no further connection would be taken.
    for (_, asker) in &askers {
        asked.extend((0..50).map(|_| asker.handle.request(to, Class::Interactive, heads())));
        asked.extend((0..4).map(|_| asker.handle.request(to, Class::Bulk, heads())));
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
