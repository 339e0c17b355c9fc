//! The handle: what the rest of the node holds of the swarm.
//!
//! Requests and announcements go through one bounded channel, refused when it is full. What may never be lost (subscriptions,
//! verdicts about peers) is not queued at all: it is state, at most one entry per dataset or peer, which the task picks up.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch_actors::transport::{Class, Transport, TransportError};
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::limits::{BULK_BYTES_MAX, CONTROL_BYTES_MAX};
use anabranch_protocol::wire::{Announce, Request, Response};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use libp2p::Multiaddr;
use tokio::sync::{Notify, mpsc, oneshot};

use super::SwarmError;
use super::address::{socket, split_peer};
use super::address_book::Written;
use super::counters::{Counters, MessageKind, count};
use super::reply::Reply;

/// Commands waiting for the swarm's task.
pub(super) const COMMANDS_MAX: usize = 1_024;

/// How long the address book may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// What the task is told to do, in order.
#[derive(Debug)]
pub(super) enum Command {
    Request { peer: PeerId, class: Class, kind: MessageKind, bytes: Vec<u8>, reply: Reply },
    Announce(Announce),
    Dial { bare: Multiaddr, peer: Option<libp2p::PeerId> },
    Forget(PeerId, Written),
    Shutdown(oneshot::Sender<()>),
}

/// What the node thinks of a peer; the latest word counts.
#[derive(Debug)]
pub(super) enum Verdict {
    Accepted { listen: Vec<String> },
    Disconnect { reason: String },
}

/// State the task is to bring about.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    wanted: Mutex<Wanted>,
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The latest word on each dataset: to be heard of, or no more.
    pub(super) subscribe: BTreeMap<DatasetId, bool>,
    pub(super) verdicts: BTreeMap<PeerId, Verdict>,
    /// The latest word on each peer: disabled, or no more.
    pub(super) disabled: BTreeMap<PeerId, bool>,
    /// How often a peer misbehaved, and how it did last.
    pub(super) misbehaved: BTreeMap<PeerId, (u32, String)>,
}

impl Wishes {
    fn add(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut lock(&self.wanted));
        self.changed.notify_one();
    }

    pub(super) fn take(&self) -> Wanted {
        std::mem::take(&mut lock(&self.wanted))
    }
}

/// A peer as the swarm sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Whether a connection stands.
    pub connected: bool,
    /// Whether the node accepted its `Hello` since it connected.
    pub accepted: bool,
    /// Where it is, or would be dialed.
    pub addresses: Vec<String>,
    /// Round trip time of the last ping.
    pub rtt: Option<Duration>,
}

/// What the task shows of itself.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) listen: Mutex<Vec<String>>,
    pub(super) peers: Mutex<BTreeMap<PeerId, PeerView>>,
}

/// A running swarm. Clones share it; it stops when [`SwarmHandle::shutdown`] is called or the last clone is dropped.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    peer_id: PeerId,
    commands: mpsc::Sender<Command>,
    wishes: Arc<Wishes>,
    view: Arc<View>,
    counters: Arc<Counters>,
}

impl SwarmHandle {
    pub(super) fn new(
        peer_id: PeerId,
        commands: mpsc::Sender<Command>,
        wishes: Arc<Wishes>,
        view: Arc<View>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { peer_id, commands, wishes, view, counters }
    }

