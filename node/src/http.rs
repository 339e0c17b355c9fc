//! The HTTP API of `surface.md`: one worker thread that parses, asks the node and answers. Nothing here decides anything about
//! data; every rule that refuses a write lives behind [`NodeHandle`](anabranch_actors::node::NodeHandle).
//!
//! One file per resource; `problem` maps every refusal to an RFC 9457 answer, `guard` says who may ask at all.

mod answer;
mod api;
mod batch;
mod body;
mod collections;
mod datasets;
mod docs;
mod guard;
mod health;
mod ingest;
mod list;
mod metrics;
mod node_page;
mod not_yet;
mod openapi;
mod operate;
mod ops;
mod peers;
mod problem;
mod routes;
mod target;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use tokio::sync::watch;

pub use api::Api;
pub use body::BodyBudget;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use batch::fuzz as fuzz_batch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use ingest::fuzz as fuzz_ingest;

/// One core answers HTTP; the other belongs to datasets and the network.
const WORKERS: usize = 1;
/// More connections wait in the backlog.
const CONNECTIONS_MAX: usize = 1_024;
const BACKLOG: u32 = 256;
/// A client that doesn't finish its request line and headers by then is dropped.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A clean stop waits this long for answers under way.
const STOP_TIMEOUT_SECONDS: u64 = 5;

/// Takes the address, so that a port in use is noticed before anything is started.
///
/// # Errors
/// What the operating system says.
pub fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr)
}

/// An API that is being served.
#[derive(Debug)]
pub struct Served {
    addr: SocketAddr,
    server: ServerHandle,
    stop: watch::Sender<bool>,
}

impl Served {
    /// Where it really listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers what is under way, ends streams and closes.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.server.stop(true).await;
    }
}

/// Serves on a listener, until the result is told to stop, the API that `api` makes of the address and of what turns true when it
/// stops. Needs a running actix system.
///
/// # Errors
/// What the operating system says.
pub fn serve(listener: TcpListener, api: impl FnOnce(SocketAddr, watch::Receiver<bool>) -> Api) -> std::io::Result<Served> {
    let addr = listener.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let api = web::Data::new(api(addr, stopping));
    let server: Server = HttpServer::new(move || {
        App::new().app_data(api.clone()).wrap(from_fn(guard::admit)).wrap(from_fn(metrics::count)).configure(routes::configure)
    })
    .workers(WORKERS)
    .max_connections(CONNECTIONS_MAX)
    .backlog(BACKLOG)
    .client_request_timeout(HEADERS_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(STOP_TIMEOUT_SECONDS)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(Served { addr, server: handle, stop })
}
