//! Is there room on the disk again?

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// What a store needs to be opened and to write a little, with room to spare.
const ROOM_BYTES: usize = 8 << 20;
const FILE: &str = "room";

/// Tries to write what an open store will write. Blocks.
pub(super) fn has_room(directory: &Path) -> bool {
    // A store in memory has no disk to be full.
    !directory.is_dir() || try_to_write(&directory.join(FILE)).is_ok()
}

fn try_to_write(path: &Path) -> io::Result<()> {
    let written = File::create(path).and_then(|mut file| {
        let block = vec![0x5a; 1 << 16];
        (0..ROOM_BYTES / block.len()).try_for_each(|_| file.write_all(&block))?;
        file.sync_all()
    });
    // Also what was written by half takes room.
    let removed = fs::remove_file(path);
    written.and(removed)
}
