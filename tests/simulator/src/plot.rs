//! One run of several policies as a picture: arrivals, backlog, replicas.

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

use crate::run::{Course, Note};
use crate::time::{count, seconds};

/// Width and height of the picture.
const SIZE: (u32, u32) = (1_200, 1_000);
/// A colour for each policy; told apart by people who don't see all colours, too (after Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

/// Why there is no picture.
#[derive(Debug, Error)]
#[error("the picture of {title:?} could not be drawn: {reason}")]
pub struct PlotError {
    /// Its title.
    title: String,
    /// What the drawing library says.
    reason: String,
}

/// A line with its name.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// The picture, in SVG, of the courses of several policies on one workload.
///
/// # Errors
/// When the drawing library fails.
pub fn svg(title: &str, courses: &[(String, Course)]) -> Result<String, PlotError> {
    let mut out = String::new();
    draw(&mut out, title, courses).map_err(|reason| PlotError { title: title.into(), reason })?;
    Ok(out)
}

fn draw(out: &mut String, title: &str, courses: &[(String, Course)]) -> Result<(), String> {
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    let panels = root.titled(title, ("sans-serif", 24)).map_err(|error| error.to_string())?.split_evenly((3, 1));
    let arrivals = courses.iter().take(1).map(|(_, course)| Line { name: "arrivals", points: arrivals(course) });
    panel(&panels[0], "arrivals/s", &arrivals.collect::<Vec<_>>())?;
    let of = |value: fn(&Note) -> f64| -> Vec<Line<'_>> {
        let points = |course: &Course| course.iter().map(|note| (minutes(note), value(note))).collect();
        courses.iter().map(|(name, course)| Line { name, points: points(course) }).collect()
    };
    panel(&panels[1], "tasks that wait", &of(|note| count(note.waiting)))?;
    panel(&panels[2], "replicas", &of(|note| f64::from(note.replicas)))?;
    root.present().map_err(|error| error.to_string())
}

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, label: &str, lines: &[Line<'_>]) -> Result<(), String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(1e-3, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top)
        .map_err(|error| error.to_string())?;
    // No lines between those with a number: they hide the curves.
    let mut mesh = chart.configure_mesh();
    mesh.max_light_lines(0).x_desc("minutes").y_desc(label).draw().map_err(|error| error.to_string())?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(series).map_err(|error| error.to_string())?;
        drawn.label(line.name).legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let mut labels = chart.configure_series_labels();
    let labels = labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).border_style(BLACK);
    labels.draw().map_err(|error| error.to_string())
}

/// Arrivals a second between two notes.
fn arrivals(course: &Course) -> Vec<(f64, f64)> {
    let rate = |pair: &[Note]| {
        let time = seconds(pair[1].at - pair[0].at);
        (minutes(&pair[1]), count(pair[1].arrived - pair[0].arrived) / time)
    };
    course.windows(2).map(rate).collect()
}

fn minutes(note: &Note) -> f64 {
    seconds(note.at) / 60.0
}
