//! Whatever a crash interrupts, there is the old store or the new one, and nothing of it is lost.

use std::time::Duration;

use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, DatasetId, Key};
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;

use super::*;
use crate::api::ListQuery;
use crate::runtime::Runtime;
use crate::store::{FaultEngine, FaultPlan, SledEngine};

const RIGHT: WallClock = WallClock(1_790_000_000_000);
const YEAR: u64 = 365 * 24 * 60 * 60 * 1_000;

fn orders() -> Collection {
    Collection::new("orders").unwrap()
}

fn settings() -> ReplicaSettings {
    ReplicaSettings {
        dataset: DatasetId::primary(),
        lineage: anabranch_protocol::id::Lineage::ZERO,
        kind: Kind::Documents,
        identity: anabranch_protocol::commit::Identity::from_secret(&[7; 32]),
        registration: anabranch_protocol::registration::Registration::all(),
        max_clock_skew: Duration::from_secs(300),
        writers: anabranch_protocol::access::Peers::All,
    }
}

/// A data directory with a dataset, half of whose commits are a year ahead.
struct Site {
    place: tempfile::TempDir,
    asides: Arc<Asides>,
    plan: FaultPlan,
    engine: Arc<dyn StoreEngine>,
}

impl Site {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let plan = FaultPlan::default();
        let engine = Arc::new(FaultEngine::new(Arc::new(SledEngine::default()), plan.clone()));
        let site = Self { asides: Asides::in_data_dir(place.path(), &DatasetId::primary()), place, plan, engine };
        std::fs::create_dir_all(site.asides.directory()).unwrap();
        let mut ledger = site.open();
        for (n, now) in (0..8).map(|n: u32| (n, if n < 4 { RIGHT } else { WallClock(RIGHT.0 + YEAR) })) {
            let op = Op::Put { key: Key::new(&format!("k{n}")).unwrap(), value: Value::Text("x".repeat(9_000)).encode() };
            let request = WriteRequest::new(vec![WriteOp { collection: orders(), op }]);
            ledger.write(now, &[request], &mut |bytes| Runtime::Threads.fill_random(bytes)).unwrap();
        }
        ledger.settle().unwrap();
        drop(ledger);
        site
    }

    fn open(&self) -> Ledger {
        finish_before_open(&self.asides).unwrap();
        Ledger::open(&*self.engine, self.asides.directory(), 1 << 20, settings(), &mut |bytes| {
            Runtime::Threads.fill_random(bytes)
        })
        .unwrap()
    }

    fn rebuilder(&self) -> Rebuilder {
        Rebuilder {
            runtime: Runtime::Threads,
            engine: self.engine.clone(),
            asides: self.asides.clone(),
            cache_bytes: 1 << 20,
            settings: settings(),
            lineage: LineageSetting::Open,
            now: RIGHT,
        }
    }

    /// Opens what is there, checks that all documents are, and says whether some of it is still ahead.
    fn is_old(&self) -> bool {
        let ledger = self.open();
        ledger.check().and_then(|()| ledger.audit()).unwrap();
        let query = ListQuery { limit: 100, ..ListQuery::default() };
        assert_eq!(ledger.view().list(&orders(), &query).unwrap().documents.len(), 8);
        assert_eq!(ledger.replica().vector().commits(), 8);
        ledger.replica().clock() > Hlc::at(WallClock(RIGHT.0 + YEAR / 2))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.place.path().join("datasets")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.ends_with(".registration"));
        names.sort();
        names
    }
}

#[test]
fn whatever_call_fails_the_store_is_the_old_one_or_the_new_one() {
    let mut failed = 0;
    for call in ["barrier", "put"] {
        for after in (0..).map(|n: u32| if call == "put" { n * 17 } else { n }) {
            let site = Site::new();
            site.plan.reload(&format!("{call}:error:after={after}")).unwrap();
            let done = site.rebuilder().run(&|| true);
            site.plan.reload("").unwrap();
            assert_eq!(site.is_old(), done.is_err(), "{call} {after}");
            if let Ok((rebuilt, aside)) = done {
                assert_eq!((rebuilt.commits, rebuilt.local), (4, 0));
                let aside = aside.unwrap();
                assert!(aside.path.is_dir() && aside.reason.starts_with("not damaged"));
                assert_eq!(site.names(), ["primary".to_owned(), format!("primary.aside-{}", aside.name)]);
                break;
            }
            assert_eq!(site.names(), ["primary"], "{call} {after}");
            failed += 1;
        }
    }
    assert!(failed > 10, "{failed} calls failed");
}

#[test]
fn a_rebuilt_store_takes_its_place_at_the_next_start_wherever_a_crash_came() {
    // The new store is whole; what else was done before the crash?
    for done in ["nothing", "noted", "set aside"] {
        let site = Site::new();
        let directory = site.asides.directory();
        let scratch = place(directory, "rebuilding");
        site.rebuilder().make(directory, &scratch, &|| true).unwrap();
        assert!(site.is_old() && site.names() == ["primary"], "before the rename there is the old one");
        let (_, new) = site.rebuilder().make(directory, &scratch, &|| true).unwrap();
        decide(directory, &new).unwrap();
        match done {
            "noted" => std::fs::write(directory.join("set-aside.json"), r#"{"at":"x","reason":"y"}"#).unwrap(),
            "set aside" => drop(site.asides.move_aside(REASON).unwrap()),
            _ => {}
        }
        assert!(!site.is_old(), "{done}");
        assert!(!site.is_old(), "{done}: and it stays");
        assert_eq!((site.asides.known().len(), site.names().len()), (1, 2), "{done}: {:?}", site.names());
    }
}

#[test]
fn nothing_is_changed_where_nobody_waits_any_more() {
    let site = Site::new();
    assert!(matches!(site.rebuilder().run(&|| false), Err(RebuildingError::Rebuild(RebuildError::Abandoned))));
    assert!(site.is_old() && site.names() == ["primary"]);
    // Nor where they left at the very end.
    let asked = std::cell::Cell::new(0);
    let count = || asked.replace(asked.get() + 1) < usize::MAX;
    Site::new().rebuilder().run(&count).unwrap();
    let left = std::cell::Cell::new(asked.get() - 1);
    let until_the_last = || left.replace(left.get().saturating_sub(1)) > 0;
    let abandoned = site.rebuilder().run(&until_the_last);
    assert!(matches!(abandoned, Err(RebuildingError::Rebuild(RebuildError::Abandoned))), "{abandoned:?}");
    assert!(site.is_old() && site.names() == ["primary"]);
}
