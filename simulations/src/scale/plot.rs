//! Plots as SVG. The axis of nodes doubles with each step, so that what grows with log n is a straight line.

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

struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// All plots of a report.
pub(super) fn all(sizes: &[Measured]) -> Result<Vec<String>, PlotError> {
    let milliseconds = |value: &f64| format!("{value:.0}");
    let shown = |value: &f64| bytes(*value);
    Ok(vec![
        linear("Time, ms: a straight line is log n", sizes, &times(sizes), milliseconds)?,
        linear("Idle: bytes a node sends a second", sizes, &by_kind(sizes, |size| per_second(size).bytes_by_kind), shown)?,
        logarithmic("Burst: bytes a node sends", sizes, &by_kind(sizes, |size| size.burst.bytes_by_kind.clone()), shown)?,
        logarithmic("Return of one node: bytes all nodes send", sizes, &by_kind(sizes, of_all), shown)?,
    ])
}

fn of_all(size: &Measured) -> std::collections::BTreeMap<Kind, f64> {
    let nodes = f64::from(size.nodes);
    size.returned.bytes_by_kind.iter().map(|(kind, bytes)| (*kind, bytes * nodes)).collect()
}

fn times(sizes: &[Measured]) -> Vec<Line> {
    let line = |name, of: &dyn Fn(&Measured) -> Option<f64>| {
        let point = |size: &Measured| of(size).map(|ms| (f64::from(size.nodes), ms));
        Line { name, points: sizes.iter().filter_map(point).collect() }
    };
    vec![
        line("documents: half", &|size| size.documents.whole.then_some(size.documents.p50)),
        line("documents: 99 of 100", &|size| size.documents.whole.then_some(size.documents.p99)),
        line("documents: all", &|size| size.documents.whole.then_some(size.documents.max)),
        line("records: half", &|size| size.records.whole.then_some(size.records.p50)),
        line("records: all", &|size| size.records.whole.then_some(size.records.max)),
        line("join", &|size| size.join_ms),
        line("return", &|size| size.return_ms),
    ]
}

fn by_kind(sizes: &[Measured], of: impl Fn(&Measured) -> std::collections::BTreeMap<Kind, f64>) -> Vec<Line> {
    let line = |kind: Kind| {
        let point = |size: &Measured| of(size).get(&kind).map(|value| (f64::from(size.nodes), *value));
        Line { name: kind.name(), points: sizes.iter().filter_map(point).collect() }
    };
    Kind::ALL.into_iter().map(line).filter(|line| !line.points.is_empty()).collect()
}

fn linear(title: &str, sizes: &[Measured], lines: &[Line], shown: impl Fn(&f64) -> String) -> Result<String, PlotError> {
    draw(title, sizes, lines, 0.0..greatest(lines) * 1.08, shown)
}

fn logarithmic(title: &str, sizes: &[Measured], lines: &[Line], shown: impl Fn(&f64) -> String) -> Result<String, PlotError> {
    let least = values(lines).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min).max(1.0).min(greatest(lines));
    draw(title, sizes, lines, (least / 2.0..greatest(lines) * 2.0).log_scale(), shown)
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> + '_ {
    lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value)
}

fn greatest(lines: &[Line]) -> f64 {
    values(lines).fold(1.0, f64::max)
}

fn draw<Y>(title: &str, sizes: &[Measured], lines: &[Line], y: Y, shown: impl Fn(&f64) -> String) -> Result<String, PlotError>
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
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}
