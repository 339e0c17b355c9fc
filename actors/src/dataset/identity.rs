//! Whether a dataset's directory is still the one it was.
//!
//! A restored backup, a clone or a copy of a directory holds a writer's line that may have gone on elsewhere. So the store
//! records what no copy keeps: inode and change time of a small file beside it, which is written once. `cp` and `rsync` onto the
//! same paths, `tar`, and moving a backup into place all change one of them; a change that means nothing (`chmod`, another mount)
//! only opens a new epoch. What remains is a rollback of the whole machine, which shows as a fork.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::store::StoreError;

const FILE: &str = "identity";

/// A digest of what a copy of `directory` can't keep.
pub(super) fn directory_identity(directory: &Path, entropy: &mut dyn FnMut(&mut [u8])) -> Result<[u8; 16], StoreError> {
    identity(directory, entropy).map_err(|error| StoreError::Io(format!("{}: {error}", directory.join(FILE).display())))
}

fn identity(directory: &Path, entropy: &mut dyn FnMut(&mut [u8])) -> io::Result<[u8; 16]> {
    let path = directory.join(FILE);
    if !directory.is_dir() {
        // A store in memory has no directory to be copied.
        return Ok([0; 16]);
    }
    if !path.exists() {
        let mut random = [0; 16];
        entropy(&mut random);
        let mut file = File::create_new(&path)?;
        file.write_all(&random)?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
    }
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 directory identity");
    hasher.update(&fs::read(&path)?);
    for metadata in [fs::metadata(&path)?, fs::metadata(directory)?] {
        hasher.update(&metadata.ino().to_le_bytes());
    }
    let file = fs::metadata(&path)?;
    hasher.update(&file.ctime().to_le_bytes());
    hasher.update(&file.ctime_nsec().to_le_bytes());
    if let Ok(database) = fs::metadata(directory.join("db")) {
        hasher.update(&database.ino().to_le_bytes());
    }
    let mut identity = [0; 16];
    hasher.finalize_xof().fill(&mut identity);
    Ok(identity)
}
