//! Figures as pictures (SVG).

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::{
    chart::{ChartBuilder, LabelAreaPosition},
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea as _},
    prelude::{IntoLogRange as _, SVGBackend},
    series::LineSeries,
    style::{Palette as _, Palette99, WHITE},
};

use crate::{Figures, Second, Spread, figures::float};

/// Of one picture.
const SIZE_PX: (u32, u32) = (900, 320);

/// Points of a line that are shown each.
const POINTS_MAX: usize = 200;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Error = Box<dyn std::error::Error + Send + Sync>;

/// A figure of a run.
type OfRun = fn(&Figures) -> Option<f64>;

/// Lines over one axis.
struct Picture {
    /// What the upright axis is.
    upright: &'static str,
    /// It is logarithmic.
    is_log: bool,
    lines: Vec<Line>,
}

/// One line of a picture.
struct Line {
    name: String,
    /// From left to right.
    points: Vec<(f64, f64)>,
}

/// Latency and cost against size or load where runs differ in it, of several runs of one load the median; messages, latency, memory, open files and tasks against time if not.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_runs(path: &Path, all: &[Figures]) -> Result<()> {
    let mut transports: Vec<&str> = all.iter().map(|of| of.transport).collect();
    transports.dedup();
    let lines = |points: &dyn Fn(&str) -> Vec<(f64, f64)>| -> Vec<Line> {
        let line = |name: &&str| Line {
            name: (*name).to_owned(),
            points: points(name),
        };
        transports.iter().map(line).collect()
    };
    let of = |transport: &str| {
        let of: Vec<&Figures> = all.iter().filter(|of| of.transport == transport).collect();
        of
    };
    if let Some((across, of_run)) = varies(all) {
        let against = |upright: &dyn Fn(&Figures) -> Option<f64>| {
            lines(&|name| {
                let point = |of: &&Figures| Some((of_run(of)?, upright(of)?));
                medians(of(name).iter().filter_map(point).collect())
            })
        };
        let pictures = [
            Picture {
                upright: "p99 ms",
                is_log: true,
                lines: against(&|of| of.p99_ms),
            },
            Picture {
                upright: "server µs a delivery",
                is_log: false,
                lines: against(&|of| {
                    let deliveries_each = of.deliveries_per_s? / of.messages_per_s?;
                    Some(of.server_cpu_us_per_message? / deliveries_each)
                }),
            },
        ];
        return plot(path, across, true, &pictures);
    }
    let by_time = |of_second: &dyn Fn(&Second) -> Option<f64>| {
        let line = |of: &Figures| {
            let point = |second: &Second| Some((second.at_s, of_second(second)?));
            Line {
                name: match of.run {
                    Some(run) => format!("{}, run {run}", of.transport),
                    None => of.transport.to_owned(),
                },
                points: of.seconds.iter().filter_map(point).collect(),
            }
        };
        all.iter().map(line).collect()
    };
    let pictures = [
        Picture {
            upright: "messages/s acknowledged",
            is_log: false,
            lines: by_time(&|second| Some(float(second.acknowledged))),
        },
        Picture {
            upright: "p99 ms",
            is_log: true,
            lines: by_time(&|second| second.p99_ms),
        },
        Picture {
            upright: "server MiB",
            is_log: false,
            lines: by_time(&|second| Some(float(second.server_rss_bytes >> 20))),
        },
        Picture {
            upright: "server open files",
            is_log: false,
            lines: by_time(&|second| Some(float(u64::try_from(second.server_open_files).unwrap_or(u64::MAX)))),
        },
        Picture {
            upright: "server tasks",
            is_log: false,
            lines: by_time(&|second| second.server_tasks.map(float)),
        },
    ];
    let waits = Picture {
        upright: "fdatasync beside it, ms",
        is_log: true,
        lines: by_time(&|second| second.fdatasync_ms),
    };
    let is_drawn = waits.lines.iter().any(|line| !line.points.is_empty());
    let pictures: Vec<Picture> = pictures.into_iter().chain(is_drawn.then_some(waits)).collect();
    plot(path, "seconds", false, &pictures)
}

/// One point for each place across, at the median of all that are there.
fn medians(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let of_place = points.chunk_by(|a, b| a.0 == b.0).filter_map(|runs| {
        let median = Spread::of(runs.iter().map(|point| point.1))?.median;
        Some((runs.first()?.0, median))
    });
    of_place.collect()
}

