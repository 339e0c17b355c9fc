//! The thread on which a dataset's ledger lives: no fsync ever blocks another dataset, a mailbox or the network.

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::ledger::{Ledger, LedgerError};

type Job = Box<dyn FnOnce(&mut Ledger) + Send>;

/// Jobs that may wait; whoever brings more waits for room. A slow disk is no reason to give the dataset up.
const JOBS_MAX: usize = 64;

/// The thread is gone: it panicked or was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the dataset's store thread is gone")]
pub struct StoreThreadGone;

/// Runs jobs on a ledger, in order. Dropping the last clone settles the ledger and ends the thread.
#[derive(Debug, Clone)]
pub struct StoreThread {
    jobs: Sender<Job>,
}

/// A store thread that was just started.
#[derive(Debug)]
pub struct Started {
    /// Takes jobs at once; they run after the ledger was opened.
    pub thread: StoreThread,
    /// Whether the ledger could be opened.
    pub opened: oneshot::Receiver<Result<(), LedgerError>>,
    /// Ends when the thread has closed its store.
    pub closed: oneshot::Receiver<()>,
}

impl StoreThread {
    /// Starts the thread, which opens the ledger first.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn start(name: &str, open: impl FnOnce() -> Result<Ledger, LedgerError> + Send + 'static) -> std::io::Result<Started> {
        let (jobs, mut queue) = channel(JOBS_MAX);
        let (opened, when_opened) = oneshot::channel();
        let (closed, when_closed) = oneshot::channel();
        let span = tracing::Span::current();
        std::thread::Builder::new().name(format!("store-{name}")).spawn(move || {
            let _in_dataset = span.entered();
            // Dropped after the ledger, on a panic too: whoever opens the directory next waits for it.
            let _closed = closed;
            run(open, opened, &mut queue);
        })?;
        Ok(Started { thread: Self { jobs }, opened: when_opened, closed: when_closed })
    }

    /// Runs `job` on the ledger and resolves with what it returns.
    ///
    /// # Errors
    /// [`StoreThreadGone`] also when the thread dies during the job.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, StoreThreadGone> {
        let (job, answer) = answered(job);
        self.jobs.send(job).await.map_err(|_| StoreThreadGone)?;
        answer.await.map_err(|_| StoreThreadGone)
    }

    /// As [`StoreThread::run`], unless too much waits already: for what nobody needs late.
    ///
    /// # Errors
    /// [`StoreThreadGone`] also when the job was not taken.
    pub async fn run_unless_busy<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, StoreThreadGone> {
        let (job, answer) = answered(job);
        self.jobs.try_send(job).map_err(|_| StoreThreadGone)?;
        answer.await.map_err(|_| StoreThreadGone)
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
) {
    let mut ledger = match open() {
        Ok(ledger) => ledger,
        Err(error) => return drop(opened.send(Err(error))),
    };
    if opened.send(Ok(())).is_err() {
        return;
    }
    while let Some(job) = queue.blocking_recv() {
        job(&mut ledger);
    }
    if let Err(error) = ledger.settle() {
        tracing::warn!(%error, "the store could not be settled; the next start takes in its last commits again");
    }
}
