//! The demonstration: two cgroups, one managed; cold memory sinks, the hot set shifts, and it all follows.
//!
//! `cargo xtask demo` shows it; it asks for pictures on the kernel's command line (see [`Show`]). Without that it is a
//! scenario like others.

mod show;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{FAST, Guest, SLOW, numa_stat, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::{Ledger, RegionLedger, now_ms};
use show::{Scene, Show};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "demo",
    about: "what `cargo xtask demo` shows: cold memory sinks, a hot set that shifts is followed, a neighbour is left alone",
    applies: |machine| machine.has_lower_tier(),
    agent: true,
    guest_timeout: Duration::from_secs(200),
    run,
};

const CONFIG: &str = include_str!("../../../deploy/examples/demo.yaml");
/// In the words of [`CONFIG`].
const AFTER: &str = "after: 10s";

const MANAGED: &str = "/demo.slice/managed-shop";
const NEIGHBOUR: &str = "/demo.slice/neighbour";
/// The first hot region and the first cold one change places when the hot set shifts.
const SHOP_REGIONS: &str = "--region hot@500ms:64M:name=today --region cold:64M:name=tomorrow";
/// Of another process of the same cgroup.
const ARCHIVE_REGIONS: &str = "--region cold:256M:thp:name=archive";
const NEIGHBOUR_REGIONS: &str = "--region hot:32M:name=busy --region cold:160M:name=idle";

/// After 10 s, two scans of 5 s and the bytes at 0.8 of 50 MiB/s, cold memory has sunk; a scan to spare.
const SINKS_WITHIN: Duration = Duration::from_secs(37);
/// Old hot bytes sink when the age, lengthened by what came back, has passed, and no more is touched on the slow node than the
/// policy allows. All ends within two minutes.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(55);
/// Long enough for a wrong second wave, and to look at.
const STILL: Duration = Duration::from_secs(6);
const SETTLES: Duration = Duration::from_secs(2);
const MIB: f64 = 1_048_576.0;

