//! The checkers are tested: each known bug, planted in the code under test, is caught by some invariant within so many seeds, and the
//! same seeds are clean without it.
//!
//! ```sh
//! cargo test --release -p anabranch-simulations --features planted --test planted -- --test-threads=1 --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anabranch_protocol::planted::{Bug, plant};
use anabranch_simulations::faults::Kind;
use anabranch_simulations::invariants::Violation;
use anabranch_simulations::options::Options;
use anabranch_simulations::scenarios;
use anabranch_simulations::world;

/// Stack of a run's thread, as the command line gives it.
const STACK_BYTES: usize = 64 << 20;

/// How a bug is looked for.
struct Case {
    bug: Bug,
    scenario: &'static str,
    /// Faults a minute, where they are not those of the scenario.
    rates: &'static [(Kind, f64)],
    /// Nodes, where they are not as many as in the scenario.
    nodes: Option<usize>,
    /// Simulated seconds of faults and writes.
    seconds: u64,
    /// It has to be caught in one of the seeds from 1 up to this one.
    seeds: u64,
    /// By one of these.
    caught_by: &'static [&'static str],
}

impl Case {
    fn options(&self, seed: u64) -> Options {
        let mut options = Options { seed, duration_s: self.seconds, ..scenarios::find(self.scenario).unwrap() };
        options.faults.extend(self.rates.iter().copied());
        options.nodes = self.nodes.unwrap_or(options.nodes);
        options
    }

    /// What a run of a seed comes to, on a thread of its own.
    fn run(&self, seed: u64, bug: Option<Bug>) -> Vec<Violation> {
        let options = self.options(seed);
        let run = move || {
            plant(bug);
            world::run(&options, false, |_| {}).violations
        };
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
        thread.join().unwrap_or_else(|_| panic!("the world panicked in seed {seed} of {} with {bug:?}", self.scenario))
    }

    /// The same without the bug; other bugs share it.
    fn run_clean(&self, seed: u64) -> Vec<Violation> {
        static CLEAN: Mutex<BTreeMap<String, Vec<Violation>>> = Mutex::new(BTreeMap::new());
        let which = format!("{:?}", self.options(seed));
        let mut clean = CLEAN.lock().unwrap_or_else(PoisonError::into_inner);
        clean.entry(which).or_insert_with(|| self.run(seed, None)).clone()
    }

    fn check(&self) {
        let scenario = self.scenario;
        for seed in 1..=self.seeds {
            let clean = self.run_clean(seed);
            assert_eq!(clean, [], "{scenario}, seed {seed}, without a bug");
            if let Some(violation) = self.run(seed, Some(self.bug)).first() {
                let Violation { invariant, at_ms, how } = violation;
                println!(
                    "| {:?} | {scenario} | {} s | {seed} of {} | {invariant} | at {at_ms} ms: {how}",
                    self.bug, self.seconds, self.seeds
                );
                assert!(self.caught_by.contains(&invariant.as_str()), "{:?} was caught by {invariant}: {how}", self.bug);
                return;
            }
        }
        panic!("{:?} was not caught in {} seeds of {scenario}", self.bug, self.seeds);
    }
}

macro_rules! planted {
    ($($name:ident: $bug:ident in $scenario:literal $([$(($kind:ident, $rate:literal)),*])? $(with $nodes:literal nodes)?, $seconds:literal s, $seeds:literal seeds, by $by:expr;)*) => {
        $(#[test]
        fn $name() {
            let case = Case {
                bug: Bug::$bug,
                scenario: $scenario,
                rates: &[$($((Kind::$kind, $rate)),*)?],
                nodes: None$(.or(Some($nodes)))?,
                seconds: $seconds,
                seeds: $seeds,
                caught_by: &$by,
            };
            case.check();
        })*

        #[test]
        fn every_bug_is_looked_for() {
            let looked_for = BTreeSet::from([$(Bug::$bug),*]);
            assert_eq!(looked_for, Bug::ALL.iter().map(|(bug, _)| *bug).collect());
        }
    };
}

