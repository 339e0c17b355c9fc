//! A store that is read, and written only in memory: while the disk is full, a ledger recovers on it as on any other, but nothing of
//! that is kept. What it read from the log past the mark may be with the operating system alone, so it is shown and not stated to be
//! durable; all that follows from it is made again when there is room.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::store::{Row, Store, StoreError, Visitor};

/// What was set over the store below; none where it was deleted.
type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Arc<dyn Store>,
    rows: RwLock<Rows>,
}

impl Overlay {
    pub fn new(below: Arc<dyn Store>) -> Self {
        Self { below, rows: RwLock::default() }
    }

    fn rows(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, key: &[u8], value: Option<&[u8]>) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(key.to_vec(), value.map(<[u8]>::to_vec));
    }

    /// A copy, so that visitors run without the lock. Small: it is what one recovery wrote.
    fn within(&self, start: &[u8], end: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        if start >= end {
            return Vec::new();
        }
        let range = (Bound::Included(start), Bound::Excluded(end));
        self.rows().range::<[u8], _>(range).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Store for Overlay {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let over = self.rows().get(key).cloned();
        over.map_or_else(|| self.below.get(key), Ok)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(key, Some(value));
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.set(key, None);
        Ok(())
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if start >= end {
            return Ok(());
        }
        let mut over = self.within(start, end).into_iter().peekable();
        let mut flow = ControlFlow::Continue(());
        self.below.scan(start, end, &mut |key, value| {
            while let Some((own, set)) = over.next_if(|(own, _)| own.as_slice() < key) {
                if let Some(set) = set {
                    flow = visit(&own, &set);
                    flow?;
                }
            }
            flow = match over.next_if(|(own, _)| own == key) {
                Some((_, Some(set))) => visit(key, &set),
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value),
            };
            flow
        })?;
        while let (ControlFlow::Continue(()), Some((own, set))) = (flow, over.next()) {
            if let Some(set) = set {
                flow = visit(&own, &set);
            }
        }
        Ok(())
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        if start >= end {
            return Ok(None);
        }
        let mut end = end.to_vec();
        // Rows at the end may be deleted over the store below.
        loop {
            let below = self.below.last(start, &end)?;
            let over = self.within(start, &end).into_iter().rev().find_map(|(key, value)| Some((key, value?)));
            match (below, over) {
                (Some(below), over) if over.as_ref().is_none_or(|over| over.0 < below.0) => {
                    if self.rows().contains_key(&below.0) {
                        end = below.0;
                        continue;
                    }
                    return Ok(Some(below));
                }
                (_, over) => return Ok(over),
            }
        }
    }

    fn barrier(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.below.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{MemoryEngine, StoreEngine};

    fn scanned(store: &dyn Store, start: &[u8], end: &[u8], limit: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan(start, end, &mut visit).unwrap();
        rows
    }

    proptest! {
        /// It reads as a store to which the same was written, and writes nothing.
        #[test]
        fn reads_as_if_it_was_written_below(
            below in prop::collection::vec((0_u8..12, 0_u8..4), 0..12),
            over in prop::collection::vec((0_u8..12, prop::option::of(0_u8..4)), 0..12),
            start in 0_u8..12, end in 0_u8..13, limit in 1_usize..6,
        ) {
            let open = |name| MemoryEngine::default().open(Path::new(name), 0).unwrap();
            let (base, model) = (open("base"), open("model"));
            for (key, value) in below {
                base.put(&[key], &[value]).unwrap();
                model.put(&[key], &[value]).unwrap();
            }
            let untouched = scanned(&*base, &[0], &[99], 99);
            let overlay = Overlay::new(base.clone());
            for (key, value) in over {
                for store in [&overlay as &dyn Store, &*model] {
                    match value {
                        Some(value) => store.put(&[key], &[value]).unwrap(),
                        None => store.delete(&[key]).unwrap(),
                    }
                }
            }
            for key in 0..12 {
                prop_assert_eq!(overlay.get(&[key]).unwrap(), model.get(&[key]).unwrap());
            }
            prop_assert_eq!(scanned(&overlay, &[start], &[end], limit), scanned(&*model, &[start], &[end], limit));
            if start < end {
                prop_assert_eq!(overlay.last(&[start], &[end]).unwrap(), model.last(&[start], &[end]).unwrap());
            }
            overlay.barrier().unwrap();
            prop_assert_eq!(scanned(&*base, &[0], &[99], 99), untouched);
        }
    }
}
