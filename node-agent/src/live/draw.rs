//! What the live picture looks like, in any size.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use tiering::Bytes;

use super::{Order, Screen};
use crate::explain::explain;
use crate::shown::{Cgroup, Shown, bytes_by_age};
use crate::table::age_words;
use crate::text::{middle_cut, shared_beginning, shared_cells, wrapped};

const AGE_CELLS: usize = 12;
const MOST_WARNING_LINES: usize = 6;
/// Memory fades as it ages.
const SHADES: [&str; 4] = ["█", "▓", "▒", "░"];
/// Columns of numbers: what could be freed, DRAM, slower tiers, cold.
const HEADS: [&str; 4] = ["WOULD FREE", "DRAM", "SLOW", "COLD"];
const NUMBER: usize = 10;
/// A decision in less room than this is left to the page of its cgroup.
const LEAST_DECISION: usize = 30;
const KEYS: &str = "q quit  / filter  s sort  p pause  ↑↓ enter one cgroup";

/// Colours where they are wanted; without, bold and dim remain.
#[derive(Clone, Copy)]
struct Inks {
    colour: bool,
}

impl Inks {
    fn of(self, index: u8) -> Style {
        if self.colour { Style::new().fg(Color::Indexed(index)) } else { Style::new() }
    }

    /// Warm water above, cold below.
    fn heat(self, class: usize) -> Style {
        self.of([203, 215, 116, 68][class.min(3)])
    }

    fn good(self) -> Style {
        self.of(2).add_modifier(Modifier::BOLD)
    }

    fn bad(self) -> Style {
        self.of(1).add_modifier(Modifier::BOLD)
    }

    fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn faint() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// The cgroups of the picture that pass the filter, in the order that was chosen.
#[must_use]
pub(super) fn sorted<'a>(shown: &'a Shown, screen: &Screen) -> Vec<&'a Cgroup> {
    let filter = screen.filter.to_lowercase();
    let mut cgroups: Vec<&Cgroup> =
        shown.cgroups.values().filter(|cgroup| cgroup.name().to_lowercase().contains(&filter)).collect();
    match screen.order {
        Order::WouldFree => {
            cgroups.sort_by_key(|cgroup| (Reverse(cgroup.would_free_bytes), Reverse(cgroup.anon())));
        }
        Order::Cold => cgroups.sort_by_key(|cgroup| Reverse(cgroup.cold_bytes)),
        Order::Held => cgroups.sort_by_key(|cgroup| Reverse(cgroup.anon())),
        Order::Name => cgroups.sort_by_key(|cgroup| cgroup.name()),
    }
    cgroups
}

