//! The side that answers: reads requests, hands them to the node, writes answers in the order they come.

use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::wire::{Refusal, RefusalCode, Request, Response};
use futures::stream::FuturesUnordered;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{FrameKind, StreamError, read_frame, write_frame};
use crate::swarm::config::SwarmLimits;
use crate::swarm::control::encode_response;
use crate::swarm::counters::{Counters, MessageKind, count};

/// What came on a peer's bulk stream.
#[derive(Debug)]
pub(in crate::swarm) struct Inbound {
    pub(in crate::swarm) peer: PeerId,
    /// A request for the node; none where something malformed came.
    pub(in crate::swarm) asked: Option<(Request, oneshot::Sender<Response>)>,
}

/// A request being served; its turn is free again once the answer is written.
struct Served {
    id: u64,
    answer: oneshot::Receiver<Response>,
    turn: OwnedSemaphorePermit,
}

/// Serves one inbound stream until it breaks. While `node` is full, or the peer has its share under way, nothing is read.
pub(in crate::swarm) async fn serve(
    peer: PeerId,
    stream: Stream,
    node: mpsc::Sender<Inbound>,
    limits: SwarmLimits,
    counters: Arc<Counters>,
) {
    let (reader, mut writer) = stream.split();
    let (hand_over, served) = mpsc::channel(limits.bulk_served_max.max(1));
    let reading = Reading { peer, node: node.clone(), hand_over, counters: Arc::clone(&counters) };
    let turns = Arc::new(Semaphore::new(limits.bulk_served_max.max(1)));
    let ended = {
        let writing = write_answers(&mut writer, served, limits.bulk_timeout, &counters);
        tokio::pin!(writing);
        tokio::select! {
            ended = reading.run(reader, turns) => match ended {
                // Nothing more is asked; what was asked is still answered.
                Err(StreamError::Closed) => writing.await,
                broken => broken,
            },
            ended = &mut writing => ended,
        }
    };
    let error = ended.err().unwrap_or(StreamError::Closed);
    if error.is_malformed() {
        count(&counters.malformed);
        tracing::warn!(%error, "closing a bulk stream that broke the protocol");
        // The swarm may be gone.
        let _ = node.send(Inbound { peer, asked: None }).await;
    } else {
        tracing::debug!(%error, "bulk stream closed by the other side");
    }
    let _ = timeout(limits.open_stream_timeout, writer.close()).await;
}

struct Reading {
    peer: PeerId,
    node: mpsc::Sender<Inbound>,
    hand_over: mpsc::Sender<Served>,
    counters: Arc<Counters>,
}

impl Reading {
    async fn run<R: AsyncRead + Unpin>(self, mut reader: R, turns: Arc<Semaphore>) -> Result<(), StreamError> {
        loop {
            let turn = Arc::clone(&turns).acquire_owned().await.map_err(|_| StreamError::Closed)?;
            let frame = read_frame(&mut reader).await?;
            if frame.kind != FrameKind::Request {
                return Err(StreamError::Direction(frame.kind));
            }
            let (reply, answer) = oneshot::channel();
            let served = Served { id: frame.id, answer, turn };
            self.hand_over.send(served).await.map_err(|_| StreamError::Closed)?;
            match Request::decode(&frame.body) {
                Ok(request) => {
                    self.counters.add_in(MessageKind::from(&request), frame.body.len());
                    let inbound = Inbound { peer: self.peer, asked: Some((request, reply)) };
                    self.node.send(inbound).await.map_err(|_| StreamError::Closed)?;
                }
                Err(error) => {
                    // The frame was whole, so the stream is still in step: say what is wrong and read on.
                    count(&self.counters.malformed);
                    let _ = reply.send(Response::Refused(Refusal::new(RefusalCode::Malformed, error.to_string())));
                    self.node.send(Inbound { peer: self.peer, asked: None }).await.map_err(|_| StreamError::Closed)?;
                }
            }
        }
    }
}

async fn write_answers<W: AsyncWrite + Unpin>(
    writer: &mut W,
    mut served: mpsc::Receiver<Served>,
    deadline: Duration,
    counters: &Counters,
) -> Result<(), StreamError> {
    let mut answers = FuturesUnordered::new();
    let mut more = true;
    loop {
        tokio::select! {
            next = served.recv(), if more => match next {
                Some(Served { id, answer, turn }) => answers.push(async move {
                    // A dropped or late answer closes the request without one.
                    (id, timeout(deadline, answer).await.ok().and_then(Result::ok), turn)
                }),
                None => more = false,
            },
            Some((id, answer, turn)) = answers.next() => {
                let writing = write_answer(writer, id, answer, counters);
                timeout(deadline, writing).await.map_err(|_| StreamError::Stalled)??;
                drop(turn);
            }
            else => return Ok(()),
        }
    }
}

async fn write_answer<W>(writer: &mut W, id: u64, answer: Option<Response>, counters: &Counters) -> Result<(), StreamError>
where
    W: AsyncWrite + Unpin,
{
    let Some(response) = answer else {
        return write_frame(writer, id, FrameKind::Unanswered, &[]).await;
    };
    let (kind, bytes) = encode_response(&response);
    write_frame(writer, id, FrameKind::Response, &bytes).await?;
    counters.add_out(kind, bytes.len());
    Ok(())
}
