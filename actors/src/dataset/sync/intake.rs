//! Frames on their way in: decoded and verified off the actor's thread, then handed to the oplog.

use actix::Addr;
use anabranch_protocol::commit::{Commit, FrameError};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Lineage, WriterId};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

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

/// Verifies frames; the first bad one refuses them all.
pub(super) async fn verify(frames: Vec<ByteBuf>, dataset: DatasetId, lineage: Lineage) -> Result<Vec<Commit>, IntakeError> {
    let verified = tokio::task::spawn_blocking(move || {
        let commit = |frame: &ByteBuf| anabranch_protocol::commit::Frame::decode(frame)?.verify(&dataset, lineage);
        frames.iter().map(commit).collect::<Result<Vec<_>, _>>()
    });
    Ok(verified.await.map_err(|_| IntakeError::Down)??)
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

/// Waits for the oplog's verdicts.
pub(super) async fn verdicts(
    received: oneshot::Receiver<Result<Received, crate::store::StoreError>>,
) -> Result<Received, IntakeError> {
    received.await.map_err(|_| IntakeError::Down)?.map_err(|_| IntakeError::Down)
}
