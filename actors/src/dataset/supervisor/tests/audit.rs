//! A store that holds a row as it once was is set aside while it runs, as any damaged one is.

use std::sync::Weak;

use super::*;
use crate::dataset::layout;
use crate::store::SledEngine;

/// Lets a test at the store that a dataset has open.
#[derive(Debug, Default)]
struct Shared {
    inner: SledEngine,
    open: Mutex<Option<Weak<dyn Store>>>,
}

impl StoreEngine for Shared {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Store>, OpenError> {
        let store = self.inner.open(dir, cache_bytes)?;
        *self.open.lock().unwrap() = Some(Arc::downgrade(&store));
        Ok(store)
    }
}

impl Shared {
    fn store(&self) -> Arc<dyn Store> {
        self.open.lock().unwrap().as_ref().and_then(Weak::upgrade).unwrap()
    }
}

async fn walks(handle: &DatasetHandle) -> u64 {
    handle.info().await.contents.map_or(0, |contents| contents.row_audit.walks)
}

#[test]
fn a_row_as_it_once_was_has_its_store_set_aside() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let engine = Arc::new(Shared::default());
        let node = settings(engine.clone(), &FaultPlan::default(), DEADLINE);
        let node = NodeSettings { data_dir: place.path().to_owned(), cache_bytes: 1 << 20, ..node };
        let logs = start_at_pace(&node, "logs", Duration::from_millis(1));
        for number in 0..20 {
            put(&logs, number).await.unwrap();
        }
        let row = layout::row_key(&collection(), &key(7));
        let old = engine.store().get(&row).unwrap().unwrap();
        put(&logs, 7).await.unwrap();
        assert_ne!(engine.store().get(&row).unwrap().unwrap(), old);
        let deadline = Instant::now() + DEADLINE;
        let before = walks(&logs).await;
        while walks(&logs).await < before + 2 {
            assert!(Instant::now() < deadline, "no walk came to its end");
            put(&logs, 8).await.unwrap();
        }
        assert!(logs.set_aside().is_empty() && logs.info().await.restarts == 0, "a false alarm");

        engine.store().put(&row, &old).unwrap();
        while logs.set_aside().is_empty() {
            assert!(Instant::now() < deadline, "it was not noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let [aside] = &logs.set_aside()[..] else { panic!("one store was set aside") };
        assert_eq!(aside.reason, "the rows of c are not what their tally says");
        while put(&logs, 9).await.is_err() {
            assert!(Instant::now() < deadline, "it never came back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs.get(collection(), key(7)).await.unwrap(), None, "what was wrong is not served");
        assert!(logs.get(collection(), key(9)).await.unwrap().is_some());
        logs.stop("stopped by the test").await;
    });
}
