//! What the demo shows while it runs: the agent's own picture, and below it what the programs themselves know.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::anon;
use crate::guest::{Cgroup, Guest, Workload, kernel_argument};
use crate::report::Frame;
use crate::workload::{Ledger, RegionLedger, now_ms};

/// Guest time between two pictures.
const FRAME: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;
/// Columns before a bar: cgroup, region, size.
const LABELS: usize = 32;
/// Columns after a bar.
const NOTE: usize = 22;

const BOLD: &str = "1";
const FAINT: &str = "2";
/// As in the agent's picture.
const HOT: &str = "38;5;203";
const COLD: &str = "38;5;215";
const SUNK: &str = "38;5;116";

/// Which part of the story is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    Sinks,
    Placed,
    Shifts,
    Followed,
}

impl Scene {
    /// What to see, in one line of 70 columns.
    fn words(self, seconds: u64) -> &'static str {
        match self {
            Self::Sinks if seconds < 12 => {
                "Two cgroups, all of their memory in DRAM. The agent watches ages."
            }
            Self::Sinks => "Memory that nobody touches is cold, and sinks. Hot memory stays.",
            Self::Placed => "Cold memory is below, hot memory above. Nothing else moves.",
            Self::Shifts if seconds < 8 => "The hot set shifts: `tomorrow` wakes up below and comes back up.",
            Self::Shifts => "What was hot before the shift falls asleep, and sinks in its turn.",
            Self::Followed => "Followed. The neighbour, not managed, was left alone all the time.",
        }
    }
}

/// The cgroups, and the terminal that the host describes by `thermocline.frame=COLUMNSxLINES` and `thermocline.colour=yes`.
pub(super) struct Show {
    began_ms: u64,
    scene_ms: u64,
    scene: Scene,
    managed: Cgroup,
    /// Its processes; the first one's hot set shifts.
    workloads: [Workload; 2],
    neighbour: Cgroup,
    other: Workload,
    other_before: u64,
    /// Columns and lines; `None`: nobody looks.
    size: Option<(usize, usize)>,
    colour: bool,
}

impl Show {
    pub(super) fn new(
        began_ms: u64,
        (managed, workloads): (Cgroup, [Workload; 2]),
        (neighbour, other): (Cgroup, Workload),
    ) -> Result<Self> {
        let size = kernel_argument("thermocline.frame")?
            .map(|text| {
                let (width, height) =
                    text.split_once('x').context("thermocline.frame is no COLUMNSxLINES")?;
                anyhow::Ok((width.parse()?, height.parse()?))
            })
            .transpose()?;
        let colour = kernel_argument("thermocline.colour")?.is_some_and(|value| value == "yes");
        let other_before = anon(&neighbour)?[1];
        let scene = Scene::Sinks;
        Ok(Self {
            began_ms,
            scene_ms: now_ms(),
            scene,
            managed,
            workloads,
            neighbour,
            other,
            other_before,
            size,
            colour,
        })
    }

    /// Shows a scene for as long as it lasts. Returns the managed cgroup's ledger at its end.
    pub(super) fn play(&mut self, guest: &Guest, scene: Scene, lasts: Duration) -> Result<Ledger> {
        self.until(guest, scene, lasts, |_| false)
    }

    /// Shows a scene until the managed cgroup's ledger says that it is done, or for as long as it may take.
    pub(super) fn until(
        &mut self,
        guest: &Guest,
        scene: Scene,
        within: Duration,
        done: impl Fn(&Ledger) -> bool,
    ) -> Result<Ledger> {
        self.scene = scene;
        self.scene_ms = now_ms();
        loop {
            let ledger = self.ledger()?;
            if self.size.is_some() {
                let frame = Frame { at_ms: now_ms(), text: self.frame(guest, &ledger)? };
                crate::guest::console(&frame.render());
            }
            if done(&ledger) || u128::from(now_ms() - self.scene_ms) >= within.as_millis() {
                return Ok(ledger);
            }
            guest.sleep(FRAME);
        }
    }

    /// The hot set of the managed cgroup shifts.
    pub(super) fn shift(&mut self) -> Result<()> {
        self.workloads[0].shift().map(drop)
    }

