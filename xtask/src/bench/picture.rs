//! Lines over time, a panel above the other.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 760);
const COLOURS: [RGBColor; 8] = [
    RGBColor(200, 30, 30),
    RGBColor(120, 120, 120),
    RGBColor(30, 90, 200),
    RGBColor(30, 150, 90),
    RGBColor(150, 60, 180),
    RGBColor(220, 130, 20),
    RGBColor(0, 150, 170),
    RGBColor(90, 70, 40),
];

/// Its unit, and each line's name and points.
pub(super) type Panel = (&'static str, Vec<(String, Vec<(f64, f64)>)>);

/// As an SVG document.
pub(super) fn svg(panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&root, panels).map_err(|error| anyhow!("picture: {error}"))?;
    }
    Ok(text)
}

fn draw(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    panels: &[Panel],
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    for (area, (unit, series)) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let points = || series.iter().flat_map(|(_, points)| points);
        let width = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let height = points().map(|(_, y)| *y).fold(1e-3, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..width, 0.0..height * 1.05)?;
        chart.configure_mesh().x_desc("seconds").y_desc(*unit).light_line_style(WHITE).draw()?;
        for ((name, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(name.clone())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
        }
        let labels = chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(BLACK)
            .draw();
        labels?;
    }
    root.present()?;
    Ok(())
}
