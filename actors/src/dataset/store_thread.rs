//! The thread on which a dataset's ledger lives: no fsync ever blocks another dataset, a mailbox or the network.
//!
//! A disk may hang, and then the thread hangs with it. Whoever waits for a job notices that nothing was finished for as long as the
//! thread's patience lasts, and gives the thread up. Should it ever come back, it takes no further job and writes nothing more; until
//! then it keeps its `Lease` of the directory.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::ledger::{Ledger, LedgerError};
use crate::runtime::{Blocking, OneThread, Runtime, Work};

type Job = Box<dyn FnOnce(&mut Ledger) + Send>;

/// Jobs that may wait; whoever brings more waits for room. A slow disk is no reason to give the dataset up.
const JOBS_MAX: usize = 64;

/// Why a job was not done, or its outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreThreadError {
    /// The thread is gone: it panicked or was told to stop.
    #[error("the dataset's store thread is gone")]
    Gone,
    /// The thread finishes nothing.
    #[error("the disk does not answer: a call has not returned for {0:?}")]
    Hangs(Duration),
}

/// Runs jobs on a ledger, in order. Dropping the last clone settles the ledger and ends the thread.
#[derive(Debug, Clone)]
pub struct StoreThread {
    jobs: Sender<Job>,
    progress: Arc<Progress>,
    patience: Duration,
    runtime: Runtime,
}

/// What is seen of the thread from outside.
#[derive(Debug, Default)]
struct Progress {
    finished: AtomicU64,
    /// Nobody waits for it any more.
    given_up: AtomicBool,
}

/// A store thread that was just started.
#[derive(Debug)]
pub struct Started {
    /// Takes jobs at once; they run after the ledger was opened.
    pub thread: StoreThread,
    /// Whether the ledger could be opened.
    pub opened: oneshot::Receiver<Result<(), LedgerError>>,
}

impl StoreThread {
    /// Starts the thread, which opens the ledger first. It is given up when no job was finished for `patience`.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub(super) fn start(
        name: &str,
        on: Blocking,
        patience: Duration,
        open: impl FnOnce() -> Result<Ledger, LedgerError> + Send + 'static,
    ) -> std::io::Result<Started> {
        let (jobs, mut queue) = channel(JOBS_MAX);
        let (opened, when_opened) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let seen = progress.clone();
        let span = tracing::Span::current();
        if let Runtime::OneThread(world) = &on.runtime {
            let taking_turns = take_turns(open, opened, queue, seen, world.clone(), on.directory);
            tokio::task::spawn_local(taking_turns.instrument(span));
        } else {
            std::thread::Builder::new().name(format!("store-{name}")).spawn(move || {
                let _in_dataset = span.entered();
                run(open, opened, &mut queue, &seen);
            })?;
        }
        Ok(Started { thread: Self { jobs, progress, patience, runtime: on.runtime }, opened: when_opened })
    }

    /// Where it runs.
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Runs `job` on the ledger and resolves with what it returns.
    ///
    /// # Errors
    /// [`StoreThreadError`], also when the thread dies or hangs during the job.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, StoreThreadError> {
        let (job, answer) = answered(job);
        let done = async {
            self.jobs.send(job).await.map_err(|_| StoreThreadError::Gone)?;
            answer.await.map_err(|_| StoreThreadError::Gone)
        };
        self.unless_it_hangs(done).await
    }

    /// As [`StoreThread::run`], unless too much waits already: for what nobody needs late.
    ///
    /// # Errors
    /// [`StoreThreadError`], also when the job was not taken.
    pub async fn run_unless_busy<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, StoreThreadError> {
        let (job, answer) = answered(job);
        self.jobs.try_send(job).map_err(|_| StoreThreadError::Gone)?;
        answer.await.map_err(|_| StoreThreadError::Gone)
    }

    /// Waits for as long as the thread finishes anything at all.
    async fn unless_it_hangs<T>(&self, done: impl Future<Output = Result<T, StoreThreadError>>) -> Result<T, StoreThreadError> {
        let mut done = pin!(done);
        loop {
            let finished = self.progress.finished.load(Ordering::Acquire);
            match tokio::time::timeout(self.patience, &mut done).await {
                Ok(outcome) => return outcome,
                Err(_) if self.progress.finished.load(Ordering::Acquire) != finished => {}
                Err(_) => {
                    self.give_up();
                    return Err(StoreThreadError::Hangs(self.patience));
                }
            }
        }
    }

    /// From now on the thread takes no job and writes nothing; what it is in the middle of, it may finish.
    pub(super) fn give_up(&self) {
        self.progress.given_up.store(true, Ordering::Release);
    }
}

/// A job, and where its outcome arrives.
fn answered<T: Send + 'static>(job: impl FnOnce(&mut Ledger) -> T + Send + 'static) -> (Job, oneshot::Receiver<T>) {
    let (reply, answer) = oneshot::channel();
    let job = move |ledger: &mut Ledger| {
        // Whoever asked may have gone; what was done stays done.
        let _ = reply.send(job(ledger));
    };
    (Box::new(job), answer)
}

fn run(
    open: impl FnOnce() -> Result<Ledger, LedgerError>,
    opened: oneshot::Sender<Result<(), LedgerError>>,
    queue: &mut Receiver<Job>,
    progress: &Progress,
) {
    let Some(mut ledger) = open_and_say_so(open, opened) else { return };
    while let Some(job) = queue.blocking_recv() {
        if !progress.advance(job, &mut ledger) {
            return;
        }
    }
    progress.settle(&mut ledger);
}

/// As [`run`], without a thread: what the disk takes passes before the work is done.
async fn take_turns(
    open: impl FnOnce() -> Result<Ledger, LedgerError>,
    opened: oneshot::Sender<Result<(), LedgerError>>,
    mut queue: Receiver<Job>,
    progress: Arc<Progress>,
    world: Arc<dyn OneThread>,
    directory: PathBuf,
) {
    world.work(directory.clone(), Work::Open).await;
    let Some(mut ledger) = open_and_say_so(open, opened) else { return };
    while let Some(job) = queue.recv().await {
        world.work(directory.clone(), Work::Turn).await;
        if !progress.advance(job, &mut ledger) {
            return;
        }
    }
    progress.settle(&mut ledger);
}

/// The ledger, unless it does not open or nobody waits for it.
fn open_and_say_so(
    open: impl FnOnce() -> Result<Ledger, LedgerError>,
    opened: oneshot::Sender<Result<(), LedgerError>>,
) -> Option<Ledger> {
    match open() {
        Ok(ledger) => opened.send(Ok(())).is_ok().then_some(ledger),
        Err(error) => {
            drop(opened.send(Err(error)));
            None
        }
    }
}

impl Progress {
    /// Does a job, unless the thread was given up.
    fn advance(&self, job: Job, ledger: &mut Ledger) -> bool {
        if self.given_up.load(Ordering::Acquire) {
            tracing::warn!("the disk answers again; what waited for it was given up, and the store is closed");
            return false;
        }
        job(ledger);
        self.finished.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn settle(&self, ledger: &mut Ledger) {
        if self.given_up.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = ledger.settle() {
            tracing::warn!(%error, "the store could not be settled; the next start takes in its last commits again");
        }
    }
}
