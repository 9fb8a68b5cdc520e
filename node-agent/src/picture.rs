//! The live picture: each cgroup's memory as a bar, warm water above and cold below.

use tiering::Bytes;

use crate::promoter::Promoter;
use crate::snapshot::{CgroupView, Snapshot, TierView};
use crate::table::{age_words, amount, bytes_by_age, dram_name, nothing_managed, warning_lines};
use crate::text::{Ink, Line, bar_cells, middle_cut, shared_cells, short_time};

const FREE: &str = "·";
/// Of DRAM: touched, and cold but still there.
const DRAM: [&str; 2] = ["█", "▓"];
const SLOWER: [&str; 3] = ["▒", "░", "╌"];
const NAME_WIDTH: usize = 28;

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
pub fn live_picture(snapshot: &Snapshot, width: usize, height: usize, colour: bool) -> String {
    let mut above = vec![title(snapshot), totals(snapshot)];
    above.extend(snapshot.tiers.iter().enumerate().map(|(index, tier)| tier_line(tier, index, width)));
    above.push(Line::default());
    let mut below = warning_lines(snapshot, width);
    below.push(legend(snapshot));

    let room = height.saturating_sub(above.len() + below.len());
    let mut lines = above;
    lines.extend(cgroups(snapshot, width, room));
    lines.extend(below);
    let mut out = String::new();
    for line in lines.iter().take(height) {
        line.render(width, colour, &mut out);
    }
    out
}

fn title(snapshot: &Snapshot) -> Line {
    let mut line = Line::default();
    line.push(Ink::Heat(0), " ≈")
        .push(Ink::Heat(2), "≈")
        .push(Ink::Heat(3), "≈ ")
        .push(Ink::Strong, "thermocline");
    let promoter = match snapshot.promoter {
        Promoter::Kernel => "kernel promotes",
        Promoter::Pages => "agent promotes",
        Promoter::None => "nobody promotes",
    };
    let doing = if snapshot.command == "observe" { "observing, nothing is moved" } else { promoter };
    line.push(Ink::Plain, format!("   engine {}, {doing}", snapshot.engine));
    line.push(
        Ink::Faint,
        format!("   round {}, {:.0} ms", snapshot.rounds, snapshot.last_round_seconds * 1e3),
    );
    line
}

fn totals(snapshot: &Snapshot) -> Line {
    let totals = &snapshot.totals;
    let demoted = Bytes(totals.demoted_bytes.values().sum());
    let promoted = Bytes(totals.promoted_bytes.values().sum());
    let failed: u64 = totals.failed_pages.values().sum();
    let mut line = Line::default();
    line.push(Ink::Heat(3), "     ↓ ").push(Ink::Plain, format!("demoted {demoted}"));
    line.push(Ink::Heat(0), "   ↑ ").push(Ink::Plain, format!("promoted {promoted}"));
    line.push(Ink::Faint, format!("   came back soon: {}   stayed: {failed} pages", totals.comebacks));
    line
}

/// Ink of the tier at this place in the order of speed.
fn tier_ink(index: usize) -> Ink {
    if index == 0 { Ink::Heat(0) } else { Ink::Heat(index + 1) }
}

