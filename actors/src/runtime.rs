//! Where actors and what blocks run, and where randomness comes from. Injected, so that a simulation runs the same actors on one
//! thread under virtual time.
//!
//! The wall clock, the stores and the network are injected too ([`crate::node::NodeSettings`], [`crate::transport`]). Timers are
//! tokio's everywhere, so that a paused clock holds all of them.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use actix::prelude::*;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

/// Where a node runs. The default is what ships.
#[derive(Debug, Clone, Default)]
pub enum Runtime {
    /// A dataset's actors on an arbiter thread of their own, its ledger on another one, reads on blocking pools; randomness of the
    /// operating system.
    #[default]
    Threads,
    /// Everything on the thread and in the `LocalSet` in which the node is started. Dropping the `LocalSet` is `kill -9`.
    OneThread(Arc<dyn OneThread>),
}

/// What a node on one thread is given.
pub trait OneThread: Send + Sync + fmt::Debug {
    /// Fills `bytes` with randomness.
    fn fill_random(&self, bytes: &mut [u8]);
    /// Resolves when the disk under `directory` has done the work that comes next, as far as time is concerned: it is done at once
    /// after that, without a pause.
    fn work(&self, directory: PathBuf, work: Work) -> BoxFuture<'static, ()>;
}

/// What the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Opens a store and reads what has to be known of it.
    Open,
    /// A turn of the ledger: writes and a barrier.
    Turn,
    /// Reads.
    Read,
}

impl Runtime {
    /// Fills `bytes` with randomness.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        match self {
            Self::Threads => rand::Rng::fill_bytes(&mut rand::rng(), bytes),
            Self::OneThread(world) => world.fill_random(bytes),
        }
    }

    /// Where the actors of a dataset run.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Threads => Place::Thread(Arbiter::new().handle()),
            Self::OneThread(_) => Place::Here,
        }
    }

    /// Runs what may never come back, for at most `limit`.
    ///
    /// # Errors
    /// [`Unreturned`].
    pub(crate) fn within<T: Send + 'static>(
        &self,
        name: String,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unreturned> {
        if matches!(self, Self::OneThread(_)) {
            return catch_unwind(AssertUnwindSafe(work)).map_err(Unreturned::Panicked);
        }
        let (done, outcome) = mpsc::sync_channel(1);
        // Nobody waits any more after the time limit; what comes late is dropped here.
        let work = move || drop(done.send(catch_unwind(AssertUnwindSafe(work))));
        std::thread::Builder::new().name(name).spawn(work).map_err(Unreturned::NoThread)?;
        match outcome.recv_timeout(limit) {
            Ok(outcome) => outcome.map_err(Unreturned::Panicked),
            Err(_) => Err(Unreturned::Late),
        }
    }
}

/// Runs what blocks on the disk under a dataset's directory, where it delays nobody.
#[derive(Debug, Clone)]
pub(crate) struct Blocking {
    pub runtime: Runtime,
    pub directory: PathBuf,
}

impl Blocking {
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match &self.runtime {
            Runtime::Threads => tokio::task::spawn_blocking(work),
            Runtime::OneThread(world) => {
                let time = world.work(self.directory.clone(), Work::Read);
                tokio::task::spawn_local(async move {
                    time.await;
                    work()
                })
            }
        }
    }
}

/// Why work did not return.
pub(crate) enum Unreturned {
    /// The system refuses another thread.
    NoThread(io::Error),
    Panicked(Box<dyn Any + Send>),
    Late,
}

/// Where the actors of one dataset run.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Thread(ArbiterHandle),
    Here,
}

impl Place {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Thread(arbiter) => drop(arbiter.spawn(task)),
            Self::Here => drop(actix::spawn(task)),
        }
    }

    /// Starts an actor there.
    pub fn start<A: Actor<Context = Context<A>> + Send>(&self, actor: A) -> Addr<A> {
        match self {
            Self::Thread(arbiter) => A::start_in_arbiter(arbiter, |_| actor),
            Self::Here => actor.start(),
        }
    }

    /// Does something with the thread, where it belongs to the dataset alone.
    pub fn on_own_thread(&self, what: impl FnOnce() + Send + 'static) {
        if let Self::Thread(arbiter) = self {
            arbiter.spawn_fn(what);
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        if let Self::Thread(arbiter) = self {
            arbiter.stop();
        }
    }
}
