//! Conflict policies: joins of row states.
//!
//! A policy says what state an entry makes and how two states join. A join is associative, commutative and idempotent, so a row
//! ends the same in whatever order and however often entries arrive (Shapiro, Preguiça, Baquero and Zawirski, *Conflict-free
//! Replicated Data Types*, 2011). Property tests hold each policy to that.

mod lww;

use std::fmt;
use std::str::FromStr;

pub use lww::LastWriterWins;

use crate::commit::Change;
use crate::floor::Floor;
use crate::hlc::Hlc;
use crate::id::{NameError, WriterId};
use crate::value::content_hash;

/// Where an entry stands in the total order that decides conflicts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The commit's clock reading.
    pub hlc: Hlc,
    /// Its writer.
    pub writer: WriterId,
    /// The entry's index in the commit.
    pub index: u32,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.{}", self.hlc.0, self.writer, self.index)
    }
}

impl FromStr for Stamp {
    type Err = NameError;
    /// Reads what [`Display`](fmt::Display) writes, and no other spelling.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = (|| {
            let (hlc, rest) = text.split_once('.')?;
            let (writer, index) = rest.rsplit_once('.')?;
            let hlc = Hlc(u64::from_str_radix(hlc, 16).ok()?);
            Some(Self { hlc, writer: writer.parse().ok()?, index: index.parse().ok()? })
        })();
        parsed.filter(|stamp| stamp.to_string() == text).ok_or(NameError::Stamp)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The state of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entry that made it.
    pub stamp: Stamp,
    /// Its value as deterministic CBOR; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Content hash of the value; zero for a tombstone.
    pub content: [u8; 16],
}

impl Row {
    /// The state that a put or delete makes by itself.
    #[must_use]
    pub fn new(stamp: Stamp, value: Option<Vec<u8>>) -> Self {
        let content = value.as_deref().map_or([0; 16], content_hash);
        Self { stamp, value, content }
    }
}

/// A conflict policy.
pub trait ConflictPolicy {
    /// The name peers compare in the handshake.
    fn name(&self) -> &'static str;
    /// The state that an entry makes; `None` where the policy has no rows for it.
    fn state(&self, stamp: Stamp, change: &Change) -> Option<Row>;
    /// The join of two states of one row.
    fn join(&self, a: Row, b: Row) -> Row;
    /// What a floor leaves of a state; `None` where nothing is left. It distributes over the join: what it leaves of a join is the
    /// join of what it leaves.
    fn above(&self, row: Row, floor: &Floor) -> Option<Row>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, PeerId};

    #[test]
    fn a_stamp_reads_as_it_was_written_and_in_no_other_spelling() {
        let stamp = Stamp { hlc: Hlc(77), writer: WriterId { peer: PeerId([1; 32]), epoch: Epoch([2; 16]) }, index: 5 };
        let text = stamp.to_string();
        assert_eq!(text.parse(), Ok(stamp));
        for wrong in [text.to_uppercase(), format!("{text}0."), format!("+{text}"), text.replace(".5", ".05"), String::new()] {
            assert_eq!(wrong.parse::<Stamp>(), Err(NameError::Stamp), "{wrong}");
        }
    }
}
