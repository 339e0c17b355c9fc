//! The life of a data directory: 16 random bytes that a copy, a restore or a clone of the directory does not share.
//!
//! The file says which file it is (device, inode, time of birth). A copy is another file, so what it says is not true of it, and
//! the directory gets a new incarnation: two live copies of one identity show by different values, and stores open a new epoch.

use std::fs::{File, Metadata};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anabranch_protocol::id::Incarnation;

use super::Failure;
use super::data_dir::fill_whole;

const FILE: &str = "incarnation";
/// First line of the file; another version is another life.
const VERSION: &str = "anabranch incarnation 1";

/// The incarnation of `dir`: the one it has, or a new one where it has none or was copied.
///
/// # Errors
/// [`Failure::Other`] if the file system refuses.
pub fn of_dir(dir: &Path) -> Result<Incarnation, Failure> {
    let path = dir.join(FILE);
    if let Some(incarnation) = read(&path) {
        return Ok(incarnation);
    }
    if path.exists() {
        tracing::warn!(dir = %dir.display(), "the data directory was copied or restored: it starts a new life");
    }
    let incarnation = Incarnation(rand::random());
    fill_whole(&path, |file| {
        let metadata = file.metadata()?;
        file.write_all(page(&incarnation, &metadata).as_bytes())
    })
    .map_err(|error| Failure::other(format!("can't write {}", path.display()), error))?;
    Ok(incarnation)
}

/// The incarnation in the file, if what it says about itself holds.
fn read(path: &Path) -> Option<Incarnation> {
    let text = std::fs::read_to_string(path).ok()?;
    let metadata = File::open(path).and_then(|file| file.metadata()).ok()?;
    parse(&text, &metadata)
}

fn parse(text: &str, metadata: &Metadata) -> Option<Incarnation> {
    let hex = text.lines().nth(1)?;
    let incarnation = Incarnation(u128::from_str_radix(hex, 16).ok()?.to_be_bytes());
    (text == page(&incarnation, metadata)).then_some(incarnation)
}

/// What is read is written so; and what any file says is true of none but itself.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(text: &str) {
    let [here, there] = [".", "/proc"].map(|path| std::fs::metadata(path).expect("it is there"));
    for place in text.split(' ') {
        if let Some(incarnation) = parse(text, &here) {
            assert_eq!(page(&incarnation, &here), text);
        }
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(place.bytes()).for_each(|(to, from)| *to = from);
        let page = page(&Incarnation(bytes), &here);
        assert_eq!((parse(&page, &here), parse(&page, &there)), (Some(Incarnation(bytes)), None));
        assert_eq!(parse(&format!("{page}{text}"), &here).is_some(), text.is_empty());
    }
}

fn page(incarnation: &Incarnation, metadata: &Metadata) -> String {
    // Inodes are reused at once on some file systems; the time of birth, where there is one, tells such files apart.
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |at| at.as_nanos());
    let hex = u128::from_be_bytes(incarnation.0);
    format!("{VERSION}\n{hex:032x}\n{}:{}:{born}\n", metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_life_and_a_copy_gets_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let first = of_dir(dir.path()).unwrap();
        assert_eq!(of_dir(dir.path()).unwrap(), first);

        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
        let second = of_dir(copy.path()).unwrap();
        assert_ne!(second, first);
        assert_eq!(of_dir(copy.path()).unwrap(), second);
    }

    #[test]
    fn a_moved_directory_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        std::fs::create_dir(&here).unwrap();
        let first = of_dir(&here).unwrap();
        std::fs::rename(&here, &there).unwrap();
        assert_eq!(of_dir(&there).unwrap(), first);
    }
}
