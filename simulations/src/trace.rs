//! What happened, as one hash: two runs of one seed are equal where their traces are.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// A shared, growing trace.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    hasher: blake3::Hasher,
    events: u64,
    /// Prints each event.
    loud: bool,
}

impl Trace {
    /// An empty trace that begins now.
    #[must_use]
    pub fn new(loud: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner { started: Instant::now(), hasher: blake3::Hasher::new(), events: 0, loud })))
    }

    /// Adds an event: when, what kind, and what of it.
    pub fn note(&self, kind: &str, what: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = u64::try_from(inner.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        inner.hasher.update(&at.to_le_bytes());
        inner.hasher.update(kind.as_bytes());
        inner.hasher.update(&(what.len() as u64).to_le_bytes());
        inner.hasher.update(what);
        inner.events += 1;
        if inner.loud {
            eprintln!("{:>12.6} {kind} {}", at as f64 / 1e9, String::from_utf8_lossy(what));
        }
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events
    }

    /// The hash so far, hex.
    #[must_use]
    pub fn hash(&self) -> String {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hasher.finalize().to_hex()[..32].to_owned()
    }
}
