//! The report as one page that loads nothing: its pictures are SVG inside of it.

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::prelude::*;

use super::{RenderError, Report, clock, tables};
use crate::record::AGES;

const SIZE: (u32, u32) = (900, 260);

/// Warm water above, cold below.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0xd9, 0x5f, 0x4c),
    RGBColor(0xe8, 0xa8, 0x5c),
    RGBColor(0x7f, 0xc4, 0xc4),
    RGBColor(0x4f, 0x86, 0xc6),
    RGBColor(0x5a, 0x57, 0xa8),
];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}pre{background:#f4f4f4;padding:1rem;overflow-x:auto}svg{max-width:100%;height:auto}\
.note{color:#666}";

/// One line or band of a picture, in GiB.
struct Curve {
    name: String,
    values: Vec<f64>,
}

pub(super) fn page(report: &Report, zone: &TimeZone) -> Result<String, RenderError> {
    let used = report.tiers.iter().map(|tier| {
        let used = report.samples.iter().map(|sample| {
            sample.tiers.iter().find(|same| same.name == tier.name).map_or(0, |same| same.used)
        });
        Curve { name: format!("{} used", tier.name), values: used.map(gib).collect() }
    });
    let pictures = [
        ("Memory by tier over time", draw(report, zone, &used.collect::<Vec<_>>(), false)?),
        (
            "Anonymous memory over time, by age in DRAM and on slow memory",
            draw(report, zone, &bands(report), true)?,
        ),
    ];
    let page: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Memory tiering report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Memory tiering report" }
                @for line in tables::summary(report, zone) { p { (line) } }
                @for (title, picture) in &pictures {
                    h2 { (title) }
                    (PreEscaped(picture))
                }
                @for table in tables::tables(report, zone) {
                    h2 { (table.title) }
                    @if !table.note.is_empty() { p class="note" { (table.note) "." } }
                    table {
                        tr { @for cell in &table.head { th { (cell) } } }
                        @for row in &table.rows { tr { @for cell in row { td { (cell) } } } }
                    }
                }
                h2 { "A policy" }
                p { (tables::proposal_words(report)) }
                @if let Some(proposal) = &report.proposal { pre { (proposal.yaml) } }
            }
        }
    };
    Ok(page.into_string() + "\n")
}

/// From the hottest to what is on slow memory.
fn bands(report: &Report) -> Vec<Curve> {
    let index = |seconds| AGES.iter().position(|age| *age == seconds).unwrap_or(0);
    let (young, old) = (index(120), index(1800));
    let curve = |name: &str, of: &dyn Fn(&crate::record::Held) -> u64| Curve {
        name: name.to_owned(),
        values: report.samples.iter().map(|sample| gib(of(&sample.sum()))).collect(),
    };
    vec![
        curve("in DRAM, accessed within 2m", &|sum| sum.dram.saturating_sub(sum.cold[young])),
        curve("in DRAM, cold for 2m", &|sum| sum.cold[young].saturating_sub(sum.cold[old])),
        curve("in DRAM, cold for 30m", &|sum| sum.cold[old]),
        curve("on slow memory", &|sum| sum.slow),
    ]
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Lines, or bands that lie on one another.
fn draw(report: &Report, zone: &TimeZone, curves: &[Curve], stacked: bool) -> Result<String, RenderError> {
    let mut svg = String::new();
    paint(&mut svg, report, zone, curves, stacked)
        .map_err(|error| RenderError::Picture(error.to_string()))?;
    Ok(svg)
}

fn paint(
    svg: &mut String,
    report: &Report,
    zone: &TimeZone,
    curves: &[Curve],
    stacked: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let times: Vec<u64> = report.samples.iter().map(|sample| sample.at).collect();
    // Each band from the sum of those before it; the last is drawn first, and the others over it.
    let mut sum = vec![0.0; times.len()];
    let tops: Vec<Vec<f64>> = curves
        .iter()
        .map(|curve| {
            sum = curve
                .values
                .iter()
                .zip(&sum)
                .map(|(value, below)| if stacked { value + below } else { *value })
                .collect();
            sum.clone()
        })
        .collect();
    let most = tops.iter().flatten().copied().fold(0.0, f64::max).max(1.0 / 1024.0);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(report.from..report.to.max(report.from + 1), 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .x_labels(9)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|at| clock(*at, zone, "%H:%M"))
        .y_label_formatter(&|gib| {
            if most < 1.0 { format!("{:.0} MiB", gib * 1024.0) } else { format!("{gib:.1} GiB") }
        })
        .draw()?;
    for (i, (curve, top)) in curves.iter().zip(&tops).enumerate().rev() {
        let colour = COLOURS[if stacked { i } else { i * 3 } % COLOURS.len()];
        let points: Vec<(u64, f64)> = times.iter().copied().zip(top.iter().copied()).collect();
        let legend = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
        if stacked {
            chart
                .draw_series(AreaSeries::new(points, 0.0, colour.filled()))?
                .label(&curve.name)
                .legend(legend);
        } else {
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(&curve.name)
                .legend(legend);
        }
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    root.present()?;
    Ok(())
}
