//! Cold memory is found and sinks, hot memory stays, within the stated time.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{DAMON_STAT, agent_config};
use crate::guest::{Guest, anon_by_node, write_file};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};
use crate::workload::{Ledger, RegionLedger};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "placement",
    about: "cold anonymous memory sinks within after + 2 scans (4 without generations) + bytes / (0.8 x cap); hot and warm memory stays",
    applies: Machine::has_slow_node,
    agent: true,
    guest_timeout: Duration::from_secs(400),
    run,
};

const MIB: u64 = 1 << 20;
const AFTER: Duration = Duration::from_secs(20);
/// The agent walks twice within the age.
const SCAN: Duration = Duration::from_secs(10);
const CAP_MIB: u64 = 50;
pub(super) const REGIONS: &str = "--region hot:48M --region readhot:32M --region hot:32M:thp:name=hotthp --region warm@8s:32M \
                       --region cold:160M --region cold:64M:thp:name=coldthp";

fn run(guest: &mut Guest) -> Result<Verdict> {
    // What it marked before an agent came is the scenario `damon-stat`'s.
    if std::fs::exists(DAMON_STAT)? {
        write_file(DAMON_STAT, "N")?;
    }
    let pod = guest.cgroup("/pods/managed")?;
    let neighbour = guest.cgroup("/pods/neighbour")?;
    let mut other = guest.spawn_workload(&neighbour, "--region cold:48M --region hot:16M")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    let agent = guest.spawn_agent(
        &agent_config(
            "/pods/managed",
            &format!("demote: {{ after: {}s, maxRate: {CAP_MIB}Mi }}", AFTER.as_secs()),
        ),
        &[],
    )?;

    let cold = |r: &RegionLedger| r.kind == "cold";
    let bytes = workload.ledger()?.sum(cold, |r| r.bytes);
    // Where `pages` stands in for generations, a portion that was cut short waits for the look after the next.
    let scans = if guest.machine().has_generations() { 2 } else { 4 };
    let limit = AFTER + scans * SCAN + Duration::from_secs_f64(bytes as f64 / (0.8 * (CAP_MIB * MIB) as f64));
    let found = guest.expect_within(limit + Duration::from_mins(1), "98 % of the cold bytes sink", || {
        workload.ledger().is_ok_and(|ledger| ledger.sum(cold, |r| r.slow_bytes) as f64 >= 0.98 * bytes as f64)
    });
    if found.is_err() {
        let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
        guest.say(format_args!(
            "{:?} {} {}",
            anon_by_node(&pod)?,
            state["totals"],
            state["cgroups"][pod.path()]
        ));
        say_regions(guest, &workload.ledger()?);
        guest.say(agent.log()?);
    }
    guest.at_most("time until 98 % of the cold bytes sank, s", found?.as_secs_f64(), limit.as_secs_f64());

    if !std::fs::exists("/proc/pressure/memory")? {
        let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
        let told =
            state["conditions"].as_array().into_iter().flatten().any(|it| it["type"] == "PressureKnown");
        guest.check("that stalls are not known is told", told, "true", told);
    }

    // Long enough for a wrong second wave.
    guest.sleep(2 * AFTER);
    let ledger = workload.ledger()?;
    say_regions(guest, &ledger);
    let sunk = ledger.sum(|_| true, |r| r.slow_bytes) as f64;
    let right = ledger.sum(cold, |r| r.slow_bytes) as f64;
    guest.at_least("recall: cold bytes that sank", right / bytes as f64, 0.98);
    guest.at_least("precision: sunk bytes that are cold", right / sunk, 0.995);
    let neighbour_sunk = other.ledger()?.sum(|_| true, |r| r.slow_bytes);
    guest.equal("neighbour's bytes on the slow node", neighbour_sunk, &0);
    let verified = workload.verify()?;
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);

    let state = guest.http_get(9440, "/debug/state").context("/debug/state")?;
    let state: serde_json::Value = serde_json::from_str(&state)?;
    guest.say(format_args!("engine {} promoter {}", state["engine"], state["promoter"]));
    guest.say(format_args!("totals {}", state["totals"]));
    guest.say(format_args!("decision {}", state["cgroups"]["/pods/managed"]["decision"]["text"]));
    let moved = sunk / MIB as f64;
    let cpu = agent.cpu()?;
    guest.say(format_args!(
        "agent CPU {cpu:?}, {:.2} ms per MiB moved, copies included",
        cpu.as_secs_f64() * 1e3 / moved
    ));
    guest.say(format_args!("agent RSS {} KiB", agent.rss()? >> 10));
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

pub(super) fn say_regions(guest: &Guest, ledger: &Ledger) {
    for r in &ledger.regions {
        guest.say(format_args!(
            "{:10} {:4} MiB {:3}: DRAM {:4} slow {:4} MiB, {} passes, slowest {} us",
            r.name,
            r.bytes / MIB,
            r.page,
            r.fast_bytes / MIB,
            r.slow_bytes / MIB,
            r.touches,
            r.pass_us_max
        ));
    }
}
