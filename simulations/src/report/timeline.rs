//! What happened when: a lane for each kind of fault, and one for each node.
//!
//! Bars are boxes of HTML rather than a picture, so that names stay readable however narrow the page is.

use std::fmt::Write as _;

use super::faults::{about, place};
use super::{Time, faults_ended, seconds};
use crate::faults::{Fault, Kind};
use crate::page::{counted, escaped};
use crate::world::Report;

/// Bars of a lane at most: more than that are a smear.
const BARS_MAX: usize = 400;
/// Nodes at most.
const NODES_MAX: usize = 80;

struct Lane {
    name: String,
    note: String,
    bars: Vec<Bar>,
}

struct Bar {
    from_ms: u64,
    to_ms: u64,
    class: &'static str,
    title: String,
}

pub(super) fn html(report: &Report) -> String {
    let time = Time::of(report);
    let broken = report.violations.first().map_or(-1.0, |violation| time.percent(violation.at_ms));
    let healing = report.healing_from_ms.map_or(100.0, |ms| time.percent(ms));
    let mut html = key(report);
    let _ = writeln!(
        html,
        "<div class=\"lanes timeline\" style=\"--step:{:.3}%;--healing:{healing:.3}%;--broken:{}\">",
        time.step() / time.total * 100.0,
        if broken < 0.0 { "-9px".to_owned() } else { format!("calc({broken:.3}% - 1px)") },
    );
    for lane in lanes(report) {
        html.push_str(&lane.html(&time));
    }
    html + &axis(&time) + "</div>\n"
}

/// What the colours mean.
fn key(report: &Report) -> String {
    let mut key = String::from(
        "<p>A bar tells what it is under a pointer; the <a href=\"#faults\">list of faults</a> says the same.</p><div class=\"key\">",
    );
    for (class, name) in
        [("c1", "links"), ("c4", "processes and disks"), ("c5", "clocks, members, peers"), ("c0", "a node was up")]
    {
        let _ = write!(key, "<span><i class=\"{class}\"></i>{name}</span>");
    }
    if report.healing_from_ms.is_some() {
        key.push_str("<span><i class=\"healing\"></i>no more faults: all has to converge</span>");
    }
    if !report.violations.is_empty() {
        key.push_str("<span><i class=\"bad\"></i>an invariant was broken</span>");
    }
    key + "</div>\n"
}

fn lanes(report: &Report) -> Vec<Lane> {
    let broken = (!report.violations.is_empty()).then(|| violations(report));
    let faults = Kind::ALL.iter().filter_map(|(kind, _)| faults(report, *kind));
    let lived = report.nodes.iter().enumerate().filter(|(_, node)| !node.lives.is_empty()).take(NODES_MAX);
    broken.into_iter().chain(faults).chain(lived.map(|(node, _)| lives(report, node))).collect()
}

fn violations(report: &Report) -> Lane {
    let bar = |violation: &crate::invariants::Violation| Bar {
        from_ms: violation.at_ms,
        to_ms: violation.at_ms,
        class: "bad",
        title: format!("{}: {}: {}", seconds(violation.at_ms), violation.invariant, violation.how),
    };
    Lane { name: "broken".to_owned(), note: String::new(), bars: report.violations.iter().map(bar).collect() }
}

/// Nothing where there was none of the kind.
fn faults(report: &Report, kind: Kind) -> Option<Lane> {
    let ended = faults_ended(report);
    let happened: Vec<&Fault> = report.faults.iter().filter(|fault| fault.kind == kind && fault.at_ms <= ended).collect();
    let bar = |fault: &&Fault| {
        let to_ms = (fault.at_ms + fault.lasts_ms).min(ended);
        let until = if fault.lasts_ms == 0 { String::new() } else { format!(" to {}", seconds(to_ms)) };
        let title =
            format!("#{} {kind}, {}: {}{until}: {}", fault.number, place(report, fault), seconds(fault.at_ms), about(kind));
        Bar { from_ms: fault.at_ms, to_ms, class: class(kind), title }
    };
    let bars: Vec<Bar> = happened.iter().map(bar).collect();
    (!bars.is_empty()).then(|| Lane { name: kind.to_string(), note: format!("×{}", bars.len()), bars })
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Partition | Kind::OneWay | Kind::Bridge | Kind::Ring => "c1",
        Kind::Clog | Kind::BadLink | Kind::GossipLost | Kind::RequestsLost => "c1",
        Kind::Kill | Kind::KillInWrite | Kind::Pause | Kind::RestartLoop | Kind::Panic | Kind::SupervisorStorm => "c4",
        Kind::BitFlip | Kind::ReadFlips | Kind::DiskFull | Kind::DiskBroken | Kind::DiskSlow => "c4",
        _ => "c5",
    }
}

fn lives(report: &Report, node: usize) -> Lane {
    let lives = &report.nodes[node].lives;
    let bar = |(number, life): (usize, &crate::world::LifeSpan)| {
        let to_ms = life.to_ms.unwrap_or(report.simulated_ms);
        let until = life.to_ms.map_or_else(|| "the end".to_owned(), seconds);
        let title = format!("node {node}, life {}: {} to {until}", number + 1, seconds(life.from_ms));
        Bar { from_ms: life.from_ms, to_ms, class: "c0", title }
    };
    let bars: Vec<Bar> = lives.iter().enumerate().map(bar).collect();
    Lane { name: format!("node {node}"), note: counted(bars.len() as u64, "start"), bars }
}

impl Lane {
    fn html(&self, time: &Time) -> String {
        let mut html = String::new();
        let (name, note) = (escaped(&self.name), escaped(&self.note));
        let _ = write!(html, "<div class=\"lane\"><span>{name} <small>{note}</small></span><div class=\"track\">");
        for Bar { from_ms, to_ms, class, title } in self.bars.iter().take(BARS_MAX) {
            let left = time.percent(*from_ms);
            let (width, title) = (time.percent(*to_ms) - left, escaped(title));
            // What begins in the very end is seen too.
            let left = format!("min({left:.3}%, 100% - 6px)");
            let _ = write!(html, "<i class=\"{class}\" style=\"left:{left};width:{width:.3}%\" title=\"{title}\"></i>");
        }
        html + "</div></div>\n"
    }
}

fn axis(time: &Time) -> String {
    let step = time.step();
    let mut html = format!("<div class=\"lane axis\"><span>{}</span><div class=\"track\">", time.name);
    for at in std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at <= time.total) {
        let percent = at / time.total * 100.0;
        let class = if percent > 96.0 { " class=\"last\"" } else { "" };
        // A fraction only where the step has one.
        let shown = if step < 1.0 { format!("{at:.1}") } else { format!("{at:.0}") };
        let _ = write!(html, "<span{class} style=\"left:{percent:.3}%\">{shown}</span>");
    }
    html + "</div></div>\n"
}