/// Draws the picture; `None` before there is one.
pub fn draw(frame: &mut Frame<'_>, shown: Option<&Shown>, screen: &Screen) {
    let inks = Inks { colour: screen.colour };
    let Some(shown) = shown else {
        let words = "looking for the first time; ages need a second look ...";
        frame.render_widget(Paragraph::new(words), frame.area());
        return;
    };
    let width = usize::from(frame.area().width);
    let head = head(shown, screen, width, inks);
    let warnings = warnings(shown, width, inks);
    let rows = |lines: &[Line<'_>]| Constraint::Length(u16::try_from(lines.len()).unwrap_or(u16::MAX));
    let [top, middle, below, foot] =
        Layout::vertical([rows(&head), Constraint::Min(3), rows(&warnings), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    let page = screen.page.as_ref().and_then(|path| shown.cgroups.get(path));
    let lines = match page {
        Some(cgroup) => page_lines(shown, cgroup, middle),
        None => table(shown, screen, middle, inks),
    };
    frame.render_widget(Paragraph::new(lines), middle);
    frame.render_widget(Paragraph::new(warnings), below);
    let keys =
        if screen.typing { format!("filter: {}▏ enter, esc", screen.filter) } else { KEYS.to_owned() };
    frame.render_widget(Paragraph::new(Line::styled(cut(&keys, width), Inks::faint())), foot);
}

/// A cgroup may be named so that a terminal would obey it.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn head(shown: &Shown, screen: &Screen, width: usize, inks: Inks) -> Vec<Line<'static>> {
    let doing = if shown.command == "observe" { "observing, nothing is moved" } else { "the running agent" };
    let count = shown.cgroups.len();
    let mut title =
        format!("thermocline: {doing}, engine {}, {count} cgroups, round {}", shown.engine, shown.rounds);
    if screen.paused {
        title = format!("PAUSED {title}");
    }
    let mut lines = vec![Line::styled(cut(&title, width), Inks::strong())];
    let total = shown.savings.total;
    let mut sums = vec![total.to_string()];
    if let Some(freed) = total.freed() {
        let beside = format!("{total}; {freed}");
        if beside.chars().count() <= width { sums = vec![beside] } else { sums.push(freed) }
    }
    lines.extend(sums.iter().map(|sum| Line::styled(cut(sum, width), inks.good())));
    for (index, tier) in shown.tiers.iter().enumerate() {
        let used = tier.capacity_bytes.saturating_sub(tier.free_bytes);
        let words = format!("{} used of {}", Bytes(used), Bytes(tier.capacity_bytes));
        let cells = width.saturating_sub(8 + words.chars().count() + 2).min(60);
        let filled = crate::text::bar_cells(used, tier.capacity_bytes, cells).min(cells);
        lines.push(Line::from(vec![
            Span::styled(format!("{:<8}", cut(&clean(&tier.name), 7)), Inks::strong()),
            Span::styled(SHADES[index.min(3)].repeat(filled), inks.heat(index * 2)),
            Span::styled("·".repeat(cells - filled), Inks::faint()),
            Span::raw(format!("  {words}")),
        ]));
    }
    lines.push(Line::default());
    lines
}

fn warnings(shown: &Shown, width: usize, inks: Inks) -> Vec<Line<'static>> {
    let failing = shown.conditions.iter().filter(|condition| !condition.status);
    let mut all: Vec<String> =
        failing.map(|condition| format!("! {}: {}", condition.reason, condition.message)).collect();
    all.extend(
        shown.config.error.iter().map(|error| format!("! the newest configuration is not in force: {error}")),
    );
    let lines: Vec<String> = all.iter().flat_map(|words| wrapped(&clean(words), width)).collect();
    let more = lines.len().saturating_sub(MOST_WARNING_LINES);
    let mut shown: Vec<Line<'static>> =
        lines.into_iter().take(MOST_WARNING_LINES).map(|line| Line::styled(line, inks.bad())).collect();
    if more > 0 {
        shown.push(Line::styled("  ... --output json has all of it", inks.bad()));
    }
    shown
}

fn page_lines(shown: &Shown, cgroup: &Cgroup, area: Rect) -> Vec<Line<'static>> {
    let lines = explain(shown, cgroup);
    let wrapped = lines.iter().flat_map(|line| wrapped(&clean(line), usize::from(area.width)));
    let mut lines: Vec<Line<'static>> = wrapped.map(Line::from).collect();
    if let Some(first) = lines.first_mut() {
        *first = first.clone().style(Inks::strong());
    }
    lines
}

