//! The store of one dataset: an ordered map of small values with a durable barrier.
//!
//! The trait stays narrow so that another engine is one file. What the rest of Anabranch relies on, for every engine:
//!
//! - **Read your writes.** `put` and `delete` are seen by every later `get` and `scan` of this process, on any thread.
//! - **Single operations are atomic.** After a crash a key holds one of the values it was given, whole, or none.
//! - **Barrier.** When `barrier` returns `Ok`, every operation that returned before the call is on stable storage: it
//!   survives `kill -9` and power loss. Of the operations after the last such barrier any subset may survive, in any order.
//! - **After an error of `barrier`, `put` or `delete`** the outcome of everything since the last good barrier is unknown.
//!   The store refuses further writes and barriers with [`StoreError::Poisoned`]: drop it, open the directory again, and
//!   write again what is to stand. Reads keep answering where they can.
//! - **Values are at most [`PART_BYTES_MAX`]**, keys at most [`KEY_BYTES_MAX`]; larger ones are refused, nothing is written.
//!   sled moves larger pages into blob files that nothing ever syncs; callers store large things in parts.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::dataset::has_room;

#[cfg(test)]
mod contract;
pub mod fault;
pub mod memory;
pub mod sled;

pub use self::fault::{FaultEngine, FaultPlan};
pub use self::memory::MemoryEngine;
pub use self::sled::SledEngine;

/// Largest value one key may hold, in bytes. Above it sled may write blob files, which no barrier covers.
pub const PART_BYTES_MAX: usize = 7_168;
/// Largest key, in bytes: room for a document's key of 1,024 bytes and what the layout puts before it.
pub const KEY_BYTES_MAX: usize = 1_536;

/// Ordered key–value store of one dataset. See the module documentation for the contract.
pub trait Store: Send + Sync + fmt::Debug {
    /// The value at `key`, or `None`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Sets `key` to `value`.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Removes `key`; removing what is not there is no error.
    fn delete(&self, key: &[u8]) -> Result<(), StoreError>;
    /// Visits keys in `[start, end)` in byte order until the visitor breaks.
    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError>;
    /// The greatest key in `[start, end)` and its value.
    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError>;
    /// Makes everything before this call durable.
    fn barrier(&self) -> Result<(), StoreError>;
    /// Bytes on disk (or in memory), approximately; cheap enough for a status page.
    fn size_bytes(&self) -> u64;
}

/// Refuses a key or value that is over the limits, before anything is written.
fn check_sizes(key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    for (what, bytes, limit) in [("key", key.len(), KEY_BYTES_MAX), ("value", value.len(), PART_BYTES_MAX)] {
        if bytes > limit {
            return Err(StoreError::TooLarge { what, bytes, limit });
        }
    }
    Ok(())
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// What a scan calls for each key and value.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Opens the store of a dataset's directory. Injected, so that tests wrap faults around it and simulations stay in memory.
pub trait StoreEngine: Send + Sync + fmt::Debug {
    /// Opens or creates the store in `dir`, using at most about `cache_bytes` of memory for its cache.
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError>;
    /// Whether there is room again on the disk under `dir` for what an open store writes. Blocks.
    fn has_room(&self, dir: &Path) -> bool {
        has_room(dir)
    }
}

/// How long opening the store in `dir` may take before it counts as damaged: damage can make an engine spin for ever.
///
/// sled needs 0.3–7 s for 400 MB, so the limit grows with the files. `base` is for a small store.
#[must_use]
pub fn open_limit(dir: &Path, base: Duration) -> Duration {
    /// Bytes that may take one more second.
    const BYTES_PER_SECOND: u64 = 50_000_000;
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes: u64 = files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    base + Duration::from_millis(bytes.saturating_mul(1_000) / BYTES_PER_SECOND)
}

/// How long a small store may take to open.
pub const OPEN_LIMIT: Duration = Duration::from_millis(4_500);

/// Why an operation on an open store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine or the operating system refused the operation; later writes are refused too.
    #[error("storage failed: {0}")]
    Io(String),
    /// The disk is full; later writes are refused until the store is opened again.
    #[error("no space left on the disk")]
    NoSpace,
    /// An earlier write or barrier failed, so what is durable is not known. Open the store again.
    #[error("the store stopped after an earlier failure and must be opened again")]
    Poisoned,
    /// The engine found its own files damaged.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// A key or value above the limits of this module; nothing was written.
    #[error("{what} of {bytes} bytes is over the store's limit of {limit}")]
    TooLarge { what: &'static str, bytes: usize, limit: usize },
}

/// Why a store could not be opened. Nothing on disk was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The disk is full.
    #[error("the store in {0} can't be opened: no space left on the disk")]
    NoSpace(String),
    /// Another process or handle holds the directory.
    #[error("the store in {0} is in use by another process")]
    InUse(String),
    /// The files are damaged, or the engine panicked on them, or did not come back in time.
    #[error("the store in {dir} is damaged: {reason}")]
    Corrupt { dir: String, reason: String },
    /// The operating system refused.
    #[error("the store in {dir} can't be opened: {reason}")]
    Io { dir: String, reason: String },
}
