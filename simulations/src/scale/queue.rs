//! What happens next: a priority queue ordered by virtual time and, within a microsecond, by the order of asking.
//!
//! A storm of announcements has millions of messages on their way. Those of later milliseconds lie unsorted in their millisecond,
//! and only the current one is a heap, which then fits the processor's cache.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Microseconds of virtual time that are sorted at once, as a power of two.
const BUCKET_BITS: u32 = 10;

/// See the module documentation. Times are microseconds.
#[derive(Debug)]
pub(super) struct Queue<T> {
    current: BinaryHeap<Reverse<Entry<T>>>,
    bucket: u64,
    later: BTreeMap<u64, Vec<Reverse<Entry<T>>>>,
    asked: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    asked: u64,
    what: T,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { current: BinaryHeap::new(), bucket: 0, later: BTreeMap::new(), asked: 0 }
    }

    /// Something to happen at `at`, which is not before what was taken out last.
    pub fn push(&mut self, at: u64, what: T) {
        self.asked += 1;
        let entry = Reverse(Entry { at, asked: self.asked, what });
        let bucket = at >> BUCKET_BITS;
        if bucket <= self.bucket { self.current.push(entry) } else { self.later.entry(bucket).or_default().push(entry) }
    }

    /// When the next thing happens.
    pub fn next_at(&mut self) -> Option<u64> {
        if self.current.is_empty() {
            let (bucket, entries) = self.later.pop_first()?;
            self.bucket = bucket;
            self.current = BinaryHeap::from(entries);
        }
        self.current.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next thing out, and when it happens.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        self.next_at()?;
        self.current.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.asked) == (other.at, other.asked)
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.asked).cmp(&(other.at, other.asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_comes_by_time_and_then_by_order_of_asking() {
        let mut queue = Queue::new();
        for (name, at) in [("d", 5_000), ("b", 10), ("c", 10), ("e", 900_000), ("a", 3)] {
            queue.push(at, name);
        }
        assert_eq!(queue.pop(), Some((3, "a")));
        assert_eq!(queue.pop(), Some((10, "b")));
        queue.push(10, "also");
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some((10, "c")), Some((10, "also")), Some((5_000, "d"))]);
        queue.push(5_001, "soon");
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some((5_001, "soon")), Some((900_000, "e")), None]);
    }
}
