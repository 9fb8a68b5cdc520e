//! One workload of known heat, watched while one contender moves its memory.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::contenders::{Contender, POD, Running};
use super::doorbell::Doorbell;
use super::settings::Settings;
use super::told::{Sample, Told};
use super::{AFTER, BEFORE, CONTENDER, THP, seconds};
use crate::guest::{
    Cgroup, Guest, Workload, console, kernel_argument, kthread_cpu, read, resident_bytes, vmstat,
};
use crate::report::Verdict;
use crate::workload::{Ledger, now_ms};

/// What kind of memory a region is to whoever judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// Hot until the shift, cold from then on.
    Hot,
    /// Hot all the time, only read.
    ReadHot,
    /// Touched now and then; nobody is told how often.
    Warm,
    /// Cold until the shift, hot from then on.
    Cold,
    /// Cold for good.
    Stays,
    /// `MADV_FREE`d, locked, of a file or shared: never to be moved.
    NeverMoves,
}

impl Region {
    /// Every region by slot: its kind, the workload's word for it, its MiB, and whether it may be of huge pages.
    pub const ALL: [(Self, &'static str, u64, bool); 11] = [
        (Self::Hot, "hot", 32, true),
        (Self::ReadHot, "readhot", 32, true),
        (Self::Warm, "warm@15s", 16, false),
        (Self::Warm, "warm@30s", 16, false),
        (Self::Warm, "warm@60s", 16, false),
        (Self::Cold, "cold", 32, true),
        (Self::Stays, "cold", 96, true),
        (Self::NeverMoves, "lazyfree", 16, false),
        (Self::NeverMoves, "mlock", 16, false),
        (Self::NeverMoves, "file", 16, false),
        (Self::NeverMoves, "shmem", 16, false),
    ];

    /// Whether it is anonymous memory that may be moved.
    #[must_use]
    pub fn counts(self) -> bool {
        self != Self::NeverMoves
    }
}

const MIB: u64 = 1 << 20;
/// The neighbour's first slot.
const NEIGHBOUR_SLOT: u64 = 16;
/// Between samples.
const TICK: Duration = Duration::from_secs(5);
/// Last of what a contender logged.
const LAST_WORDS: usize = 2000;

pub(super) fn run(guest: &mut Guest) -> Result<Verdict> {
    let name = kernel_argument(CONTENDER)?.context("no contender is asked for")?;
    let contender = Contender::find(&name).with_context(|| format!("no contender is named {name}"))?;
    let (before, after) = (seconds(BEFORE)?, seconds(AFTER)?);
    let thp = kernel_argument(THP)?.is_some_and(|word| word == "yes");

    let pod = guest.cgroup(POD)?;
    let neighbour = guest.cgroup("/pods/neighbour")?;
    let other = guest
        .spawn_workload(&neighbour, &format!("--slot {NEIGHBOUR_SLOT} --region hot:16M --region cold:32M"))?;
    let file = guest.zram(64, false)?;
    let workload = guest.spawn_workload(&pod, &spec(thp, &file.display().to_string()))?;
    let regions = Region::ALL.iter().map(|(_, word, mib, _)| ((*word).to_owned(), mib * MIB)).collect();
    let kernel = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    console(&Told::Began { kernel, settings: contender.settings.to_owned(), regions }.render());

    let untouched = Settings::read(&pod);
    let cold = Region::ALL.iter().filter(|(kind, ..)| matches!(kind, Region::Cold | Region::Stays));
    let cold: u64 = cold.map(|(_, _, mib, _)| mib * MIB).sum();
    let mut doorbell = Doorbell::new()?;
    let migrated = migrated()?;
    let running = (contender.start)(guest, cold)?;
    doorbell.start();
    let contender_cgroup = running.cgroup(guest)?;
    let mut watch =
        Watch { pod, workload, other, contender: contender_cgroup, doorbell, migrated, start_ms: now_ms() };
    watch.until(guest, before)?;
    // By the answer what is hot now was touched once.
    console(&Told::Shifted { at_ms: now_ms() - watch.start_ms }.render());
    watch.workload.shift()?;
    watch.until(guest, before + after)?;
    watch.doorbell.end();
    end(guest, watch, running, &untouched)
}

fn spec(thp: bool, file: &str) -> String {
    let mut spec = format!("--slot 0 --file {file}");
    for (slot, (_, word, mib, may_be_huge)) in Region::ALL.iter().enumerate() {
        let page = if thp && *may_be_huge { ":thp" } else { "" };
        let _ = write!(spec, " --region {word}:{mib}M{page}:name=r{slot}");
    }
    spec
}

/// What is looked at at each tick.
struct Watch {
    pod: Cgroup,
    workload: Workload,
    other: Workload,
    contender: Option<Cgroup>,
    doorbell: Doorbell,
    /// Bytes that were migrated before the start.
    migrated: u64,
    start_ms: u64,
}

impl Watch {
    fn until(&mut self, guest: &Guest, end: Duration) -> Result<()> {
        let end = u64::try_from(end.as_millis())?;
        loop {
            self.sample()?;
            let at = now_ms() - self.start_ms;
            if at >= end {
                return Ok(());
            }
            guest.sleep(TICK.min(Duration::from_millis(end - at)));
        }
    }

    fn sample(&mut self) -> Result<()> {
        let (at_ms, mark) = (now_ms() - self.start_ms, self.doorbell.mark());
        let ledger = self.workload.ledger()?;
        let (contender_us, rss) = match &self.contender {
            Some(cgroup) => (cgroup.stat("cpu.stat", "usage_usec")?, resident(cgroup)?),
            None => (0, 0),
        };
        let sample = Sample {
            at_ms,
            mark,
            slow: column(&ledger, |region| region.slow_bytes),
            swapped: column(&ledger, |region| region.swapped_bytes),
            neighbour_slow: self.other.ledger()?.sum(|_| true, |region| region.slow_bytes),
            contender_us,
            rss,
            kernel_us: u64::try_from(kthread_cpu()?.as_micros())?,
            workload_us: self.pod.stat("cpu.stat", "usage_usec")?,
            migrated: migrated()? - self.migrated,
        };
        console(&Told::Sample(sample).render());
        Ok(())
    }
}

fn column(ledger: &Ledger, of: impl Fn(&crate::workload::RegionLedger) -> u64) -> Vec<u64> {
    ledger.regions.iter().map(of).collect()
}

/// Bytes that the kernel migrated since boot, for whatever reason.
fn migrated() -> Result<u64> {
    Ok(vmstat("pgmigrate_success")? * misses::PAGE)
}

/// Resident bytes of a cgroup's processes.
fn resident(cgroup: &Cgroup) -> Result<u64> {
    let mut bytes = 0;
    for pid in cgroup.read("cgroup.procs")?.lines() {
        // It may have ended.
        let Ok(status) = read(format!("/proc/{pid}/status")) else { continue };
        bytes += resident_bytes(&status).unwrap_or(0);
    }
    Ok(bytes)
}

/// Looks at every page's content, then at what is left of a killed contender.
fn end(guest: &mut Guest, mut watch: Watch, running: Running, untouched: &Settings) -> Result<Verdict> {
    let verified = watch.workload.verify()?;
    let said = running.kill()?;
    guest.sleep(TICK);
    let left = Settings::read(&watch.pod).changed_since(untouched);
    let tail = said.char_indices().rev().nth(LAST_WORDS).map_or(0, |(at, _)| at);
    console(&Told::Ended { wrong: verified.wrong, left, last_words: said[tail..].to_owned() }.render());
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);
    Ok(guest.verdict())
}
