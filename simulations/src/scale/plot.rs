//! Plots as SVG. The axis of nodes doubles with each step, so that what grows with log n is a straight line.

use std::collections::BTreeMap;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::IntoLogRange as _;

use super::measure::Measured;
use super::message::Kind;
use super::report::per_second;
use crate::page::bytes;
use crate::page::plot::{self, Axis, Line, Plot, PlotError, greatest, values};

/// All plots of a report.
pub(super) fn all(sizes: &[Measured]) -> Result<Vec<Plot>, PlotError> {
    let milliseconds = |value: &f64| format!("{value:.0}");
    let shown = |value: &f64| bytes(*value);
    let few = |value: &f64| format!("{value:.1} B");
    Ok(vec![
        linear("Time, ms: a straight line is log n", sizes, &times(sizes), milliseconds)?,
        linear("Idle: bytes a node sends to a neighbour a second", sizes, &by_kind(sizes, idle), few)?,
        logarithmic("Burst: bytes a node sends", sizes, &by_kind(sizes, |size| size.burst.bytes_by_kind.clone()), shown)?,
        logarithmic("Return of one node: bytes all nodes send", sizes, &by_kind(sizes, of_all), shown)?,
    ])
}

fn idle(size: &Measured) -> BTreeMap<Kind, f64> {
    per_second(size).bytes_by_kind.into_iter().map(|(kind, bytes)| (kind, bytes / size.neighbours)).collect()
}

fn of_all(size: &Measured) -> BTreeMap<Kind, f64> {
    let nodes = f64::from(size.nodes);
    size.returned.bytes_by_kind.iter().map(|(kind, bytes)| (*kind, bytes * nodes)).collect()
}

fn times(sizes: &[Measured]) -> Vec<Line> {
    type Time<'a> = &'a dyn Fn(&Measured) -> Option<f64>;
    let lines: [(&'static str, Time); 7] = [
        ("documents: half", &|size| size.documents.whole.then_some(size.documents.p50)),
        ("documents: 99 of 100", &|size| size.documents.whole.then_some(size.documents.p99)),
        ("documents: all", &|size| size.documents.whole.then_some(size.documents.max)),
        ("records: half", &|size| size.records.whole.then_some(size.records.p50)),
        ("records: all", &|size| size.records.whole.then_some(size.records.max)),
        ("join", &|size| size.join_ms),
        ("return", &|size| size.return_ms),
    ];
    let line = |(colour, (name, of)): (usize, (&'static str, Time))| {
        let point = |size: &Measured| of(size).map(|ms| (f64::from(size.nodes), ms));
        Line { name: name.to_owned(), colour, points: sizes.iter().filter_map(point).collect(), dots: true }
    };
    lines.into_iter().enumerate().map(line).collect()
}

fn by_kind(sizes: &[Measured], of: impl Fn(&Measured) -> BTreeMap<Kind, f64>) -> Vec<Line> {
    // A kind has one colour in all plots.
    let line = |(colour, kind): (usize, Kind)| {
        let point = |size: &Measured| of(size).get(&kind).map(|value| (f64::from(size.nodes), *value));
        Line { name: kind.name().to_owned(), colour, points: sizes.iter().filter_map(point).collect(), dots: true }
    };
    Kind::ALL.into_iter().enumerate().map(line).filter(|line| !line.points.is_empty()).collect()
}

fn linear(title: &str, sizes: &[Measured], lines: &[Line], shown: impl Fn(&f64) -> String) -> Result<Plot, PlotError> {
    draw(title, sizes, lines, 0.0..greatest(lines) * 1.08, shown)
}

fn logarithmic(title: &str, sizes: &[Measured], lines: &[Line], shown: impl Fn(&f64) -> String) -> Result<Plot, PlotError> {
    let least = values(lines).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min).max(1.0).min(greatest(lines));
    draw(title, sizes, lines, (least / 2.0..greatest(lines) * 2.0).log_scale(), shown)
}

fn draw<Y>(title: &str, sizes: &[Measured], lines: &[Line], y: Y, shown: impl Fn(&f64) -> String) -> Result<Plot, PlotError>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let first = sizes.first().map_or(8.0, |size| f64::from(size.nodes));
    let last = sizes.last().map_or(16.0, |size| f64::from(size.nodes)).max(first * 2.0);
    let x = Axis {
        name: "nodes",
        range: (first..last).log_scale().base(2.0),
        labels: sizes.len().max(2),
        shown: &|nodes| format!("{nodes:.0}"),
    };
    plot::draw(title, lines, x, Axis { name: "", range: y, labels: 10, shown: &shown })
}
