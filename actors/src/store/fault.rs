//! Faults on demand: an engine that wraps another one and fails when its plan says so. For tests only.
//!
//! A [`FaultPlan`] is a list of rules that can be read from a short text and changed while the stores are open, also
//! from another thread. Rules are separated by `;` or line ends; `#` begins a comment up to the line's end. A rule is
//!
//! ```text
//! <call>:<fault>[:when=before|after][:after=<n>][:count=<n>|forever][:ms=<n>][:dataset=<name>]
//! ```
//!
//! | part | values |
//! |---|---|
//! | call | `open`, `get`, `scan` (also for `last`), `put`, `delete`, `barrier`; or an actor's moment, `clock.timer` say: see [`crate::probe`] |
//! | fault | `error`, `enospc`, `corrupt`, `delay` (with `ms`), `panic`, `hang` (until the rule is gone) |
//! | `when` | strike `before` the call reaches the wrapped store (default), or `after` it succeeded there |
//! | `after` | let this many calls pass first, counted from when the rule was set; default 0 |
//! | `count` | strike this often, then never again; `forever` until the plan is cleared; default 1 |
//! | `dataset` | strike, and count, only calls on the store whose directory has this name; default all |
//!
//! `barrier:enospc:after=50:count=3` lets 50 barriers pass and fails three; `put:delay:ms=20:count=forever` makes every
//! put slow; `open:hang` holds the next open until the plan is reloaded or cleared. The first rule that strikes wins.
//!
//! A failed write or barrier poisons the store as the contract asks, whichever side of the call it struck on, so the
//! code under test has to open the store again. The wrapped store is not told: what it did before stays done.

mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{OpenError, Row, Store, StoreEngine, StoreError, Visitor};

pub use plan::{Call, Fault, FaultPlan, FaultRule, FaultSpecError, When};

/// An engine that does what another one does, save for the faults of its plan.
#[derive(Debug, Clone)]
pub struct FaultEngine {
    inner: Arc<dyn StoreEngine>,
    plan: FaultPlan,
}

impl FaultEngine {
    /// Wraps `inner`. All stores it opens share `plan`.
    pub fn new(inner: Arc<dyn StoreEngine>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

impl StoreEngine for FaultEngine {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let dataset = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        refuse_open(self.plan.strike(Call::Open, When::Before, &dataset), dir)?;
        let inner = self.inner.open(dir, cache_bytes)?;
        refuse_open(self.plan.strike(Call::Open, When::After, &dataset), dir)?;
        Ok(Arc::new(FaultStore { inner, plan: self.plan.clone(), dataset, poisoned: AtomicBool::new(false) }))
    }
}

fn refuse_open(fault: Option<Fault>, dir: &Path) -> Result<(), OpenError> {
    let dir = dir.display().to_string();
    match fault {
        None => Ok(()),
        Some(Fault::NoSpace) => Err(OpenError::NoSpace(dir)),
        Some(Fault::Corrupt) => Err(OpenError::Corrupt { dir, reason: "injected".to_owned() }),
        Some(_) => Err(OpenError::Io { dir, reason: "injected".to_owned() }),
    }
}

/// A store that fails by plan.
struct FaultStore {
    inner: Arc<dyn Store>,
    plan: FaultPlan,
    dataset: String,
    poisoned: AtomicBool,
}

impl FaultStore {
    fn read<T>(&self, call: Call, inner: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        refuse(self.plan.strike(call, When::Before, &self.dataset))?;
        let result = inner()?;
        refuse(self.plan.strike(call, When::After, &self.dataset))?;
        Ok(result)
    }

    fn write(&self, call: Call, inner: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned);
        }
        let mut guard = PoisonUnlessDone { poisoned: &self.poisoned, done: false };
        let result = self.read(call, inner);
        guard.done = matches!(result, Ok(()) | Err(StoreError::TooLarge { .. }));
        result
    }
}

/// Poisons the store unless the write went well: also when a panic, injected or not, passes by.
struct PoisonUnlessDone<'a> {
    poisoned: &'a AtomicBool,
    done: bool,
}

impl Drop for PoisonUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.poisoned.store(true, Ordering::Release);
        }
    }
}

fn refuse(fault: Option<Fault>) -> Result<(), StoreError> {
    match fault {
        None => Ok(()),
        Some(Fault::NoSpace) => Err(StoreError::NoSpace),
        Some(Fault::Corrupt) => Err(StoreError::Corrupt("injected".to_owned())),
        Some(_) => Err(StoreError::Io("injected".to_owned())),
    }
}

impl Store for FaultStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(Call::Get, || self.inner.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write(Call::Put, || self.inner.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.write(Call::Delete, || self.inner.delete(key))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.read(Call::Scan, || self.inner.scan(start, end, visit))
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        self.read(Call::Scan, || self.inner.last(start, end))
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.write(Call::Barrier, || self.inner.barrier())
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FaultStore({:?})", self.inner)
    }
}
