//! What is found when a store is opened: rows as they once were, a whole store as it once was, an index that lost its newest row.

use std::fs;

use super::audit::Shared;
use super::*;
use crate::dataset::layout;
use crate::store::SledEngine;

const DIRECTORY: &str = "datasets/logs";

struct Place {
    data_dir: tempfile::TempDir,
    engine: Arc<Shared>,
}

impl Place {
    fn new() -> Self {
        Self { data_dir: tempfile::tempdir().unwrap(), engine: Arc::default() }
    }

    /// Rows are not walked over in the background while a test runs.
    fn start(&self) -> DatasetHandle {
        let node = settings(self.engine.clone(), &FaultPlan::default(), DEADLINE);
        start(&NodeSettings { data_dir: self.data_dir.path().to_owned(), cache_bytes: 1 << 20, ..node }, "logs")
    }

    fn directory(&self) -> PathBuf {
        self.data_dir.path().join(DIRECTORY)
    }
}

fn row(number: usize) -> Vec<u8> {
    layout::row_key(&collection(), &key(number))
}

/// Why the only store that was set aside was.
async fn reason(logs: &DatasetHandle) -> String {
    let deadline = Instant::now() + DEADLINE;
    while logs.set_aside().is_empty() {
        assert!(Instant::now() < deadline, "nothing was set aside");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [aside] = &logs.set_aside()[..] else { panic!("one store was set aside") };
    aside.reason.clone()
}

#[test]
fn a_small_store_is_read_as_a_whole_before_anything_of_it_is_served() {
    run(async {
        let place = Place::new();
        let logs = place.start();
        put(&logs, 7).await.unwrap();
        let old = place.engine.store().get(&row(7)).unwrap().unwrap();
        put(&logs, 7).await.unwrap();
        logs.stop("stopped by the test").await;
        let store = SledEngine::default().open(&place.directory(), 1 << 20).unwrap();
        assert_ne!(store.get(&row(7)).unwrap().unwrap(), old);
        store.put(&row(7), &old).unwrap();
        store.barrier().unwrap();
        drop(store);

        let logs = place.start();
        assert_eq!(logs.get(collection(), key(7)).await.unwrap(), None, "what was wrong is not served");
        assert_eq!(reason(&logs).await, "the rows of c are not what their tally says");
        put(&logs, 7).await.unwrap();
        logs.stop("stopped by the test").await;
    });
}

#[test]
fn a_store_as_it_once_was_is_set_aside() {
    run(async {
        let place = Place::new();
        let logs = place.start();
        put(&logs, 1).await.unwrap();
        logs.stop("stopped by the test").await;
        let older = place.data_dir.path().join("older");
        copy(&place.directory(), &older);
        let logs = place.start();
        put(&logs, 2).await.unwrap();
        logs.stop("stopped by the test").await;

        // All of the database comes back as it was; what was noted beside it does not.
        let reached = fs::read(place.directory().join("reached")).unwrap();
        fs::remove_dir_all(place.directory()).unwrap();
        copy(&older, &place.directory());
        fs::write(place.directory().join("reached"), reached).unwrap();
        let logs = place.start();
        assert_eq!(logs.get(collection(), key(1)).await.unwrap(), None);
        assert_eq!(reason(&logs).await, "the log ends at record 1, but record 2 was durable");
        logs.stop("stopped by the test").await;
    });
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A store that is opened again by the process that read it as a whole is not read as a whole again, but checked.
#[test]
fn the_newest_of_everything_is_checked_at_every_open() {
    run(async {
        let place = Place::new();
        let logs = place.start();
        put(&logs, 1).await.unwrap();
        let writer = logs.info().await.contents.unwrap().writer.unwrap();
        place.engine.store().delete(&layout::seq_index(&writer, 1)).unwrap();
        logs.order(Order::Restart).await;
        assert_eq!(reason(&logs).await, format!("the newest commit of {writer} is not what its line says"));
        logs.stop("stopped by the test").await;
    });
}
