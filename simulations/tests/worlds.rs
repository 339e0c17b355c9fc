//! Worlds are reproducible, and the command line says what is wrong with its arguments.

use std::process::Command;

use anabranch_simulations::options::Options;
use anabranch_simulations::scenarios;
use anabranch_simulations::world::{self, Report};

fn short(scenario: &str, seed: u64) -> Report {
    let options = scenarios::find(scenario).unwrap();
    // So that something happens in ten seconds.
    world::run(&Options { seed, duration_s: 10, nodes: 3, intensity: 6.0, ..options }, false, |_| {})
}

#[test]
fn one_seed_is_one_trace_and_another_seed_another_one() {
    for scenario in ["default", "crashes", "copies"] {
        let (one, again, other) = (short(scenario, 3), short(scenario, 3), short(scenario, 4));
        assert_eq!((&one.trace, one.events), (&again.trace, again.events), "{scenario}");
        assert_ne!(one.trace, other.trace, "{scenario}");
        assert_eq!(one.violations, [], "{scenario}");
    }
}

/// What else runs on the machine, on other threads of this process too, changes nothing.
#[test]
fn a_trace_does_not_depend_on_what_runs_beside_it() {
    let alone = short("links", 1).trace;
    let beside: Vec<_> = (0..2).map(|_| std::thread::spawn(|| short("links", 1).trace)).collect();
    for other in beside {
        assert_eq!(other.join().unwrap(), alone);
    }
}

#[test]
fn every_scenario_plans_what_it_names() {
    for options in scenarios::all().into_iter().chain(scenarios::regressions()) {
        options.check().unwrap();
        let planned = anabranch_simulations::faults::plan(&Options { duration_s: 86_400, only: None, ..options.clone() });
        for kind in options.faults.keys() {
            assert!(planned.iter().any(|fault| fault.kind == *kind), "{}: {kind}", options.scenario);
        }
        assert!(planned.is_sorted_by_key(|fault| fault.at_ms));
    }
}

fn simulations(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_anabranch-simulations")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_to_do() {
    for (arguments, says) in [
        (vec!["run", "--scenario", "tuesday"], "there are: default, calm"),
        (vec!["run", "--seeds", "9..7"], "is after the last one"),
        (vec!["run", "--nodes", "0"], "`nodes` is 0; it has to be from 1 to 64"),
        (vec!["run", "--seed", "1", "--seeds", "1..2"], "cannot be used with"),
    ] {
        let (code, text) = simulations(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
}

#[test]
fn a_run_prints_its_seed_and_options_first_and_its_trace() {
    let (code, text) = simulations(&["run", "--scenario", "calm", "--seed", "5", "--nodes", "2", "--duration", "5s"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(lines[0], "seed: 5");
    assert!(lines[1].starts_with("options: {\"scenario\":\"calm\""), "{text}");
    assert!(lines[2].starts_with("trace: "), "{text}");
    let (_, list) = simulations(&["list"]);
    for named in ["partitions", "kill-in-write", "acked-durable", "a conflict with three writers"] {
        assert!(list.contains(named), "{list}");
    }
}
