use crate::faults::Kind;
use crate::{invariants, scenarios, sometimes};

pub(super) fn main() {
    println!("Scenarios (run --scenario NAME):");
    for scenario in scenarios::all() {
        println!("  {:<14} {}", scenario.scenario, scenario.about);
    }
    println!("\nRegressions, scenarios of one seed that once broke an invariant, and what it found:");
    for regression in scenarios::regressions() {
        println!("  {:<28} {}", regression.scenario, regression.about);
    }
    println!("\nFaults (a rate a minute, under `faults` of a scenario file):");
    for (kind, about) in Kind::ALL {
        println!("  {:<16} {about}", kind.to_string());
    }
    println!("\nInvariants:");
    for invariant in invariants::all() {
        println!("  {:<20} {}\n  {:<20} why: {}", invariant.name(), invariant.statement(), "", invariant.reason());
    }
    println!("\nStates that a campaign has to reach:");
    for state in sometimes::STATES {
        println!("  {state}");
    }
}
