//! The table of `observe`: what each cgroup holds, how old it is, and what a policy would free.

use std::cmp::Reverse;

use tiering::Bytes;

use crate::shown::{Cgroup, Condition, Shown, age_bounds, bytes_by_age};
use crate::text::{Ink, Line, middle_cut, shared_beginning, shared_cells, short_time, wrapped};

/// Memory fades as it ages.
pub(crate) const SHADES: [&str; 4] = ["█", "▓", "▒", "░"];
const AGE_CELLS: usize = 16;
const GAP: usize = 2;
const LEAST_PATH: usize = 12;
/// A name in less room than this would be cut to what others have, too: then the ages give way.
const ENOUGH_PATH: usize = 28;
const MOST_PATH: usize = 44;
const MOST_WARNINGS: usize = 5;
/// A decision in less room than this goes on a line of its own.
const LEAST_DECISION: usize = 36;

/// Words for the classes of [`bytes_by_age`], where this is the age that counts as cold.
pub(crate) fn age_words(cold: f64) -> [String; 4] {
    let [_, young, cold, old] = age_bounds(cold).map(short_time);
    [format!("<{young}"), format!("{young}-{cold}"), format!("{cold}-{old}"), format!(">{old}")]
}

/// What was touched lately, and within which time; and the same as short as the head of a column.
pub(crate) fn touched_words(cgroup: &Cgroup) -> (String, String) {
    let (time, bytes) = (short_time(cgroup.working_set_seconds), Bytes(cgroup.working_set_bytes));
    (format!("touched within {time}: {bytes}"), format!("WSS {time} {bytes}"))
}

/// Words that hold for all of these cgroups.
fn common_age_words(shown: &Shown) -> [String; 4] {
    let age = shown.cgroups.values().next().map_or(0.0, |cgroup| cgroup.effective_age_seconds);
    if shown.cgroups.values().all(|cgroup| (cgroup.effective_age_seconds - age).abs() < 0.5) {
        age_words(age)
    } else {
        ["new", "young", "cold", "5 times that"].map(str::to_owned)
    }
}

/// Over which time the working sets are, where it is the same for all.
fn working_set_head(shown: &Shown) -> String {
    let mut times = shown.cgroups.values().map(|cgroup| cgroup.working_set_seconds);
    let first = times.next().unwrap_or(0.0);
    if first > 0.0 && times.all(|time| (time - first).abs() < 0.5) {
        format!("WSS {}", short_time(first))
    } else {
        "WSS".to_owned()
    }
}

/// An amount as in `412 MiB`; nothing is a dot, so that what is there stands out.
pub(crate) fn amount(bytes: u64) -> String {
    if bytes == 0 { "·".to_owned() } else { Bytes(bytes).to_string() }
}

/// What to do where nothing is managed.
pub(crate) fn nothing_managed(shown: &Shown) -> Vec<String> {
    if shown.command == "observe" {
        return vec![
            "No cgroup with memory of its own matches.".to_owned(),
            "Name some: thermocline-agent observe 'system.slice/*'   (systemd-cgls lists them)".to_owned(),
        ];
    }
    if let Some(cluster) = &shown.cluster {
        return vec![match cluster.generation {
            None => format!("There is no NodeTiering {} yet: the controller makes it.", cluster.node),
            Some(_) => {
                format!("None of the {} pods assigned to this node has a cgroup.", cluster.assigned_pods)
            }
        }];
    }
    vec![
        format!("No cgroup of this host is named by the policies of {} now.", shown.config.path),
        "Look for what would: thermocline-agent observe '**' --once   (writes nothing)".to_owned(),
    ]
}

/// Conditions that do not hold, of the node and of cgroups; a few, for one cause often has many cgroups.
pub(crate) fn warnings(shown: &Shown) -> Vec<String> {
    let failing = |conditions: &[Condition], of: &str| -> Vec<String> {
        let fails = conditions.iter().filter(|condition| !condition.status);
        fails.map(|condition| format!("! {of}{}: {}", condition.reason, condition.message)).collect()
    };
    let mut all = failing(&shown.conditions, "");
    if let Some(error) = &shown.config.error {
        all.push(format!("! the newest configuration is not in force: {error}"));
    }
    for cgroup in shown.cgroups.values() {
        all.extend(failing(&cgroup.conditions, &format!("{}: ", cgroup.name())));
    }
    let more = all.len().saturating_sub(MOST_WARNINGS);
    if more > 0 {
        all.truncate(MOST_WARNINGS);
        all.push(format!("! and {more} more: --output json, or /debug/state, has them all"));
    }
    all
}

/// Row of cells between path and age.
struct Row {
    path: String,
    cells: Vec<String>,
    ages: [u64; 4],
    decision: String,
}

fn row(cgroup: &Cgroup, shown: &Shown) -> Row {
    let mut cells: Vec<u64> = shown.tiers.iter().map(|tier| cgroup.on(&tier.name)).collect();
    cells.extend([cgroup.working_set_bytes, cgroup.cold_bytes, cgroup.would_free_bytes]);
    Row {
        path: cgroup.name(),
        cells: cells.into_iter().map(amount).collect(),
        ages: bytes_by_age(&cgroup.ages, cgroup.effective_age_seconds),
        decision: cgroup.decision.text.clone(),
    }
}

fn push_ages(line: &mut Line, ages: [u64; 4]) {
    if ages == [0; 4] {
        line.push(Ink::Faint, "·");
        return;
    }
    for (class, cells) in shared_cells(&ages, AGE_CELLS).into_iter().enumerate() {
        line.push(Ink::Heat(class), SHADES[class].repeat(cells));
    }
}

