//! `lww`: the greatest stamp wins, puts and deletes alike; equal stamps (a fork) are settled by the greater content hash.

use super::{ConflictPolicy, Row, Stamp};
use crate::commit::Change;
use crate::floor::Floor;

/// Last writer wins.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastWriterWins;

impl ConflictPolicy for LastWriterWins {
    fn name(&self) -> &'static str {
        "lww"
    }

    fn state(&self, stamp: Stamp, change: &Change) -> Option<Row> {
        match change {
            Change::Put { value, .. } => Some(Row::new(stamp, Some(value.clone()))),
            Change::Delete { .. } => Some(Row::new(stamp, None)),
            Change::Append { .. } | Change::Drop | Change::Truncate => None,
        }
    }

    fn join(&self, a: Row, b: Row) -> Row {
        #[cfg(feature = "planted")]
        {
            use crate::planted::{Bug, is};
            if is(Bug::ArrivalOrder) {
                return b;
            }
            if is(Bug::LostTombstone) && a.value.is_some() != b.value.is_some() {
                return if a.value.is_some() { a } else { b };
            }
        }
        if (a.stamp, a.content) >= (b.stamp, b.content) { a } else { b }
    }

    fn above(&self, row: Row, floor: &Floor) -> Option<Row> {
        (!floor.hides(&row.stamp)).then_some(row)
    }
}