/// As the agent's probe advises: it is off at boot on Debian's 6.1.
const LRU_GEN: (&str, &str) = ("/sys/kernel/mm/lru_gen/enabled", "y");
/// A slow page used again within this time of the kernel's look at it is hot, and promoted: 1 s by default. The guest's
/// processor copies pages ten times slower than a real one, so the first promotions alone would take that long.
const HOT_THRESHOLD: (&str, &str) = ("/sys/kernel/debug/sched/numa_balancing/hot_threshold_ms", "10000");
/// The kernel looks at a process's slow pages ever more rarely while it finds none in use, down to once in 60 s. Those are
/// half of the demo: here it stays with once in a second, as it begins.
const SCAN_PERIOD_MAX: (&str, &str) = ("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "1000");

fn run(guest: &mut Guest) -> Result<Verdict> {
    for (file, value) in [LRU_GEN, HOT_THRESHOLD, SCAN_PERIOD_MAX] {
        write_file(file, value)?;
    }
    let neighbour = guest.cgroup(NEIGHBOUR)?;
    let managed = guest.cgroup(MANAGED)?;
    let other = guest.spawn_workload(&neighbour, NEIGHBOUR_REGIONS)?;
    let orders = guest.spawn_workload(&managed, SHOP_REGIONS)?;
    let archive = guest.spawn_workload(&managed, ARCHIVE_REGIONS)?;
    let agent = guest.spawn_agent(&config()?, &[])?;
    let began_ms = now_ms();
    // From the first picture on, it shows what the demo is about.
    let mut first = String::new();
    guest.expect_within(Duration::from_secs(10), "the agent shows the cgroup", || {
        first = guest.http_get(9440, "/debug/picture?width=100&height=30").unwrap_or_default();
        first.contains(MANAGED)
    })?;
    let started = agent.cpu()?.as_secs_f64();
    let mut show = Show::new(began_ms, (managed, [orders, archive]), (neighbour, other))?;

    let cold = |r: &RegionLedger| r.name != "today";
    show.until(guest, Scene::Sinks, SINKS_WITHIN, |ledger| share(ledger, cold, SLOW) >= 0.98)?;
    // The last pages follow.
    show.play(guest, Scene::Placed, SETTLES)?;
    let before = agent.cpu()?.as_secs_f64();
    let ledger = show.play(guest, Scene::Placed, STILL)?;
    let still = 100.0 * (agent.cpu()?.as_secs_f64() - before) / STILL.as_secs_f64();
    let found = share(&ledger, cold, SLOW);
    let sunk = ledger.sum(|_| true, |r| r.slow_bytes) as f64;
    let right = if sunk > 0.0 { ledger.sum(cold, |r| r.slow_bytes) as f64 / sunk } else { 0.0 };
    let kept = share(&ledger, |r| r.name == "today", FAST);
    percent_at_least(guest, "cold found and demoted", found, 98.0);
    percent_at_least(guest, "cold, of what was demoted", right, 99.5);
    percent_at_least(guest, "hot kept in DRAM", kept, 99.5);

    show.shift()?;
    let followed = |ledger: &Ledger| {
        share(ledger, |r| r.name == "tomorrow", FAST) >= 0.95
            && share(ledger, |r| r.name == "today", SLOW) >= 0.95
    };
    show.until(guest, Scene::Shifts, FOLLOWS_WITHIN, followed)?;
    let ledger = show.play(guest, Scene::Followed, STILL)?;
    percent_at_least(guest, "new hot set back in DRAM", share(&ledger, |r| r.name == "tomorrow", FAST), 95.0);
    percent_at_least(guest, "old hot set demoted", share(&ledger, |r| r.name == "today", SLOW), 95.0);

    let (wrong, neighbour_moved) = show.end()?;
    guest.check("neighbour moved", format!("{neighbour_moved} B"), "= 0 B", neighbour_moved == 0);
    guest.check("pages with wrong content", wrong, "= 0", wrong == 0);
    let moved = state_sum(guest, "demoted_bytes")? + state_sum(guest, "promoted_bytes")?;
    // Virtual time: four nanoseconds an instruction, so a core of 250 million instructions a second.
    guest.check("agent CPU while all rests", format!("{still:.1} % of 250 MIPS"), "<= 5 %", still <= 5.0);
    if moved > 0.0 {
        let cost = (agent.cpu()?.as_secs_f64() - started) * 1e3 / (moved / MIB);
        guest.check("agent CPU per MiB moved", format!("{cost:.1} ms"), "<= 16 ms", cost <= 16.0);
    } else {
        guest.check("agent CPU per MiB moved", "nothing moved", "<= 16 ms", false);
    }
    let rss = agent.rss()? as f64 / MIB;
    guest.check("agent RSS", format!("{rss:.1} MiB"), "<= 24 MiB", rss <= 24.0);
    let log = agent.log()?;
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("agent's end", status, "exit status: 0", status.success());
    if !guest.verdict().pass {
        guest.say(log);
    }
    Ok(guest.verdict())
}

/// The example, with the age of the command line.
fn config() -> Result<String> {
    ensure!(CONFIG.contains(AFTER), "the example has no `{AFTER}`");
    let Some(after) = crate::guest::kernel_argument("thermocline.after")? else {
        return Ok(CONFIG.to_owned());
    };
    Ok(CONFIG.replace(AFTER, &format!("after: {after}")).replace("        afterMax: 15s\n", ""))
}

/// Share of the matching regions' bytes that lie on a node.
fn share(ledger: &Ledger, which: impl Fn(&RegionLedger) -> bool + Copy, node: usize) -> f64 {
    let on = |r: &RegionLedger| if node == FAST { r.fast_bytes } else { r.slow_bytes };
    ledger.sum(which, on) as f64 / ledger.sum(which, |r| r.bytes) as f64
}

fn percent_at_least(guest: &mut Guest, name: &str, share: f64, bar: f64) {
    // Rounded down: what is shown as reached is reached.
    let percent = (share * 1000.0).floor() / 10.0;
    guest.check(name, format!("{percent:.1} %"), format!(">= {bar} %"), 100.0 * share >= bar);
}

/// A sum of the agent's, over all engines and reasons.
fn state_sum(guest: &Guest, name: &str) -> Result<f64> {
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let sums =
        state["totals"][name].as_object().with_context(|| format!("/debug/state has no totals.{name}"))?;
    Ok(sums.values().filter_map(serde_json::Value::as_f64).sum())
}

/// Anonymous bytes of a cgroup by node.
fn anon(cgroup: &crate::guest::Cgroup) -> Result<[u64; 2]> {
    numa_stat(cgroup, "anon").context("anonymous memory by node")
}
