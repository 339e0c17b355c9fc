//! The disk of a simulated node: knows what was flushed, and loses, tears, flips, fills up, slows down and fails as told.
//!
//! Stores are in memory. The small files beside a store (lineage, notes, what is kept back) are real, in a directory of this node;
//! a file in it names the platter, so that renaming or copying a directory does what it does on a real disk.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use anabranch_actors::runtime::Work;
use anabranch_actors::store::{MemoryEngine, OpenError, Row, Store, StoreEngine, StoreError, Visitor};

use crate::rng::Rng;
use crate::trace::Trace;

/// File that names the platter of a dataset's directory.
const PLATTER: &str = "platter";
/// How long a disk that is well takes for a barrier or an opening, and for reads.
const TURN_TAKES: std::ops::Range<Duration> = Duration::from_micros(300)..Duration::from_millis(3);
const READ_TAKES: std::ops::Range<Duration> = Duration::from_micros(20)..Duration::from_micros(300);

/// What is wrong with a disk, while it is.
#[derive(Debug, Clone, Default)]
pub struct Ailments {
    /// Writes and barriers fail for want of space.
    pub full: bool,
    /// Writes and barriers fail.
    pub broken: bool,
    /// Everything takes so many times as long.
    pub slowness: u32,
    /// One in so many values that are read has a bit flipped; zero: none.
    pub flips: u64,
    /// The process dies after so many more operations that write.
    pub dies_in: Option<u64>,
    /// Barriers say that they are done and do nothing: a planted bug.
    pub lies: bool,
}

/// The disk of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    platters: MemoryEngine,
    ailments: Ailments,
    rng: Rng,
    trace: Trace,
    next_platter: u64,
    counts: Counts,
    /// The process was killed by the disk and is to be dropped.
    doomed: bool,
}

/// What a disk did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Barriers.
    pub barriers: u64,
    /// Operations that a crash lost.
    pub lost: u64,
    /// Operations after the last barrier that a crash kept.
    pub kept: u64,
    /// Bits flipped on the way from the platter.
    pub flipped: u64,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(rng: Rng, trace: Trace) -> Self {
        let (platters, ailments, counts) = (MemoryEngine::default(), Ailments::default(), Counts::default());
        Self(Arc::new(Mutex::new(Inner { platters, ailments, rng, trace, next_platter: 1, counts, doomed: false })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wrong with it.
    pub fn ail(&self, change: impl FnOnce(&mut Ailments)) {
        change(&mut self.inner().ailments);
    }

    /// What it did.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// The process is to be dropped.
    pub fn doom(&self) {
        self.inner().doomed = true;
    }

    /// Whether it killed its process, which is to be dropped now.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.inner().doomed
    }

    /// A disk of its own with the same content, as one is cloned or backed up.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut inner = self.inner();
        let copied = Inner {
            platters: inner.platters.snapshot(),
            ailments: Ailments::default(),
            rng: inner.rng.fork(),
            trace: inner.trace.clone(),
            next_platter: inner.next_platter + 1_000,
            counts: Counts::default(),
            doomed: false,
        };
        Self(Arc::new(Mutex::new(copied)))
    }

    /// The power is cut, or the process killed: of what was not flushed some is lost. What a process had handed to the system when it
    /// was killed may be lost with the power that is cut later.
    pub fn crash(&self, data_dir: &Path) {
        let mut inner = self.inner();
        inner.doomed = false;
        inner.ailments.dies_in = None;
        // All of it, none, or any part: a torn batch.
        let survives = *inner.rng.pick(&[0.0, 1.0, 0.5, 0.9]);
        let power_cut = inner.rng.chance(0.5);
        for directory in dataset_directories(data_dir) {
            let Some(platter) = platter_of(&directory) else { continue };
            let platters = inner.platters.clone();
            let (mut kept, mut lost) = (0, 0);
            let keep = || {
                let survived = inner.rng.chance(survives);
                if survived {
                    kept += 1
                } else {
                    lost += 1
                }
                survived
            };
            if power_cut {
                platters.crash(&platter, keep)
            } else {
                platters.kill(&platter, keep)
            }
            inner.counts.kept += kept;
            inner.counts.lost += lost;
        }
    }

    /// Flips a bit of a value of this dataset at rest; whether there was one.
    pub fn flip_at_rest(&self, directory: &Path) -> bool {
        let mut inner = self.inner();
        let Some(platter) = platter_of(directory) else { return false };
        let (row, bit) = (inner.rng.within(0..1 << 32), inner.rng.within(0..1 << 32));
        inner.platters.flip(&platter, row, bit)
    }

    /// How long the work that comes next takes.
    #[must_use]
    pub fn takes(&self, work: Work) -> Duration {
        let mut inner = self.inner();
        let well = inner.rng.time(if work == Work::Read { READ_TAKES } else { TURN_TAKES });
        well * inner.ailments.slowness.max(1)
    }

    fn begin(&self) -> Result<(), StoreError> {
        let mut inner = self.inner();
        if inner.doomed {
            return Err(StoreError::Io("the process was killed".to_owned()));
        }
        if let Some(left) = inner.ailments.dies_in {
            if left == 0 {
                inner.doomed = true;
                return Err(StoreError::Io("the process was killed".to_owned()));
            }
            inner.ailments.dies_in = Some(left - 1);
        }
        if inner.ailments.full {
            return Err(StoreError::NoSpace);
        }
        if inner.ailments.broken {
            return Err(StoreError::Io("the disk is broken".to_owned()));
        }
        Ok(())
    }

    /// What is read of a value that is `found`.
    fn read(&self, mut found: Vec<u8>) -> Vec<u8> {
        let mut inner = self.inner();
        let flips = inner.ailments.flips;
        if flips > 0 && !found.is_empty() && inner.rng.within(0..flips) == 0 {
            let at = inner.rng.below(found.len());
            found[at] ^= 1 << inner.rng.below(8);
            inner.counts.flipped += 1;
        }
        found
    }
}

