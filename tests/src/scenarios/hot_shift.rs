//! The hot set moves away: what is hot now comes back to DRAM, what was hot sinks. One run for each way of promotion.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{agent_config, config_with_engine};
use crate::guest::{Guest, Workload, write_file};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};
use crate::workload::RegionLedger;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hot-shift",
    about: "after the hot set shifts, 95 % of the new hot bytes are back in DRAM, by the kernel's promotion and by ours",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

const MIB: u64 = 1 << 20;
const AFTER: Duration = Duration::from_secs(20);
/// A burst is far less than the new hot set.
const RATE_MIB: u64 = 8;
const SHIFTED_MIB: u64 = 64;
const REGIONS: &str = "--region hot:64M --region cold:64M --region readhot:32M --region cold:64M:name=stays";

/// Engines and who promotes beside them.
fn ways(machine: Machine) -> &'static [&'static str] {
    if machine.has_lower_tier() { &["LruGen", "Pages"] } else { &["Pages"] }
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    for way in ways(guest.machine()) {
        shift(guest, way)?;
    }
    if guest.machine().has_lower_tier() {
        by_default(guest)?;
    }
    Ok(guest.verdict())
}

/// What of a region is on slow nodes.
fn share_on_slow(region: &RegionLedger) -> f64 {
    region.slow_bytes as f64 / region.bytes as f64
}

fn slow_share(workload: &mut Workload, name: &str) -> Result<f64> {
    workload.ledger()?.region(name).map(share_on_slow).with_context(|| format!("no region {name}"))
}

/// The default policy, engine and promoter: the old set goes down as any that is idle, and no age is learned from it.
fn by_default(guest: &mut Guest) -> Result<()> {
    const AFTER: Duration = Duration::from_mins(2);
    let scan = AFTER / 2;
    let pod = guest.cgroup("/pods/by-default")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    let agent = guest.spawn_agent(&agent_config("/pods/by-default", ""), &[])?;
    let age = |guest: &Guest| -> Result<f64> {
        let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
        state["cgroups"]["/pods/by-default"]["effective_age_seconds"]
            .as_f64()
            .context("effective_age_seconds")
    };
    guest.expect_within(3 * AFTER, "both cold regions sink", || {
        ["cold", "stays"].iter().all(|name| slow_share(&mut workload, name).is_ok_and(|share| share >= 0.95))
    })?;
    // It is known by then to have been cold: what is used at once after it sank is a comeback, not a shift.
    guest.sleep(AFTER + scan / 3);
    let before = age(guest)?;
    workload.shift()?;
    let began = Instant::now();
    let (mut up, mut down) = (None, None);
    let both = guest.expect_within(4 * AFTER, "the hot sets change places", || {
        let passed = || began.elapsed().as_secs_f64();
        if up.is_none() && slow_share(&mut workload, "cold").is_ok_and(|share| share <= 0.05) {
            up = Some(passed());
        }
        if down.is_none() && slow_share(&mut workload, "hot").is_ok_and(|share| share >= 0.95) {
            down = Some(passed());
        }
        up.is_some() && down.is_some()
    });
    if both.is_err() {
        guest.say(agent.log()?);
    }
    both?;
    for (what, seen, bar) in [
        ("by default: time until 95 % of the new hot set were up, s", up, 3 * scan),
        ("by default: time until 95 % of the old hot set were down, s", down, AFTER + 2 * scan),
    ] {
        guest.at_most(what, seen.unwrap_or(f64::INFINITY), bar.as_secs_f64());
    }
    guest.equal("by default: age after the shift, s", age(guest)?, &before);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("by default: exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(())
}

fn shift(guest: &mut Guest, engine: &str) -> Result<()> {
    let pod = guest.cgroup("/pods/managed")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    let spec = format!("demote: {{ after: {}s }}, promote: {{ maxRate: {RATE_MIB}Mi }}", AFTER.as_secs());
    let agent = guest.spawn_agent(&config_with_engine(engine, "/pods/managed", &spec), &[])?;
    let all_sunk = guest.expect_within(4 * AFTER, "both cold regions sink", || {
        let cold =
            workload.ledger().map(|l| l.regions.into_iter().filter(|r| r.kind == "cold").collect::<Vec<_>>());
        cold.is_ok_and(|cold| cold.iter().all(|r| share_on_slow(r) >= 0.95))
    });
    if all_sunk.is_err() {
        guest.say(agent.log()?);
    }
    all_sunk?;

    workload.shift()?;
    let back =
        guest.expect_within(Duration::from_mins(4), "95 % of the new hot bytes are back in DRAM", || {
            slow_share(&mut workload, "cold").is_ok_and(|slow| slow <= 0.05)
        });
    if back.is_err() {
        guest.say(agent.log()?);
    }
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let promoter = state["promoter"].as_str().unwrap_or("none").to_owned();
    // Ours: three scans, and the rate cap with a fifth to spare. The kernel scans when it thinks fit.
    let bar = if promoter == "pages" {
        3.0 * (AFTER / 2).as_secs_f64() + SHIFTED_MIB as f64 / (0.8 * RATE_MIB as f64)
    } else {
        240.0
    };
    guest.at_most(
        format!("{engine}, {promoter} promotes: time until 95 % were back, s"),
        back?.as_secs_f64(),
        bar,
    );
    let sunk = guest.expect_within(20 * AFTER, "the old hot set sinks", || {
        slow_share(&mut workload, "hot").is_ok_and(|slow| slow >= 0.95)
    });
    let sunk = match sunk {
        Ok(time) => time.as_secs_f64(),
        Err(error) => {
            guest.say(agent.log()?);
            return Err(error);
        }
    };
    guest.say(format_args!("{engine}: the old hot set sank within another {sunk:.1} s"));
    let ledger = workload.ledger()?;
    for r in &ledger.regions {
        guest.say(format_args!(
            "{engine}: {:8} DRAM {:3} slow {:3} MiB",
            r.name,
            r.fast_bytes / MIB,
            r.slow_bytes / MIB
        ));
    }
    let wrong = ledger.region("readhot").context("readhot")?.slow_bytes / MIB;
    guest.equal(format!("{engine}: MiB of the steady hot set on the slow node"), wrong, &0);
    guest.at_least(
        format!("{engine}: share of `stays` still on the slow node"),
        slow_share(&mut workload, "stays")?,
        0.95,
    );
    let verified = workload.verify()?;
    guest.check(format!("{engine}: pages with wrong content"), verified.wrong, "= 0", verified.wrong == 0);
    guest.say(format_args!("{engine}: {}", state["totals"]));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check(format!("{engine}: exit status after SIGTERM"), status, "exit status: 0", status.success());
    drop(workload);
    guest.sleep(Duration::from_secs(1));
    Ok(())
}
