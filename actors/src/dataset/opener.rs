//! Opens a dataset's ledger, whatever its directory holds: what is damaged is set aside, and an empty store takes its place.

use std::any::Any;
use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anabranch_protocol::id::Lineage;
use anabranch_protocol::replica::ReplicaSettings;

use super::aside::Asides;
use super::damage::{Damage, WatchedStore};
use super::layout;
use super::ledger::{Ledger, LedgerError};
use super::life::Life;
use super::lineage::{self, LineageChoice};
use super::overlay::Overlay;
use super::rebuilding;
use super::room;
use super::tenancy::Lease;
use crate::runtime::{Runtime, Unreturned};
use crate::store::{OPEN_LIMIT, OpenError, Store, StoreEngine, StoreError, open_limit};

/// File that is written once a store holds what every store holds: from then on an empty one has lost it.
const BORN: &str = "born";

/// One attempt to run a dataset. See the module documentation.
#[derive(Debug)]
pub(super) struct Opener {
    pub engine: Arc<dyn StoreEngine>,
    pub runtime: Runtime,
    pub directory: PathBuf,
    pub cache_bytes: u64,
    pub settings: ReplicaSettings,
    /// What is configured, and what a peer offered.
    pub lineage: LineageChoice,
    pub asides: Arc<Asides>,
    /// Told when the open store turns out to be damaged.
    pub damage: Damage,
    /// What was found while the store was open last.
    pub known_damage: Option<String>,
    /// In a store up to this size everything is read and checked, bytes on disk.
    pub audit_bytes_max: u64,
    /// Nobody waits any more: nothing is set aside.
    pub abandoned: Arc<AtomicBool>,
    pub life: Arc<Life>,
    /// The disk is full: the store is read, and written only in memory.
    pub full: AtomicBool,
    /// The right to open the directory; none while an earlier store holds it.
    pub lease: Mutex<Option<Lease>>,
}

impl Opener {
    /// Opens the ledger; blocks.
    pub fn open(&self) -> Result<Ledger, LedgerError> {
        rebuilding::finish_before_open(&self.asides)?;
        self.asides.refresh();
        let known = self.known_damage.clone().or_else(|| self.asides.intention());
        if let Some(reason) = known.filter(|_| self.directory.is_dir()) {
            self.set_aside(&reason)?;
        }
        let opened = self.attempt_full(self.attempt());
        let opened = match opened.as_ref().err().and_then(damage_of) {
            // A store in memory has no directory to be set aside.
            Some(reason) if self.directory.is_dir() => {
                self.set_aside(&reason)?;
                self.attempt()
            }
            _ => opened,
        };
        if let Ok(ledger) = &opened {
            room::keep_back(&self.directory, ledger.view().size_bytes());
            ledger.view().report_damage_to(self.damage.clone());
            self.damage.arm();
        }
        opened
    }

    /// Opens once more, to be read only, where there is no space for what opening writes.
    fn attempt_full(&self, opened: Result<Ledger, LedgerError>) -> Result<Ledger, LedgerError> {
        if !matches!(&opened, Err(LedgerError::Open(OpenError::NoSpace(_)) | LedgerError::Store(StoreError::NoSpace))) {
            return opened;
        }
        tracing::warn!(dataset = %self.settings.dataset, "no space left on the disk: the dataset is opened to be read only");
        self.full.store(true, Ordering::Release);
        room::release(&self.directory);
        let mut ledger = self.attempt()?;
        ledger.read_only();
        Ok(ledger)
    }

