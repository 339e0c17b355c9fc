//! The side that asks: opens the stream when there is something to ask, keeps it, opens it again when it broke.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anabranch_actors::transport::TransportError;
use anabranch_protocol::wire::{BULK_PROTOCOL, Response};
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::Instrument;

use super::{FrameKind, StreamError, read_frame, write_frame};
use crate::swarm::config::SwarmLimits;
use crate::swarm::counters::{Counters, MessageKind, count};
use crate::swarm::reply::Reply;

const REOPEN_DELAY_MIN: Duration = Duration::from_millis(50);
const REOPEN_DELAY_MAX: Duration = Duration::from_secs(5);
/// Streams tried in a row before the requests that saw no answer fail. libp2p-stream drops an inbound stream without a word
/// when several peers open theirs at the same moment.
const STREAMS_TRIED_MAX: u32 = 4;
/// How often deadlines are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// A request that waits for its turn on the stream.
#[derive(Debug)]
pub(in crate::swarm) struct BulkRequest {
    pub(in crate::swarm) kind: MessageKind,
    /// Kept until the answer is there, for another stream.
    pub(in crate::swarm) bytes: Arc<[u8]>,
    pub(in crate::swarm) reply: Reply,
}

/// Asks one connected peer. Dropping it ends the stream; what was under way is answered as gone.
#[derive(Debug)]
pub(in crate::swarm) struct Opener {
    queue: mpsc::Sender<BulkRequest>,
    task: AbortHandle,
}

impl Opener {
    /// Starts the task of one peer; no stream is opened before the first request.
    pub(in crate::swarm) fn spawn(peer: PeerId, control: Control, limits: &SwarmLimits, counters: Arc<Counters>) -> Self {
        let (queue, requests) = mpsc::channel(limits.bulk_in_flight_max.max(1));
        let asker = Asker { peer, control, requests, limits: limits.clone(), counters };
        let task = tokio::spawn(asker.run().instrument(tracing::debug_span!("bulk_opener", %peer))).abort_handle();
        Self { queue, task }
    }

