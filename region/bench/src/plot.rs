//! Figures as pictures (SVG).

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::{
    chart::{ChartBuilder, LabelAreaPosition},
    drawing::IntoDrawingArea as _,
    prelude::{IntoLogRange as _, SVGBackend},
    series::LineSeries,
    style::{Palette as _, Palette99, WHITE},
};

use crate::{Figures, figures::float};

const SIZE_PX: (u32, u32) = (900, 420);

/// One line of a picture.
struct Line {
    name: String,
    /// From left to right.
    points: Vec<(f64, f64)>,
}

/// Latency against load if the runs have several rates, throughput against time if not.
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
    let mut rates: Vec<u64> = all.iter().filter_map(|of| of.offered_per_s.map(f64::to_bits)).collect();
    rates.dedup();
    if rates.len() > transports.len() {
        let by_load = lines(&|name| {
            let point = |of: &&Figures| Some((of.offered_per_s?, of.p99_ms?));
            of(name).iter().filter_map(point).collect()
        });
        return plot(path, ("messages/s offered", "p99 ms"), true, &by_load);
    }
    let by_time = lines(&|name| {
        let last = of(name).pop().map_or(&[][..], |of| &of.seconds);
        last.iter()
            .map(|second| (second.at_s, float(second.acknowledged)))
            .collect()
    });
    plot(path, ("seconds", "messages/s acknowledged"), false, &by_time)
}

/// Draws lines over the axes of these names; `is_log`: the upright one is logarithmic.
fn plot(path: &Path, (across, upright): (&str, &str), is_log: bool, lines: &[Line]) -> Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::NAN, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    if right.is_nan() {
        anyhow::bail!("{}: there is nothing to draw", path.display());
    }
    let bottom = points().map(|point| point.1).fold(f64::NAN, f64::min);
    let area = SVGBackend::new(path, SIZE_PX).into_drawing_area();
    let drawn = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area);
        chart
            .margin(10)
            .set_label_area_size(LabelAreaPosition::Left, 70)
            .set_label_area_size(LabelAreaPosition::Bottom, 40);
        macro_rules! draw {
            ($upright:expr) => {{
                let mut chart = chart.build_cartesian_2d(0.0..right * 1.02, $upright)?;
                chart.configure_mesh().x_desc(across).y_desc(upright).draw()?;
                for (at, line) in lines.iter().enumerate() {
                    let color = Palette99::pick(at);
                    let key = move |(x, y): (i32, i32)| {
                        plotters::element::PathElement::new(vec![(x, y), (x + 18, y)], Palette99::pick(at))
                    };
                    chart
                        .draw_series(LineSeries::new(line.points.iter().copied(), &color).point_size(2))?
                        .label(line.name.as_str())
                        .legend(key);
                }
                chart
                    .configure_series_labels()
                    .border_style(Palette99::pick(7))
                    .draw()?;
            }};
        }
        if is_log {
            draw!((bottom.max(0.001) / 1.2..top * 1.2).log_scale());
        } else {
            draw!(0.0..top * 1.1);
        }
        area.present()?;
        Ok(())
    };
    drawn()
        .map_err(anyhow::Error::from_boxed)
        .with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Second;

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
                    p99_ms: 1.0,
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
        assert!(fs::read_to_string(&path).unwrap().contains("acknowledged"));
    }

    #[test]
    fn nothing_is_not_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let error = plot_runs(&folder.path().join("a.svg"), &[]).unwrap_err();
        assert!(error.to_string().contains("nothing to draw"), "{error}");
    }
}
