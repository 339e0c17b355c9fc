//! The data directory: private to its user, and to one process at a time.
//!
//! ```text
//! identity.key     the node's secret key, 0600
//! network.key      the network key that an invite brought, 0600
//! incarnation      the life of this directory
//! peers.json       the address book
//! disabled-peers   who is disabled, a peer id a line
//! lock             held by the process that runs here
//! datasets/        one directory per dataset, and files about each
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Failure;

/// A data directory that this process holds until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// [`Failure::InUse`] if another process holds it; [`Failure::Other`] if the file system refuses.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let refused = |error: std::io::Error| Failure::other(format!("can't use the data directory {}", path.display()), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
        let path = path.canonicalize().map_err(refused)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::InUse(format!(
                "the data directory {} is in use by another process: stop it, or name another one with --data-dir",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(refused(error)),
        }
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file that is whole or absent, whatever happens meanwhile, with only its owner allowed to read it.
///
/// # Errors
/// Whatever the file system says; a file that was there stays as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fill_whole(path, |file| file.write_all(bytes))
}

/// As [`write_whole`], where the content depends on the file it goes into.
///
/// # Errors
/// As [`write_whole`], and what `fill` says.
pub fn fill_whole(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    let written = fill(&mut file).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_belongs_to_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(Failure::InUse(_))));
        drop(held);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_file_that_could_not_be_filled_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_whole(&path, b"old").unwrap();
        assert!(fill_whole(&path, |_| Err(std::io::Error::other("full"))).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