/// What is not the same in all runs, and how much of it a run has.
fn varies(all: &[Figures]) -> Option<(&'static str, OfRun)> {
    let axes: [(&str, OfRun); 4] = [
        ("messages stored before", |of| Some(float(of.stored?.max(1)))),
        ("connections", |of| Some(float(u64::try_from(of.connections?).ok()?))),
        ("conversations", |of| {
            Some(float(u64::try_from(of.conversations?).ok()?))
        }),
        ("messages/s offered", |of| of.offered_per_s),
    ];
    let is_varied = |of_run: &OfRun| {
        let mut values = all.iter().filter_map(of_run);
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    axes.into_iter().find(|(_, of_run)| is_varied(of_run))
}

/// Draws pictures over one another, all with the same axis across; `is_log`: it is logarithmic.
fn plot(path: &Path, across: &str, is_log: bool, pictures: &[Picture]) -> Result<()> {
    let points = || {
        pictures
            .iter()
            .flat_map(|picture| &picture.lines)
            .flat_map(|line| &line.points)
    };
    let right = points().map(|point| point.0).fold(f64::NAN, f64::max);
    let left = points().map(|point| point.0).fold(right, f64::min);
    if right.is_nan() {
        anyhow::bail!("{}: there is nothing to draw", path.display());
    }
    let count = u32::try_from(pictures.len()).unwrap_or(u32::MAX);
    let area = SVGBackend::new(path, (SIZE_PX.0, SIZE_PX.1 * count)).into_drawing_area();
    let drawn = || -> Result<(), Error> {
        area.fill(&WHITE)?;
        for (part, picture) in area.split_evenly((pictures.len(), 1)).iter().zip(pictures) {
            picture.draw(part, across, is_log.then_some(left), right)?;
        }
        area.present()?;
        Ok(())
    };
    drawn()
        .map_err(anyhow::Error::from_boxed)
        .with_context(|| path.display().to_string())
}

impl Picture {
    /// `left`: of an axis across that is logarithmic.
    fn draw(&self, area: &Area<'_>, across: &str, left: Option<f64>, right: f64) -> Result<(), Error> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let top = points().map(|point| point.1).fold(0.0, f64::max);
        let bottom = points().map(|point| point.1).filter(|y| *y > 0.0).fold(top, f64::min);
        let mut chart = ChartBuilder::on(area);
        chart
            .margin(10)
            .set_label_area_size(LabelAreaPosition::Left, 70)
            .set_label_area_size(LabelAreaPosition::Bottom, 40);
        macro_rules! draw {
            ($across:expr, $upright:expr) => {{
                let mut chart = chart.build_cartesian_2d($across, $upright)?;
                chart
                    .configure_mesh()
                    .x_desc(across)
                    .y_desc(self.upright)
                    .draw()?;
                for (at, line) in self.lines.iter().enumerate() {
                    let color = Palette99::pick(at);
                    let key = move |(x, y): (i32, i32)| {
                        plotters::element::PathElement::new(vec![(x, y), (x + 18, y)], Palette99::pick(at))
                    };
                    // Where there are many points, the line says it all.
                    let size = if line.points.len() > POINTS_MAX { 0 } else { 2 };
                    chart
                        .draw_series(LineSeries::new(line.points.iter().copied(), &color).point_size(size))?
                        .label(line.name.as_str())
                        .legend(key);
                }
                chart
                    .configure_series_labels()
                    .border_style(Palette99::pick(7))
                    .draw()?;
            }};
        }
        let even = 0.0..top.max(1.0) * 1.1;
        let log = (bottom.max(0.001) / 1.2..top.max(0.001) * 1.2).log_scale();
        let seconds = 0.0..right * 1.02;
        match (left, self.is_log) {
            (Some(left), true) => draw!((left / 1.1..right * 1.1).log_scale(), log),
            (Some(left), false) => draw!((left / 1.1..right * 1.1).log_scale(), even),
            (None, true) => draw!(seconds, log),
            (None, false) => draw!(seconds, even),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn runs_at_several_rates_show_latency_and_one_run_shows_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.svg");
        let run = |rate: f64| Figures {
            transport: "quic",
            offered_per_s: Some(rate),
            p99_ms: Some(rate / 10.0),
            seconds: vec![
                Second {
                    at_s: 1.0,
                    acknowledged: 100,
                    p99_ms: Some(1.0),
                    refused: 0,
                    server_rss_bytes: 1 << 20,
                    server_open_files: 7,
                    server_tasks: Some(9),
                    fdatasync_ms: None,
                };
                3
            ],
            ..Figures::default()
        };
        plot_runs(&path, &[run(10.0), run(20.0)]).unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.contains("p99 ms") && svg.contains("quic"),
            "{svg}"
        );
        plot_runs(&path, &[run(10.0)]).unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        assert!(
            svg.contains("acknowledged") && svg.contains("open files") && svg.contains("tasks"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_is_not_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let error = plot_runs(&folder.path().join("a.svg"), &[]).unwrap_err();
        assert!(error.to_string().contains("nothing to draw"), "{error}");
    }
}
