//! Datasets that were created at run time, and deletions: files in `datasets/` whose leading dot keeps them from ever being a
//! dataset's directory.
//!
//! ```text
//! .NAME.definition.json    what the dataset was created with: the body of POST /v1/datasets
//! .NAME.lineage            its lineage, once it has one
//! .NAME.registration       what it replicates, should its store be lost
//! .NAME.deleting           it is being deleted; whatever of it is left goes at the next start
//! .deleted-NAME-N          what was its directory, about to be removed
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anabranch_protocol::id::DatasetId;
use serde_json::Value as Json;

use super::data_dir::write_whole;

const DEFINITION: &str = "definition.json";
const LINEAGE: &str = "lineage";
const REGISTRATION: &str = "registration";
const DELETING: &str = "deleting";
const REBUILDING: &str = "rebuilding";
const REBUILT: &str = "rebuilt";
const DELETED: &str = ".deleted-";

/// See the module documentation. Everything here blocks on the disk.
#[derive(Debug, Clone)]
pub struct Definitions {
    directory: PathBuf,
}

impl Definitions {
    /// Those of a data directory.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn in_data_dir(data_dir: &Path) -> io::Result<Self> {
        let directory = data_dir.join("datasets");
        if !directory.is_dir() {
            fs::create_dir_all(&directory)?;
            File::open(data_dir)?.sync_all()?;
        }
        Ok(Self { directory })
    }

    fn file(&self, dataset: &DatasetId, what: &str) -> PathBuf {
        self.directory.join(format!(".{dataset}.{what}"))
    }

    /// Everything in `datasets/` of the shape `.NAME.what`.
    fn named(&self, what: &str) -> io::Result<Vec<DatasetId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let dataset = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(what)?.strip_suffix('.'));
            found.extend(dataset.and_then(|name| DatasetId::new(name).ok()));
        }
        Ok(found)
    }

    /// All definitions; those that can't be read say why.
    ///
    /// # Errors
    /// When not even their names can be read.
    pub fn all(&self) -> io::Result<BTreeMap<DatasetId, Result<Json, String>>> {
        let read = |dataset: DatasetId| {
            let path = self.file(&dataset, DEFINITION);
            let text = fs::read(&path).map_err(|error| error.to_string());
            let json = text.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            (dataset, json.map_err(|why| format!("{}: {why}", path.display())))
        };
        Ok(self.named(DEFINITION)?.into_iter().map(read).collect())
    }

    /// Writes a definition, whole or not at all; durable when it returns.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, dataset: &DatasetId, definition: &Json) -> io::Result<()> {
        write_whole(&self.file(dataset, DEFINITION), &serde_json::to_vec_pretty(definition)?)
    }

    /// Takes a definition back.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn remove(&self, dataset: &DatasetId) -> io::Result<()> {
        remove_file(&self.file(dataset, DEFINITION))?;
        self.sync()
    }

    /// Decides that a dataset goes: from now on no crash keeps anything of it.
    ///
    /// # Errors
    /// Whatever the file system says; then it stays.
    pub fn begin_delete(&self, dataset: &DatasetId) -> io::Result<()> {
        write_whole(&self.file(dataset, DELETING), b"")
    }

    /// Goes through with a deletion: nothing is left under the dataset's name, and its files wait to be removed by
    /// [`Definitions::remove_deleted`].
    ///
    /// # Errors
    /// Whatever the file system says; the next start goes on with it.
    pub fn finish_delete(&self, dataset: &DatasetId) -> io::Result<()> {
        let aside = format!("{dataset}.aside-");
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // `logs.aside-x` may be a dataset of its own; what was set aside has capitals in its name.
            let is_aside = name.starts_with(&aside) && DatasetId::new(&name).is_err();
            let is_rebuilt = [REBUILDING, REBUILT].iter().any(|what| entry.path() == self.file(dataset, what));
            if name == dataset.as_str() || is_aside || is_rebuilt {
                fs::rename(entry.path(), self.free_place(dataset))?;
            }
        }
        for what in [DEFINITION, LINEAGE, REGISTRATION] {
            remove_file(&self.file(dataset, what))?;
        }
        self.sync()?;
        remove_file(&self.file(dataset, DELETING))?;
        self.sync()
    }

    fn free_place(&self, dataset: &DatasetId) -> PathBuf {
        let mut places = (1_u64..).map(|n| self.directory.join(format!("{DELETED}{dataset}-{n}")));
        // Also what can't be looked at is taken.
        let free = places.find(|path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        free.expect("numbers do not run out")
    }

    /// Goes through with deletions that a crash or a full disk interrupted.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn resume_deletions(&self) -> io::Result<()> {
        self.named(DELETING)?.iter().try_for_each(|dataset| {
            tracing::info!(%dataset, "the deletion that was begun is finished");
            self.finish_delete(dataset)
        })
    }

    /// Removes the files of deleted datasets. What can't be removed now is removed after the next start.
    pub fn remove_deleted(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(DELETED) {
                continue;
            }
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "the files of a deleted dataset can't be removed yet");
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(name: &str) -> DatasetId {
        DatasetId::new(name).unwrap()
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place.join("datasets")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn definitions_are_found_again_and_bad_ones_say_why() {
        let place = tempfile::tempdir().unwrap();
        let definitions = Definitions::in_data_dir(place.path()).unwrap();
        definitions.write(&id("a.definition.json"), &json!({"kind": "append"})).unwrap();
        definitions.write(&id("b"), &json!({})).unwrap();
        fs::write(place.path().join("datasets/.c.definition.json"), "{").unwrap();
        fs::write(place.path().join("datasets/.C.definition.json"), "{}").unwrap();
        let found = definitions.all().unwrap();
        let found: Vec<_> = found.iter().map(|(id, json)| (id.as_str(), json.is_ok())).collect();
        assert_eq!(found, [("a.definition.json", true), ("b", true), ("c", false)]);
        definitions.remove(&id("b")).unwrap();
        definitions.remove(&id("b")).unwrap();
        assert_eq!(definitions.all().unwrap().len(), 2);
    }

    /// Wherever a crash cuts a deletion short, the next start leaves nothing of the dataset, and all of the others.
    #[test]
    fn a_deletion_that_was_begun_is_finished_after_a_crash() {
        for done_before_the_crash in 0..=4 {
            let place = tempfile::tempdir().unwrap();
            let datasets = place.path().join("datasets");
            let definitions = Definitions::in_data_dir(place.path()).unwrap();
            for directory in ["logs", "logs.aside-20261121T042931.123Z", "logs.aside-x", "log"] {
                fs::create_dir(datasets.join(directory)).unwrap();
                fs::write(datasets.join(directory).join("db"), "data").unwrap();
            }
            definitions.write(&id("logs"), &json!({})).unwrap();
            fs::write(datasets.join(".logs.lineage"), "x").unwrap();
            fs::write(datasets.join(".logs.registration"), "x").unwrap();
            definitions.begin_delete(&id("logs")).unwrap();
            let steps: [&dyn Fn(); 4] = [
                &|| fs::rename(datasets.join("logs"), datasets.join(".deleted-logs-1")).unwrap(),
                &|| definitions.remove(&id("logs")).unwrap(),
                &|| fs::remove_file(datasets.join(".logs.lineage")).unwrap(),
                &|| fs::remove_dir_all(datasets.join(".deleted-logs-1")).unwrap(),
            ];
            steps.iter().take(done_before_the_crash).for_each(|step| step());
            let restarted = Definitions::in_data_dir(place.path()).unwrap();
            restarted.resume_deletions().unwrap();
            restarted.remove_deleted();
            assert_eq!(names(place.path()), ["log", "logs.aside-x"], "after {done_before_the_crash} steps");
        }
    }
}
