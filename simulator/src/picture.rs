//! A run as a picture: DRAM and slow bytes, ages, touches over time.

use plotters::prelude::*;

use crate::host::{Host, Minute};
use crate::judge::allowed_touches;
use crate::world::PAGE;

const SIZE: (u32, u32) = (960, 840);
const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// A line of a panel: its name and a value a minute.
type Series = (&'static str, RGBColor, Vec<f64>);

/// The managed pods' minutes as an SVG document.
pub fn svg(host: &Host, title: &str) -> Result<String, String> {
    let mut sum: Vec<Minute> = Vec::new();
    let mut allowed: Vec<f64> = Vec::new();
    for pod in host.pods.iter().filter(|pod| pod.managed) {
        let minutes = &pod.ledger.minutes;
        sum.resize(sum.len().max(minutes.len()), Minute::default());
        allowed.resize(sum.len(), 0.0);
        for (at, minute) in minutes.iter().enumerate() {
            sum[at].add(minute);
            allowed[at] += (allowed_touches(pod, at) * PAGE) as f64 / MIB;
        }
    }
    let of = |value: fn(&Minute) -> f64| sum.iter().map(value).collect::<Vec<f64>>();
    let pages = PAGE as f64;
    let bytes: [Series; 2] = [
        ("in DRAM", RED, of(|minute| minute.fast as f64).iter().map(|n| n * pages / GIB).collect()),
        ("on slow nodes", BLUE, of(|minute| minute.slow as f64).iter().map(|n| n * pages / GIB).collect()),
    ];
    let ages: [Series; 1] = [("oldest age of a pod", BLACK, of(|minute| minute.age))];
    let touches: [Series; 2] = [
        (
            "touched on slow nodes",
            BLUE,
            of(|m| m.slow_touched as f64).iter().map(|n| n * pages / MIB).collect(),
        ),
        ("allowed", GREEN, allowed),
    ];
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&root, title, [("GiB", &bytes), ("seconds", &ages), ("MiB a minute", &touches)])
            .map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(
    root: &Area<'_>,
    title: &str,
    panels: [(&str, &[Series]); 3],
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let titled = root.titled(title, ("sans-serif", 18))?;
    for (area, (unit, series)) in titled.split_evenly((3, 1)).iter().zip(panels) {
        let minutes = series.iter().map(|(.., values)| values.len()).max().unwrap_or(0).max(1);
        let most = series.iter().flat_map(|(.., values)| values).copied().fold(1e-3, f64::max);
        let hours = minutes as f64 / 60.0;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..hours, 0.0..most * 1.05)?;
        chart.configure_mesh().x_desc("hours").y_desc(unit).light_line_style(WHITE).draw()?;
        for (name, colour, values) in series {
            // More points than pixels say no more.
            let step = (values.len() / SIZE.0 as usize).max(1);
            let points =
                values.iter().enumerate().step_by(step).map(|(at, value)| (at as f64 / 60.0, *value));
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points, &colour))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
        }
        chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    }
    root.present()?;
    Ok(())
}
