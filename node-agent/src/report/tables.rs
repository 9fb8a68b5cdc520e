//! The report in words: tables that text, Markdown and HTML share.

use jiff::tz::TimeZone;
use tiering::Bytes;

use super::{Floor, Report, Saving, clock};
use crate::managed::WORKING_SET;
use crate::record::{AGES, Held};
use crate::savings::Savings;
use crate::text::short_time;

/// Rows of the table of cgroups.
const MOST_CGROUPS: usize = 15;

/// Rows of the table over time.
const MOST_TIMES: usize = 24;

/// A table with a title, whose first column is words and the others are numbers.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) note: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

fn words(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn age(seconds: u64) -> String {
    short_time(seconds as f64)
}

fn money(amount: f64) -> String {
    format!("{amount:.2}")
}

/// Over which time the numbers are.
fn over(report: &Report) -> String {
    match report.to - report.from {
        0 => "of one sample".to_owned(),
        seconds => format!("on average over {}", age(seconds)),
    }
}

/// What the report begins with, a sentence a line.
pub(super) fn summary(report: &Report, zone: &TimeZone) -> Vec<String> {
    const WHEN: &str = "%F %H:%M %Z";
    let mut lines = vec![format!(
        "{} samples from {} to {}.",
        report.count,
        clock(report.from, zone, WHEN),
        clock(report.to, zone, WHEN)
    )];
    if report.not_running > 0 {
        lines.push(format!("No agent ran for {} of that time.", age(report.not_running)));
    }
    let savings = Savings {
        would_free_bytes: report.would_free.mean,
        dram_bytes: report.dram.mean,
        freed_bytes: report.freed.mean,
        freed_touched_bytes_per_minute: report.freed_touched.mean,
        would_touch_bytes_per_minute: report.would_touch.map(|touched| touched.mean),
    };
    lines.push(format!(
        "The policies in force, {}, of anonymous memory in DRAM: {savings}; never less than {} and never more than {}.",
        over(report),
        Bytes(report.would_free.least),
        Bytes(report.would_free.most)
    ));
    if let Some(freed) = savings.freed() {
        lines.push(format!("They have {freed}."));
    }
    if let Some(price) = report.price {
        lines.push(format!(
            "At {} a GiB of DRAM and {} a GiB of slow memory: {} saved, {} more to be saved.",
            money(price.dram),
            money(price.slow),
            money(price.saved(report.freed.mean)),
            money(price.saved(report.would_free.mean))
        ));
    }
    lines
}

pub(super) fn tables(report: &Report, zone: &TimeZone) -> Vec<Table> {
    vec![tiers(report), over_time(report, zone), cold(report), savings(report), cgroups(report)]
}

fn tiers(report: &Report) -> Table {
    let row = |tier: &super::TierRow| {
        let bytes = [tier.capacity, tier.used.mean, tier.used.least, tier.used.most];
        [tier.name.clone()].into_iter().chain(bytes.map(|bytes| Bytes(bytes).to_string())).collect()
    };
    Table {
        title: "Memory by tier",
        note: format!("of the whole host, {}", over(report)),
        head: words(&["tier", "capacity", "mean used", "least", "most"]),
        rows: report.tiers.iter().map(row).collect(),
    }
}

fn over_time(report: &Report, zone: &TimeZone) -> Table {
    let tiers = report.tiers.iter().map(|tier| format!("{} used", tier.name));
    let two_minutes = AGES.iter().position(|age| *age == 120).unwrap_or(0);
    let step = report.samples.len().div_ceil(MOST_TIMES).max(1);
    let row = |sample: &crate::record::Sample| {
        let sum = sample.sum();
        let used = report
            .tiers
            .iter()
            .map(|tier| sample.tiers.iter().find(|same| same.name == tier.name).map_or(0, |same| same.used));
        let numbers = used.chain([sum.dram, sum.slow, sum.cold[two_minutes], sample.would_free]);
        [clock(sample.at, zone, "%H:%M")]
            .into_iter()
            .chain(numbers.map(|bytes| Bytes(bytes).to_string()))
            .collect()
    };
    Table {
        title: "Over time",
        note: "anonymous memory of what is managed, beside all that is used".to_owned(),
        head: ["time".to_owned()]
            .into_iter()
            .chain(tiers)
            .chain(["in DRAM", "on slow", "cold for 2m", "would free"].map(str::to_owned))
            .collect(),
        // The newest is among them.
        rows: {
            let mut rows: Vec<_> = report.samples.iter().rev().step_by(step).map(row).collect();
            rows.reverse();
            rows
        },
    }
}

fn cold(report: &Report) -> Table {
    let row = |(seconds, bytes): &(u64, super::Spread)| {
        let bytes = [bytes.mean, bytes.least, bytes.most].map(|bytes| Bytes(bytes).to_string());
        [age(*seconds)].into_iter().chain(bytes).collect()
    };
    Table {
        title: "Cold bytes by age",
        note: format!(
            "in DRAM, not accessed for at least this long, {}; ages are lower bounds",
            over(report)
        ),
        head: words(&["age", "mean", "least", "most"]),
        rows: report.cold.iter().map(row).collect(),
    }
}

fn savings(report: &Report) -> Table {
    let cell = |saving: &Saving| {
        let bytes = Bytes(saving.bytes.mean);
        saving.money.map_or_else(|| bytes.to_string(), |amount| format!("{bytes} = {}", money(amount)))
    };
    let row = |after: &u64| {
        let cells = report.savings.iter().filter(|saving| saving.after == *after).map(cell);
        [age(*after)].into_iter().chain(cells).collect()
    };
    let floors = Floor::ALL.map(|floor| match floor {
        Floor::WorkingSet => format!("no floor (touched within {})", short_time(WORKING_SET.as_secs_f64())),
        Floor::Percent(percent) => format!("floor {percent}%"),
    });
    let bound = if report.has_slow_tier() {
        "as far as slow nodes have room"
    } else {
        "this host has no slow memory, so nothing says how much would fit"
    };
    Table {
        title: "What a policy for all would keep out of DRAM",
        note: format!("{}, what is on slow memory already included; {bound}", over(report)),
        head: ["demote.after".to_owned()].into_iter().chain(floors).collect(),
        rows: AGES.iter().map(row).collect(),
    }
}

fn cgroups(report: &Report) -> Table {
    let row = |row: &Held| {
        let mode = match (row.policy.is_empty(), row.enforced) {
            (true, _) => "",
            (_, true) => "enforced",
            (_, false) => "observed",
        };
        let bytes = [row.dram, row.slow, row.would_free, row.touched].map(|bytes| Bytes(bytes).to_string());
        // A cgroup may be named so that a terminal would obey it.
        let name = row.name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        [name, row.policy.clone(), mode.to_owned()].into_iter().chain(bytes).collect()
    };
    let more = report.cgroups.len().saturating_sub(MOST_CGROUPS);
    Table {
        title: "Cgroups",
        note: {
            let what =
                format!("{}; touched on slow memory, or of what is observed what would be", over(report));
            if more > 0 {
                format!("{what}; those with the most to save; {more} more are in JSON")
            } else {
                what
            }
        },
        head: words(&["cgroup", "policy", "mode", "in DRAM", "on slow", "would free", "touched a minute"]),
        rows: report.cgroups.iter().take(MOST_CGROUPS).map(row).collect(),
    }
}

/// What stands above the policy to paste.
pub(super) fn proposal_words(report: &Report) -> String {
    match &report.proposal {
        None => "Nothing of it was cold for two minutes, so no policy is proposed.".to_owned(),
        Some(proposal) => {
            let saved = report
                .price
                .map_or(String::new(), |price| format!(" ({})", money(price.saved(proposal.bytes))));
            format!(
                "This would keep {}{saved} out of DRAM on average. It is the most cautious of the above that keeps nine tenths of \
                 what could be saved.",
                Bytes(proposal.bytes)
            )
        }
    }
}

pub(super) fn text(report: &Report, zone: &TimeZone) -> String {
    let mut lines = summary(report, zone);
    for table in tables(report, zone) {
        let title = if table.note.is_empty() {
            table.title.to_owned()
        } else {
            format!("{} ({})", table.title, table.note)
        };
        lines.extend([String::new(), title]);
        let all: Vec<&Vec<String>> = std::iter::once(&table.head).chain(&table.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
        for row in all {
            let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
                if i == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            });
            lines.push(format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
    }
    lines.extend([String::new(), proposal_words(report)]);
    if let Some(proposal) = &report.proposal {
        lines.extend([String::new(), proposal.yaml.trim_end().to_owned()]);
    }
    lines.join("\n") + "\n"
}

pub(super) fn markdown(report: &Report, zone: &TimeZone) -> String {
    // What would end a cell, or begin a tag.
    let cell = |text: &String| text.replace('|', "\\|").replace('<', "&lt;");
    let row = |cells: &Vec<String>| format!("| {} |", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
    let mut lines = vec!["# Memory tiering report".to_owned(), String::new()];
    lines.push(summary(report, zone).join("\n"));
    for table in tables(report, zone) {
        lines.extend([String::new(), format!("## {}", table.title), String::new()]);
        if !table.note.is_empty() {
            lines.extend([format!("{}.", table.note), String::new()]);
        }
        lines.push(row(&table.head));
        lines.push(format!("|---|{}", "--:|".repeat(table.head.len() - 1)));
        lines.extend(table.rows.iter().map(row));
    }
    lines.extend([String::new(), "## A policy".to_owned(), String::new(), proposal_words(report)]);
    if let Some(proposal) = &report.proposal {
        lines.extend([String::new(), format!("```yaml\n{}```", proposal.yaml)]);
    }
    lines.join("\n") + "\n"
}
