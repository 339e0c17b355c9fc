//! The report of a run: JSON, and one page of HTML that needs nothing else.

mod faults;
mod lag;
mod nodes;
mod options;
mod states;
mod timeline;
mod traffic;
mod verdict;

use std::path::Path;
use std::{fs, io};

use crate::page;
use crate::world::Report;

/// Writes `report.json` and `report.html`.
///
/// # Errors
/// What the operating system says.
pub fn write(report: &Report, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("report.json"), serde_json::to_vec_pretty(report)?)?;
    fs::write(directory.join("report.html"), html(report)?)
}

/// The page: what came of it first, then what happened when, last what it was made of.
///
/// # Errors
/// Where a plot can't be drawn.
pub fn html(report: &Report) -> io::Result<String> {
    let plots = [lag::plot(report), nodes::plot(report)].into_iter().collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let plots: String = plots.iter().map(page::plot::Plot::html).collect();
    let sections = [
        verdict::html(report),
        section("timeline", "Timeline", &timeline::html(report)),
        section("lag", "Lag and restarts", &format!("{}<div class=\"plots\">{plots}</div>", lag::ABOUT)),
        section("convergence", "After the faults", &lag::convergence(report)),
        section("traffic", "Traffic", &traffic::html(report)),
        section("nodes", "Nodes", &nodes::html(report)),
        section("states", "Coverage of the <i>sometimes</i> checks", &states::html(report)),
        // Where something broke, they stand above.
        if report.violations.is_empty() { section("faults", "Faults", &faults::html(report)) } else { String::new() },
        section("options", "Options", &options::html(report)),
    ];
    Ok(page::page(
        &format!("Anabranch: simulation of {:?}, seed {}", report.options.scenario, report.options.seed),
        &sections.concat(),
    ))
}

/// `title` and `body` are HTML.
fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\"><h2>{title}</h2>\n{body}</section>\n")
}

/// A moment, in seconds, which no line is broken in.
fn seconds(ms: u64) -> String {
    format!("{:.1}\u{a0}s", page::whole(ms) / 1_000.0)
}

/// When faults stopped happening: then healing began, or the run broke.
fn faults_ended(report: &Report) -> u64 {
    report.healing_from_ms.unwrap_or(report.simulated_ms)
}

/// The axis of time: in seconds, or in minutes where there are many.
struct Time {
    name: &'static str,
    unit_ms: f64,
    /// How much there is, in the unit.
    total: f64,
}

impl Time {
    fn of(report: &Report) -> Self {
        let ms = page::whole(report.simulated_ms.max(1));
        let (name, unit_ms) = if ms > 7_200_000.0 { ("minutes", 60_000.0) } else { ("seconds", 1_000.0) };
        Self { name, unit_ms, total: ms / unit_ms }
    }

    fn at(&self, ms: u64) -> f64 {
        page::whole(ms) / self.unit_ms
    }

    /// Where a moment is, percent of all.
    fn percent(&self, ms: u64) -> f64 {
        (self.at(ms) / self.total * 100.0).clamp(0.0, 100.0)
    }

    /// A round step, so that there are at most eight.
    fn step(&self) -> f64 {
        let least = self.total / 8.0;
        let magnitude = 10_f64.powf(least.log10().floor());
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|round| round * magnitude).find(|step| *step >= least).unwrap_or(least)
    }
}
