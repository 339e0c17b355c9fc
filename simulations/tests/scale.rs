//! The simulation of the pure rules at scale: one seed is one trace, networks converge, and one whose rules are left out does not.

use std::time::Duration;

use anabranch_simulations::scale::{Kind, Measured, Rules, Settings, measure};

const NONE: Rules = Rules { push_on: false, state: false, announce: false, rounds: false };

fn settings(nodes: u32, degree: u32) -> Settings {
    let (idle, away) = (Duration::from_secs(60), Duration::from_secs(120));
    Settings { writers: 3, idle, away, ..Settings::of(nodes, degree, 3, 7) }
}

fn measured(nodes: u32, degree: u32, rules: Rules) -> Measured {
    measure(&Settings { rules, ..settings(nodes, degree) })
}

#[test]
fn one_seed_is_one_trace() {
    let [once, again] = [7, 7].map(|seed| measure(&Settings { seed, ..settings(12, 4) }));
    assert_eq!(Measured { took_s: 0.0, ..once.clone() }, Measured { took_s: 0.0, ..again });
    assert_ne!(once.trace, measure(&Settings { seed: 8, ..settings(12, 4) }).trace);
}

#[test]
fn networks_converge_and_everybody_hears_of_it() {
    for (nodes, degree) in [(2, 2), (3, 4), (9, 8), (24, 4)] {
        let measured = measured(nodes, degree, Rules::ALL);
        assert!(measured.converged(), "{nodes} nodes: {measured:#?}");
        assert!((measured.confirmed_percent - 100.0).abs() < f64::EPSILON, "{nodes} nodes: {measured:#?}");
        assert!(measured.documents.max < 2_000.0 && measured.records.max < 5_000.0, "{nodes} nodes: {measured:#?}");
    }
}

#[test]
fn where_nothing_is_handed_on_only_neighbours_get_it() {
    let measured = measure(&Settings { writers: 1, rules: NONE, ..settings(24, 4) });
    assert!(measured.join_ms.is_some());
    assert!(!measured.documents.whole && !measured.records.whole && !measured.equal && !measured.converged());
}

#[test]
fn each_way_of_handing_on_is_enough_for_all_to_get_it() {
    let alone = [
        ("pushes", Rules { push_on: true, ..NONE }),
        ("statements", Rules { state: true, ..NONE }),
        ("rounds", Rules { rounds: true, ..NONE }),
    ];
    for (name, rules) in alone {
        let measured = measured(24, 4, rules);
        assert!(measured.documents.whole, "{name} alone: {measured:#?}");
        // Records are not pushed.
        assert_eq!(measured.records.whole, !rules.push_on, "{name} alone: {measured:#?}");
    }
}

#[test]
fn what_an_idle_neighbour_costs_does_not_depend_on_the_number_of_nodes() {
    let per_neighbour = |nodes: u32| {
        let Measured { idle, neighbours, .. } = measured(nodes, 4, Rules::ALL);
        assert!(idle.bytes_by_kind.keys().all(|kind| matches!(kind, Kind::Round | Kind::Heads)), "{idle:?}");
        // One round in twenty compares every dataset.
        assert!(idle.bytes_by_kind.get(&Kind::Heads).is_none_or(|heads| *heads < idle.bytes_by_kind[&Kind::Round]), "{idle:?}");
        idle.bytes / neighbours
    };
    let (few, many) = (per_neighbour(12), per_neighbour(48));
    assert!((few / many - 1.0).abs() < 0.02, "{few} and {many} bytes");
}
