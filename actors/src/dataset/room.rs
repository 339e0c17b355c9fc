//! Room on the disk: is there some again, and the little that is kept back to open a store without any.
//!
//! Opening writes: sled saves a snapshot of its page table. So that a full disk does not keep a store from being read, a file beside it
//! holds as much as that may need. It is given up when the disk turns out to be full, and taken again, as far as there is room, as soon
//! as the store is open.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// What a store needs to be opened and to write a little, with room to spare.
const ROOM_BYTES: u64 = 8 << 20;
const FILE: &str = "room";
/// What is kept back beside each store, and a share of the store's size: page tables grow with it.
const RESERVE_BYTES: u64 = 1 << 20;
const RESERVE_SHARE: u64 = 64;
const RESERVE: &str = "reserve";

/// Gives up what was kept back.
pub(super) fn release(directory: &Path) {
    // Without one there is nothing to give up.
    let _ = fs::remove_file(directory.join(RESERVE));
}

/// Keeps back what opening a store of this size may need, or as much of it as there is.
pub(super) fn keep_back(directory: &Path, store_bytes: u64) {
    let path = directory.join(RESERVE);
    let wanted = RESERVE_BYTES + store_bytes / RESERVE_SHARE;
    let kept = fs::metadata(&path).map_or(0, |file| file.len());
    if directory.is_dir() && kept < wanted {
        // A disk that is full keeps less; that is no failure.
        let _ = File::options().create(true).append(true).open(&path).and_then(|mut file| fill(&mut file, wanted - kept));
    }
}

/// Tries to write what an open store will write. Blocks.
pub(crate) fn has_room(directory: &Path) -> bool {
    // A store in memory has no disk to be full.
    !directory.is_dir() || try_to_write(&directory.join(FILE)).is_ok()
}

fn try_to_write(path: &Path) -> io::Result<()> {
    let written = File::create(path).and_then(|mut file| fill(&mut file, ROOM_BYTES));
    // Also what was written by half takes room.
    let removed = fs::remove_file(path);
    written.and(removed)
}

/// Writes so many bytes that no file system leaves out, in blocks that are small enough to use the last room.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    let block = [0x5a; 1 << 12];
    let mut left = bytes;
    while left > 0 {
        let next = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..next])?;
        left -= next as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_grows_with_the_store_and_is_given_up() {
        let place = tempfile::tempdir().unwrap();
        let bytes = || fs::metadata(place.path().join(RESERVE)).map_or(0, |file| file.len());
        for (store, reserve) in [(0, RESERVE_BYTES), (64 << 20, 2 << 20), (0, 2 << 20)] {
            keep_back(place.path(), store);
            assert_eq!(bytes(), reserve);
        }
        release(place.path());
        assert!(bytes() == 0 && has_room(place.path()));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert!(has_room(&place.path().join("in memory")));
    }
}