    /// Queues a request, or answers it as busy.
    pub(in crate::swarm) fn request(&self, kind: MessageKind, bytes: Vec<u8>, reply: Reply) {
        match self.queue.try_send(BulkRequest { kind, bytes: bytes.into(), reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => request.reply.send(Err(TransportError::Busy)),
            Err(mpsc::error::TrySendError::Closed(request)) => request.reply.send(Err(TransportError::NotConnected)),
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Asker {
    peer: PeerId,
    control: Control,
    requests: mpsc::Receiver<BulkRequest>,
    limits: SwarmLimits,
    counters: Arc<Counters>,
}

impl Asker {
    async fn run(mut self) {
        let delays =
            ExponentialBuilder::new().with_min_delay(REOPEN_DELAY_MIN).with_max_delay(REOPEN_DELAY_MAX).without_max_times();
        let mut backoff = delays.with_jitter_seed(rand::random()).build();
        let mut carried = VecDeque::new();
        let mut tried = 0;
        loop {
            let first = match carried.pop_front() {
                Some(first) => first,
                None => match self.requests.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            carried.push_front(first);
            let ended = self.live(&mut carried).await;
            tracing::debug!(reason = ended.reason, answered = ended.answered, "bulk stream closed");
            tried = if ended.answered { 0 } else { tried + 1 };
            if ended.answered {
                backoff = delays.with_jitter_seed(rand::random()).build();
            }
            let delay = backoff.next().unwrap_or(REOPEN_DELAY_MAX);
            if ended.may_retry && tried < STREAMS_TRIED_MAX {
                sleep(delay).await;
                continue;
            }
            tried = 0;
            for request in carried.drain(..) {
                request.reply.send(Err(TransportError::Connection(ended.reason.clone())));
            }
            self.refuse_for(delay, &ended.reason).await;
        }
    }

    /// One stream, from its opening to its end. `carried` is sent first, and holds what was not answered afterwards.
    async fn live(&mut self, carried: &mut VecDeque<BulkRequest>) -> Ended {
        let stream = match self.open().await {
            Ok(stream) => stream,
            Err(reason) => return Ended { reason, answered: false, may_retry: false },
        };
        count(&self.counters.bulk_streams_opened);
        let session = Session::new(&self.limits, Arc::clone(&self.counters));
        let error = session.run(stream, carried, &mut self.requests).await;
        if error.is_malformed() {
            count(&self.counters.malformed);
        }
        for waiting in session.take_waiting().into_iter().rev() {
            carried.push_front(waiting.request);
        }
        let answered = lock(&session.progress).answered;
        // A peer that was heard of may have begun to serve what it did not answer: that is for the caller to decide.
        let may_retry = !answered && matches!(error, StreamError::Closed | StreamError::Io(_));
        Ended { reason: format!("the bulk stream ended: {error}"), answered, may_retry }
    }

    async fn open(&mut self) -> Result<Stream, String> {
        let opening = self.control.open_stream(self.peer, StreamProtocol::new(BULK_PROTOCOL));
        match timeout(self.limits.open_stream_timeout, opening).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the bulk stream did not open in time".to_owned()),
        }
    }

    /// Waits before the next attempt, answering what comes in meanwhile at once, so that callers turn to another peer.
    async fn refuse_for(&mut self, delay: Duration, reason: &str) {
        let waiting = sleep(delay);
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                () = &mut waiting => return,
                request = self.requests.recv() => match request {
                    Some(request) => request.reply.send(Err(TransportError::Connection(reason.to_owned()))),
                    None => return,
                },
            }
        }
    }
}

/// How a stream ended.
struct Ended {
    reason: String,
    answered: bool,
    may_retry: bool,
}

/// A request that was written and is not answered yet.
struct Waiting {
    request: BulkRequest,
    since: Instant,
    _turn: OwnedSemaphorePermit,
}

/// One life of the stream.
struct Session {
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    progress: Mutex<Progress>,
    turns: Arc<Semaphore>,
    deadline: Duration,
    counters: Arc<Counters>,
}

struct Progress {
    read_at: Instant,
    answered: bool,
}

impl Session {
    fn new(limits: &SwarmLimits, counters: Arc<Counters>) -> Self {
        Self {
            waiting: Mutex::default(),
            progress: Mutex::new(Progress { read_at: Instant::now(), answered: false }),
            turns: Arc::new(Semaphore::new(limits.bulk_in_flight_max.max(1))),
            deadline: limits.bulk_timeout,
            counters,
        }
    }

    /// Runs until the stream breaks, for whatever reason first.
    async fn run(
        &self,
        stream: Stream,
        carried: &mut VecDeque<BulkRequest>,
        requests: &mut mpsc::Receiver<BulkRequest>,
    ) -> StreamError {
        let (reader, writer) = stream.split();
        let ended = tokio::select! {
            ended = self.write(writer, carried, requests) => ended,
            ended = self.read(reader) => ended,
            ended = self.sweep() => ended,
        };
        ended.err().unwrap_or(StreamError::Closed)
    }

    async fn write<W>(
        &self,
        mut writer: W,
        carried: &mut VecDeque<BulkRequest>,
        rest: &mut mpsc::Receiver<BulkRequest>,
    ) -> Result<(), StreamError>
    where
        W: AsyncWrite + Unpin,
    {
        let mut id = 0;
        loop {
            // The turn comes first: a request that waits for one stays in its queue, where a broken stream can't lose it.
            let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| StreamError::Closed)?;
            let next = match carried.pop_front() {
                Some(next) => Some(next),
                None => rest.recv().await,
            };
            let Some(request) = next else { return Ok(()) };
            // Given up by its caller while it waited.
            if request.reply.is_abandoned() {
                continue;
            }
            id += 1;
            let (kind, bytes) = (request.kind, Arc::clone(&request.bytes));
            lock(&self.waiting).insert(id, Waiting { request, since: Instant::now(), _turn: turn });
            write_frame(&mut writer, id, FrameKind::Request, &bytes).await?;
            self.counters.add_out(kind, bytes.len());
        }
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut reader: R) -> Result<(), StreamError> {
        loop {
            let frame = read_frame(&mut reader).await?;
            lock(&self.progress).read_at = Instant::now();
            // An answer past its deadline finds nobody waiting.
            let waiting = lock(&self.waiting).remove(&frame.id);
            let answer = match frame.kind {
                FrameKind::Request => return Err(StreamError::Direction(frame.kind)),
                FrameKind::Unanswered => {
                    Err(TransportError::Connection("the peer closed the request without an answer".to_owned()))
                }
                FrameKind::Response => self.decode(&frame.body),
            };
            lock(&self.progress).answered = true;
            if let Some(waiting) = waiting {
                waiting.request.reply.send(answer);
            }
        }
    }

    fn decode(&self, body: &[u8]) -> Result<Response, TransportError> {
        match Response::decode(body) {
            Ok(response) => {
                self.counters.add_in(MessageKind::from(&response), body.len());
                Ok(response)
            }
            Err(error) => {
                count(&self.counters.malformed);
                Err(TransportError::Malformed(error.to_string()))
            }
        }
    }

    /// Answers what is past its deadline. A stream on which nothing arrived for that long is given up: Yamux streams can
    /// deadlock for good (rust-libp2p issue 5410).
    async fn sweep(&self) -> Result<(), StreamError> {
        let mut ticks = interval(SWEEP_INTERVAL);
        loop {
            ticks.tick().await;
            let late: Vec<Waiting> = lock(&self.waiting)
                .extract_if(.., |_, waiting| waiting.since.elapsed() >= self.deadline)
                .map(|(_, late)| late)
                .collect();
            let stalled = !late.is_empty() && lock(&self.progress).read_at.elapsed() >= self.deadline;
            for waiting in late {
                waiting.request.reply.send(Err(TransportError::Timeout));
            }
            if stalled {
                return Err(StreamError::Stalled);
            }
        }
    }

    fn take_waiting(&self) -> Vec<Waiting> {
        std::mem::take(&mut *lock(&self.waiting)).into_values().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
