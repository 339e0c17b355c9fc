//! Which lineage a dataset has.
//!
//! Its store knows. What a new or empty store is given is decided at its opening, when nobody else reads or writes it: what is
//! configured, else what this node remembers of the dataset, else what a peer offered. A file beside the dataset's directory
//! remembers: the store may be set aside, and what takes its place has to rejoin the same peers.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anabranch_protocol::id::Lineage;

/// What a dataset is configured to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LineageSetting {
    /// What its store has; a new one has none until it takes on a peer's.
    #[default]
    Open,
    /// What its store has; a new one gets a random one.
    New,
    /// This one.
    Fixed(Lineage),
}

/// All that decides the lineage of a store at its opening.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineageChoice {
    /// What is configured.
    pub setting: LineageSetting,
    /// What the dataset had here before.
    pub remembered: Option<Lineage>,
    /// What a peer offers to an empty dataset.
    pub offered: Option<Lineage>,
}

impl LineageChoice {
    /// The lineage of a store that says `stored` of itself, or nothing if it is new, and that is `empty` or not.
    ///
    /// # Errors
    /// What the configuration asks for instead, where the store's can't be changed any more.
    pub fn of_store(
        &self,
        stored: Option<Lineage>,
        empty: bool,
        entropy: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Lineage, &'static str> {
        let settled = stored.filter(|stored| *stored != Lineage::ZERO || !empty);
        match (self.setting, settled) {
            (LineageSetting::Fixed(wanted), None) => Ok(wanted),
            (LineageSetting::Fixed(wanted), Some(stored)) if wanted == stored => Ok(stored),
            (LineageSetting::Fixed(_), Some(_)) => Err("another one"),
            (LineageSetting::New, Some(Lineage::ZERO)) => Err("`new`, which is for datasets that hold nothing yet,"),
            (LineageSetting::New | LineageSetting::Open, Some(stored)) => Ok(stored),
            (LineageSetting::Open, None) => Ok(self.remembered.or(self.offered).unwrap_or(Lineage::ZERO)),
            (LineageSetting::New, None) => Ok(self.remembered.unwrap_or_else(|| {
                let mut random = Lineage::ZERO;
                entropy(&mut random.0);
                random
            })),
        }
    }
}

/// Where the lineage of the dataset in `directory` is remembered. A leading dot keeps it from ever being a dataset's name.
#[must_use]
pub fn memory_of(directory: &Path) -> PathBuf {
    let dataset = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{dataset}.lineage"))
}

/// What is remembered of the dataset in `directory`. What can't be read is not known: its store may know.
pub(super) fn recall(directory: &Path) -> Option<Lineage> {
    parse(&fs::read_to_string(memory_of(directory)).ok()?)
}

fn parse(text: &str) -> Option<Lineage> {
    text.trim().parse().ok()
}

/// What a file says is what would be written.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(text: &str) {
    if let Some(lineage) = parse(text) {
        assert_eq!(lineage.to_string(), text.trim());
        assert_eq!(parse(&format!("{lineage}\n")), Some(lineage));
    }
}

/// A store that is made in `directory` from now on gets `lineage`, durably; one that is there and holds something keeps its own.
/// Whether nothing was remembered yet, so that it counts.
///
/// # Errors
/// Whatever the file system says.
pub fn expect(directory: &Path, lineage: Lineage) -> io::Result<bool> {
    let unknown = recall(directory).is_none();
    if unknown {
        write(&memory_of(directory), lineage)?;
    }
    Ok(unknown)
}

/// Remembers the lineage of the dataset in `directory`, durably. None is not worth a file, and a store in memory has no place.
pub(super) fn remember(directory: &Path, lineage: Lineage) -> io::Result<()> {
    if !directory.is_dir() || recall(directory).unwrap_or(Lineage::ZERO) == lineage {
        return Ok(());
    }
    write(&memory_of(directory), lineage)
}

fn write(path: &Path, lineage: Lineage) -> io::Result<()> {
    let next = path.with_extension("lineage.next");
    let mut file = File::create(&next)?;
    writeln!(file, "{lineage}")?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Lineage = Lineage([0xa; 16]);
    const B: Lineage = Lineage([0xb; 16]);
    const RANDOM: Lineage = Lineage([7; 16]);

    fn of_store(choice: LineageChoice, stored: Option<Lineage>, empty: bool) -> Option<Lineage> {
        choice.of_store(stored, empty, &mut |bytes| bytes.fill(7)).ok()
    }

    #[test]
    fn a_new_store_gets_what_is_configured_remembered_or_offered() {
        let open = LineageChoice::default();
        let offered = LineageChoice { offered: Some(A), ..open };
        let remembered = LineageChoice { remembered: Some(B), ..offered };
        let fixed = LineageChoice { setting: LineageSetting::Fixed(A), ..remembered };
        let new = LineageChoice { setting: LineageSetting::New, ..offered };
        for (choice, expected) in [(open, Lineage::ZERO), (offered, A), (remembered, B), (fixed, A), (new, RANDOM)] {
            assert_eq!(of_store(choice, None, true), Some(expected), "{choice:?}");
            assert_eq!(of_store(choice, Some(Lineage::ZERO), true), Some(expected), "an empty one is as good as new: {choice:?}");
        }
        assert_eq!(of_store(LineageChoice { remembered: Some(B), ..new }, None, true), Some(B));
    }

    #[test]
    fn what_a_store_has_stays() {
        let open = LineageChoice { remembered: Some(B), offered: Some(B), ..LineageChoice::default() };
        assert_eq!(of_store(open, Some(A), true), Some(A));
        assert_eq!(of_store(open, Some(Lineage::ZERO), false), Some(Lineage::ZERO));
        let new = LineageChoice { setting: LineageSetting::New, ..open };
        assert_eq!(of_store(new, Some(A), false), Some(A));
        assert_eq!(of_store(new, Some(Lineage::ZERO), false), None);
        let fixed = LineageChoice { setting: LineageSetting::Fixed(B), ..open };
        assert_eq!(of_store(fixed, Some(B), false), Some(B));
        assert_eq!(of_store(fixed, Some(A), true), None, "also an empty store may have been joined to peers");
        assert_eq!(of_store(fixed, Some(Lineage::ZERO), false), None);
    }

    #[test]
    fn a_lineage_is_remembered_beside_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("logs");
        remember(&directory, A).unwrap();
        assert_eq!(recall(&directory), None, "no directory, nothing to remember");
        fs::create_dir(&directory).unwrap();
        remember(&directory, Lineage::ZERO).unwrap();
        assert!(!memory_of(&directory).exists());
        remember(&directory, A).unwrap();
        fs::remove_dir(&directory).unwrap();
        assert_eq!(recall(&directory), Some(A));
        assert!(!expect(&directory, B).unwrap() && expect(&place.path().join("orders"), B).unwrap());
        assert_eq!([recall(&directory), recall(&place.path().join("orders"))], [Some(A), Some(B)]);
    }
}
