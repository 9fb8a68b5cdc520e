//! The live picture: each cgroup's memory as a bar, warm water above and cold below.

use tiering::Bytes;

use crate::shown::{Cgroup, Shown, Tier, bytes_by_age};
use crate::table::{age_words, amount, nothing_managed, touched_words, warning_lines};
use crate::text::{Ink, Line, bar_cells, middle_cut, shared_cells, short_time};

const FREE: &str = "·";
/// Of DRAM: touched, and cold but still there.
const DRAM: [&str; 2] = ["█", "▓"];
const SLOWER: [&str; 3] = ["▒", "░", "╌"];
const NAME_WIDTH: usize = 28;
/// With fewer lines than this, the sums have one.
const ROOMY: usize = 16;

/// How much a cgroup is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Bar, amounts, ages, decision and a blank line.
    Full,
    /// Bar and decision.
    Short,
    /// Bar.
    Bar,
}

impl Detail {
    const fn lines(self) -> usize {
        match self {
            Self::Full => 5,
            Self::Short => 2,
            Self::Bar => 1,
        }
    }
}

/// The picture in at most `width` columns and `height` lines, with colours by ANSI sequences if `colour`.
/// Clearing the screen is the caller's. Ends with a newline.
#[must_use]
pub fn live_picture(shown: &Shown, width: usize, height: usize, colour: bool) -> String {
    let mut above = vec![title(shown, width)];
    above.extend(totals(shown, width, if height < ROOMY { 1 } else { 2 }));
    above.extend(shown.tiers.iter().enumerate().map(|(index, tier)| tier_line(tier, index, width)));
    above.push(Line::default());
    let mut below = warning_lines(shown, width);
    below.push(legend(shown));

    let room = height.saturating_sub(above.len() + below.len());
    let mut lines = above;
    lines.extend(cgroups(shown, width, room));
    lines.extend(below);
    let mut out = String::new();
    for line in lines.iter().take(height) {
        line.render(width, colour, &mut out);
    }
    out
}

fn title(shown: &Shown, width: usize) -> Line {
    let mut line = Line::default();
    line.push(Ink::Heat(0), " ≈")
        .push(Ink::Heat(2), "≈")
        .push(Ink::Heat(3), "≈ ")
        .push(Ink::Strong, "thermocline");
    let promoter = match shown.promoter.as_str() {
        "kernel" => "kernel promotes",
        "damon" => "DAMON promotes",
        "none" => "nobody promotes",
        _ => "agent promotes",
    };
    let doing = if shown.command == "observe" { "observing, nothing is moved" } else { promoter };
    let round = format!("   round {}, {:.0} ms", shown.rounds, shown.last_round_seconds * 1e3);
    line.push_if_fits(width, [(Ink::Plain, &*format!("   engine {}, {doing}", shown.engine))]);
    line.push_if_fits(width, [(Ink::Faint, &*round)]);
    line
}

/// The sums on at most so many lines, the most telling first; what has no room is left out whole.
fn totals(shown: &Shown, width: usize, most_lines: usize) -> Vec<Line> {
    const INDENT: &str = "     ";
    let totals = &shown.totals;
    let demoted = format!("demoted {}", Bytes(totals.demoted_bytes.values().sum()));
    let promoted = format!("promoted {}", Bytes(totals.promoted_bytes.values().sum()));
    let failed: u64 = totals.failed_pages.values().sum();
    let (comebacks, failed) =
        (format!("came back soon: {}", totals.comebacks), format!("could not be moved: {failed} pages"));
    let freed = shown.savings.total.freed().unwrap_or_default();
    let parts: [&[(Ink, &str)]; 6] = [
        &[(Ink::Good, &shown.savings.total.to_string())],
        &[(Ink::Good, &freed)],
        &[(Ink::Heat(3), "↓ "), (Ink::Plain, &demoted)],
        &[(Ink::Heat(0), "↑ "), (Ink::Plain, &promoted)],
        &[(Ink::Faint, &comebacks)],
        &[(Ink::Faint, &failed)],
    ];
    let mut lines: Vec<Line> = Vec::new();
    for part in parts.into_iter().filter(|part| part.iter().any(|(_, words)| !words.is_empty())) {
        let gap = [(Ink::Plain, "   ")];
        let beside = lines
            .last_mut()
            .is_some_and(|line| line.push_if_fits(width, gap.into_iter().chain(part.iter().copied())));
        if !beside && lines.len() < most_lines {
            let mut line = Line::default();
            line.push(Ink::Plain, INDENT);
            if line.push_if_fits(width, part.iter().copied()) {
                lines.push(line);
            }
        }
    }
    lines
}

