//! A store that is written anew takes the place of the old one, all at once.
//!
//! ```text
//! datasets/.NAME.rebuilding/   in the making; of no value before it is whole
//! datasets/.NAME.rebuilt       whole and durable: from now on it is the dataset's store, whatever else lies there
//! datasets/NAME                the old one, which is set aside, and then the new one
//! ```
//!
//! The rename to `.NAME.rebuilt` decides. A crash before it leaves the old store as it was, one after it is followed by the rest of the
//! way at the next start, before anything is opened.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::replica::ReplicaSettings;

use super::aside::{Asides, SetAside};
use super::ledger::{Ledger, LedgerError, RebuildError, Rebuilt};
use super::lineage::{self, LineageChoice, LineageSetting};
use crate::runtime::Runtime;
use crate::store::{StoreEngine, StoreError};

/// What the old store is set aside for.
const REASON: &str =
    "not damaged: it holds commits with stamps of a wrong clock, which were issued again in the store that took its place";

/// Why no other store took the place of the old one, which is as it was unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildingError {
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Rebuild(#[from] RebuildError),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    #[error("the store that was written anew is complete, and takes the old one's place when the dataset is opened next: {0}")]
    Unfinished(io::Error),
    #[error("commits of other writers are as far ahead")]
    OtherWriters,
    #[error("it panicked")]
    Panicked,
}

/// What it takes to write a store anew.
pub(super) struct Rebuilder {
    pub engine: Arc<dyn StoreEngine>,
    pub runtime: Runtime,
    pub asides: Arc<Asides>,
    pub cache_bytes: u64,
    pub settings: ReplicaSettings,
    pub lineage: LineageSetting,
    pub now: WallClock,
}

impl Rebuilder {
    /// Writes the dataset's store anew and puts it in the old one's place; both are closed when this returns. Blocks.
    pub fn run(&self, go_on: &dyn Fn() -> bool) -> Result<(Rebuilt, Option<SetAside>), RebuildingError> {
        let directory = self.asides.directory();
        let scratch = place(directory, "rebuilding");
        let made = catch_unwind(AssertUnwindSafe(|| self.make(directory, &scratch, go_on)));
        let made = made.unwrap_or(Err(RebuildingError::Panicked)).and_then(|(rebuilt, new)| {
            // Whoever asked was told that it is broken off.
            if !go_on() {
                return Err(RebuildError::Abandoned.into());
            }
            decide(directory, &new).map_err(|error| RebuildingError::Io(new, error))?;
            Ok(rebuilt)
        });
        if made.is_err() {
            // The next start tries again.
            let _ = fs::remove_dir_all(&scratch);
        }
        let rebuilt = made?;
        let aside = finish(&self.asides).map_err(RebuildingError::Unfinished)?;
        Ok((rebuilt, aside))
    }

    fn make(&self, directory: &Path, scratch: &Path, go_on: &dyn Fn() -> bool) -> Result<(Rebuilt, PathBuf), RebuildingError> {
        let io = |error| RebuildingError::Io(scratch.to_owned(), error);
        if scratch.exists() {
            fs::remove_dir_all(scratch).map_err(io)?;
        }
        // One deeper: what is kept beside a store must not get beside the old one.
        let path = scratch.join(directory.file_name().unwrap_or_default());
        fs::create_dir_all(&path).map_err(io)?;
        let open = |directory: &Path, choice: &LineageChoice| {
            let mut entropy = |bytes: &mut [u8]| self.runtime.fill_random(bytes);
            Ledger::open_as(&*self.engine, directory, self.cache_bytes, self.settings.clone(), choice, &mut entropy)
        };
        let remembered = lineage::recall(directory);
        let mut old = open(directory, &LineageChoice { setting: self.lineage, remembered, offered: None })?;
        if !old.ahead_of(self.now).map_err(RebuildError::from)?.others.is_empty() {
            return Err(RebuildingError::OtherWriters);
        }
        let same = LineageChoice { setting: LineageSetting::Fixed(old.replica().settings().lineage), ..LineageChoice::default() };
        let mut new = open(&path, &same)?;
        new.compare_reached(&path).map_err(RebuildError::from)?;
        let rebuilt = old.rebuild_into(&mut new, self.now, &mut |bytes| self.runtime.fill_random(bytes), go_on)?;
        Ok((rebuilt, path))
    }
}

fn place(directory: &Path, what: &str) -> PathBuf {
    let dataset = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{dataset}.{what}"))
}

/// From the second sync on the new store is the dataset's.
fn decide(directory: &Path, new: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::rename(new, place(directory, "rebuilt"))?;
    sync_around(directory)
}

fn sync_around(directory: &Path) -> io::Result<()> {
    File::open(directory.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Goes the rest of the way with a store that was rebuilt, if there is one; what was set aside for it.
pub(super) fn finish(asides: &Asides) -> io::Result<Option<SetAside>> {
    let directory = asides.directory();
    // Of no value, unless it was renamed.
    let scratch = place(directory, "rebuilding");
    if scratch.exists() {
        fs::remove_dir_all(scratch)?;
    }
    let rebuilt = place(directory, "rebuilt");
    if !rebuilt.is_dir() {
        return Ok(None);
    }
    let aside = if directory.is_dir() { Some(asides.move_aside(REASON)?) } else { None };
    fs::rename(rebuilt, directory)?;
    sync_around(directory)?;
    Ok(aside)
}

/// As [`finish`], for who opens the store next.
pub(super) fn finish_before_open(asides: &Asides) -> Result<(), LedgerError> {
    let unfinished =
        |error| StoreError::Io(format!("{}: the rebuilt store can't take its place: {error}", asides.directory().display()));
    let aside = finish(asides).map_err(unfinished)?;
    if let Some(aside) = aside {
        tracing::info!(path = %aside.path.display(), "a rebuilt store took the place of this one");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
