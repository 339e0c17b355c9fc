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
    let mut runs = 0;
    let mut parts = 2;
    loop {
        let numbers: Vec<usize> = best.faults.iter().map(|fault| fault.number).collect();
        let size = numbers.len().div_ceil(parts).max(1);
        let mut smaller = None;
        for part in numbers.chunks(size) {
            if runs == RUNS_MAX || numbers.len() < 2 && best.options.only.is_some() && numbers.is_empty() {
                return best;
            }
            runs += 1;
            let only: Vec<usize> = numbers.iter().copied().filter(|number| !part.contains(number)).collect();
            if let Some(found) = breaks(&Options { only: Some(only), ..best.options.clone() }) {
                smaller = Some(found);
                break;
            }
        }
        match smaller {
            Some(found) => {
                best = found;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => return best,
            None => parts = (parts * 2).min(numbers.len().max(1)),
        }
        if best.faults.is_empty() {
            return best;
        }
    }
}