/// Ink of the tier at this place in the order of speed.
fn tier_ink(index: usize) -> Ink {
    if index == 0 { Ink::Heat(0) } else { Ink::Heat(index + 1) }
}

fn tier_line(tier: &Tier, index: usize, width: usize) -> Line {
    let used = tier.capacity_bytes.saturating_sub(tier.free_bytes);
    let words = format!("{} used of {}", Bytes(used), Bytes(tier.capacity_bytes));
    let cells = width.saturating_sub(8 + 2 + 26).clamp(8, 60);
    let filled = bar_cells(used, tier.capacity_bytes, cells);
    let mut line = Line::default();
    line.push(Ink::Strong, format!(" {:<7}", tier.name));
    line.push(tier_ink(index), shade(index).repeat(filled)).push(Ink::Faint, FREE.repeat(cells - filled));
    line.push(Ink::Plain, format!("  {words}"));
    line
}

fn shade(index: usize) -> &'static str {
    if index == 0 { DRAM[0] } else { SLOWER[(index - 1).min(SLOWER.len() - 1)] }
}

fn cgroups(shown: &Shown, width: usize, room: usize) -> Vec<Line> {
    if shown.cgroups.is_empty() {
        let words = nothing_managed(shown);
        let lines = words.iter().map(|words| {
            let mut line = Line::default();
            line.push(Ink::Plain, format!(" {words}"));
            line
        });
        return lines.chain([Line::default()]).take(room).collect();
    }
    let count = shown.cgroups.len();
    let detail = [Detail::Full, Detail::Short]
        .into_iter()
        .find(|detail| count * detail.lines() <= room)
        .unwrap_or(Detail::Bar);
    let mut rows: Vec<&Cgroup> = shown.cgroups.values().collect();
    if count * detail.lines() > room {
        // The greatest, and a line to say how many are left out.
        rows.sort_by_key(|cgroup| (std::cmp::Reverse(anon(cgroup)), &cgroup.path));
        rows.truncate(room.saturating_sub(1));
        rows.sort_by_key(|cgroup| &cgroup.path);
    }
    let most = shown.cgroups.values().map(anon).max().unwrap_or(0);
    let mut lines: Vec<Line> =
        rows.iter().flat_map(|cgroup| cgroup_lines(shown, cgroup, most, width, detail)).collect();
    if rows.len() < count {
        let mut line = Line::default();
        line.push(Ink::Faint, format!(" and {} smaller ones", count - rows.len()));
        lines.push(line);
    }
    lines
}

fn anon(cgroup: &Cgroup) -> u64 {
    cgroup.anon_bytes_by_tier.values().sum()
}

fn on(cgroup: &Cgroup, tier: &str) -> u64 {
    cgroup.anon_bytes_by_tier.get(tier).copied().unwrap_or(0)
}

fn cgroup_lines(shown: &Shown, cgroup: &Cgroup, most: u64, width: usize, detail: Detail) -> Vec<Line> {
    let indent = NAME_WIDTH.min(width / 3);
    let cells = width.saturating_sub(indent + 3 + 10).max(4);
    let mut bar = Line::default();
    bar.push(Ink::Strong, format!(" {}", middle_cut(&cgroup.name(), indent.saturating_sub(1))))
        .pad_to(indent + 1);
    push_bar(&mut bar, shown, cgroup, bar_cells(anon(cgroup), most, cells));
    bar.push(Ink::Plain, format!(" {}", amount(anon(cgroup))));

    let mut decision = Line::default();
    // An arrow is for what is done; what is only observed says so itself.
    let acts = matches!(cgroup.decision.action.as_str(), "demote" | "promote" | "both");
    let acting = acts && cgroup.mode == "Enforce" && !cgroup.pinned;
    let ink = if acting { Ink::Good } else { Ink::Faint };
    decision
        .pad_to(indent + 1)
        .push(ink, format!("{} {}", if acting { "→" } else { "·" }, cgroup.decision.text));

    match detail {
        Detail::Bar => vec![bar],
        Detail::Short => vec![bar, decision],
        Detail::Full => {
            let [tiers, ages] = amounts(shown, cgroup, indent, width);
            vec![bar, tiers, ages, decision, Line::default()]
        }
    }
}

