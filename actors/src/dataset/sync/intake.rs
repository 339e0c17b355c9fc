//! Frames on their way in: decoded and verified off the actor's thread, then handed to the oplog.

use actix::Addr;
use anabranch_protocol::commit::{Commit, Frame, FrameError};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Lineage, WriterId};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use super::super::oplog::chores::Widen;
use super::super::oplog::{Oplog, Receive, Received};

/// Why frames of a peer were not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    /// The peer sent something that is no commit of this dataset.
    #[error("the peer sent a bad commit: {0}")]
    Frame(#[from] FrameError),
    /// The dataset is going down.
    #[error("the dataset is not running")]
    Down,
}

/// Up to this many frames of together [`INLINE_BYTES_MAX`] are verified where they arrive: a signature takes 40 µs, a thread for
/// it takes longer.
const INLINE_FRAMES_MAX: usize = 4;
const INLINE_BYTES_MAX: usize = 16 << 10;

/// Verifies frames; the first bad one refuses them all.
pub(super) async fn verify(frames: Vec<ByteBuf>, dataset: DatasetId, lineage: Lineage) -> Result<Vec<Commit>, IntakeError> {
    let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
    if frames.len() <= INLINE_FRAMES_MAX && bytes <= INLINE_BYTES_MAX {
        return Ok(verify_all(&frames, &dataset, lineage)?);
    }
    let verified = tokio::task::spawn_blocking(move || verify_all(&frames, &dataset, lineage));
    Ok(verified.await.map_err(|_| IntakeError::Down)??)
}

fn verify_all(frames: &[ByteBuf], dataset: &DatasetId, lineage: Lineage) -> Result<Vec<Commit>, FrameError> {
    frames.iter().map(|frame| Frame::decode(frame)?.verify(dataset, lineage)).collect()
}

/// What a commit is, once it was handed on.
pub(super) fn summary(commits: &[Commit]) -> Vec<(WriterId, u64, Hlc)> {
    commits.iter().map(|commit| (commit.writer(), commit.header().seq, commit.header().hlc)).collect()
}

/// Hands verified commits to the oplog; the returned receiver resolves after its barrier.
pub(super) fn hand_over(
    oplog: &Addr<Oplog>,
    commits: Vec<Commit>,
) -> oneshot::Receiver<Result<Received, crate::store::StoreError>> {
    let (reply, received) = oneshot::channel();
    oplog.do_send(Receive { commits, reply });
    received
}

/// Hands copies of commits that are here to the oplog, for the sections they bring.
pub(super) fn hand_over_past(
    oplog: &Addr<Oplog>,
    commits: Vec<Commit>,
) -> oneshot::Receiver<Result<Received, crate::store::StoreError>> {
    let (reply, received) = oneshot::channel();
    oplog.do_send(Widen { commits, before: (Vec::new(), 0), reply });
    received
}

/// Waits for the oplog's verdicts.
pub(super) async fn verdicts(
    received: oneshot::Receiver<Result<Received, crate::store::StoreError>>,
) -> Result<Received, IntakeError> {
    received.await.map_err(|_| IntakeError::Down)?.map_err(|_| IntakeError::Down)
}
