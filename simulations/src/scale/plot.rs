//! Plots as SVG. The axis of nodes doubles with each step, so that what grows with log n is a straight line.

use std::collections::BTreeMap;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::measure::Measured;
use super::message::Kind;
use super::report::{bytes, per_second};

const SIZE: (u32, u32) = (640, 420);
/// Told apart also without colour vision: Okabe and Ito.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(150, 130, 0),
    RGBColor(120, 120, 120),
];

/// A plot could not be drawn.
#[derive(Debug)]
pub(super) struct PlotError(String);

impl std::fmt::Display for PlotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a plot could not be drawn: {}", self.0)
    }
}

impl std::error::Error for PlotError {}

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PlotError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

/// A plot, and what its lines are.
pub(super) struct Plot {
    pub svg: String,
    /// Names and colours, as CSS has them.
    pub legend: Vec<(&'static str, String)>,
}

struct Line {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

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
    let line = |((name, of), colour): ((&'static str, Time), &RGBColor)| {
        let point = |size: &Measured| of(size).map(|ms| (f64::from(size.nodes), ms));
        Line { name, colour: *colour, points: sizes.iter().filter_map(point).collect() }
    };
    lines.into_iter().zip(&COLOURS).map(line).collect()
}

fn by_kind(sizes: &[Measured], of: impl Fn(&Measured) -> BTreeMap<Kind, f64>) -> Vec<Line> {
    // A kind has one colour in all plots.
    let line = |(kind, colour): (Kind, &RGBColor)| {
        let point = |size: &Measured| of(size).get(&kind).map(|value| (f64::from(size.nodes), *value));
        Line { name: kind.name(), colour: *colour, points: sizes.iter().filter_map(point).collect() }
    };
    Kind::ALL.into_iter().zip(&COLOURS).map(line).filter(|line| !line.points.is_empty()).collect()
}

fn linear(title: &str, sizes: &[Measured], lines: &[Line], shown: impl Fn(&f64) -> String) -> Result<Plot, PlotError> {
    draw(title, sizes, lines, 0.0..greatest(lines) * 1.08, shown)
}

fn logarithmic(title: &str, sizes: &[Measured], lines: &[Line], shown: impl Fn(&f64) -> String) -> Result<Plot, PlotError> {
    let least = values(lines).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min).max(1.0).min(greatest(lines));
    draw(title, sizes, lines, (least / 2.0..greatest(lines) * 2.0).log_scale(), shown)
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> + '_ {
    lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value)
}

fn greatest(lines: &[Line]) -> f64 {
    values(lines).fold(1.0, f64::max)
}

fn draw<Y>(title: &str, sizes: &[Measured], lines: &[Line], y: Y, shown: impl Fn(&f64) -> String) -> Result<Plot, PlotError>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let first = sizes.first().map_or(8.0, |size| f64::from(size.nodes));
    let last = sizes.last().map_or(16.0, |size| f64::from(size.nodes)).max(first * 2.0);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 17))
            .margin(10)
            .margin_right(24)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d((first..last).log_scale().base(2.0), y)?;
        chart
            .configure_mesh()
            .x_desc("nodes")
            .x_labels(sizes.len().max(2))
            .x_label_formatter(&|nodes| format!("{nodes:.0}"))
            .y_label_formatter(&shown)
            .y_max_light_lines(1)
            .light_line_style(BLACK.mix(0.06))
            .bold_line_style(BLACK.mix(0.14))
            .draw()?;
        for line in lines {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), line.colour.stroke_width(2)))?;
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, line.colour.filled())))?;
        }
        area.present()?;
    }
    let css = |RGBColor(red, green, blue): RGBColor| format!("rgb({red},{green},{blue})");
    Ok(Plot { svg, legend: lines.iter().map(|line| (line.name, css(line.colour))).collect() })
}