    /// Pages with wrong content in both cgroups, and bytes of the neighbour that moved.
    pub(super) fn end(&mut self) -> Result<(u64, u64)> {
        let moved = anon(&self.neighbour)?[1].abs_diff(self.other_before);
        let mut wrong = self.other.verify()?.wrong;
        for workload in &mut self.workloads {
            wrong += workload.verify()?.wrong;
        }
        Ok((wrong, moved))
    }

    /// Of all processes of the managed cgroup.
    fn ledger(&mut self) -> Result<Ledger> {
        let [first, second] = &mut self.workloads;
        let mut ledger = first.ledger()?;
        ledger.regions.extend(second.ledger()?.regions);
        Ok(ledger)
    }

    fn frame(&mut self, guest: &Guest, ledger: &Ledger) -> Result<String> {
        let (width, height) = self.size.unwrap_or((80, 24));
        let now = now_ms();
        let clock = format!("{} s", (now - self.began_ms) / 1000);
        let words = self.scene.words((now - self.scene_ms) / 1000);
        let mut text = String::new();
        let gap = width.saturating_sub(2 + words.chars().count() + clock.len());
        let _ = writeln!(text, " {}{:gap$}{}", self.ink(BOLD, words), "", self.ink(FAINT, &clock));
        text.push('\n');

        // A heading, the regions, the neighbour, and a blank line above: what is left is the agent's.
        let ours = 2 + 1 + ledger.regions.len() + 1 + 1;
        let room = height.saturating_sub(ours);
        let colour = if self.colour { "yes" } else { "no" };
        text.push_str(
            &guest.http_get(9440, &format!("/debug/picture?width={width}&height={room}&colour={colour}"))?,
        );
        text.push('\n');

        let _ = writeln!(text, " {}", self.ink(FAINT, "what the programs themselves know, page by page"));
        let [fast, slow] = anon(&self.neighbour)?;
        let most = ledger.regions.iter().map(|r| r.bytes).chain([fast + slow]).max().unwrap_or(1);
        let cells = width.saturating_sub(LABELS + NOTE).max(4);
        let bar =
            |bytes: u64| usize::try_from((bytes * cells as u64 + most / 2) / most).unwrap_or(0).min(cells);
        for (index, region) in ledger.regions.iter().enumerate() {
            let name =
                if index == 0 { self.managed.path().rsplit('/').next().unwrap_or_default() } else { "" };
            let (note, ink, shade) = note(region, now);
            let dram = bar(region.fast_bytes);
            let sunk = bar(region.bytes).saturating_sub(dram);
            self.row(
                &mut text,
                [name, &region.name],
                region.bytes,
                [(ink, shade, dram), (SUNK, "▒", sunk)],
                cells,
                &note,
            );
        }
        let name = self.neighbour.path().rsplit('/').next().unwrap_or_default();
        let parts = [(HOT, "█", bar(fast)), (SUNK, "▒", bar(slow))];
        self.row(&mut text, [name, "(all)"], fast + slow, parts, cells, "not managed");
        Ok(text)
    }

    fn row(
        &self,
        text: &mut String,
        [name, region]: [&str; 2],
        bytes: u64,
        parts: [(&str, &str, usize); 2],
        cells: usize,
        note: &str,
    ) {
        let name = self.ink(BOLD, &format!("{name:13}"));
        let _ = write!(text, " {name} {region:8} {:>3} MiB ", bytes / MIB);
        let mut used = 0;
        for (ink, shade, count) in parts {
            text.push_str(&self.ink(ink, &shade.repeat(count)));
            used += count;
        }
        let gap = cells.saturating_sub(used) + 1;
        let _ = writeln!(text, "{:gap$}{}", "", self.ink(FAINT, note));
    }

    fn ink(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// When a region was touched last, and how its part in DRAM is drawn.
fn note(region: &RegionLedger, now: u64) -> (String, &'static str, &'static str) {
    match region.period_ms {
        Some(period) => (format!("touched {}x a second", 1000 / period.max(1)), HOT, "█"),
        None => (format!("asleep for {} s", now.saturating_sub(region.last_touch_ms) / 1000), COLD, "▓"),
    }
}