    /// This node's id.
    #[must_use]
    pub const fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Where this node listens, with real ports, each ending in `/p2p/<peer id>`.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        lock(&self.view.listen).clone()
    }

    /// All peers the swarm knows: connected, told of, or in the address book.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<PeerId, PeerView> {
        lock(&self.view.peers).clone()
    }

    /// Where a peer is, or would be dialed.
    #[must_use]
    pub fn peer_addresses(&self, peer: PeerId) -> Vec<String> {
        lock(&self.view.peers).get(&peer).map(|view| view.addresses.clone()).unwrap_or_default()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Dials an address now and keeps redialing it, as if the configuration had told of it.
    ///
    /// # Errors
    /// [`SwarmError::NotSupported`] for addresses this build can't dial, [`SwarmError::OwnAddress`] for our own id,
    /// [`SwarmError::Busy`] or [`SwarmError::Stopped`] when the command did not reach the swarm. Nothing was changed.
    pub fn dial(&self, address: &Multiaddr) -> Result<(), SwarmError> {
        let (bare, peer) = split_peer(address);
        if socket(&bare).is_none() {
            return Err(SwarmError::NotSupported(address.clone()));
        }
        if peer.is_some_and(|peer| super::address::from_libp2p(&peer) == Some(self.peer_id)) {
            return Err(SwarmError::OwnAddress(address.clone()));
        }
        self.command(Command::Dial { bare, peer })
    }

    /// Closes the connections to a peer, takes it out of the address book and never dials it again by itself. Durable when this
    /// resolves.
    ///
    /// # Errors
    /// [`SwarmError::Busy`] or [`SwarmError::Stopped`] when the command did not reach the swarm; [`SwarmError::NotWritten`] when it
    /// is done, and may not be after a crash.
    pub async fn forget(&self, peer: PeerId) -> Result<(), SwarmError> {
        let (done, written) = oneshot::channel();
        self.command(Command::Forget(peer, done))?;
        match tokio::time::timeout(WRITTEN_WITHIN, written).await {
            Ok(Ok(written)) => written.map_err(SwarmError::NotWritten),
            Ok(Err(_)) | Err(_) => Err(SwarmError::NotWritten("the disk did not answer in time".to_owned())),
        }
    }

    /// Closes the connections to a peer and neither takes nor makes one; or does so again. Never lost, and done in a moment.
    pub fn set_disabled(&self, peer: PeerId, disabled: bool) {
        self.wishes.add(|wanted| {
            wanted.disabled.insert(peer, disabled);
        });
    }

    /// Closes every connection and listener and writes the address book; returns when the swarm's thread let go of everything.
    pub async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        // Both fail only when the swarm is stopped already.
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), SwarmError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SwarmError::Busy,
            mpsc::error::TrySendError::Closed(_) => SwarmError::Stopped,
        })
    }
}

impl Transport for SwarmHandle {
    fn request(&self, peer: PeerId, class: Class, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let bytes = request.encode();
        let limit = if class == Class::Bulk { BULK_BYTES_MAX } else { CONTROL_BYTES_MAX };
        if bytes.len() > limit {
            let reason = format!("a request of {} bytes is over the limit of {limit}", bytes.len());
            return ready(Err(TransportError::Malformed(reason))).boxed();
        }
        let (reply, answer) = Reply::new(Arc::clone(&self.counters));
        let command = Command::Request { peer, class, kind: MessageKind::from(&request), bytes, reply };
        match self.command(command) {
            Ok(()) => {}
            Err(SwarmError::Busy) => return ready(Err(TransportError::Busy)).boxed(),
            Err(_) => return ready(Err(TransportError::NotConnected)).boxed(),
        }
        let gone = || Err(TransportError::Connection("the connection closed before the answer".to_owned()));
        async move { answer.await.unwrap_or_else(|_| gone()) }.boxed()
    }

    fn announce(&self, announce: Announce) {
        if self.commands.try_send(Command::Announce(announce)).is_err() {
            count(&self.counters.announcements_queue_full);
        }
    }

    fn subscribe(&self, dataset: DatasetId) {
        self.wishes.add(|wanted| {
            wanted.subscribe.insert(dataset, true);
        });
    }

    fn unsubscribe(&self, dataset: DatasetId) {
        self.wishes.add(|wanted| {
            wanted.subscribe.insert(dataset, false);
        });
    }

    fn accepted(&self, peer: PeerId, listen: Vec<String>) {
        self.wishes.add(|wanted| {
            wanted.verdicts.insert(peer, Verdict::Accepted { listen });
        });
    }

    fn disconnect(&self, peer: PeerId, reason: &str) {
        self.wishes.add(|wanted| {
            wanted.verdicts.insert(peer, Verdict::Disconnect { reason: reason.to_owned() });
        });
    }

    fn misbehaved(&self, peer: PeerId, what: &str) {
        self.wishes.add(|wanted| {
            let noted = wanted.misbehaved.entry(peer).or_default();
            *noted = (noted.0.saturating_add(1), what.to_owned());
        });
    }

    fn listen_addresses(&self) -> Vec<String> {
        Self::listen_addresses(self)
    }
}

impl Counters {
    /// Own requests under way now.
    #[must_use]
    pub fn requests_in_flight(&self) -> u64 {
        self.requests_in_flight.load(Ordering::Relaxed)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
