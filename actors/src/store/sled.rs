//! The sled engine: one database directory per dataset, one tree in it, and a barrier that survives power loss.
//!
//! sled 0.34 is fast and survives `kill -9`, but left to itself it does not survive a power cut. This file adds what is
//! missing; `actors/tests/power_loss.rs` replays the real system calls and fails without any of the syncs below but one:
//! the sync before opening, for which sled mostly makes up by a sync of its own.
//!
//! - **`flush` is not a sync.** It writes and calls `sync_file_range`, which neither empties the drive's cache nor
//!   commits the file's metadata. The barrier therefore calls `sync_data` on a second handle to the same file.
//! - **sled trusts what it flushed.** The header of a log segment says up to where the log is stable. Recovery skips
//!   holes below that mark in silence, and segments are overwritten on the strength of it. So no such header may reach
//!   the file before the segments it vouches for are synced: see `sync_whole_segments`.
//! - **Pages larger than a quarter of a segment go to blob files**, which nothing syncs. A leaf holds up to 17 entries
//!   and a merge adds 3, an inner page holds up to 320 keys. [`SEGMENT_BYTES`] is the least power of two with which no
//!   page of keys and values within this store's limits gets there.
//! - **Opening writes.** sled zeroes the torn tail and saves a snapshot of its page table, believing all it read from
//!   the page cache. After `kill -9` that may not be on the disk yet, so the file is synced before sled sees it. A crash
//!   while the snapshot is written leaves `snap.*.generating`, which sled would take for a finished one and refuse the
//!   database for ever: it is removed, as sled only renames what is complete. One gap stays: between that rename and the
//!   zeroing of free segments sled syncs no directory, so we rely on the file system's journal to keep their order.
//! - **Damage makes sled panic or hang**, also inside `open`. It is opened on a thread of its own with a time limit, and
//!   panics are caught and become errors. `apply_batch` and `transaction` take a lock shared by all databases of the
//!   process and are not used.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::{ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{OPEN_LIMIT, OpenError, Row, Store, StoreEngine, StoreError, Visitor, check_sizes, open_limit};

/// Size of a log segment. Frozen: sled refuses a directory that was made with another size.
pub const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
/// sled misbehaves with less cache than a few pages.
const CACHE_BYTES_MIN: u64 = 1024 * 1024;
/// How long a directory that is still held is tried again: sled's own threads outlive a dropped database a little.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two such tries.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Opens sled databases.
#[derive(Debug, Clone)]
pub struct SledEngine {
    /// How long `open` may take before the directory is reported as damaged, for a small one: see [`open_limit`].
    pub open_timeout: Duration,
    /// Size of a log segment, a power of two: [`SEGMENT_BYTES`] everywhere but in tests that want many small segments.
    pub segment_bytes: usize,
}

impl Default for SledEngine {
    fn default() -> Self {
        Self { open_timeout: OPEN_LIMIT, segment_bytes: SEGMENT_BYTES }
    }
}

impl StoreEngine for SledEngine {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let opening =
            Opening { dir: dir.to_path_buf(), cache_bytes: cache_bytes.max(CACHE_BYTES_MIN), segment_bytes: self.segment_bytes };
        let (done, outcome) = mpsc::sync_channel(1);
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(|| opening.run()));
            let result = result.unwrap_or_else(|panic| Err(opening.corrupt(panic_text(&*panic))));
            if let Err(late) = done.send(result) {
                // Nobody waits any more, and another store may live in the directory by now: the snapshot that sled just wrote
                // into it by name is not its own. Without any snapshot sled reads the whole log.
                drop(late);
                let _ = opening.remove_snapshots(|name| name.starts_with("snap."));
            }
        };
        thread::Builder::new()
            .name("store-open".to_owned())
            .spawn(body)
            .map_err(|error| OpenError::Io { dir: dir.display().to_string(), reason: error.to_string() })?;
        let limit = open_limit(dir, self.open_timeout);
        match outcome.recv_timeout(limit) {
            Ok(result) => result.map(|store| Arc::new(store) as Arc<dyn Store>),
            Err(_) => {
                Err(OpenError::Corrupt { dir: dir.display().to_string(), reason: format!("it did not open within {limit:?}") })
            }
        }
    }
}

