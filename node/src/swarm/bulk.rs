//! Bulk requests: one long-lived framed stream per peer and direction.
//!
//! Opening a substream per page would give each page a fresh, small flow-control window: at 40 ms round trip that is 17 MB/s
//! where one stream makes 50 to 180. So a node that has bulk requests for a peer opens one stream and keeps it; the opener
//! sends requests on it, the other side answers on it, in any order. Both may open one.
//!
//! ```text
//! frame = length u32 BE (of what follows) | id u64 BE | kind u8 | body
//! kind  = 0 request (body: Request) · 1 response (body: Response) · 2 unanswered (no body)
//! ```
//!
//! Each side reads and writes concurrently: writing everything before reading stalls Yamux for good after 384 KiB.

mod opener;
mod server;

use std::io;

use anabranch_protocol::limits::BULK_BYTES_MAX;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(super) use opener::Opener;
pub(super) use server::{Inbound, serve};

/// Bytes of id and kind.
const ENVELOPE_BYTES: usize = 9;
/// What a body may take before any of it arrived.
const FIRST_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Request = 0,
    Response = 1,
    Unanswered = 2,
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    id: u64,
    kind: FrameKind,
    body: Vec<u8>,
}

/// Why a bulk stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a frame of {0} bytes")]
    Length(u32),
    #[error("a frame of kind {0}")]
    Kind(u8),
    #[error("a {0:?} frame from the wrong side")]
    Direction(FrameKind),
    #[error("the other side closed it")]
    Closed,
    #[error("nothing moved within the deadline")]
    Stalled,
}

impl StreamError {
    /// Whether the peer broke the protocol, as opposed to the network.
    const fn is_malformed(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Kind(_) | Self::Direction(_))
    }
}

/// Reads a frame, never reserving more than arrived or [`FIRST_BYTES`].
async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Frame, StreamError> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match reader.read(&mut length[have..]).await? {
            0 if have == 0 => return Err(StreamError::Closed),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            more => have += more,
        }
    }
    let length = u32::from_be_bytes(length);
    let body_bytes = (length as usize).checked_sub(ENVELOPE_BYTES).filter(|bytes| *bytes <= BULK_BYTES_MAX);
    let body_bytes = body_bytes.ok_or(StreamError::Length(length))?;
    let mut id = [0; 8];
    let mut kind = [0; 1];
    reader.read_exact(&mut id).await?;
    reader.read_exact(&mut kind).await?;
    let kind = match kind[0] {
        0 => FrameKind::Request,
        1 => FrameKind::Response,
        2 => FrameKind::Unanswered,
        other => return Err(StreamError::Kind(other)),
    };
    let mut body = Vec::with_capacity(body_bytes.min(FIRST_BYTES));
    let got = reader.take(body_bytes as u64).read_to_end(&mut body).await?;
    if got < body_bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Frame { id: u64::from_be_bytes(id), kind, body })
}

/// Writes a frame and flushes it.
async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, id: u64, kind: FrameKind, body: &[u8]) -> Result<(), StreamError> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a frame over the limit");
    if body.len() > BULK_BYTES_MAX {
        return Err(too_long().into());
    }
    let length = u32::try_from(ENVELOPE_BYTES + body.len()).map_err(|_| too_long())?;
    let mut head = [0; 4 + ENVELOPE_BYTES];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..12].copy_from_slice(&id.to_be_bytes());
    head[12] = kind as u8;
    writer.write_all(&head).await?;
    writer.write_all(body).await?;
    writer.flush().await?;
    Ok(())
}

/// A frame that is read is written as the bytes it came from.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    futures::executor::block_on(async {
        let mut rest = data;
        while let Ok(frame) = read_frame(&mut rest).await {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, frame.id, frame.kind, &frame.body).await.expect("a frame that was read fits");
            assert!(data[..data.len() - rest.len()].ends_with(&bytes));
        }
    });
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    #[test]
    fn frames_round_trip_and_bad_ones_are_told_apart() {
        block_on(async {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, 7, FrameKind::Response, b"body").await.unwrap();
            assert_eq!(bytes, [0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 7, 1, b'b', b'o', b'd', b'y']);
            let frame = read_frame(&mut Cursor::new(&bytes)).await.unwrap();
            assert_eq!(frame, Frame { id: 7, kind: FrameKind::Response, body: b"body".to_vec() });
            assert!(matches!(read_frame(&mut Cursor::new(&bytes[..9])).await, Err(StreamError::Io(_))));
            assert!(matches!(read_frame(&mut Cursor::new(&bytes[..0])).await, Err(StreamError::Closed)));
            assert!(matches!(read_frame(&mut Cursor::new([255; 40])).await, Err(StreamError::Length(u32::MAX))));
            assert!(matches!(read_frame(&mut Cursor::new([0, 0, 0, 8, 1])).await, Err(StreamError::Length(8))));
            bytes[12] = 9;
            assert!(matches!(read_frame(&mut Cursor::new(&bytes)).await, Err(StreamError::Kind(9))));
        });
    }
}
