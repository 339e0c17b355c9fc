//! A store that holds a row as it once was is set aside while it runs, as any damaged one is.

use std::sync::Weak;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::dataset::layout;
use crate::store::SledEngine;

/// Lets a test at the store that a dataset has open.
#[derive(Debug, Default)]
pub(super) struct Shared {
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
    pub fn store(&self) -> Arc<dyn Store> {
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

async fn append(handle: &DatasetHandle) -> Result<(), WriteError> {
    let op = Op::Append { value: Value::from_json(b"1").unwrap().encode() };
    let request = WriteRequest::new(vec![WriteOp { collection: collection(), op }]);
    tokio::time::timeout(DEADLINE, handle.write(request)).await.expect("no caller ever hangs").map(drop)
}

#[test]
fn a_record_that_is_in_no_index_has_its_store_set_aside() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let engine = Arc::new(Shared::default());
        let node = settings(engine.clone(), &FaultPlan::default(), DEADLINE);
        let node = NodeSettings { data_dir: place.path().to_owned(), cache_bytes: 1 << 20, ..node };
        let logs = start_as(Kind::Append, &node, "logs", Duration::from_millis(1));
        let deadline = Instant::now() + DEADLINE;
        for _ in 0..20 {
            append(&logs).await.unwrap();
        }
        let before = walks(&logs).await;
        while walks(&logs).await < before + 2 {
            assert!(Instant::now() < deadline, "no walk came to its end");
            append(&logs).await.unwrap();
        }
        assert!(logs.set_aside().is_empty() && logs.info().await.restarts == 0, "a false alarm");

        let (newest, _) = engine.store().last(b"x", b"y").unwrap().unwrap();
        engine.store().delete(&newest).unwrap();
        while logs.set_aside().is_empty() {
            assert!(Instant::now() < deadline, "it was not noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let [aside] = &logs.set_aside()[..] else { panic!("one store was set aside") };
        assert!(aside.reason.contains("index"), "{}", aside.reason);
        while append(&logs).await.is_err() {
            assert!(Instant::now() < deadline, "it never came back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        logs.stop("stopped by the test").await;
    });
}

/// A clock that a test sets.
#[derive(Debug)]
struct SetClock(AtomicU64);

impl crate::node::Clock for SetClock {
    fn now(&self) -> WallClock {
        WallClock(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn a_key_that_is_over_is_forgotten_in_the_background() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let engine = Arc::new(Shared::default());
        let clock = Arc::new(SetClock(AtomicU64::new(1_790_000_000_000)));
        let node = settings(engine.clone(), &FaultPlan::default(), DEADLINE);
        let node = NodeSettings { data_dir: place.path().to_owned(), cache_bytes: 1 << 20, clock: clock.clone(), ..node };
        let logs = start_at_pace(&node, "logs", Duration::from_millis(1));
        let op = Op::Put { key: key(1), value: Value::from_json(b"1").unwrap().encode() };
        let request = WriteRequest::once(vec![WriteOp { collection: collection(), op }], &"once".parse().unwrap());
        let key = request.idempotency.unwrap().key;
        let first = logs.write(request.clone()).await.unwrap();
        let (deadline, before) = (Instant::now() + DEADLINE, walks(&logs).await);
        while walks(&logs).await < before + 2 {
            assert!(Instant::now() < deadline, "no walk came to its end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs.write(request).await, Ok(first), "not before its time");
        assert_eq!(logs.remembers(key).await, Ok(true));
        clock.0.fetch_add(24 * 60 * 60 * 1_000, Ordering::SeqCst);
        while engine.store().get(&layout::remembered_key(&key)).unwrap().is_some() {
            assert!(Instant::now() < deadline, "it stays for ever");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs.remembers(key).await, Ok(false));
        logs.stop("stopped by the test").await;
    });
}