planted! {
    an_acknowledgement_before_the_barrier: AckBeforeFlush in "crashes", 30 s, 4 seeds, by ["acked-durable", "no-regress", "confirmed-is-durable"];
    a_mark_ahead_of_its_rows: MarkAhead in "crashes" [(KillInWrite, 12.0)], 30 s, 8 seeds, by ["acked-durable", "no-regress", "state-is-fold", "fault-isolation"];
    a_log_that_is_not_redone: SkipRedo in "crashes", 30 s, 4 seeds, by ["acked-durable", "no-regress", "confirmed-is-durable"];
    a_gap_that_is_accepted: AcceptGap in "hostile" [(Hostile, 4.0)], 30 s, 16 seeds, by ["contiguous-prefix", "acked-durable", "confirmed-is-durable", "fault-isolation"];
    a_fork_that_is_accepted: AcceptFork in "hostile" [(Hostile, 4.0)], 30 s, 16 seeds, by ["contiguous-prefix"];
    a_signature_that_nobody_checks: SkipSignature in "hostile" [(Hostile, 4.0)], 30 s, 16 seeds, by ["authorised"];
    a_commit_of_another_dataset: AnyDataset in "hostile" [(Hostile, 4.0)], 30 s, 16 seeds, by ["dataset-isolation"];
    a_clock_that_hears_nothing: SkipReceiveClock in "clocks", 30 s, 4 seeds, by ["stamped-after"];
    a_stamp_from_the_far_future: SkipSkewBound in "clocks" [(ClockAhead, 2.0)], 30 s, 4 seeds, by ["skew-bound"];
    half_a_commit: HalfACommit in "default", 30 s, 2 seeds, by ["state-is-fold", "whole-batches"];
    a_delete_that_is_lost: LostTombstone in "default", 30 s, 4 seeds, by ["state-is-fold"];
    what_arrives_last_wins: ArrivalOrder in "partitions", 30 s, 4 seeds, by ["state-is-fold"];
    a_truncation_that_is_forgotten: ForgetFloor in "default", 30 s, 6 seeds, by ["state-is-fold"];
    a_key_that_is_forgotten: ForgetKeys in "default", 30 s, 2 seeds, by ["exactly-once"];
    a_local_collection_that_leaks: LeakCollection in "default", 30 s, 2 seeds, by ["selective-sync"];
    sections_that_nobody_asked_for: SendAllSections in "default", 30 s, 2 seeds, by ["selective-sync"];
    a_confirmation_ahead_of_the_disk: ConfirmAhead in "links", 30 s, 4 seeds, by ["confirmed-is-durable"];
    a_receipt_for_what_was_not_delivered: ReceiptTooSoon in "partitions", 30 s, 4 seeds, by ["confirmed-is-durable"];
    nobody_pulls: NeverPull in "default", 30 s, 2 seeds, by ["convergence"];
    a_peer_that_is_given_up: GiveUp in "links" [(RequestsLost, 6.0)], 30 s, 6 seeds, by ["convergence"];
    what_is_lost_is_lost: SayOnce in "links" [(RequestsLost, 30.0), (GossipLost, 30.0), (Clog, 0.0), (BadLink, 0.0)] with 2 nodes, 20 s, 200 seeds, by ["convergence"];
    a_panic_that_spreads: SpreadPanics in "panics", 30 s, 2 seeds, by ["fault-isolation"];
    a_queue_without_a_bound: TakeEverything in "hostile" [(Hostile, 6.0), (DiskSlow, 6.0)], 60 s, 10 seeds, by ["bounded-queues"];
    damage_that_is_served: SkipChecksums in "rot" [(BitFlip, 30.0)], 30 s, 10 seeds, by ["state-is-fold", "authorised", "contiguous-prefix", "acked-durable"];
}
