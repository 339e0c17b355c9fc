//! Control messages: libp2p's request-response with a codec that trusts nobody.
//!
//! A message is the CBOR of a `Request` or `Response`, ended by the end of the substream. Reads stop one byte past the limit.
//! Memory for large inbound messages comes from one budget for all peers and is held until the message was answered, so that a
//! flood is refused as busy instead of growing the process. What doesn't decode is not an I/O error: it becomes a value, so
//! that the peer hears `Refused` and why.

use std::io;
use std::sync::Arc;

use anabranch_protocol::limits::{BULK_BYTES_MAX, CONTROL_BYTES_MAX};
use anabranch_protocol::wire::{Refusal, RefusalCode, Request, Response};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::{Counters, MessageKind, count};

/// What a message may take without asking the budget. Streams are limited per connection, so this is bounded too.
const FREE_BYTES: usize = 16 << 10;
/// What is taken from the budget at a time.
const STEP_BYTES: usize = 64 << 10;

/// A share of the memory for inbound messages, given back when dropped.
pub(super) type Share = Option<OwnedSemaphorePermit>;

/// A request on its way in or out.
#[derive(Debug)]
pub(super) enum ControlRequest {
    /// Ours, encoded by whoever asked.
    Outbound { kind: MessageKind, bytes: Vec<u8> },
    /// A peer's, with the memory it stands on.
    Inbound { request: Request, share: Share },
    /// A peer's, not to be served.
    Refused(Refusal),
}

/// A response on its way in or out.
#[derive(Debug)]
pub(super) enum ControlResponse {
    /// Well-formed.
    Message(Response),
    /// The peer's answer breaks the protocol.
    Malformed(String),
}

#[derive(Debug, Clone)]
pub(super) struct ControlCodec {
    counters: Arc<Counters>,
    requests: Arc<Semaphore>,
    responses: Arc<Semaphore>,
}

impl ControlCodec {
    pub(super) fn new(counters: Arc<Counters>, inbound_bytes_max: usize) -> Self {
        // Apart from each other, so that a flood of requests does not starve the answers to ours.
        let budget = || Arc::new(Semaphore::new(inbound_bytes_max.min(Semaphore::MAX_PERMITS)));
        Self { counters, requests: budget(), responses: budget() }
    }
}

/// Why a message was not read.
#[derive(Debug)]
enum ReadError {
    Io(io::Error),
    TooLarge,
    Busy,
}

impl Codec for ControlCodec {
    type Protocol = StreamProtocol;
    type Request = ControlRequest;
    type Response = ControlResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<ControlRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let refused = |code, reason: String| Ok(ControlRequest::Refused(Refusal::new(code, reason)));
        let (bytes, share) = match read_bounded(io, CONTROL_BYTES_MAX, &self.requests).await {
            Ok(read) => read,
            Err(ReadError::Io(error)) => return Err(error),
            Err(ReadError::TooLarge) => {
                count(&self.counters.malformed);
                drain(io).await?;
                return refused(RefusalCode::Malformed, format!("a control message has at most {CONTROL_BYTES_MAX} bytes"));
            }
            Err(ReadError::Busy) => {
                count(&self.counters.refused_busy);
                drain(io).await?;
                return refused(RefusalCode::Busy, "too much is being received at once".to_owned());
            }
        };
        match Request::decode(&bytes) {
            Ok(request) => {
                self.counters.add_in(MessageKind::from(&request), bytes.len());
                Ok(ControlRequest::Inbound { request, share })
            }
            Err(error) => {
                count(&self.counters.malformed);
                refused(RefusalCode::Malformed, error.to_string())
            }
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<ControlResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (bytes, _share) = match read_bounded(io, BULK_BYTES_MAX, &self.responses).await {
            Ok(read) => read,
            Err(ReadError::Io(error)) => return Err(error),
            Err(ReadError::Busy) => return Err(io::Error::other("too much is being received at once")),
            Err(ReadError::TooLarge) => {
                count(&self.counters.malformed);
                return Ok(ControlResponse::Malformed(format!("over {BULK_BYTES_MAX} bytes")));
            }
        };
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
        }
        match Response::decode(&bytes) {
            Ok(response) => {
                self.counters.add_in(MessageKind::from(&response), bytes.len());
                Ok(ControlResponse::Message(response))
            }
            Err(error) => {
                count(&self.counters.malformed);
                Ok(ControlResponse::Malformed(error.to_string()))
            }
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: ControlRequest) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let ControlRequest::Outbound { kind, bytes } = request else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an inbound request is never sent"));
        };
        io.write_all(&bytes).await?;
        self.counters.add_out(kind, bytes.len());
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: ControlResponse) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let ControlResponse::Message(response) = response else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a malformed response is never sent"));
        };
        let (kind, bytes) = encode_response(&response);
        io.write_all(&bytes).await?;
        self.counters.add_out(kind, bytes.len());
        Ok(())
    }
}