fn table(shown: &Shown, screen: &Screen, area: Rect, inks: Inks) -> Vec<Line<'static>> {
    let cgroups = sorted(shown, screen);
    if cgroups.is_empty() {
        let words = if screen.filter.is_empty() {
            "No cgroup with memory of its own is looked at. Name some: thermocline-agent observe '/system.slice/*'".to_owned()
        } else {
            format!("No cgroup has {:?} in its name; esc ends the filter.", screen.filter)
        };
        return wrapped(&words, usize::from(area.width)).into_iter().map(Line::from).collect();
    }
    let names: Vec<String> = cgroups.iter().map(|cgroup| clean(&cgroup.name())).collect();
    let skip = shared_beginning(&names);
    let beginning = names.first().map_or("", |name| &name[..skip]).to_owned();
    let names: Vec<&str> = names.iter().map(|name| &name[skip..]).collect();
    let numbers = HEADS.len() * (NUMBER + 1);
    let width = usize::from(area.width);
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(6);
    let room = width.saturating_sub(numbers + 2 + AGE_CELLS).max(8);
    let name_width = longest.min(if width >= 140 { room.min(60) } else { room });
    let decision_at = name_width + numbers + 2 + AGE_CELLS + 2;
    let decision = width.saturating_sub(decision_at);
    let decision = if decision >= LEAST_DECISION { decision } else { 0 };

    let title = if beginning.is_empty() { "CGROUP".to_owned() } else { format!("{beginning}…") };
    let heads: Vec<String> = HEADS.iter().map(|name| format!("{name:>NUMBER$}")).collect();
    let last = if decision > 0 { "  DECISION" } else { "" };
    let (title, heads) = (middle_cut(&title, name_width), heads.join(" "));
    let head = format!("{title:name_width$} {heads}  {:AGE_CELLS$}{last}", "AGE IN DRAM");
    let mut lines = vec![Line::styled(cut(&head, width), Inks::strong())];
    // The header, the legend, and where some are left out, a line that says how many.
    let height = usize::from(area.height).saturating_sub(2);
    let room = if cgroups.len() > height { height.saturating_sub(1) } else { height };
    let first = (screen.marked + 1).saturating_sub(room).min(cgroups.len().saturating_sub(room));
    for (index, (cgroup, name)) in cgroups.iter().zip(&names).enumerate().skip(first).take(room) {
        lines.push(row(shown, cgroup, name, name_width, decision, index == screen.marked, inks));
    }
    let left_out = cgroups.len().saturating_sub(room);
    if left_out > 0 {
        let outside =
            cgroups.iter().enumerate().filter(|(index, _)| *index < first || *index >= first + room);
        let bytes: u64 = outside.map(|(_, cgroup)| cgroup.would_free_bytes).sum();
        let words = format!("and {left_out} more, which would free {}", Bytes(bytes));
        lines.push(Line::styled(cut(&words, width), Inks::faint()));
    }
    lines.push(legend(&cgroups, screen, inks));
    lines
}

fn amount(bytes: u64) -> String {
    if bytes == 0 { "·".to_owned() } else { Bytes(bytes).to_string() }
}

fn row(
    shown: &Shown,
    cgroup: &Cgroup,
    name: &str,
    name_width: usize,
    decision: usize,
    marked: bool,
    inks: Inks,
) -> Line<'static> {
    let dram = cgroup.on(shown.dram());
    let numbers = [cgroup.would_free_bytes, dram, cgroup.anon() - dram, cgroup.cold_bytes];
    let mut spans =
        vec![Span::styled(format!("{:name_width$}", middle_cut(name, name_width)), Inks::strong())];
    for (column, bytes) in numbers.into_iter().enumerate() {
        let ink = match (bytes, column) {
            (0, _) => Inks::faint(),
            (_, 0) => inks.good(),
            _ => Style::new(),
        };
        spans.push(Span::styled(format!(" {:>NUMBER$}", amount(bytes)), ink));
    }
    spans.push(Span::raw("  "));
    let classes = bytes_by_age(&cgroup.ages, cgroup.effective_age_seconds);
    let mut filled = 0;
    for (class, cells) in shared_cells(&classes, AGE_CELLS).into_iter().enumerate() {
        filled += cells;
        spans.push(Span::styled(SHADES[class].repeat(cells), inks.heat(class)));
    }
    if decision > 0 {
        spans.push(Span::raw(" ".repeat(AGE_CELLS.saturating_sub(filled) + 2)));
        spans.push(Span::styled(cut(&clean(&cgroup.decision.text), decision), Inks::faint()));
    }
    let line = Line::from(spans);
    if marked { line.patch_style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

/// Of the shades, in the age that counts as cold: one for all, or each cgroup's own.
fn legend(cgroups: &[&Cgroup], screen: &Screen, inks: Inks) -> Line<'static> {
    let age = cgroups.first().map_or(0.0, |cgroup| cgroup.effective_age_seconds);
    let same = cgroups.iter().all(|cgroup| (cgroup.effective_age_seconds - age).abs() < 0.5);
    let words =
        if same { age_words(age) } else { ["new", "young", "cold", "5 times that"].map(str::to_owned) };
    let mut spans = vec![Span::styled("not accessed for", Inks::faint())];
    for (class, words) in words.into_iter().enumerate() {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(SHADES[class], inks.heat(class)));
        spans.push(Span::styled(format!(" {words}"), Inks::faint()));
    }
    let order = if screen.order == Order::Name { "name" } else { screen.order.words() };
    spans.push(Span::styled(format!("   by {order}"), Inks::faint()));
    Line::from(spans)
}
