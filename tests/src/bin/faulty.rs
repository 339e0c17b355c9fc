//! A node with faults on demand and a clock that may be wrong; for tests only. The shipped binary has none of this.
//!
//! `TEST_FAULTS` names a file with a fault plan (`anabranch_actors::store::fault`), read again whenever it changes;
//! what was taken stands beside it, with the ending `taken`.
//! `TEST_CLOCK` is added to the wall clock, in milliseconds. `TEST_DISK_PATIENCE` is how long a call to the disk may take, in
//! milliseconds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anabranch_actors::node::{Clock, DISK_PATIENCE};
use anabranch_actors::store::{FaultEngine, FaultPlan, SledEngine};
use anabranch_node::builder::SystemClock;
use anabranch_node::run::World;
use anabranch_protocol::hlc::WallClock;

/// The system's clock, off by a fixed time.
#[derive(Debug)]
struct WrongClock(i64);

impl Clock for WrongClock {
    fn now(&self) -> WallClock {
        WallClock(SystemClock.now().0.saturating_add_signed(self.0))
    }
}

fn main() -> ExitCode {
    let plan = FaultPlan::default();
    if let Some(path) = std::env::var_os("TEST_FAULTS") {
        let plan = plan.clone();
        std::thread::spawn(move || follow(&plan, &PathBuf::from(path)));
    }
    let offset = std::env::var("TEST_CLOCK").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let patience = std::env::var("TEST_DISK_PATIENCE").ok().and_then(|text| text.parse().ok());
    let engine = Arc::new(FaultEngine::new(Arc::new(SledEngine::default()), plan.clone()));
    anabranch_node::cli::main(World {
        engine,
        clock: Arc::new(WrongClock(offset)),
        disk_patience: patience.map_or(DISK_PATIENCE, Duration::from_millis),
        probe: Some(Arc::new(plan)),
    })
}

fn follow(plan: &FaultPlan, path: &std::path::Path) {
    let mut known = String::new();
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text != known
        {
            plan.reload(&text).expect("a fault plan");
            std::fs::write(path.with_extension("taken"), &text).expect("a word that the plan was taken");
            known = text;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
