//! Lines over an axis, as SVG. Its colours are mapped to the page's by `style.css`, so that a plot is light or dark with the page.

use std::fmt::Write as _;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::escaped;

/// Small, so that its text can still be read when a phone shows all of it.
const SIZE: (u32, u32) = (480, 320);
const LABEL: (&str, i32) = ("sans-serif", 16);
/// With more points than this, dots would hide the line.
const DOTS_MAX: usize = 40;
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
/// How many colours there are: `c0` and so on in `style.css`.
pub(crate) const COLOURS_MAX: usize = COLOURS.len();
/// For what is no measurement.
pub(crate) const GREY: usize = 8;
/// For what went wrong.
pub(crate) const RED: usize = 3;

/// A plot could not be drawn.
#[derive(Debug)]
pub(crate) struct PlotError(String);

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

/// A line of a plot.
pub(crate) struct Line {
    pub name: String,
    /// Its place among the colours.
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    /// Whether points are seen, where there are few: they are what was measured.
    pub dots: bool,
}

/// An axis.
pub(crate) struct Axis<'a, R> {
    pub name: &'a str,
    pub range: R,
    /// About so many labels.
    pub labels: usize,
    pub shown: &'a dyn Fn(&f64) -> String,
}

/// A plot, and what its lines are.
pub(crate) struct Plot {
    title: String,
    svg: String,
    legend: Vec<(String, usize)>,
}

impl Plot {
    pub fn html(&self) -> String {
        let named = |(name, colour): &(String, usize)| format!("<span><i class=\"c{colour}\"></i>{}</span>", escaped(name));
        let title = escaped(&self.title);
        // The words beside it say what a reader that sees no picture needs.
        let svg = self.svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1);
        let mut html = format!("<figure><h3>{title}</h3>{svg}");
        let _ = writeln!(html, "<figcaption>{}</figcaption></figure>", self.legend.iter().map(named).collect::<String>());
        html
    }
}

/// The greatest value of all lines, at least 1.
pub(crate) fn greatest(lines: &[Line]) -> f64 {
    values(lines).fold(1.0, f64::max)
}

pub(crate) fn values(lines: &[Line]) -> impl Iterator<Item = f64> + '_ {
    lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value)
}

/// Draws lines.
pub(crate) fn draw<X, Y>(title: &str, lines: &[Line], x: Axis<'_, X>, y: Axis<'_, Y>) -> Result<Plot, PlotError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(6)
            .margin_right(20)
            .x_label_area_size(46)
            .y_label_area_size(72)
            .build_cartesian_2d(x.range, y.range)?;
        chart
            .configure_mesh()
            .label_style(LABEL)
            .axis_desc_style(LABEL)
            .x_desc(x.name)
            .x_labels(x.labels)
            .x_label_formatter(x.shown)
            .y_desc(y.name)
            .y_labels(y.labels)
            .y_label_formatter(y.shown)
            .x_max_light_lines(1)
            .y_max_light_lines(1)
            .light_line_style(BLACK.mix(0.06))
            .bold_line_style(BLACK.mix(0.14))
            .draw()?;
        for line in lines {
            let colour = COLOURS[line.colour % COLOURS_MAX];
            chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?;
            let dots = line.points.iter().filter(|_| line.dots && line.points.len() <= DOTS_MAX);
            chart.draw_series(dots.map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        area.present()?;
    }
    let legend = lines.iter().map(|line| (line.name.clone(), line.colour % COLOURS_MAX)).collect();
    Ok(Plot { title: title.to_owned(), svg, legend })
}