fn tier_line(tier: &TierView, index: usize, width: usize) -> Line {
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

fn cgroups(snapshot: &Snapshot, width: usize, room: usize) -> Vec<Line> {
    if snapshot.cgroups.is_empty() {
        let words = nothing_managed(snapshot);
        let lines = words.iter().map(|words| {
            let mut line = Line::default();
            line.push(Ink::Plain, format!(" {words}"));
            line
        });
        return lines.chain([Line::default()]).take(room).collect();
    }
    let count = snapshot.cgroups.len();
    let detail = [Detail::Full, Detail::Short]
        .into_iter()
        .find(|detail| count * detail.lines() <= room)
        .unwrap_or(Detail::Bar);
    let mut shown: Vec<&CgroupView> = snapshot.cgroups.values().collect();
    if count * detail.lines() > room {
        // The greatest, and a line to say how many are left out.
        shown.sort_by_key(|cgroup| (std::cmp::Reverse(anon(cgroup)), &cgroup.path));
        shown.truncate(room.saturating_sub(1));
        shown.sort_by_key(|cgroup| &cgroup.path);
    }
    let most = snapshot.cgroups.values().map(anon).max().unwrap_or(0);
    let mut lines: Vec<Line> =
        shown.iter().flat_map(|cgroup| cgroup_lines(snapshot, cgroup, most, width, detail)).collect();
    if shown.len() < count {
        let mut line = Line::default();
        line.push(Ink::Faint, format!(" and {} smaller ones", count - shown.len()));
        lines.push(line);
    }
    lines
}

fn anon(cgroup: &CgroupView) -> u64 {
    cgroup.anon_bytes_by_tier.values().sum()
}

fn on(cgroup: &CgroupView, tier: &str) -> u64 {
    cgroup.anon_bytes_by_tier.get(tier).copied().unwrap_or(0)
}

fn cgroup_lines(
    snapshot: &Snapshot,
    cgroup: &CgroupView,
    most: u64,
    width: usize,
    detail: Detail,
) -> Vec<Line> {
    let indent = NAME_WIDTH.min(width / 3);
    let cells = width.saturating_sub(indent + 3 + 10).max(4);
    let mut bar = Line::default();
    bar.push(Ink::Strong, format!(" {}", middle_cut(&cgroup.name(), indent.saturating_sub(1))))
        .pad_to(indent + 1);
    push_bar(&mut bar, snapshot, cgroup, bar_cells(anon(cgroup), most, cells));
    bar.push(Ink::Plain, format!(" {}", amount(anon(cgroup))));

    let mut decision = Line::default();
    // An arrow is for what is done; what is only observed says so itself.
    let acts = matches!(cgroup.decision.action, "demote" | "promote" | "both");
    let acting = acts && cgroup.mode == "Enforce" && !cgroup.pinned;
    let ink = if acting { Ink::Good } else { Ink::Faint };
    decision
        .pad_to(indent + 1)
        .push(ink, format!("{} {}", if acting { "→" } else { "·" }, cgroup.decision.text));

    match detail {
        Detail::Bar => vec![bar],
        Detail::Short => vec![bar, decision],
        Detail::Full => vec![
            bar,
            tiers_line(snapshot, cgroup, indent),
            ages_line(cgroup, indent),
            decision,
            Line::default(),
        ],
    }
}

fn push_bar(line: &mut Line, snapshot: &Snapshot, cgroup: &CgroupView, cells: usize) {
    let dram = dram_name(snapshot);
    let mut parts = Vec::new();
    for (index, tier) in snapshot.tiers.iter().enumerate() {
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

fn tiers_line(snapshot: &Snapshot, cgroup: &CgroupView, indent: usize) -> Line {
    let age = short_time(cgroup.effective_age_seconds);
    let mut line = Line::default();
    line.pad_to(indent + 1);
    for (index, tier) in snapshot.tiers.iter().enumerate() {
        line.push(tier_ink(index), &tier.name)
            .push(Ink::Plain, format!(" {}", Bytes(on(cgroup, &tier.name))));
        if tier.name == dram_name(snapshot) && cgroup.cold_bytes > 0 {
            line.push(Ink::Heat(1), format!(" ({} cold, {age}+)", Bytes(cgroup.cold_bytes)));
        }
        line.push(Ink::Plain, "   ");
    }
    line.push(Ink::Faint, format!("working set {}", Bytes(cgroup.working_set_bytes)));
    line
}

fn ages_line(cgroup: &CgroupView, indent: usize) -> Line {
    let mut line = Line::default();
    line.pad_to(indent + 1).push(Ink::Faint, "age");
    for (class, (words, bytes)) in age_words().iter().zip(bytes_by_age(&cgroup.ages)).enumerate() {
        if bytes > 0 {
            line.push(Ink::Heat(class), format!("  {words} ")).push(Ink::Plain, Bytes(bytes).to_string());
        }
    }
    line
}

fn legend(snapshot: &Snapshot) -> Line {
    let mut line = Line::default();
    for (index, tier) in snapshot.tiers.iter().enumerate() {
        line.push(tier_ink(index), format!(" {}", shade(index))).push(Ink::Faint, format!(" {} ", tier.name));
        if tier.name == dram_name(snapshot) {
            line.push(Ink::Heat(1), format!(" {}", DRAM[1]))
                .push(Ink::Faint, format!(" {}, cold ", tier.name));
        }
    }
    line
}

#[cfg(test)]
mod tests;
