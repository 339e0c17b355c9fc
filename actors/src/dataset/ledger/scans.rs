//! Scans that are checked against lookups.
//!
//! An engine takes different ways to a key: a lookup goes down from the root of its tree, a scan from one leaf to where that one says
//! the next begins. A leaf that comes up as it was before it was split in two still reaches to the end of both: a scan finds its old
//! rows and passes over the newer leaf, which every lookup finds. Then everything that is looked up is there, and listings are short.
//!
//! The last row before a given key is looked up too, so it tells whether a scan passed over something. Nothing may be written meanwhile.

use std::ops::ControlFlow;

use crate::store::{Store, StoreError, Visitor};

/// Visits keys in `[start, end)` as [`Store::scan`] does, each once lookups found the same row and none between it and the one before.
///
/// # Errors
/// [`StoreError::Corrupt`] where they did not.
pub(super) fn scan_checked(store: &dyn Store, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
    let (mut from, mut stopped) = (start.to_vec(), None);
    store.scan(start, end, &mut |key, value| {
        let step = match agree(store, &from, key, value) {
            Ok(true) => visit(key, value).map_break(Ok),
            Ok(false) => ControlFlow::Break(Err(differs())),
            Err(error) => ControlFlow::Break(Err(error)),
        };
        from = [key, &[0]].concat();
        step.map_break(|result| stopped = Some(result))
    })?;
    match stopped {
        Some(result) => result,
        None if store.last(&from, end)?.is_some() => Err(differs()),
        None => Ok(()),
    }
}

/// Whether lookups find this row, and none before it in `[from, key)`.
fn agree(store: &dyn Store, from: &[u8], key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
    Ok(store.get(key)?.as_deref() == Some(value) && store.last(from, key)?.is_none())
}

fn differs() -> StoreError {
    StoreError::Corrupt("a scan does not find the rows that lookups find".to_owned())
}

#[cfg(test)]
mod tests;
