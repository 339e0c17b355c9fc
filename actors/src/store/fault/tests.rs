//! Faults strike when their plan says so, and only then.

use super::*;
use crate::store::MemoryEngine;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn opened(spec: &str) -> (Arc<dyn Store>, FaultPlan) {
    let plan: FaultPlan = spec.parse().expect("the plan is valid");
    let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone());
    (engine.open(Path::new("/d"), 0).expect("opens"), plan)
}

#[test]
fn a_rule_waits_strikes_its_count_and_stops() {
    let (store, plan) = opened("get:enospc:after=2:count=3");
    let outcomes: Vec<bool> = (0..8).map(|_| store.get(b"k").is_ok()).collect();
    assert_eq!(outcomes, [true, true, false, false, false, true, true, true]);
    assert_eq!(plan.struck(), 3);
}

#[test]
fn a_barrier_that_fails_poisons_on_either_side_and_is_done_only_after() {
    for (when, durable) in [("before", false), ("after", true)] {
        let memory = MemoryEngine::default();
        let plan: FaultPlan = format!("barrier:enospc:when={when}").parse().expect("valid");
        let engine = FaultEngine::new(Arc::new(memory.clone()), plan);
        let store = engine.open(Path::new("/d"), 0).expect("opens");
        store.put(b"k", b"v").expect("put");
        assert!(matches!(store.barrier(), Err(StoreError::NoSpace)));
        assert!(matches!(store.barrier(), Err(StoreError::Poisoned)));
        assert!(matches!(store.put(b"k", b"w"), Err(StoreError::Poisoned)));
        assert!(matches!(store.delete(b"k"), Err(StoreError::Poisoned)));
        assert_eq!(store.get(b"k").expect("reads go on"), Some(b"v".to_vec()));
        memory.crash(Path::new("/d"), || false);
        let again = engine.open(Path::new("/d"), 0).expect("opens again");
        assert_eq!(again.get(b"k").expect("get").is_some(), durable, "struck {when}");
    }
}

#[test]
fn a_panic_reaches_the_caller_and_poisons() {
    let (store, _plan) = opened("put:panic:when=after");
    assert!(catch_unwind(AssertUnwindSafe(|| store.put(b"k", b"v"))).is_err());
    assert_eq!(store.get(b"k").expect("get"), Some(b"v".to_vec()), "struck after the put");
    assert!(matches!(store.put(b"k", b"w"), Err(StoreError::Poisoned)));
}

#[test]
fn a_hanging_open_goes_on_once_released() {
    let plan: FaultPlan = "open:hang".parse().expect("valid");
    let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone());
    let (done, opened) = mpsc::channel();
    let opener = thread::spawn(move || done.send(engine.open(Path::new("/d"), 0).is_ok()));
    while plan.struck() == 0 {
        thread::yield_now();
    }
    assert!(opened.try_recv().is_err(), "it hangs");
    plan.clear();
    assert!(opened.recv_timeout(Duration::from_secs(10)).expect("released"));
    opener.join().expect("no panic").expect("received");
}

#[test]
fn open_faults_are_typed() {
    let plan = FaultPlan::default();
    let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan.clone());
    plan.reload("open:error; open:corrupt").expect("valid");
    assert!(matches!(engine.open(Path::new("/d"), 0), Err(OpenError::Io { .. })));
    assert!(matches!(engine.open(Path::new("/d"), 0), Err(OpenError::Corrupt { .. })));
    assert!(engine.open(Path::new("/d"), 0).is_ok());
}

#[test]
fn rules_are_read_from_text_and_bad_ones_change_nothing() {
    let plan: FaultPlan = "put:error:count=forever # broken disk\n barrier:delay:ms=5 ; ".parse().expect("valid");
    assert_eq!(plan.rules(), 2);
    let bad = ["put", "put:", "put:no", "x:error", "put:error:count=x", "put:error:ms=1", "put:delay", "put:error:1"];
    for text in bad {
        assert!(plan.reload(text).is_err(), "{text:?} is refused");
    }
    assert_eq!(plan.rules(), 2);
}

#[test]
fn a_rule_for_one_dataset_leaves_the_others_alone() {
    let plan: FaultPlan = "get:error:after=1:dataset=logs".parse().expect("valid");
    let engine = FaultEngine::new(Arc::new(MemoryEngine::default()), plan);
    let [logs, primary] = ["/d/logs", "/d/primary"].map(|dir| engine.open(Path::new(dir), 0).expect("opens"));
    assert!((0..3).all(|_| primary.get(b"k").is_ok()));
    assert_eq!([(); 3].map(|()| logs.get(b"k").is_ok()), [true, false, true]);
}
