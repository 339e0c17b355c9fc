//! The memory engine: stores for simulations, with a model of what a crash loses.
//!
//! The engine stands for the disk. It outlives the stores it opened: a directory opened again after its store was
//! dropped has all that was written, as after a clean exit. [`MemoryEngine::crash`] is a power cut: what was written
//! before the last barrier stays, and of the later operations any subset may, which is exactly the store's contract.
//! Handles from before the crash answer with an error from then on, so a forgotten one can't write to the new life.
//!
//! Everything is ordered and nothing draws randomness of its own: the same calls and the same seed give the same disk.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{OpenError, Row, Store, StoreEngine, StoreError, Visitor, check_sizes};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
/// A key and what it was set to, or `None` for a delete.
type Operation = (Vec<u8>, Option<Vec<u8>>);

/// The disks of a simulated machine, one per directory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    disks: Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<Disk>>>>>,
}

impl MemoryEngine {
    /// Cuts the power of `dir`: its open store fails from now on, and of the operations since the last barrier those
    /// survive for which `keep`, asked once for each and in their order, says so. A directory never opened stays empty.
    pub fn crash(&self, dir: &Path, keep: impl FnMut() -> bool) {
        let disk = self.disk(dir);
        let mut disk = locked(&disk);
        disk.end_life(keep);
        // What survived is on the platter now.
        disk.settle();
    }

    /// Kills the process that has `dir` open. What survives, as with [`crash`](Self::crash), it had handed to the system, which has
    /// yet to bring it to the platter: without another barrier the next crash may lose it.
    pub fn kill(&self, dir: &Path, keep: impl FnMut() -> bool) {
        locked(&self.disk(dir)).end_life(keep);
    }

    /// [`crash`](Self::crash) where each operation survives by a coin toss that `seed` decides.
    pub fn crash_seeded(&self, dir: &Path, seed: u64) {
        let mut state = seed;
        self.crash(dir, || split_mix(&mut state) & 1 == 1);
    }

    /// A snapshot of the machine's disks as they are now, as a virtual machine is rolled back to one.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let copied = |(dir, disk): (&PathBuf, &Arc<Mutex<Disk>>)| {
            let mut disk = locked(disk).clone();
            disk.open = false;
            (dir.clone(), Arc::new(Mutex::new(disk)))
        };
        Self { disks: Arc::new(Mutex::new(locked(&self.disks).iter().map(copied).collect())) }
    }

    /// Flips a bit of a value of `dir` at rest, which of them by `row` and `bit`; whether there is any.
    #[must_use]
    pub fn flip(&self, dir: &Path, row: u64, bit: u64) -> bool {
        let disk = self.disk(dir);
        let mut disk = locked(&disk);
        let count = disk.rows.len() as u64;
        let chosen = usize::try_from(row % count.max(1)).unwrap_or(0);
        let Some((_, value)) = disk.rows.iter_mut().nth(chosen).filter(|(_, value)| !value.is_empty()) else { return false };
        let bit = bit % (value.len() as u64 * 8);
        value[usize::try_from(bit / 8).unwrap_or(0)] ^= 1 << (bit % 8);
        true
    }

    fn disk(&self, dir: &Path) -> Arc<Mutex<Disk>> {
        Arc::clone(locked(&self.disks).entry(dir.to_path_buf()).or_default())
    }
}

impl StoreEngine for MemoryEngine {
    fn open(&self, dir: &Path, _cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let disk = self.disk(dir);
        let life = {
            let mut held = locked(&disk);
            if held.open {
                return Err(OpenError::InUse(dir.display().to_string()));
            }
            held.open = true;
            held.life
        };
        Ok(Arc::new(MemoryStore { disk, life }))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for coin tosses, and the same on every platform for ever.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What one directory holds: the rows as the process sees them, and how to get back to the last barrier.
#[derive(Clone, Default)]
struct Disk {
    rows: Rows,
    /// Values at the last barrier of the keys written since. Cheaper than a second copy of all rows.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Operations since the last barrier, in order.
    unsure: Vec<Operation>,
    bytes: u64,
    /// Counts crashes; a store from an earlier life is dead.
    life: u64,
    open: bool,
}

impl Disk {
    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        if !self.before.contains_key(key) {
            self.before.insert(key.to_vec(), self.rows.get(key).cloned());
        }
        self.unsure.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        self.set(key.to_vec(), value.map(<[u8]>::to_vec));
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let key_bytes = key.len();
        let added = value.as_ref().map_or(0, |value| key_bytes + value.len());
        let old = match value {
            Some(value) => self.rows.insert(key, value),
            None => self.rows.remove(&key),
        };
        let removed = old.map_or(0, |old| key_bytes + old.len());
        self.bytes = self.bytes + added as u64 - removed as u64;
    }

    fn roll_back(&mut self) {
        for (key, value) in std::mem::take(&mut self.before) {
            self.set(key, value);
        }
    }

    fn end_life(&mut self, mut keep: impl FnMut() -> bool) {
        let unsure = std::mem::take(&mut self.unsure);
        self.roll_back();
        for (key, value) in unsure {
            if keep() {
                self.write(&key, value.as_deref());
            }
        }
        self.life += 1;
        self.open = false;
    }

    fn settle(&mut self) {
        self.before.clear();
        self.unsure.clear();
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Disk({} rows, {} operations since the last barrier)", self.rows.len(), self.unsure.len())
    }
}

/// An open memory store.
#[derive(Debug)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

impl MemoryStore {
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = locked(&self.disk);
        if disk.life == self.life { Ok(disk) } else { Err(StoreError::Io("the machine crashed".to_owned())) }
    }

