//! Finds the faults that a broken invariant takes: leaves out halves, quarters and single ones for as long as it stays broken
//! (Zeller and Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, 2002).

use crate::options::Options;
use crate::world::Report;

/// Runs at most.
const RUNS_MAX: usize = 60;

/// The report of a run that breaks the same with as few faults as were found to be enough. `breaks` runs options and gives the report
/// where it is still broken.
pub fn shrink(report: Report, breaks: &mut dyn FnMut(&Options) -> Option<Report>) -> Report {
    let mut best = report;
    let (mut runs, mut parts) = (0, 1);
    while !best.faults.is_empty() && runs < RUNS_MAX {
        let numbers: Vec<usize> = best.faults.iter().map(|fault| fault.number).collect();
        let size = numbers.len().div_ceil(parts);
        let without = |part: &[usize]| numbers.iter().copied().filter(|number| !part.contains(number)).collect();
        let smaller = numbers.chunks(size).take(RUNS_MAX - runs).find_map(|part| {
            runs += 1;
            breaks(&Options { only: Some(without(part)), ..best.options.clone() })
        });
        match smaller {
            Some(found) => (best, parts) = (found, parts.saturating_sub(1).max(1)),
            None if size == 1 => break,
            None => parts = (parts * 2).min(numbers.len()),
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::faults::{self, Kind};

    fn report(options: &Options) -> Report {
        let faults = BTreeMap::from([(Kind::Kill, 20.0)]);
        let options = Options { duration_s: 60, faults, ..options.clone() };
        Report { faults: faults::plan(&options), options, ..Report::default() }
    }

    #[test]
    fn what_it_takes_is_left_and_nothing_else() {
        let whole = report(&Options::default());
        assert!(whole.faults.len() > 10);
        let needed = [whole.faults[2].number, whole.faults[9].number];
        let mut runs = 0;
        let found = shrink(whole, &mut |options| {
            runs += 1;
            let report = report(options);
            needed.iter().all(|number| report.faults.iter().any(|fault| fault.number == *number)).then_some(report)
        });
        assert_eq!(found.options.only, Some(needed.to_vec()));
        assert!(runs <= RUNS_MAX, "{runs}");
        assert!(shrink(found, &mut |options| Some(report(options))).faults.is_empty(), "no fault at all may be needed");
    }
}
