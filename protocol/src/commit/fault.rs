//! What is wrong with a frame, by whom it can be laid to.

use super::header::VERSION;
use super::{FrameError, Header};
use crate::id::WriterId;

/// Why a stranger's frame was not opened. Only what a signature covers says something about a writer: anybody can make up the rest
/// in its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Nothing shows that a writer made this. It is the sender's doing, whatever writer it names.
    #[error("{error}")]
    Unproven {
        /// The writer that it names, where it names one.
        claimed: Option<WriterId>,
        /// What is wrong.
        error: FrameError,
    },
    /// The header is of a newer version, so its signature can't be checked: this sender's frames of this writer have to wait for
    /// a newer version of this node, other peers' don't.
    #[error("commit version {number} needs a newer version of this node")]
    NewerHeader {
        /// The writer that it names, where it still names one as this version does.
        claimed: Option<WriterId>,
        /// Its version.
        number: u64,
    },
    /// The writer signed it, and it has an operation that this version doesn't know: the writer is held.
    #[error("{what} {number} in commit {seq} of {writer} needs a newer version of this node")]
    NeedsUpgrade {
        /// Who signed it.
        writer: WriterId,
        /// Its number.
        seq: u64,
        /// What is not known.
        what: &'static str,
        /// Its number.
        number: u64,
    },
}

impl FrameFault {
    /// The writer whose later frames in the same message are not taken in either: they would leave a gap.
    #[must_use]
    pub fn writer(&self) -> Option<WriterId> {
        match self {
            Self::Unproven { claimed, .. } | Self::NewerHeader { claimed, .. } => *claimed,
            Self::NeedsUpgrade { writer, .. } => Some(*writer),
        }
    }

    /// Whether the sender did what no version of this program does.
    #[must_use]
    pub fn blames_sender(&self) -> bool {
        matches!(self, Self::Unproven { .. })
    }

    pub(super) fn of_header(header_bytes: &[u8], error: FrameError) -> Self {
        let claimed = super::header::claimed_writer(header_bytes);
        match error {
            FrameError::NeedsUpgrade { number, .. } if number > VERSION => Self::NewerHeader { claimed, number },
            error => Self::Unproven { claimed, error },
        }
    }

    /// The header is the writer's: so is an operation in a section whose digest it signed. An honest sender looked at all else
    /// before it passed the frame on.
    pub(super) fn of_sections(header: &Header, error: FrameError) -> Self {
        match error {
            FrameError::NeedsUpgrade { what, number } => {
                Self::NeedsUpgrade { writer: header.writer(), seq: header.seq, what, number }
            }
            error => Self::Unproven { claimed: Some(header.writer()), error },
        }
    }
}
