//! What is on its way, and what happens when it arrives.

use std::time::Duration;

use anabranch_actors::transport::{Class, TransportEvent};
use anabranch_protocol::wire::{Announce, Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Network;
use super::dialing::FULL_RETRY;
use super::wire::OTHER_VERSION;

/// What is clogged is looked at again so much later.
const CLOGGED_RETRY: Duration = Duration::from_millis(50);

pub(super) enum Delivery {
    Request {
        from: usize,
        to: usize,
        connection: u64,
        class: Class,
        bytes: Vec<u8>,
        reply: Option<oneshot::Sender<Vec<u8>>>,
    },
    Response {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// Nothing: the way back is kept until then.
    Silence {
        connection: u64,
        _reply: oneshot::Sender<Vec<u8>>,
    },
    Announce {
        from: usize,
        to: usize,
        message: u64,
        announce: Announce,
        bytes: Vec<u8>,
    },
    Dial {
        pair: (usize, usize),
    },
    Arrive {
        pair: (usize, usize),
        lives: (u64, u64),
    },
    Break {
        pair: (usize, usize),
        connection: u64,
    },
    Event {
        to: usize,
        life: u64,
        event: TransportEvent,
    },
}

pub(super) fn kind_of_request(request: &Request) -> &'static str {
    match request {
        Request::Hello(_) => "hello",
        Request::Heads(_) => "heads",
        Request::Pull(_) => "pull",
        Request::Push(_) => "push",
        Request::Confirm(_) => "confirm",
        Request::Round(_) => "round",
    }
}

fn kind_of_response(response: &Response) -> &'static str {
    match response {
        Response::Hello(_) => "hello reply",
        Response::Heads(_) => "heads reply",
        Response::Page(_) => "page",
        Response::Pushed(_) => "pushed",
        Response::Confirmed => "confirmed",
        Response::Round(_) => "round reply",
        Response::Refused(_) => "refused",
    }
}

impl Delivery {
    pub(super) fn connection(&self) -> Option<u64> {
        match self {
            Self::Request { connection, .. } | Self::Response { connection, .. } | Self::Silence { connection, .. } => {
                Some(*connection)
            }
            _ => None,
        }
    }

    pub(super) fn way(&self) -> Option<(usize, usize)> {
        match self {
            Self::Request { from, to, .. } | Self::Response { from, to, .. } | Self::Announce { from, to, .. } => {
                Some((*from, *to))
            }
            _ => None,
        }
    }
}

impl Network {
    /// Carries messages until it is dropped.
    pub async fn run(self) {
        loop {
            let due = self.inner().queue.first_key_value().map(|((at, _), _)| *at);
            match due {
                Some(at) if at <= Instant::now() => self.deliver(),
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn deliver(&self) {
        let mut inner = self.inner();
        let Some((_, delivery)) = inner.queue.pop_first() else { return };
        if delivery.way().is_some_and(|(from, to)| inner.link(from, to).clogged) {
            return inner.put(CLOGGED_RETRY, delivery);
        }
        match delivery {
            Delivery::Request { from, to, connection, class, bytes, reply } => {
                drop(inner);
                self.deliver_request(from, to, connection, class, bytes, reply);
            }
            Delivery::Response { from, to, connection, bytes, reply } => {
                if inner.carries(from, to, connection) {
                    self.trace.note("response", &summary(from, to, &bytes));
                    // Whoever asked may have given up.
                    let _ = reply.send(bytes);
                } else {
                    inner.never_answer(to, from, connection, reply);
                }
            }
            Delivery::Announce { from, to, message, announce, bytes } => {
                if inner.link(from, to).cut || inner.endpoints[to].events.is_none() || !inner.seen.insert((message, to)) {
                    return;
                }
                self.trace.note("announce", &summary(from, to, &bytes));
                let peer = inner.endpoints[from].peer;
                if let Some(events) = &inner.endpoints[to].events {
                    // Gossip is dropped where nobody reads.
                    let _ = events.try_send(TransportEvent::Announced { peer, announce: announce.clone() });
                }
                inner.gossip_on(to, message, &announce, &bytes);
            }
            Delivery::Silence { .. } => {}
            Delivery::Dial { pair } => inner.dial(pair),
            Delivery::Arrive { pair, lives } => inner.arrive(pair, lives, &self.trace),
            Delivery::Break { pair, connection } => inner.break_off(pair, connection, &self.trace),
            Delivery::Event { to, life, event } => inner.tell(to, life, event),
        }
    }

    fn deliver_request(
        &self,
        from: usize,
        to: usize,
        connection: u64,
        class: Class,
        bytes: Vec<u8>,
        reply: Option<oneshot::Sender<Vec<u8>>>,
    ) {
        let mut inner = self.inner();
        if !inner.carries(from, to, connection) {
            if let Some(reply) = reply {
                inner.never_answer(from, to, connection, reply);
            }
            return;
        }
        let Some(events) = inner.endpoints[to].events.clone() else { return };
        let (peer, life) = (inner.endpoints[from].peer, inner.endpoints[to].life);
        let Ok(request) = Request::decode(&bytes) else {
            // What the swarm's codec does with nonsense.
            inner.misbehaved(to, from, 1);
            return;
        };
        let (answer, answered) = oneshot::channel();
        match events.try_send(TransportEvent::Request { peer, request, reply: answer }) {
            Ok(()) => self.trace.note("request", &summary(from, to, &bytes)),
            Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => {
                inner.put(FULL_RETRY, Delivery::Request { from, to, connection, class, bytes, reply });
                return;
            }
            Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => return,
        }
        drop(inner);
        let network = self.clone();
        tokio::task::spawn_local(async move {
            let Ok(mut response) = answered.await else { return };
            let Some(reply) = reply else { return };
            let mut inner = network.inner();
            if inner.endpoints[to].life != life {
                return;
            }
            if let (Response::Hello(reply), true) = (&mut response, inner.endpoints[to].other_version) {
                reply.hello.versions = vec![OTHER_VERSION];
            }
            let bytes = response.encode();
            inner.count(to, from, kind_of_response(&response), &bytes);
            let takes = inner.transit(to, from, class, bytes.len());
            inner.put(takes, Delivery::Response { from: to, to: from, connection, bytes, reply });
            drop(inner);
            network.changed.notify_one();
        });
    }
}

fn summary(from: usize, to: usize, bytes: &[u8]) -> Vec<u8> {
    let mut summary = format!("{from}>{to} {} ", bytes.len()).into_bytes();
    summary.extend_from_slice(&blake3::hash(bytes).to_hex().as_bytes()[..12]);
    summary
}
