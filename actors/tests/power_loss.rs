//! Power loss: what was acknowledged is there after the power fails at any moment, and every value is whole.
//!
//! A child process writes to a real sled store under `strace`; every write and sync it makes is recorded with its data.
//! The test then plays the part of the disk: for many moments of the recording it builds the directory that a power cut
//! may have left, opens it with the same engine and compares it with what the child was promised by then.
//!
//! `flush` alone does not pass (take `sync_data` out of `SledStore::sync_log` to see it), nor does a sync per barrier
//! without one per segment (`SledStore::sync_whole_segments`).

#[path = "power_loss/disk.rs"]
mod disk;
#[path = "power_loss/trace.rs"]
mod trace;
#[path = "power_loss/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use anabranch_actors::store::{OpenError, Store, StoreEngine};
use disk::{Mercy, Recording};
use workload::{ACKS, Dice, Rows, STORE, WORKLOADS, Workload};

const DIR_VARIABLE: &str = "ANABRANCH_POWER_LOSS_DIR";
const WORKLOAD_VARIABLE: &str = "ANABRANCH_POWER_LOSS_WORKLOAD";
/// Power cuts at moments that have no meaning, besides those just after an acknowledgement.
const RANDOM_CUTS: u64 = 300;

const MERCIES: [Mercy; 5] = [
    Mercy { survivors: 0, torn: 0 },
    Mercy { survivors: 50, torn: 0 },
    Mercy { survivors: 50, torn: 50 },
    Mercy { survivors: 85, torn: 20 },
    Mercy { survivors: 100, torn: 0 },
];

#[test]
fn acknowledged_writes_survive_with_small_batches() {
    survives(&workload::SMALL_BATCHES);
}

#[test]
fn acknowledged_writes_survive_with_batches_of_several_segments() {
    survives(&workload::LONG_BATCHES);
}

#[test]
#[ignore = "the process that the other tests record"]
fn child_writer() {
    let (workload, root) = childs_task();
    workload::run(workload, &root, || this_test("child_life", &root, workload));
}

#[test]
#[ignore = "a life of the process that the other tests record"]
fn child_life() {
    let (workload, root) = childs_task();
    workload::live(workload, &root);
}

fn childs_task() -> (&'static Workload, PathBuf) {
    let name = std::env::var(WORKLOAD_VARIABLE).expect("run by the other tests");
    let workload = WORKLOADS.iter().find(|workload| workload.name == name).expect("a known workload");
    (workload, std::env::var_os(DIR_VARIABLE).expect("run by the other tests").into())
}

fn this_test(name: &str, root: &Path, workload: &Workload) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", name, "--ignored"]).env(DIR_VARIABLE, root).env(WORKLOAD_VARIABLE, workload.name);
    command
}

fn survives(workload: &Workload) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path().canonicalize().expect("it exists");
    let calls = trace::record(&mut this_test("child_writer", &root, workload), &root.join("trace"));
    let recording = Recording::new(calls, &root.join(STORE), &root.join(ACKS));
    let judge = Judge { workload, promises: promises(&recording), recording, root };
    assert_eq!(judge.promises.last().map(|promise| promise.operations), Some(workload.operations));

    let failures: Vec<String> = judge.cuts().enumerate().filter_map(|(seed, cut)| judge.try_cut(cut, seed)).collect();
    assert!(failures.is_empty(), "{} power cuts lost data:\n{}", failures.len(), failures.join("\n"));
}

/// From this line of the trace on, the child had been told that so many operations are durable.
struct Promise {
    line: usize,
    operations: u64,
}

fn promises(recording: &Recording) -> Vec<Promise> {
    let number = |text: &str| text.strip_prefix("ack ")?.trim().parse().ok();
    let promise = |note: &disk::Note| Some(Promise { line: note.end, operations: number(&note.text)? });
    recording.notes.iter().map(|note| promise(note).expect("an acknowledgement")).collect()
}

struct Judge<'a> {
    workload: &'a Workload,
    recording: Recording,
    promises: Vec<Promise>,
    root: PathBuf,
}

impl Judge<'_> {
    /// The lines after which the power fails: just after each acknowledgement, amid each change of names, and anywhere.
    fn cuts(&self) -> impl Iterator<Item = usize> {
        let mut dice = Dice(self.workload.seed);
        let lines = self.recording.end as u64;
        let anywhere = (0..RANDOM_CUTS).map(move |_| usize::try_from(dice.below(lines)).expect("a line"));
        self.promises.iter().map(|promise| promise.line).chain(self.recording.renamings()).chain(anywhere)
    }

    /// Cuts the power after this line and says what was lost, if anything.
    fn try_cut(&self, cut: usize, seed: usize) -> Option<String> {
        let mut dice = Dice(seed as u64);
        let mercy = MERCIES[seed % MERCIES.len()];
        let target = self.root.join(format!("cut-{seed}"));
        self.recording.cut(cut, mercy, &mut dice, &self.root.join(STORE), &target);
        let outcome = self.examine(cut, &target);
        std::fs::remove_dir_all(&target).ok();
        let told = |reason| format!("{} cut {seed} at line {cut}, {mercy:?}: {reason}", self.workload.name);
        outcome.err().map(told)
    }

    fn examine(&self, cut: usize, dir: &Path) -> Result<(), String> {
        let promised = self.promises.iter().rfind(|promise| promise.line <= cut).map(|promise| promise.operations);
        let store = match (self.workload.engine().open(dir, 1 << 20), promised) {
            (Ok(store), _) => store,
            // A directory may be lost as long as nobody was told that it was made.
            (Err(OpenError::Corrupt { .. }), None) => return Ok(()),
            (Err(error), _) => return Err(error.to_string()),
        };
        let promised = promised.unwrap_or(0);
        self.compare(&rows(&*store)?, promised)?;
        // A recovered store has to hold new writes as well.
        store.put(b"later", b"whole").and_then(|()| store.barrier()).map_err(|error| error.to_string())?;
        drop(store);
        let store = self.workload.engine().open(dir, 1 << 20).map_err(|error| error.to_string())?;
        match store.get(b"later").map_err(|error| error.to_string())? {
            Some(value) if value == b"whole" => Ok(()),
            other => Err(format!("a write after recovery became {other:?}")),
        }
    }

    /// Everything promised is there; a later operation may be there or not, but whole.
    fn compare(&self, found: &Rows, promised: u64) -> Result<(), String> {
        let mut allowed: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>> = BTreeMap::new();
        for number in 1..=promised {
            let (key, value) = self.workload.operation(number);
            allowed.insert(key, vec![value]);
        }
        let next = self.promises.iter().find(|promise| promise.operations > promised);
        for number in promised + 1..=next.map_or(promised, |promise| promise.operations) {
            let (key, value) = self.workload.operation(number);
            allowed.entry(key).or_insert_with(|| vec![None]).push(value);
        }
        if let Some(key) = found.keys().find(|key| !allowed.contains_key(*key)) {
            return Err(format!("{} was never written", String::from_utf8_lossy(key)));
        }
        for (key, values) in &allowed {
            if !values.contains(&found.get(key).cloned()) {
                let found = found.get(key).map(|value| value.iter().take(8).copied().collect::<Vec<_>>());
                let name = String::from_utf8_lossy(key);
                return Err(format!("after {promised} promised operations {name} holds {found:?}"));
            }
        }
        Ok(())
    }
}

fn rows(store: &dyn Store) -> Result<Rows, String> {
    let mut rows = Rows::new();
    let mut collect = |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(b"", &[0xff; 8], &mut collect).map_err(|error| error.to_string())?;
    Ok(rows)
}
