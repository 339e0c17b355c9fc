//! The faults as a list: for fingers, which can't hover over a timeline, and what is left of the plan where something broke.

use super::{faults_ended, seconds};
use crate::faults::{self, Fault, Kind};
use crate::options::Options;
use crate::page::counted;
use crate::page::table::{Table, heads};
use crate::world::Report;

/// Rows at most: a page of megabytes helps nobody, and the JSON has all.
const ROWS_MAX: usize = 500;

pub(super) fn html(report: &Report) -> String {
    if report.faults.is_empty() {
        return format!("<p>{} There is none.</p>", which(report));
    }
    let row = |fault: &Fault| {
        let lasts = match fault.lasts_ms {
            _ if fault.at_ms > faults_ended(report) => "it broke before".to_owned(),
            0 => "at once".to_owned(),
            ms => seconds(ms),
        };
        let (number, at, kind) = (fault.number.to_string(), seconds(fault.at_ms), fault.kind.to_string());
        vec![number, at, lasts, kind, place(report, fault), about(fault.kind).to_owned()]
    };
    let table = Table {
        title: String::new(),
        note: which(report),
        heads: heads(&["#", "at", "lasts", "fault", "where", "what it does"]),
        rows: report.faults.iter().take(ROWS_MAX).map(row).collect(),
        words: true,
    };
    let more = report.faults.len().saturating_sub(ROWS_MAX);
    let more = if more > 0 { format!("<p>And {more} more, which are in report.json.</p>") } else { String::new() };
    table.html() + &more
}

/// Which of the plan these are.
fn which(report: &Report) -> String {
    let planned = faults::plan(&Options { only: None, ..report.options.clone() }).len() as u64;
    match (&report.options.only, report.violations.is_empty()) {
        (None, _) => format!("All of the plan: {}.", counted(planned, "fault")),
        (Some(_), true) => format!("Only these of the {} of the plan happened, as was asked for.", counted(planned, "fault")),
        (Some(_), false) => format!(
            "Of the {} of the plan these were left in: with them alone it breaks, and this whole page is of the run with them alone.",
            counted(planned, "fault")
        ),
    }
}

/// Whom it hits: what it says is what the fault looks at.
pub(super) fn place(report: &Report, fault: &Fault) -> String {
    let dataset = usize::try_from(fault.dataset).ok().and_then(|place| report.datasets.get(place));
    let dataset = dataset.map_or_else(|| format!("dataset {}", fault.dataset), Clone::clone);
    match fault.kind {
        Kind::Partition | Kind::Ring => "all links".to_owned(),
        Kind::Join => "a new node".to_owned(),
        Kind::Panic | Kind::SupervisorStorm | Kind::BitFlip | Kind::Registration => format!("node {}, {dataset}", fault.node),
        _ => format!("node {}", fault.node),
    }
}

pub(super) fn about(kind: Kind) -> &'static str {
    Kind::ALL.iter().find(|(one, _)| *one == kind).map_or("", |(_, about)| about)
}