/// The bytes of an answer; one that is too large to travel becomes a refusal, which the asker understands.
pub(super) fn encode_response(response: &Response) -> (MessageKind, Vec<u8>) {
    let bytes = response.encode();
    if bytes.len() <= BULK_BYTES_MAX {
        return (MessageKind::from(response), bytes);
    }
    tracing::error!(bytes = bytes.len(), limit = BULK_BYTES_MAX, "an answer of ours is too large to send");
    let refusal = Response::Refused(Refusal::new(RefusalCode::Unavailable, "the answer is too large to send"));
    (MessageKind::Refused, refusal.encode())
}

/// Reads to the end of `io`, at most `limit` bytes, taking memory from `budget` as it grows.
async fn read_bounded<T>(io: &mut T, limit: usize, budget: &Arc<Semaphore>) -> Result<(Vec<u8>, Share), ReadError>
where
    T: AsyncRead + Unpin + Send,
{
    let mut bytes = Vec::new();
    let mut share: Share = None;
    loop {
        let step = if bytes.len() < FREE_BYTES { FREE_BYTES } else { STEP_BYTES };
        if step == STEP_BYTES {
            let permits = u32::try_from(STEP_BYTES).unwrap_or(u32::MAX);
            let more = Arc::clone(budget).try_acquire_many_owned(permits).map_err(|_| ReadError::Busy)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
        let ask = step.min(limit + 1 - bytes.len());
        let got = (&mut *io).take(ask as u64).read_to_end(&mut bytes).await.map_err(ReadError::Io)?;
        if bytes.len() > limit {
            return Err(ReadError::TooLarge);
        }
        if got < ask {
            return Ok((bytes, share));
        }
    }
}

/// Throws away the rest of a refused message, without keeping it: an asker that is still writing reads our refusal only after.
async fn drain<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<()> {
    let mut thrown_away = 0;
    let mut bytes = vec![0; FREE_BYTES];
    while thrown_away < CONTROL_BYTES_MAX {
        match io.read(&mut bytes).await? {
            0 => break,
            more => thrown_away += more,
        }
    }
    Ok(())
}

/// A message as it comes on a substream: what is taken is what was sent, what is refused says why in bounds, and the memory it
/// stood on is given back.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    const BUDGET_BYTES: usize = 2 * STEP_BYTES;
    let mut codec = ControlCodec::new(Arc::default(), BUDGET_BYTES);
    let protocol = StreamProtocol::new(anabranch_protocol::wire::CONTROL_PROTOCOL);
    futures::executor::block_on(async {
        match codec.read_request(&protocol, &mut &*data).await.expect("memory is read") {
            ControlRequest::Inbound { request, .. } => assert_eq!(request.encode(), data),
            ControlRequest::Refused(refusal) => {
                let answer = encode_response(&Response::Refused(refusal)).1;
                Response::decode(&answer).expect("a refusal of ours is one");
            }
            ControlRequest::Outbound { .. } => panic!("nothing of ours comes in"),
        }
        if let Ok(ControlResponse::Message(response)) = codec.read_response(&protocol, &mut &*data).await {
            assert_eq!(encode_response(&response).1, data);
        }
    });
    assert_eq!([&codec.requests, &codec.responses].map(|budget| budget.available_permits()), [BUDGET_BYTES; 2]);
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::{Cursor, repeat};

    use super::*;

    fn budget(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(bytes))
    }

    #[test]
    fn reads_stop_at_the_limit() {
        let limit = 100_000;
        let whole = vec![7; limit];
        let (bytes, _) = block_on(read_bounded(&mut Cursor::new(&whole), limit, &budget(1 << 20))).unwrap();
        assert_eq!(bytes, whole);
        let read = block_on(read_bounded(&mut repeat(7), limit, &budget(1 << 20)));
        assert!(matches!(read, Err(ReadError::TooLarge)), "{read:?}");
    }

    #[test]
    fn a_spent_budget_refuses_large_messages_only_and_is_given_back() {
        let budget = budget(STEP_BYTES);
        let small = vec![1; FREE_BYTES - 1];
        let large = vec![1; FREE_BYTES + 10];
        let (_, held) = block_on(read_bounded(&mut Cursor::new(&large), 1 << 20, &budget)).unwrap();
        assert!(block_on(read_bounded(&mut Cursor::new(&small), 1 << 20, &budget)).is_ok());
        let read = block_on(read_bounded(&mut Cursor::new(&large), 1 << 20, &budget));
        assert!(matches!(read, Err(ReadError::Busy)), "{read:?}");
        drop(held);
        assert!(block_on(read_bounded(&mut Cursor::new(&large), 1 << 20, &budget)).is_ok());
    }
}
