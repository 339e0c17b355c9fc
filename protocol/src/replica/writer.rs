//! Epochs: whether a node may go on with its own line of commits.
//!
//! A directory may have been restored from a backup, cloned or copied since the line was written; then its next number is taken
//! already, somewhere. So after a start the old epoch goes on only once a peer confirmed our head, or if no peer was ever
//! accepted; a write before that opens a new epoch. A directory that is not the one it was opens a new one at once.

use super::Replica;
use crate::id::{Epoch, WriterId};
use crate::vector::VersionVector;

/// A writer's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterState {
    /// The next write opens a new epoch.
    Closed,
    /// The epoch goes on once a peer confirms its head; a write before that opens a new one.
    Unproven(Epoch),
    /// The next write continues the epoch.
    Open(Epoch),
}

impl WriterState {
    /// The standing after a start.
    #[must_use]
    pub fn after_start(saved: Option<Epoch>, same_directory: bool, peer_ever_accepted: bool) -> Self {
        match saved {
            Some(epoch) if same_directory && !peer_ever_accepted => Self::Open(epoch),
            Some(epoch) if same_directory => Self::Unproven(epoch),
            _ => Self::Closed,
        }
    }

    /// The epoch that may still be continued.
    #[must_use]
    pub fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Closed => None,
            Self::Unproven(epoch) | Self::Open(epoch) => Some(epoch),
        }
    }
}

impl Replica {
    /// Learns what a peer has of our own line: our head proves it, more than our head ends it.
    pub fn learn_own_line(&mut self, peer_has: &VersionVector) {
        let Some(epoch) = self.writer.epoch() else { return };
        let writer = WriterId { peer: self.peer(), epoch };
        match (peer_has.head(&writer), self.vector.head(&writer)) {
            // An open epoch stays open.
            (Some(theirs), Some(ours)) if theirs == ours => self.writer = WriterState::Open(epoch),
            // The peer has a commit of this line that we don't have: our directory is older than our own past.
            (Some(theirs), ours) if ours.is_none_or(|ours| theirs.seq >= ours.seq) => self.writer = WriterState::Closed,
            _ => {}
        }
    }
}
