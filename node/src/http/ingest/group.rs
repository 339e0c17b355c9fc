//! Lines that are written together.

use anabranch_protocol::id::Collection;
use anabranch_protocol::limits::COMMIT_SECTIONS_MAX;
use anabranch_protocol::replica::{Op, WriteOp};

/// Most lines of a group: beyond some hundred entries a commit hardly gets cheaper, and latency grows.
pub const GROUP_LINES_MAX: usize = 512;
/// Most bytes of a group, about; one larger line goes alone.
pub const GROUP_BYTES_MAX: usize = 1 << 20;

/// Lines gathered so far.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Each line's number, counted from 1.
    pub lines: Vec<u64>,
    /// Its write.
    pub ops: Vec<WriteOp>,
    collections: Vec<Collection>,
    bytes: usize,
}

impl Group {
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether `op` can join without the group outgrowing a commit.
    pub fn has_room_for(&self, op: &WriteOp) -> bool {
        self.is_empty()
            || (self.ops.len() < GROUP_LINES_MAX
                && self.bytes + op.op.weight() <= GROUP_BYTES_MAX
                && (self.collections.len() < COMMIT_SECTIONS_MAX || self.knows(&op.collection)))
    }

    pub fn push(&mut self, line: u64, op: WriteOp) {
        self.bytes += op.op.weight();
        if !self.knows(&op.collection) {
            self.collections.push(op.collection.clone());
        }
        self.lines.push(line);
        self.ops.push(op);
    }

    /// Whether the result of a line depends on what is stored, so that it may be refused when it is written.
    pub fn may_be_refused(&self) -> bool {
        self.ops.iter().any(|write| matches!(write.op, Op::Merge { .. }))
    }

    /// Two halves, in order.
    pub fn halves(mut self) -> (Self, Self) {
        let middle = self.ops.len() / 2;
        let second = Self { lines: self.lines.split_off(middle), ops: self.ops.split_off(middle), ..Self::default() };
        (self, second)
    }

    /// Streams mostly stay in the collection they were in, so the last one is looked at first.
    fn knows(&self, collection: &Collection) -> bool {
        self.collections.iter().rev().any(|known| known == collection)
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::id::Key;

    use super::*;

    fn put(collection: &str, bytes: usize) -> WriteOp {
        let op = Op::Put { key: Key::new("k").unwrap(), value: vec![0; bytes] };
        WriteOp { collection: Collection::new(collection).unwrap(), op }
    }

    #[test]
    fn a_group_fits_into_a_commit() {
        let mut group = Group::default();
        assert!(group.has_room_for(&put("c", 2 * GROUP_BYTES_MAX)));
        for line in 1..=GROUP_LINES_MAX as u64 {
            assert!(group.has_room_for(&put("c", 1)));
            group.push(line, put("c", 1));
        }
        assert!(!group.has_room_for(&put("c", 1)));

        let mut large = Group::default();
        large.push(1, put("c", GROUP_BYTES_MAX / 2));
        assert!(!large.has_room_for(&put("c", GROUP_BYTES_MAX / 2)));

        let mut wide = Group::default();
        (0..COMMIT_SECTIONS_MAX as u64).for_each(|n| wide.push(n, put(&format!("c{n}"), 1)));
        assert!(wide.has_room_for(&put("c0", 1)));
        assert!(!wide.has_room_for(&put("another", 1)));
    }
}
