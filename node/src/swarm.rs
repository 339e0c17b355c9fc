//! The network: libp2p behind the transport seam of `anabranch_actors`.
//!
//! One thread with its own runtime owns everything, so that neither a busy actor nor a slow disk ever stalls a connection.
//! The rest of the node holds a [`SwarmHandle`], which talks to that thread through bounded channels, and receives
//! [`TransportEvent`](anabranch_actors::transport::TransportEvent)s through the one it passed in.
//!
//! | traffic | way | file |
//! |---|---|---|
//! | `Hello`, `Heads`, `Push`, `Confirm` | request-response | `control.rs` |
//! | `Pull` and its pages | one framed stream per peer and direction | `bulk.rs` |
//! | announcements | gossipsub, accepted peers only | `gossip.rs` |
//!
//! Who is dialed is decided in `redial.rs` and remembered in `address_book.rs`. Every queue is bounded: what overflows is
//! refused (`Busy`), dropped and counted (announcements), or stops the reading of the connections it came from (requests).

mod address;
mod address_book;
mod allowance;
mod behaviour;
mod bulk;
mod conduct;
mod config;
mod control;
mod counters;
mod door;
mod gossip;
mod handle;
mod outbox;
mod redial;
mod reply;
mod task;
#[cfg(test)]
mod tests;

use std::io;
use std::thread;
use std::time::Duration;

use anabranch_actors::transport::EventSender;
use libp2p::Multiaddr;
use tokio::sync::oneshot;

pub(crate) use address::{split_peer, to_libp2p};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use address_book::fuzz as fuzz_address_book;
pub(crate) use address_book::{introduce, knows};
pub use config::{SwarmConfig, SwarmLimits};
pub use counters::{Counters, MessageKind};
pub use handle::{PeerView, SwarmHandle};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {bulk::fuzz as fuzz_bulk_frames, control::fuzz as fuzz_control};

/// How long the thread waits for a write of the address book that hangs.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(1);

/// Addresses that this build listens on and dials, in words.
#[cfg(feature = "quic")]
const USABLE: &str = "/ip4|ip6/ADDRESS/tcp/PORT or /ip4|ip6/ADDRESS/udp/PORT/quic-v1";
#[cfg(not(feature = "quic"))]
const USABLE: &str = "/ip4|ip6/ADDRESS/tcp/PORT (QUIC needs the cargo feature `quic`)";

/// Why a swarm did not start, or a command was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The identity is not a usable ed25519 key.
    #[error("the node's identity is not a usable ed25519 key: {0}")]
    Identity(String),
    /// libp2p could not be set up; our own mistake.
    #[error("setting up libp2p failed: {0}")]
    Setup(String),
    /// A listen address could not be bound: in use, not an address of this host, or not permitted. Nothing runs.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Which.
        address: Multiaddr,
        /// Why.
        source: io::Error,
    },
    /// An address of a kind that this build neither listens on nor dials.
    #[error("{0} is not supported by this build: use {USABLE}")]
    NotSupported(Multiaddr),
    /// A node never dials itself.
    #[error("{0} is this node's own address")]
    OwnAddress(Multiaddr),
    /// The thread or its runtime could not be started.
    #[error("starting the network thread failed: {0}")]
    Thread(io::Error),
    /// Too many commands are waiting; try again later.
    #[error("the network is busy, try again later")]
    Busy,
    /// What was done is not known to be on disk.
    #[error("the address book was not written ({0}): after a restart the peer may be dialed again")]
    NotWritten(String),
    /// The swarm was shut down.
    #[error("the network is stopped")]
    Stopped,
}

/// Starts a swarm and returns once every listen address is bound.
///
/// # Errors
/// [`SwarmError`]; nothing is left running.
pub async fn start(config: SwarmConfig, events: EventSender) -> Result<SwarmHandle, SwarmError> {
    let (ready, started) = oneshot::channel();
    let thread = thread::Builder::new().name("anabranch-swarm".to_owned());
    thread.spawn(move || live(config, events, ready)).map_err(SwarmError::Thread)?;
    // The thread answers first thing; without an answer it panicked.
    started.await.map_err(|_| SwarmError::Stopped)?
}

/// The thread's life.
fn live(config: SwarmConfig, events: EventSender, ready: oneshot::Sender<Result<SwarmHandle, SwarmError>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(SwarmError::Thread(error)));
            return;
        }
    };
    let stopped = runtime.block_on(async {
        match task::SwarmTask::start(config, events).await {
            Ok((task, handle)) => match ready.send(Ok(handle)) {
                Ok(()) => task.run().await,
                // Whoever asked for the swarm is gone.
                Err(_) => None,
            },
            Err(error) => {
                let _ = ready.send(Err(error));
                None
            }
        }
    });
    // Sockets and tasks go with the runtime; only then is the shutdown reported as done.
    runtime.shutdown_timeout(LET_GO_TIMEOUT);
    if let Some(stopped) = stopped {
        let _ = stopped.send(());
    }
}
