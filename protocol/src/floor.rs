//! Floors: what dropping or truncating a collection leaves behind.
//!
//! A drop names no rows. Its stamp becomes the floor of its collection: whatever an entry with a stamp up to it made is gone, and an
//! entry with such a stamp that comes later makes nothing. Floors join by the maximum, which is associative, commutative and
//! idempotent; so a row is still a function of the set of commits, the join of the states that are above the collection's floor.

use serde::{Deserialize, Serialize};

use crate::conflict::Stamp;
use crate::hlc::Hlc;
use crate::id::{Epoch, PeerId, WriterId};

/// The floor of a collection. The greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Raw", into = "Raw")]
pub struct Floor {
    /// Up to this stamp, itself included, nothing is left.
    pub stamp: Stamp,
    /// Whether the collection was dropped, rather than truncated: it is listed again once something is in it. Two branches of a
    /// forked line may say both under one stamp.
    pub dropped: bool,
}

impl Floor {
    /// Whether what an entry with this stamp made is gone.
    #[must_use]
    pub fn hides(&self, stamp: &Stamp) -> bool {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::ForgetFloor) {
            return false;
        }
        *stamp <= self.stamp
    }
}

type Raw = (Hlc, PeerId, Epoch, u32, bool);

impl From<Raw> for Floor {
    fn from((hlc, peer, epoch, index, dropped): Raw) -> Self {
        Self { stamp: Stamp { hlc, writer: WriterId { peer, epoch }, index }, dropped }
    }
}

impl From<Floor> for Raw {
    fn from(Floor { stamp, dropped }: Floor) -> Self {
        (stamp.hlc, stamp.writer.peer, stamp.writer.epoch, stamp.index, dropped)
    }
}