/// One attempt to open a directory.
#[derive(Debug)]
struct Opening {
    dir: PathBuf,
    cache_bytes: u64,
    segment_bytes: usize,
}

impl Opening {
    fn run(&self) -> Result<SledStore, OpenError> {
        let created = missing_ancestors(&self.dir);
        fs::create_dir_all(&self.dir).map_err(|error| self.io(&error))?;
        let db = self.acquire()?;
        let log = OpenOptions::new().read(true).write(true).open(self.dir.join("db"));
        let log = log.map_err(|error| self.io(&error))?;
        let synced = db.context.pagecache.log.stable_offset();
        self.sync_after_open(&log, &created).map_err(|error| self.io(&error))?;
        Ok(SledStore {
            db: CalmDb(Some(db)),
            log,
            segment_bytes: i64::try_from(self.segment_bytes).unwrap_or(i64::MAX),
            gate: RwLock::new(()),
            synced: AtomicI64::new(synced),
            syncing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
        })
    }

    /// Opens the database, waiting a little for whoever holds it.
    fn acquire(&self) -> Result<sled::Db, OpenError> {
        let started = Instant::now();
        loop {
            let attempt = self.settle().and_then(|()| self.open_database());
            match attempt {
                Err(OpenError::InUse(_)) if started.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_RETRY_INTERVAL),
                other => return other,
            }
        }
    }

    /// Brings what an earlier process left to the disk and removes an unfinished snapshot, before sled reads anything.
    fn settle(&self) -> Result<(), OpenError> {
        let log = match OpenOptions::new().read(true).write(true).open(self.dir.join("db")) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.io(&error)),
        };
        // The same lock as sled's, so that nothing is removed under a running database.
        log.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(self.dir.display().to_string()),
            TryLockError::Error(error) => self.io(&error),
        })?;
        let settled = log
            .sync_all()
            .and_then(|()| self.remove_snapshots(|name| name.starts_with("snap.") && name.ends_with(".generating")));
        settled.and_then(|()| sync_directory(&self.dir)).map_err(|error| self.io(&error))
    }

    fn remove_snapshots(&self, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if unwanted(&name.to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn open_database(&self) -> Result<sled::Db, OpenError> {
        let config = sled::Config::new()
            .path(&self.dir)
            .cache_capacity(self.cache_bytes)
            .segment_size(self.segment_bytes)
            .flush_every_ms(None);
        config.open().map_err(|error| match error {
            // sled has no kind of its own for this.
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                OpenError::InUse(self.dir.display().to_string())
            }
            sled::Error::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => self.io(&error),
            other => self.corrupt(other.to_string()),
        })
    }

    /// Makes the files that sled created, or renamed while recovering, as durable as their content.
    fn sync_after_open(&self, log: &File, created: &[PathBuf]) -> io::Result<()> {
        File::open(self.dir.join("conf"))?.sync_all()?;
        log.sync_all()?;
        sync_directory(&self.dir)?;
        sync_directory(parent_of(&self.dir))?;
        created.iter().try_for_each(|dir| sync_directory(parent_of(dir)))
    }

    fn io(&self, error: &io::Error) -> OpenError {
        let dir = self.dir.display().to_string();
        if is_full(error) { OpenError::NoSpace(dir) } else { OpenError::Io { dir, reason: error.to_string() } }
    }

    fn corrupt(&self, reason: String) -> OpenError {
        OpenError::Corrupt { dir: self.dir.display().to_string(), reason }
    }
}

/// The directories on the way to `dir`, itself included, that are not there yet.
fn missing_ancestors(dir: &Path) -> Vec<PathBuf> {
    let named = dir.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty());
    named.take_while(|ancestor| !ancestor.exists()).map(Path::to_path_buf).collect()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// An open sled database.