/// The table in `width` columns, with colours by ANSI sequences if `colour`. Ends with a newline.
#[must_use]
pub fn observe_table(shown: &Shown, width: usize, colour: bool) -> String {
    let mut lines = Vec::new();
    if shown.cgroups.is_empty() {
        lines.extend(nothing_managed(shown).iter().map(|words| line(Ink::Plain, words)));
    } else {
        lines.extend(table(shown, width));
        lines.push(saving_line(shown));
    }
    lines.extend(warning_lines(shown, width));
    let mut out = String::new();
    for line in lines {
        line.render(width, colour, &mut out);
    }
    out
}

/// [`warnings`] with their whole remedies, on as many lines as they need.
pub(crate) fn warning_lines(shown: &Shown, width: usize) -> Vec<Line> {
    let indented = |(i, words): (usize, String)| {
        line(Ink::Bad, &if i == 0 { format!(" {words}") } else { format!("   {words}") })
    };
    let all = warnings(shown);
    all.iter()
        .flat_map(|words| wrapped(words, width.saturating_sub(3)).into_iter().enumerate().map(indented))
        .collect()
}

/// What could be freed in all, and by policy where there are several.
pub(crate) fn saving_line(shown: &Shown) -> Line {
    let savings = &shown.savings;
    let mut parts = vec![savings.total.to_string()];
    parts.extend(savings.total.freed());
    if savings.by_policy.len() > 1 {
        parts.extend(savings.by_policy.iter().map(|(policy, savings)| format!("policy {policy} {savings}")));
    }
    line(Ink::Good, &parts.join("; "))
}

fn line(ink: Ink, words: &str) -> Line {
    let mut line = Line::default();
    line.push(ink, words);
    line
}

fn table(shown: &Shown, width: usize) -> Vec<Line> {
    let mut cgroups: Vec<&Cgroup> = shown.cgroups.values().collect();
    cgroups.sort_by_key(|cgroup| (Reverse(cgroup.would_free_bytes), Reverse(cgroup.anon())));
    let mut rows: Vec<Row> = cgroups.into_iter().map(|cgroup| row(cgroup, shown)).collect();
    let mut heads: Vec<String> = shown.tiers.iter().map(|tier| tier.name.to_uppercase()).collect();
    heads.extend([working_set_head(shown), "COLD".to_owned(), "WOULD FREE".to_owned()]);
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row.cells[column].chars().count());
            cells.chain([heads[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let numbers: usize = widths.iter().map(|width| width + GAP).sum();
    let with_ages = numbers + GAP + AGE_CELLS;
    let longest = |rows: &[Row]| rows.iter().map(|row| row.path.chars().count()).max().unwrap_or(0);
    // Where names are cut, first goes what all begin with, then the ages: a name tells its row from the others.
    let mut beginning = String::new();
    if longest(&rows) > width.saturating_sub(with_ages).min(MOST_PATH) {
        let names: Vec<String> = rows.iter().map(|row| row.path.clone()).collect();
        let skip = shared_beginning(&names);
        names.first().map_or("", |name| &name[..skip]).clone_into(&mut beginning);
        for row in &mut rows {
            row.path.drain(..skip);
        }
    }
    let longest = longest(&rows);
    let ages = longest.min(MOST_PATH) + with_ages <= width || width.saturating_sub(with_ages) >= ENOUGH_PATH;
    let fixed = if ages { with_ages } else { numbers };
    let path_width = longest.clamp(LEAST_PATH, width.saturating_sub(fixed).clamp(LEAST_PATH, MOST_PATH));
    let decision_at = path_width + fixed + GAP;
    let beside = width.saturating_sub(decision_at) >= LEAST_DECISION;

    let mut head = Line::default();
    let title = if beginning.is_empty() { "CGROUP".to_owned() } else { format!("{beginning}…") };
    head.push(Ink::Strong, middle_cut(&title, path_width)).pad_to(path_width);
    for (name, width) in heads.iter().zip(&widths) {
        head.push(Ink::Strong, format!("{:gap$}{name:>width$}", "", gap = GAP));
    }
    if ages {
        let title = format!("AGE IN {}", shown.dram().to_uppercase());
        head.push(Ink::Strong, format!("  {title:AGE_CELLS$}"));
    }
    if beside {
        head.push(Ink::Strong, "  DECISION");
    }
    let mut lines = vec![head];
    for row in rows {
        let mut line = Line::default();
        line.push(Ink::Strong, middle_cut(&row.path, path_width)).pad_to(path_width);
        for (column, (cell, width)) in row.cells.iter().zip(&widths).enumerate() {
            let last = column + 1 == row.cells.len();
            let ink = match cell.as_str() {
                "·" => Ink::Faint,
                _ if last => Ink::Good,
                _ => Ink::Plain,
            };
            line.push(ink, format!("  {cell:>width$}"));
        }
        if ages {
            line.push(Ink::Plain, "  ");
            push_ages(&mut line, row.ages);
        }
        if beside {
            line.pad_to(decision_at).push(Ink::Faint, &row.decision);
            lines.push(line);
        } else {
            lines.push(line);
            let mut decision = Line::default();
            decision.push(Ink::Faint, format!("  {}", row.decision));
            lines.push(decision);
        }
    }
    if ages {
        lines.push(legend(shown));
    }
    lines
}

fn legend(shown: &Shown) -> Line {
    let mut line = Line::default();
    line.push(Ink::Faint, "not accessed for");
    for (class, words) in common_age_words(shown).iter().enumerate() {
        line.push(Ink::Plain, "  ")
            .push(Ink::Heat(class), SHADES[class])
            .push(Ink::Faint, format!(" {words}"));
    }
    line.push(Ink::Faint, format!("   engine {}", shown.engine));
    line
}

#[cfg(test)]
mod tests;
