//! Damage that shows while a store is open: whoever reads into it reports it, and the supervisor sets the store aside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use actix::prelude::*;

use super::tenancy::Lease;
use crate::store::{Row, Store, StoreError, Visitor};

/// An open store turned out to be damaged.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Damaged {
    /// Which attempt to run the dataset opened it.
    pub attempt: u64,
    /// What was found.
    pub reason: String,
}

/// Reports the damage of one open store, once. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    attempt: u64,
    supervisor: Recipient<Damaged>,
    /// The ledger is open. Before, whoever opens it deals with damage.
    armed: AtomicBool,
    reason: OnceLock<String>,
}

impl Damage {
    pub fn new(attempt: u64, supervisor: Recipient<Damaged>) -> Self {
        Self { shared: Arc::new(Shared { attempt, supervisor, armed: AtomicBool::new(false), reason: OnceLock::new() }) }
    }

    /// From now on damage is reported.
    pub fn arm(&self) {
        self.shared.armed.store(true, Ordering::Release);
    }

    /// Passes a result on, and reports it if it says that the store is damaged.
    pub fn noting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt(reason)) = &result
            && self.shared.armed.load(Ordering::Acquire)
            && self.shared.reason.set(reason.clone()).is_ok()
        {
            self.shared.supervisor.do_send(Damaged { attempt: self.shared.attempt, reason: reason.clone() });
        }
        result
    }
}

/// A store whose own damage is reported, whoever comes upon it.
#[derive(Debug)]
pub(super) struct WatchedStore {
    inner: Arc<dyn Store>,
    damage: Damage,
    /// Below the store, so that it is dropped after it.
    _lease: Lease,
}

impl WatchedStore {
    pub fn new(inner: Arc<dyn Store>, lease: Lease, damage: Damage) -> Self {
        Self { inner, damage, _lease: lease }
    }
}

impl Store for WatchedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.damage.noting(self.inner.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.damage.noting(self.inner.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.damage.noting(self.inner.delete(key))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.damage.noting(self.inner.scan(start, end, visit))
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        self.damage.noting(self.inner.last(start, end))
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.damage.noting(self.inner.barrier())
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}
