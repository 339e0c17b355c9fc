//! Stores that were set aside: damaged directories, renamed and kept, never deleted but by the user.
//!
//! `datasets/<dataset>` becomes `datasets/<dataset>.aside-<UTC time>[-n]`, beside it and so on the same file system; capitals in the
//! time keep it from ever being a dataset's name. Before the rename a note with the reason is written into the directory. It is also
//! the intention: a directory that holds a note is set aside at the next open, whatever happened in between.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anabranch_protocol::id::DatasetId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// File with the reason, in a directory that was, or is to be, set aside.
pub(super) const NOTE: &str = "set-aside.json";
/// Directories set aside within [`BUDGET_WINDOW`]; past it the disk or the program is at fault, not the files.
const ASIDES_MAX: usize = 5;
/// Over which the budget counts.
const BUDGET_WINDOW: Duration = Duration::from_secs(3_600);

/// A store that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// How it is named when it is dropped.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// Why a store that was set aside could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropAsideError {
    /// Nothing of that name is set aside.
    #[error("nothing named {0:?} is set aside")]
    Unknown(String),
    /// The operating system refused.
    #[error("it can't be removed: {0}")]
    Io(#[from] io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    at: String,
    reason: String,
}

/// What is set aside of one dataset.
#[derive(Debug)]
pub(crate) struct Asides {
    directory: PathBuf,
    /// As last read; status pages never wait for the disk.
    known: Mutex<Vec<SetAside>>,
    recent: Mutex<Vec<Instant>>,
}

impl Asides {
    pub fn in_data_dir(data_dir: &Path, dataset: &DatasetId) -> Arc<Self> {
        Arc::new(Self::of(data_dir.join("datasets").join(dataset.as_str())))
    }

    /// Where the dataset itself is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn of(directory: PathBuf) -> Self {
        Self { directory, known: Mutex::default(), recent: Mutex::default() }
    }

    pub fn known(&self) -> Vec<SetAside> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn prefix(&self) -> String {
        let dataset = self.directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        format!("{dataset}.aside-")
    }

    fn parent(&self) -> &Path {
        self.directory.parent().unwrap_or(Path::new("."))
    }

    /// Reads what is set aside from the disk.
    pub fn refresh(&self) {
        let prefix = self.prefix();
        let mut found = Vec::new();
        for entry in fs::read_dir(self.parent()).into_iter().flatten().flatten() {
            let file_name = entry.file_name();
            let name = file_name.to_str().and_then(|name| name.strip_prefix(&prefix)).filter(|name| is_name(name));
            if let Some(name) = name {
                let note = read_note(&entry.path()).unwrap_or_else(|| Note { at: String::new(), reason: "not noted".to_owned() });
                found.push(SetAside { name: name.to_owned(), path: entry.path(), at: note.at, reason: note.reason });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Why the directory was to be set aside when the node last stopped, if it was.
    pub fn intention(&self) -> Option<String> {
        read_note(&self.directory).map(|note| note.reason)
    }

    /// Renames the directory. What has files in it open keeps them; nothing of it is found under the old name any more.
    pub fn set_aside(&self, reason: &str) -> io::Result<SetAside> {
        self.spend()?;
        self.move_aside(reason)
    }

    /// As [`Asides::set_aside`], where neither the disk nor the program is at fault.
    pub fn move_aside(&self, reason: &str) -> io::Result<SetAside> {
        let at = SystemTime::now();
        let note = Note { at: humantime::format_rfc3339_millis(at).to_string(), reason: reason.to_owned() };
        // A full disk must not keep the dataset from starting empty elsewhere.
        let noted = write_note(&self.directory, &note);
        let (name, path) = self.free_place(&note.at);
        fs::rename(&self.directory, &path)?;
        File::open(self.parent())?.sync_all()?;
        if noted.is_err() {
            // The rename may have been what was missing, and the reason is logged in any case.
            let _ = write_note(&path, &note);
        }
        self.refresh();
        Ok(SetAside { name, path, at: note.at, reason: note.reason })
    }

    fn spend(&self) -> io::Result<()> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|at| at.elapsed() < BUDGET_WINDOW);
        if recent.len() >= ASIDES_MAX {
            let reason =
                format!("{ASIDES_MAX} stores were set aside within {BUDGET_WINDOW:?}: look for another cause than the files");
            return Err(io::Error::other(reason));
        }
        recent.push(Instant::now());
        Ok(())
    }

    fn free_place(&self, at: &str) -> (String, PathBuf) {
        let compact: String = at.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
        let names = std::iter::once(compact.clone()).chain((2..).map(|n: u32| format!("{compact}-{n}")));
        let mut places = names.map(|name| (self.parent().join(format!("{}{name}", self.prefix())), name));
        // Also what can't be looked at is taken.
        let free =
            places.find(|(path, _)| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        let (path, name) = free.expect("names do not run out");
        (name, path)
    }

    /// Deletes one for ever.
    pub fn drop_aside(&self, name: &str) -> Result<(), DropAsideError> {
        self.refresh();
        let found = self.known().into_iter().find(|aside| aside.name == name);
        let aside = found.filter(|_| is_name(name)).ok_or_else(|| DropAsideError::Unknown(name.to_owned()))?;
        let removed = fs::remove_dir_all(&aside.path);
        self.refresh();
        Ok(removed?)
    }
}

/// Whether a name is one that [`Asides::set_aside`] gives: `20261121T042931.123Z`, and `-2` and so on where that was taken.
fn is_name(name: &str) -> bool {
    let (time, count) = name.split_once('-').unwrap_or((name, "2"));
    let pattern = b"ddddddddTdddddd.dddZ";
    let fits = |(letter, wanted): (u8, &u8)| if *wanted == b'd' { letter.is_ascii_digit() } else { letter == *wanted };
    time.len() == pattern.len()
        && time.bytes().zip(pattern).all(fits)
        && (1..=4).contains(&count.len())
        && count.bytes().all(|letter| letter.is_ascii_digit())
}

fn read_note(directory: &Path) -> Option<Note> {
    decode_note(&fs::read(directory.join(NOTE)).ok()?)
}

fn decode_note(bytes: &[u8]) -> Option<Note> {
    serde_json::from_slice(bytes).ok()
}

/// What is read as a note is written as one that reads the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz_note(bytes: &[u8]) {
    if let Some(note) = decode_note(bytes) {
        let again = serde_json::to_vec(&note).ok().and_then(|bytes| decode_note(&bytes)).expect("a note is one");
        assert_eq!((again.at, again.reason), (note.at, note.reason));
    }
    if let Ok(name) = std::str::from_utf8(bytes)
        && is_name(name)
    {
        assert!(!name.contains(['/', '\0']) && !name.contains(".."), "it stays where it is");
    }
}