    fn set_aside(&self, reason: &str) -> Result<(), LedgerError> {
        let dataset = &self.settings.dataset;
        if self.abandoned.load(Ordering::Acquire) {
            return Err(StoreError::Io("nobody waits for this store any more".to_owned()).into());
        }
        match self.asides.set_aside(reason) {
            Ok(aside) => {
                *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.life.tenancy.moved());
                tracing::error!(%dataset, reason, path = %aside.path.display(), "the store was set aside; the dataset starts empty and is rebuilt from peers");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%dataset, reason, %error, "the damaged store can't be set aside");
                Err(StoreError::Io(format!("its store is damaged ({reason}) and can't be set aside: {error}")).into())
            }
        }
    }

    fn attempt(&self) -> Result<Ledger, LedgerError> {
        let open = || {
            let lineage = LineageChoice { remembered: lineage::recall(&self.directory), ..self.lineage };
            let settings = self.settings.clone();
            let mut entropy = |bytes: &mut [u8]| self.runtime.fill_random(bytes);
            let mut ledger = Ledger::open_as(self, &self.directory, self.cache_bytes, settings, &lineage, &mut entropy)?;
            ledger.check()?;
            ledger.compare_reached(&self.directory)?;
            self.audit(&mut ledger)?;
            self.mark_born()?;
            self.remember(ledger.replica().settings().lineage)?;
            Ok(ledger)
        };
        catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| Err(StoreError::Corrupt(panic_text(&*panic)).into()))
    }

    fn audit(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        let bytes = ledger.view().size_bytes();
        if bytes <= self.audit_bytes_max {
            ledger.audit()?;
            ledger.was_read_as_a_whole();
        } else {
            tracing::debug!(bytes, "the store is not read as a whole at its open: it is audited in the background");
        }
        Ok(())
    }

    fn remember(&self, lineage: Lineage) -> Result<(), LedgerError> {
        let unwritten = |error| StoreError::Io(format!("{}: {error}", lineage::memory_of(&self.directory).display()));
        Ok(lineage::remember(&self.directory, lineage).map_err(unwritten)?)
    }

    fn mark_born(&self) -> Result<(), LedgerError> {
        let born = self.directory.join(BORN);
        if !self.directory.is_dir() || born.exists() || self.full.load(Ordering::Acquire) {
            return Ok(());
        }
        let written = File::create(&born).and_then(|file| file.sync_all());
        let synced = written.and_then(|()| File::open(&self.directory)?.sync_all());
        synced.map_err(|error| StoreError::Io(format!("{}: {error}", born.display())).into())
    }
}

impl StoreEngine for Opener {
    /// Opens the store on a thread of its own, with a time limit: damage makes engines panic or hang.
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let corrupt = |reason: String| OpenError::Corrupt { dir: dir.display().to_string(), reason };
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lease = lease.ok_or_else(|| OpenError::InUse(dir.display().to_string()))?;
        let born = dir.join(BORN).exists();
        let (engine, directory) = (self.engine.clone(), dir.to_owned());
        let span = tracing::Span::current();
        let open = move || {
            let _in_dataset = span.entered();
            (engine.open(&directory, cache_bytes), lease)
        };
        let limit = open_limit(dir, OPEN_LIMIT);
        let (opened, lease) = match self.runtime.within(format!("open-{}", self.settings.dataset), limit, open) {
            Ok(returned) => returned,
            Err(Unreturned::Panicked(panic)) => return Err(corrupt(panic_text(&*panic))),
            Err(Unreturned::Late) => return Err(corrupt(format!("it did not open within {limit:?}"))),
            Err(Unreturned::NoThread(error)) => {
                return Err(OpenError::Io { dir: dir.display().to_string(), reason: error.to_string() });
            }
        };
        let store = opened?;
        let store = Arc::new(WatchedStore::new(store, lease, self.damage.clone()));
        let lost = lost_everything(&*store, born).map_err(|error| corrupt(error.to_string()))?;
        if lost {
            return Err(corrupt("it opens, but what every store holds is gone".to_owned()));
        }
        if self.full.load(Ordering::Acquire) { Ok(Arc::new(Overlay::new(store))) } else { Ok(store) }
    }
}

/// Whether the store looks new, but was not.
fn lost_everything(store: &dyn Store, born: bool) -> Result<bool, StoreError> {
    if store.get(&layout::meta("incarnation"))?.is_some() {
        return Ok(false);
    }
    let mut found = false;
    store.scan(b"l", b"m", &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    store.scan(b"n", b"z", &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(born || found)
}

/// What is damaged, where damage is why the ledger did not open: not a full disk, another process or a newer version.
fn damage_of(error: &LedgerError) -> Option<String> {
    match error {
        LedgerError::Open(OpenError::Corrupt { reason, .. }) | LedgerError::Store(StoreError::Corrupt(reason)) => {
            Some(reason.clone())
        }
        LedgerError::Open(OpenError::InUse(_) | OpenError::NoSpace(_) | OpenError::Io { .. })
        | LedgerError::Store(_)
        | LedgerError::NewerFormat { .. }
        | LedgerError::OtherKind { .. }
        | LedgerError::OtherLineage { .. } => None,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked while it was opened: {}", text.unwrap_or("no message"))
}
