//! The seam to the network. `actors` knows only this; libp2p lives in `anabranch_node::swarm`, simulations bring their own.

use std::fmt;
use std::sync::Arc;

use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::wire::{Announce, Refusal, Request, Response};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

/// Which of two separate paths to a peer a request takes, so that bulk never delays fresh data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Small and urgent: `Hello`, `Heads`, `Push`, `Confirm`. By request-response.
    Interactive,
    /// Pages: `Pull`. On one long-lived framed stream per peer.
    Bulk,
}

/// Sends to peers. Cheap to share; every method returns at once and is bounded inside.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Asks a connected peer. Resolves with its answer, or with an error when the peer is gone, the message is refused by the
    /// codec, the transport's queue is full, or a deadline passed. Dropping the future gives the request up.
    fn request(&self, peer: PeerId, class: Class, request: Request) -> BoxFuture<'static, Result<Response, TransportError>>;
    /// Announces to whoever subscribes to the dataset. Lost announcements cost latency, never correctness.
    fn announce(&self, announce: Announce);
    /// Subscribes to announcements of a dataset.
    fn subscribe(&self, dataset: DatasetId);
    /// Ends a subscription: the dataset is gone.
    fn unsubscribe(&self, dataset: DatasetId);
    /// The peer's `Hello` was accepted for at least one dataset: remember its addresses and keep redialing it.
    fn accepted(&self, peer: PeerId, listen: Vec<String>);
    /// Closes the connections to a peer and leaves it alone for a while.
    fn disconnect(&self, peer: PeerId, reason: &str);
    /// The peer sent what no honest node sends: a commit or statement that nobody signed, an answer that is none. Whoever keeps
    /// doing so is backed off, by identity.
    fn misbehaved(&self, peer: PeerId, what: &str);
    /// Where this node listens, as multiaddrs ending in `/p2p/<peer id>`.
    fn listen_addresses(&self) -> Vec<String>;
}

/// A transport shared by all datasets of a node.
pub type SharedTransport = Arc<dyn Transport>;

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection to the peer.
    #[error("the peer is not connected")]
    NotConnected,
    /// No answer within the deadline.
    #[error("the peer did not answer in time")]
    Timeout,
    /// Too many requests are under way.
    #[error("too many requests are under way")]
    Busy,
    /// The answer was not of the protocol.
    #[error("the peer's answer is malformed: {0}")]
    Malformed(String),
    /// The connection or stream broke.
    #[error("the connection failed: {0}")]
    Connection(String),
}

/// What the network tells the node. Delivered through one bounded channel: while it is full the transport stops reading.
#[derive(Debug)]
pub enum TransportEvent {
    /// A first connection to the peer stands. The side that dialed says `Hello`.
    Connected {
        /// Who.
        peer: PeerId,
        /// Whether this node dialed.
        dialed: bool,
        /// The remote address.
        address: String,
    },
    /// The last connection to the peer is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer asks. The answer goes back through `reply`; dropping it closes the request without one.
    Request {
        /// Who asks.
        peer: PeerId,
        /// What.
        request: Request,
        /// Where the answer goes.
        reply: oneshot::Sender<Response>,
    },
    /// A peer announces.
    Announced {
        /// Who forwarded it: announcements are believed only as hints.
        peer: PeerId,
        /// What.
        announce: Announce,
    },
    /// The transport keeps a peer out: by the allow or deny list, or for a while because of what it did.
    TurnedAway {
        /// Who.
        peer: PeerId,
        /// Why.
        refusal: Refusal,
    },
    /// Round trip time, by ping.
    RoundTrip {
        /// To whom.
        peer: PeerId,
        /// How long.
        rtt: std::time::Duration,
    },
}

/// Where a transport delivers its events.
pub type EventSender = mpsc::Sender<TransportEvent>;