    /// A copy of the first row at or after `from`, so that a visitor runs without the lock and may use the store itself.
    fn row_from(&self, from: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        let disk = self.disk()?;
        let mut rows = disk.rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(end)));
        Ok(rows.next().map(|(key, value)| (key.clone(), value.clone())))
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.disk()?.rows.get(key).cloned())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        check_sizes(key, value)?;
        self.disk()?.write(key, Some(value));
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        check_sizes(key, &[])?;
        self.disk()?.write(key, None);
        Ok(())
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let mut from = start.to_vec();
        while from.as_slice() < end {
            let Some((key, value)) = self.row_from(&from, end)? else {
                break;
            };
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
            // The least key greater than this one.
            from = key;
            from.push(0);
        }
        Ok(())
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Row>, StoreError> {
        let disk = self.disk()?;
        if start >= end {
            return Ok(None);
        }
        let row = disk.rows.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end))).next_back();
        Ok(row.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.disk()?.settle();
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.disk().map_or(0, |disk| disk.bytes)
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let mut disk = locked(&self.disk);
        if disk.life == self.life {
            disk.open = false;
        }
    }
}

/// A panic elsewhere leaves these maps whole, so a poisoned lock is no reason to fail.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(engine: &MemoryEngine) -> Arc<dyn Store> {
        engine.open(Path::new("/d"), 0).expect("opens")
    }

    #[test]
    fn a_crash_keeps_what_the_barrier_covered_and_only_what_the_closure_keeps_of_the_rest() {
        let engine = MemoryEngine::default();
        let store = opened(&engine);
        store.put(b"a", b"1").expect("put");
        store.put(b"b", b"1").expect("put");
        store.barrier().expect("barrier");
        store.put(b"a", b"2").expect("put");
        store.delete(b"b").expect("delete");
        store.put(b"c", b"2").expect("put");
        let mut answers = [false, true, false].into_iter();
        engine.crash(Path::new("/d"), || answers.next().expect("asked once per operation"));
        assert!(matches!(store.put(b"z", b"9"), Err(StoreError::Io(_))), "the old handle is dead");
        assert!(matches!(store.get(b"a"), Err(StoreError::Io(_))), "the old handle is dead");

        let again = opened(&engine);
        drop(store);
        assert!(matches!(engine.open(Path::new("/d"), 0), Err(OpenError::InUse(_))), "a dead handle frees nothing");
        assert_eq!(again.get(b"a").expect("get"), Some(b"1".to_vec()));
        assert_eq!(again.get(b"b").expect("get"), None);
        assert_eq!(again.get(b"c").expect("get"), None);
        assert_eq!(again.size_bytes(), 2);
    }

    #[test]
    fn a_crash_after_a_kill_may_lose_what_survived_the_kill() {
        let engine = MemoryEngine::default();
        let store = opened(&engine);
        store.put(b"flushed", b"1").unwrap();
        store.barrier().unwrap();
        store.put(b"handed over", b"1").unwrap();
        store.put(b"lost", b"1").unwrap();
        let mut answers = [true, false].into_iter();
        engine.kill(Path::new("/d"), || answers.next().expect("asked once per operation"));
        assert!(store.get(b"flushed").is_err(), "a store of an earlier life is dead");
        let store = opened(&engine);
        let there = |store: &dyn Store| [&b"flushed"[..], b"handed over", b"lost"].map(|key| store.get(key).unwrap().is_some());
        assert_eq!(there(&*store), [true, true, false]);
        engine.crash(Path::new("/d"), || false);
        assert_eq!(there(&*opened(&engine)), [true, false, false]);
    }

    #[test]
    fn a_crash_after_a_crash_loses_no_survivor() {
        let engine = MemoryEngine::default();
        opened(&engine).put(b"a", b"1").expect("put");
        engine.crash(Path::new("/d"), || true);
        engine.crash(Path::new("/d"), || false);
        assert_eq!(opened(&engine).get(b"a").expect("get"), Some(b"1".to_vec()));
    }

    #[test]
    fn a_clean_drop_does_not_make_durable() {
        let engine = MemoryEngine::default();
        opened(&engine).put(b"a", b"1").expect("put");
        assert_eq!(opened(&engine).get(b"a").expect("get"), Some(b"1".to_vec()));
        engine.crash(Path::new("/d"), || false);
        assert_eq!(opened(&engine).get(b"a").expect("get"), None);
    }

    #[test]
    fn one_seed_gives_one_outcome_and_seeds_differ() {
        let outcome = |seed| {
            let engine = MemoryEngine::default();
            let store = opened(&engine);
            for key in 0_u8..64 {
                store.put(&[key], &[key]).expect("put");
            }
            engine.crash_seeded(Path::new("/d"), seed);
            let store = opened(&engine);
            (0_u8..64).filter(|key| store.get(&[*key]).expect("get").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(outcome(1), outcome(1));
        assert_ne!(outcome(1), outcome(2));
        assert!((8..56).contains(&outcome(3).len()), "about half of the operations survive");
    }
}
