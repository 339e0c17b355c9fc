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
    let memory = unsealed(&bytes).and_then(|bytes| codec::decode::<Memory>(bytes, BYTES_MAX).ok());
    let (number, scopes) = memory.ok_or_else(|| refused("damaged".to_owned()))?;
    let mut known = BTreeMap::new();
    for (name, registered, configured) in scopes {
        let scope =
            if name == ALL { Scope::All } else { Scope::One(Collection::new(&name).map_err(|e| refused(e.to_string()))?) };
        known.insert(scope, Coverage { registered, configured, ..Coverage::default() });
    }
    Ok(Some(Coverages { number, scopes: known }))
}

/// Remembers a registration, durably.
pub(super) fn remember(path: &Path, coverages: &Coverages) -> Result<(), StoreError> {
    let named = |(scope, coverage): (&Scope, &Coverage)| {
        let name = if let Scope::One(collection) = scope { collection.to_string() } else { ALL.to_owned() };
        (name, coverage.registered, coverage.configured)
    };
    let memory: Memory = (coverages.number, coverages.scopes.iter().map(named).collect());
    let bytes = sealed(codec::encode(&memory));
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
