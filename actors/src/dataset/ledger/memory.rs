//! What was registered at run time outlives the store: a file beside its directory, so that a store which is set aside, damaged,
//! does not take with it that a collection must not leave this node any more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anabranch_protocol::codec;
use anabranch_protocol::coverage::{Coverage, Coverages, Scope};
use anabranch_protocol::id::Collection;

use crate::dataset::layout::{sealed, unsealed};
use crate::store::StoreError;

/// Largest file: 1,024 names, some of them unregistered since.
const BYTES_MAX: usize = 4 << 20;
/// How `*` is written; no collection has that name.
const ALL: &str = "*";

/// A registration's number, and each scope's name, whether it is registered, and whether the configuration named it.
type Memory = (u64, Vec<(String, bool, bool)>);

/// Where the registration of the dataset in `directory` is remembered. A leading dot keeps it from ever being a dataset's name.
pub(super) fn path_of(directory: &Path) -> Option<PathBuf> {
    // A store in memory has no place.
    let dataset = directory.is_dir().then(|| directory.file_name()).flatten()?.to_string_lossy();
    Some(directory.with_file_name(format!(".{dataset}.registration")))
}

/// What is remembered; nothing where there is no file.
///
/// # Errors
/// A file that can't be read or is damaged: without it nobody knows what must not leave this node.
pub(super) fn recall(path: &Path) -> Result<Option<Coverages>, StoreError> {
    let refused = |why: String| StoreError::Io(format!("{}: {why}; move it away to register what is configured", path.display()));
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error.to_string())),
    };
    decode(&bytes).map(Some).ok_or_else(|| refused("damaged".to_owned()))
}

/// What a file says; nothing where it is damaged or not what [`encode`] writes.
fn decode(bytes: &[u8]) -> Option<Coverages> {
    let (number, scopes) = codec::decode::<Memory>(unsealed(bytes)?, BYTES_MAX).ok()?;
    let mut known = Coverages { number, scopes: BTreeMap::new() };
    for (name, registered, configured) in scopes {
        let scope = if name == ALL { Scope::All } else { Scope::One(Collection::new(&name).ok()?) };
        known.scopes.insert(scope, Coverage { registered, configured, ..Coverage::default() });
    }
    // A name that stands there twice says two things.
    (encode(&known) == bytes).then_some(known)
}

fn encode(coverages: &Coverages) -> Vec<u8> {
    let named = |(scope, coverage): (&Scope, &Coverage)| {
        let name = if let Scope::One(collection) = scope { collection.to_string() } else { ALL.to_owned() };
        (name, coverage.registered, coverage.configured)
    };
    let memory: Memory = (coverages.number, coverages.scopes.iter().map(named).collect());
    sealed(codec::encode(&memory))
}

/// Remembers a registration, durably.
pub(super) fn remember(path: &Path, coverages: &Coverages) -> Result<(), StoreError> {
    let bytes = encode(coverages);
    if fs::read(path).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    write(path, &bytes).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => StoreError::NoSpace,
        _ => StoreError::Io(format!("{}: {error}", path.display())),
    })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("registration.next");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What is remembered is written as it was read, and says of each scope what a registration takes from it.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::dataset) fn fuzz(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), sealed(bytes.to_vec())] {
        let Some(known) = decode(&bytes) else { continue };
        assert_eq!(encode(&known), bytes);
        let registration = known.registration();
        assert_eq!(registration.number, known.number);
        assert!(!registration.all || registration.collections.is_empty());
        for (scope, coverage) in &known.scopes {
            let Scope::One(collection) = scope else { continue };
            assert!(registration.contains(collection) || !coverage.registered);
        }
    }
}
