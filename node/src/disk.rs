//! Room on the disk of the data directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What a process without privileges may still write.
    pub free: u64,
    /// All of it.
    pub size: u64,
}

/// Asks for the room on a disk that may hang: at most one question is under way, and who asks meanwhile gets the last answer.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Asked>);

#[derive(Debug)]
struct Asked {
    path: PathBuf,
    under_way: AtomicBool,
    last: Mutex<Option<DiskSpace>>,
}

impl Disk {
    pub fn of(path: &Path) -> Self {
        Self(Arc::new(Asked { path: path.to_owned(), under_way: AtomicBool::new(false), last: Mutex::default() }))
    }

    /// The room there is, or was when the disk last answered.
    pub async fn space(&self, patience: Duration) -> Option<DiskSpace> {
        if !self.0.under_way.swap(true, Ordering::AcqRel) {
            let asked = self.0.clone();
            let answer = tokio::task::spawn_blocking(move || {
                let space = ask(&asked.path);
                *asked.last.lock().unwrap_or_else(PoisonError::into_inner) = space;
                asked.under_way.store(false, Ordering::Release);
            });
            // One that comes later is there for the next who asks.
            let _ = tokio::time::timeout(patience, answer).await;
        }
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(path: &Path) -> Option<DiskSpace> {
    let answer = rustix::fs::statvfs(path).inspect_err(|error| tracing::debug!(%error, "the disk's room is not known"));
    let answer = answer.ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Some(DiskSpace { free: bytes(answer.f_bavail), size: bytes(answer.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_has_room_and_what_is_not_there_has_none() {
        let place = tempfile::tempdir().unwrap();
        let space = Disk::of(place.path()).space(Duration::from_secs(10)).await.unwrap();
        assert!(space.free > 0 && space.free <= space.size);
        assert_eq!(Disk::of(&place.path().join("nothing")).space(Duration::from_secs(10)).await, None);
    }
}
