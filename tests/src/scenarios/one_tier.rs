//! A host without slow memory, as most are: the agent costs nothing that can be measured, and touches nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::agent_config;
use super::touched::{Watch, changes, settings, writable_files};
use crate::guest::{FAST, Guest, kthread_cpu, lru_gen, vmstat};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-tier",
    about: "without slow memory the agent takes 0.02 % of a core with 1000 cgroups, writes no file of a cgroup and no setting, and looks at no page",
    applies: |machine| !machine.has_slow_node(),
    agent: true,
    guest_timeout: Duration::from_mins(20),
    run,
};

const CGROUPS: usize = 1000;
/// Of them, those with a process.
const WITH_PROCESS: usize = 20;
/// As in `thousand`.
const SLOWDOWN: f64 = 12.0;
const CPU_BAR_PERCENT: f64 = 0.02;
const SETTLE: Duration = Duration::from_mins(1);
const WINDOW: Duration = Duration::from_mins(10);
/// Counters of pages that were moved, or looked at in order to be.
const COUNTERS: [&str; 6] = [
    "pgdemote_proactive",
    "pgdemote_kswapd",
    "pgpromote_success",
    "pgmigrate_success",
    "pgscan_anon",
    "pgsteal_anon",
];

fn run(guest: &mut Guest) -> Result<Verdict> {
    guest.want_generations()?;
    guest.cgroup("/agent")?;
    let mut workloads = Vec::new();
    for number in 0..CGROUPS {
        let pod = guest.cgroup(&format!("/pods/p{number:04}"))?;
        if number < WITH_PROCESS {
            let heat = if number % 2 == 0 { "hot" } else { "cold" };
            workloads.push(guest.spawn_workload(&pod, &format!("--region {heat}:4M"))?);
        }
    }
    let files = writable_files()?;
    let before = settings()?;
    let watch = Watch::new()?;
    let counted = counters()?;
    let generations = newest_generation(guest)?;

    // As it is shipped: it is not told what to find.
    let config = format!(
        "engine: Auto\n{}",
        agent_config("/pods/*", "demote: { after: 10s }, dram: { ceiling: 50% }")
    );
    let agent = guest.spawn_agent(&config, &[])?;
    guest.expect_within(Duration::from_secs(30), "it says that there is no slow memory", || {
        agent.log().is_ok_and(|log| log.contains("no memory node is slower than DRAM"))
    })?;
    guest.sleep(SETTLE);
    let begun = agent.cpu()? + kthread_cpu()?;
    guest.sleep(WINDOW);
    let spent = (agent.cpu()? + kthread_cpu()?).saturating_sub(begun);
    let percent = 100.0 * spent.as_secs_f64() / WINDOW.as_secs_f64() / SLOWDOWN;
    guest.say(format_args!("{:?} to begin with, then {spent:?} in {WINDOW:?} of guest time", begun));
    guest.at_most("CPU of the agent and what works for it, % of a native core", percent, CPU_BAR_PERCENT);
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    guest.say(format_args!(
        "engine {} promoter {} totals {}",
        state["engine"], state["promoter"], state["totals"]
    ));
    guest.say(format_args!("agent RSS {} KiB", agent.rss()? >> 10));
    guest.say(agent.log()?);

    untouched(guest, &watch, &files, &before)?;
    guest.equal("newest generation of a pod", newest_generation(guest)?, &generations);
    for (name, before) in COUNTERS.iter().zip(counted) {
        guest.equal(*name, vmstat(name)? - before, &0);
    }
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    untouched(guest, &watch, &files, &before)?;
    let mut wrong = 0;
    for workload in &mut workloads {
        wrong += workload.verify()?.wrong;
    }
    guest.equal("pages with wrong content", wrong, &0);
    Ok(guest.verdict())
}

type Files = std::collections::BTreeMap<std::path::PathBuf, String>;

fn untouched(guest: &mut Guest, watch: &Watch, files: &Files, before: &Files) -> Result<()> {
    let written = watch.written()?;
    guest.check("writes to files of cgroups", written.join(", "), "none", written.is_empty());
    for (what, changed) in [
        ("changed files of cgroups", changes(files, &writable_files()?)),
        ("changed settings", changes(before, &settings()?)),
    ] {
        guest.check(what, changed.join(", "), "none", changed.is_empty());
    }
    Ok(())
}

fn counters() -> Result<Vec<u64>> {
    COUNTERS.iter().map(|name| vmstat(name)).collect()
}

/// It moves on when somebody walks page tables for ages.
fn newest_generation(guest: &Guest) -> Result<u64> {
    let generations = lru_gen(&guest.cgroup("/pods/p0001")?)?;
    Ok(generations.on(FAST).last().context("no generation")?.seq)
}
