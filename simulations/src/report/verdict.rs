//! What came of the run, in what it takes to act on it.

use std::fmt::Write as _;

use super::{faults, seconds};
use crate::invariants::{self, Violation};
use crate::page::{counted, escaped, grouped};
use crate::world::Report;

/// Shown at most: one broken rule can show in every message after it.
const VIOLATIONS_MAX: usize = 20;

pub(super) fn html(report: &Report) -> String {
    let verdict = if report.violations.is_empty() { held() } else { broken(report) };
    let (about, facts) = (escaped(&report.options.about), facts(report));
    format!("<p>{about}</p>\n<section id=\"verdict\">{verdict}{facts}</section>\n")
}

fn held() -> String {
    format!("<p class=\"verdict\">✓ All {} invariants held.</p>", invariants::all().len())
}

fn broken(report: &Report) -> String {
    let mut html = String::from("<div class=\"broken\">");
    report.violations.iter().take(VIOLATIONS_MAX).for_each(|violation| html.push_str(&explained(violation)));
    if let more @ 1.. = report.violations.len().saturating_sub(VIOLATIONS_MAX) {
        let _ = write!(html, "<p>And {more} more, which are in report.json.</p>");
    }
    let reproduce = escaped(&report.options.command());
    let _ = write!(html, "<h2>Reproduce</h2><pre>{reproduce}</pre><section id=\"faults\">");
    let _ = write!(html, "<h2>Faults</h2>{}</section></div>", faults::html(report));
    html
}

fn explained(violation: &Violation) -> String {
    let (name, how, at) = (escaped(&violation.invariant), escaped(&violation.how), seconds(violation.at_ms));
    let mut html = format!("<h2>✗ Broken: {name}</h2><p><b>At {at}:</b> {how}</p>");
    if let Some(invariant) = invariants::all().into_iter().find(|invariant| invariant.name() == violation.invariant) {
        let (statement, reason) = (escaped(invariant.statement()), escaped(invariant.reason()));
        let _ = write!(html, "<p><b>What holds:</b> {statement}. <b>Why:</b> {reason}.</p>");
    }
    html
}

/// Names, and values with a remark.
fn facts(report: &Report) -> String {
    let happened = report.faults.iter().filter(|fault| fault.at_ms <= report.simulated_ms).count() as u64;
    let commits: usize = report.commits.iter().sum();
    let requests: Vec<String> = report.requests.iter().map(|(outcome, count)| format!("{} {outcome}", grouped(*count))).collect();
    let facts = [
        ("Seed", report.options.seed.to_string(), "the same seed gives the same trace".to_owned()),
        ("Trace", report.trace.clone(), counted(report.events, "event")),
        converged(report),
        ("Simulated", seconds(report.simulated_ms), counted(report.nodes.len() as u64, "node")),
        ("Faults", grouped(happened), "that happened".to_owned()),
        ("Starts of nodes", grouped(report.starts), counted(report.restarts, "restart") + " of datasets"),
        ("Commits", grouped(commits as u64), format!("in {}", counted(report.datasets.len() as u64, "dataset"))),
        ("Requests", grouped(report.requests.values().sum()), requests.join(", ")),
    ];
    let shown = |(name, value, remark): &(&str, String, String)| {
        // A hash is not a number to be read at a glance.
        let value = if *name == "Trace" { format!("<code>{}</code>", escaped(value)) } else { escaped(value) };
        format!("<div><dt>{name}</dt><dd>{value}<small>{}</small></dd></div>\n", escaped(remark))
    };
    format!("<dl class=\"facts\">{}</dl>", facts.iter().map(shown).collect::<String>())
}

fn converged(report: &Report) -> (&'static str, String, String) {
    let (value, remark) = match (report.healing_from_ms, report.converged_after_ms) {
        (_, Some(ms)) => (seconds(ms), "after the last fault".to_owned()),
        (Some(_), None) => ("never".to_owned(), format!("within {} s after the last fault", report.options.settle_s)),
        (None, None) => ("not tried".to_owned(), "it broke before faults ended".to_owned()),
    };
    ("Converged", value, remark)
}