fn write_note(directory: &Path, note: &Note) -> io::Result<()> {
    let path = directory.join(NOTE);
    let next = directory.join("set-aside.json.next");
    fs::write(&next, serde_json::to_vec(note).expect("texts are JSON"))?;
    File::open(&next)?.sync_all()?;
    fs::rename(&next, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_strict() {
        for good in ["20261121T042931.123Z", "20261121T042931.123Z-2", "20261121T042931.123Z-17"] {
            assert!(is_name(good), "{good}");
        }
        for bad in
            ["", "..", "../primary", "20261121T042931.123Z/..", "20261121T042931.123Z-", "20261121T042931.123z", "2026-11-21"]
        {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_directory_is_renamed_noted_listed_and_dropped() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("logs");
        let asides = Asides::of(directory.clone());
        for dataset in ["logs", "logs.aside-x", "log"] {
            fs::create_dir(place.path().join(dataset)).unwrap();
        }
        fs::write(directory.join("db"), "damaged").unwrap();
        let aside = asides.set_aside("it is damaged").unwrap();
        assert!(!directory.exists() && aside.path.starts_with(place.path()));
        assert_eq!(fs::read_to_string(aside.path.join("db")).unwrap(), "damaged");
        assert_eq!(asides.known(), std::slice::from_ref(&aside));
        assert!(matches!(asides.drop_aside("../log"), Err(DropAsideError::Unknown(_))));
        assert!(matches!(asides.drop_aside("x"), Err(DropAsideError::Unknown(_))));
        asides.drop_aside(&aside.name).unwrap();
        assert!(asides.known().is_empty() && !aside.path.exists());
        assert!(place.path().join("logs.aside-x").exists() && place.path().join("log").exists());
    }

    #[test]
    fn two_of_one_moment_have_two_names() {
        let place = tempfile::tempdir().unwrap();
        let asides = Asides::of(place.path().join("logs"));
        let (name, path) = asides.free_place("2026-11-21T04:29:31.123Z");
        fs::create_dir(path).unwrap();
        assert_eq!(
            (name.as_str(), asides.free_place("2026-11-21T04:29:31.123Z").0.as_str()),
            ("20261121T042931.123Z", "20261121T042931.123Z-2")
        );
    }

    #[test]
    fn a_cause_that_is_not_in_the_files_sets_aside_only_so_often() {
        let place = tempfile::tempdir().unwrap();
        let asides = Asides::of(place.path().join("logs"));
        let set_aside = || {
            fs::create_dir_all(place.path().join("logs")).unwrap();
            asides.set_aside("x").is_ok()
        };
        assert!((0..ASIDES_MAX).all(|_| set_aside()));
        assert!(!set_aside() && place.path().join("logs").exists());
    }
}