fn push_bar(line: &mut Line, shown: &Shown, cgroup: &Cgroup, cells: usize) {
    let dram = shown.dram();
    let mut parts = Vec::new();
    for (index, tier) in shown.tiers.iter().enumerate() {
        let bytes = on(cgroup, &tier.name);
        if tier.name == dram {
            let cold = cgroup.cold_bytes.min(bytes);
            parts.push((bytes - cold, tier_ink(index), shade(index)));
            parts.push((cold, Ink::Heat(1), DRAM[1]));
        } else {
            parts.push((bytes, tier_ink(index), shade(index)));
        }
    }
    let bytes: Vec<u64> = parts.iter().map(|(bytes, ..)| *bytes).collect();
    for ((_, ink, shade), cells) in parts.iter().zip(shared_cells(&bytes, cells)) {
        line.push(*ink, shade.repeat(cells));
    }
}

/// Bytes by tier, and by age. What was touched lately stands where there is room for it.
fn amounts(shown: &Shown, cgroup: &Cgroup, indent: usize, width: usize) -> [Line; 2] {
    let mut tiers = tiers_line(shown, cgroup, indent, width);
    let mut ages = ages_line(cgroup, indent, width);
    let (long, short) = touched_words(cgroup);
    for words in [long, short] {
        let words = format!("   {words}");
        let piece = [(Ink::Faint, &*words)];
        if tiers.push_if_fits(width, piece) || ages.push_if_fits(width, piece) {
            break;
        }
    }
    [tiers, ages]
}

fn tiers_line(shown: &Shown, cgroup: &Cgroup, indent: usize, width: usize) -> Line {
    let age = short_time(cgroup.effective_age_seconds);
    let mut line = Line::default();
    line.pad_to(indent + 1);
    for (index, tier) in shown.tiers.iter().enumerate() {
        let gap = if index > 0 { "   " } else { "" };
        let bytes = format!(" {}", Bytes(on(cgroup, &tier.name)));
        line.push_if_fits(width, [(Ink::Plain, gap), (tier_ink(index), &*tier.name), (Ink::Plain, &*bytes)]);
        if tier.name == shown.dram() && cgroup.cold_bytes > 0 {
            let cold = format!(" ({} cold, {age}+)", Bytes(cgroup.cold_bytes));
            line.push_if_fits(width, [(Ink::Heat(1), &*cold)]);
        }
    }
    line
}

fn ages_line(cgroup: &Cgroup, indent: usize, width: usize) -> Line {
    let mut line = Line::default();
    line.pad_to(indent + 1).push(Ink::Faint, "age");
    for (class, (words, bytes)) in age_words(cgroup.effective_age_seconds)
        .iter()
        .zip(bytes_by_age(&cgroup.ages, cgroup.effective_age_seconds))
        .enumerate()
    {
        if bytes > 0 {
            let (words, bytes) = (format!("  {words} "), Bytes(bytes).to_string());
            line.push_if_fits(width, [(Ink::Heat(class), &*words), (Ink::Plain, &*bytes)]);
        }
    }
    line
}

fn legend(shown: &Shown) -> Line {
    let mut line = Line::default();
    for (index, tier) in shown.tiers.iter().enumerate() {
        line.push(tier_ink(index), format!(" {}", shade(index))).push(Ink::Faint, format!(" {} ", tier.name));
        if tier.name == shown.dram() {
            line.push(Ink::Heat(1), format!(" {}", DRAM[1]))
                .push(Ink::Faint, format!(" {}, cold ", tier.name));
        }
    }
    line
}

#[cfg(test)]
mod tests;
