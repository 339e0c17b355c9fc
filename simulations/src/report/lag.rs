//! How far replicas are behind, over time.

use super::Time;
use crate::page::counted;
use crate::page::plot::{self, Axis, COLOURS_MAX, GREY, Line, Plot, PlotError, RED, greatest};
use crate::page::table::{Table, heads};
use crate::page::whole;
use crate::world::{Lag, Report};

pub(super) const ABOUT: &str = "<p>Lag: how many commits the furthest live replica of a dataset is behind all that live replicas hold. \
                                Restarts: rebuilt children of a dataset, all nodes together, since the beginning.</p>";
/// Samples of a line at most: of more, the greatest of each few.
const SAMPLES_MAX: usize = 600;
/// Datasets at most, so that each has its colour; grey and red mean something else.
const DATASETS_MAX: usize = COLOURS_MAX - 2;

pub(super) fn plot(report: &Report) -> Result<Plot, PlotError> {
    over_time(report, "Lag", "commits behind", |lag| &lag.commits)
}

/// A number per dataset over time, with the moments that matter.
pub(super) fn over_time(report: &Report, title: &str, unit: &str, of: impl Fn(&Lag) -> &Vec<u64>) -> Result<Plot, PlotError> {
    let time = Time::of(report);
    let most = |dataset: usize| report.lag.iter().filter_map(|lag| of(lag).get(dataset)).max().copied().unwrap_or(0);
    let mut datasets: Vec<usize> = (0..report.datasets.len()).collect();
    datasets.sort_by_key(|dataset| std::cmp::Reverse(most(*dataset)));
    let left_out = datasets.len().saturating_sub(DATASETS_MAX);
    datasets.truncate(DATASETS_MAX);
    datasets.sort_unstable();
    let mut lines: Vec<Line> = datasets.iter().enumerate().map(|(n, dataset)| line(report, &time, n, *dataset, &of)).collect();
    let title = match left_out {
        0 => title.to_owned(),
        _ => format!("{title}, without the {} where it was least", counted(left_out as u64, "dataset")),
    };
    let top = (greatest(&lines) * 1.08).max(4.0);
    let upright = |name: &str, colour, ms| {
        let points = vec![(time.at(ms), 0.0), (time.at(ms), top)];
        Line { name: name.to_owned(), colour, points, dots: false }
    };
    lines.extend(report.healing_from_ms.map(|ms| upright("faults end", GREY, ms)));
    lines.extend(report.violations.first().map(|violation| upright("broken", RED, violation.at_ms)));
    let shown = |at: &f64| format!("{at:.0}");
    let of_whole = |value: &f64| if value.fract().abs() < 1e-6 { format!("{value:.0}") } else { String::new() };
    plot::draw(
        &title,
        &lines,
        Axis { name: time.name, range: 0.0..time.total, labels: 8, shown: &shown },
        Axis { name: unit, range: 0.0..top, labels: 6, shown: &of_whole },
    )
}

fn line(report: &Report, time: &Time, number: usize, dataset: usize, of: &impl Fn(&Lag) -> &Vec<u64>) -> Line {
    let samples: Vec<(u64, u64)> = report.lag.iter().filter_map(|lag| Some((lag.at_ms, *of(lag).get(dataset)?))).collect();
    let few = samples.len().div_ceil(SAMPLES_MAX).max(1);
    let greatest =
        |few: &[(u64, u64)]| few.iter().max_by_key(|(_, value)| *value).map(|(at, value)| (time.at(*at), whole(*value)));
    let points = std::iter::once((0.0, 0.0)).chain(samples.chunks(few).filter_map(greatest)).collect();
    Line { name: report.datasets[dataset].clone(), colour: [0, 1, 2, 4, 5, 6, 7][number % DATASETS_MAX], points, dots: true }
}

/// How long each dataset took once faults had ended.
pub(super) fn convergence(report: &Report) -> String {
    let Some(healing) = report.healing_from_ms else {
        return "<p>An invariant was broken before faults ended.</p>".to_owned();
    };
    let all = report.converged_after_ms.map_or_else(
        || format!("Not everything converged within {} s.", report.options.settle_s),
        |ms| format!("Everything was equal, and every receipt settled, after {}.", super::seconds(ms)),
    );
    let samples: Vec<&Lag> = report.lag.iter().filter(|lag| lag.at_ms >= healing).collect();
    let row = |(dataset, name): (usize, &String)| {
        let behind = |lag: &&Lag| lag.commits.get(dataset).copied().unwrap_or(0);
        // Samples right after the end of faults don't see nodes that are still starting.
        let caught_up = samples
            .iter()
            .rposition(|lag| behind(lag) > 0)
            .map_or(Some(0), |last| (last + 1 < samples.len()).then_some(last + 1));
        let after = caught_up.map_or_else(|| "not in time".to_owned(), |place| super::seconds(samples[place].at_ms - healing));
        let most = samples.iter().map(behind).max().unwrap_or(0);
        let first = samples.first().map_or(0, behind);
        vec![name.clone(), first.to_string(), most.to_string(), after]
    };
    let note =
        format!("{all} It was looked at every second; nodes that were down count from the second on in which they run again.");
    let heads = heads(&["dataset", "behind when faults ended", "most behind after that", "no one behind after"]);
    let rows = if samples.is_empty() { Vec::new() } else { report.datasets.iter().enumerate().map(row).collect() };
    Table { title: String::new(), note, heads, rows, words: false }.html()
}