/// The directories of a node's datasets, by name.
fn dataset_directories(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("datasets")).into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    directories.sort();
    directories
}

fn platter_of(directory: &Path) -> Option<PathBuf> {
    fs::read_to_string(directory.join(PLATTER)).ok().map(PathBuf::from)
}

/// Copies a node's small files.
///
/// # Errors
/// What the operating system says.
pub fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_files(&entry.path(), &target)?
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl StoreEngine for Disk {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let io = |reason: String| OpenError::Io { dir: dir.display().to_string(), reason };
        if self.inner().ailments.full {
            // A store opens without space; a new one does not.
            platter_of(dir).ok_or_else(|| OpenError::NoSpace(dir.display().to_string()))?;
        }
        let platter = match platter_of(dir) {
            Some(platter) => platter,
            None => {
                let mut inner = self.inner();
                let platter = PathBuf::from(format!("platter-{}", inner.next_platter));
                inner.next_platter += 1;
                fs::create_dir_all(dir)
                    .and_then(|()| fs::write(dir.join(PLATTER), platter.as_os_str().as_encoded_bytes()))
                    .map_err(|error| io(error.to_string()))?;
                platter
            }
        };
        let engine = self.inner().platters.clone();
        let inner = engine.open(&platter, cache_bytes)?;
        let dataset = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Arc::new(SimulatedStore { inner, disk: self.clone(), dataset, poisoned: Mutex::new(false) }))
    }

    fn has_room(&self, _: &Path) -> bool {
        !self.inner().ailments.full
    }
}

/// An open store on a simulated disk.
#[derive(Debug)]
struct SimulatedStore {
    inner: Arc<dyn Store>,
    disk: Disk,
    dataset: String,
    poisoned: Mutex<bool>,
}

impl SimulatedStore {
    fn writing(&self, operation: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        if *poisoned {
            return Err(StoreError::Poisoned);
        }
        let done = self.disk.begin().and_then(|()| operation());
        *poisoned = matches!(done, Err(StoreError::Io(_) | StoreError::NoSpace));
        done
    }
}

impl Store for SimulatedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.get(key)?.map(|value| self.disk.read(value)))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.writing(|| self.inner.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.writing(|| self.inner.delete(key))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if self.disk.inner().ailments.flips == 0 {
            return self.inner.scan(start, end, visit);
        }
        self.inner.scan(start, end, &mut |key, value| -> ControlFlow<()> { visit(key, &self.disk.read(value.to_vec())) })
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(self.inner.last(start, end)?.map(|(key, value)| (key, self.disk.read(value))))
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.writing(|| {
            let (lies, trace) = {
                let mut inner = self.disk.inner();
                inner.counts.barriers += 1;
                (inner.ailments.lies, inner.trace.clone())
            };
            trace.note("barrier", self.dataset.as_bytes());
            if lies { Ok(()) } else { self.inner.barrier() }
        })
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}