#[derive(Debug)]
pub struct SledStore {
    db: CalmDb,
    /// Second handle to sled's only data file, for `sync_data`.
    log: File,
    segment_bytes: i64,
    /// Writers share it, a barrier's flush excludes them: the order of segment headers and syncs depends on it.
    gate: RwLock<()>,
    /// Every byte of the log below this offset is on stable storage.
    synced: AtomicI64,
    /// One sync at a time, so that `synced` never runs backwards.
    syncing: Mutex<()>,
    poisoned: AtomicBool,
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.attempt(|| self.db.get(key))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        check_sizes(key, value)?;
        self.write(|| self.db.insert(key, value).map(drop))
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        check_sizes(key, &[])?;
        self.write(|| self.db.remove(key).map(drop))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if start >= end {
            return Ok(());
        }
        let mut rows = self.db.range(start..end);
        // Only sled's part is guarded: a visitor's panic is its caller's.
        while let Some((key, value)) = self.attempt(|| rows.next().transpose())? {
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        if start >= end {
            return Ok(None);
        }
        let row = self.attempt(|| self.db.range(start..end).next_back().transpose())?;
        Ok(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        let flushed = {
            let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            self.sync_whole_segments().and_then(|()| self.attempt(|| self.db.flush()))
        };
        self.poison_on_error(flushed.and_then(|_| self.sync_log()))
    }

    fn size_bytes(&self) -> u64 {
        self.log.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl SledStore {
    fn write(&self, operation: impl FnOnce() -> sled::Result<()>) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.poison_on_error(self.attempt(operation).and_then(|()| self.sync_whole_segments()))
    }

    /// Syncs the log when sled has completed a segment since the last sync, before any header can vouch for it.
    ///
    /// A segment's header takes the log's stable offset when the segment is begun, and reaches the file when it is full
    /// or flushed. Recovery stops at the first hole in the segment that holds the greatest such offset or a later one,
    /// and ignores holes in earlier ones. So it suffices that earlier segments are synced by then: once per segment.
    fn sync_whole_segments(&self) -> Result<(), StoreError> {
        let stable = self.db.context.pagecache.log.stable_offset();
        let segment_start = stable - stable.rem_euclid(self.segment_bytes);
        if segment_start > self.synced.load(Ordering::Acquire) { self.sync_log() } else { Ok(()) }
    }

    /// Puts everything sled has written so far on stable storage.
    fn sync_log(&self) -> Result<(), StoreError> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let stable = self.db.context.pagecache.log.stable_offset();
        if stable > self.synced.load(Ordering::Acquire) {
            self.log.sync_data().map_err(|error| io_error(&error))?;
            self.synced.store(stable, Ordering::Release);
        }
        Ok(())
    }

    /// Runs one sled operation. A panic is how sled reports most damage; its state is unknown then, so nothing is
    /// written any more.
    fn attempt<T>(&self, operation: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(operation)) {
            Ok(result) => result.map_err(store_error),
            Err(panic) => {
                self.poisoned.store(true, Ordering::Release);
                Err(StoreError::Corrupt(panic_text(&*panic)))
            }
        }
    }

    fn refuse_if_poisoned(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    fn poison_on_error<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }
}

/// A database whose drop never panics: sled syncs there and unwraps, and a second panic would abort the process.
struct CalmDb(Option<sled::Db>);

impl Deref for CalmDb {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("the database is taken out only by drop")
    }
}

impl Drop for CalmDb {
    fn drop(&mut self) {
        let db = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(db))) {
            tracing::error!(reason = panic_text(&*panic), "sled panicked while closing a store");
        }
    }
}

impl std::fmt::Debug for CalmDb {
    // sled's own prints the whole database.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("sled::Db")
    }
}

fn store_error(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => io_error(&error),
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn io_error(error: &io::Error) -> StoreError {
    if is_full(error) { StoreError::NoSpace } else { StoreError::Io(error.to_string()) }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("sled panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests;
