//! Who may have a dataset's directory open: one store at a time.
//!
//! The lease goes with the store itself. It ends when the last hold on the store is gone, be it a reader's or that of a thread that
//! hangs in the disk, and whoever wants the directory next waits for that. So two open stores on one directory can't be.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to open a directory. It ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Lease(Arc<OwnedSemaphorePermit>);

impl Lease {
    /// Nobody opens the directory any more.
    pub fn keep_for_ever(self) {
        if let Ok(permit) = Arc::try_unwrap(self.0) {
            permit.forget();
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Tenancy(Mutex<Arc<Semaphore>>);

impl Default for Tenancy {
    fn default() -> Self {
        Self(Mutex::new(Arc::new(Semaphore::new(1))))
    }
}

impl Tenancy {
    /// Waits until the store that was open before is closed.
    pub async fn lease(&self) -> Lease {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Lease(Arc::new(current.acquire_owned().await.expect("it is never closed")))
    }

    /// The directory is another one from now on: the old one was renamed, and whoever still holds it holds only that.
    pub fn moved(&self) -> Lease {
        let next = Arc::new(Semaphore::new(1));
        let permit = next.clone().try_acquire_owned().expect("nobody else knows it");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Lease(Arc::new(permit))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_directory_has_one_tenant_until_the_last_hold_is_gone() {
        let tenancy = Tenancy::default();
        let lease = tenancy.lease().now_or_never().expect("free");
        let held = lease.clone();
        drop(lease);
        assert!(tenancy.lease().now_or_never().is_none());
        let moved = tenancy.moved();
        assert!(tenancy.lease().now_or_never().is_none());
        // Whoever held the old directory has nothing to say about the new one.
        drop(held);
        assert!(tenancy.lease().now_or_never().is_none());
        drop(moved);
        tenancy.lease().now_or_never().expect("free").keep_for_ever();
        assert!(tenancy.lease().now_or_never().is_none());
    }
}
