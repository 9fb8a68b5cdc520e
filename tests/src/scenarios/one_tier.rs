//! A host without slow memory, as most are: the agent costs nothing that can be measured, and touches nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::agent_config;
use super::touched::{Watch, changes, settings, writable_files};
use crate::guest::{Cgroup, FAST, Guest, kthread_cpu, lru_gen, read, vmstat};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-tier",
    about: "without slow memory the agent takes 0.02 % of a core, 0.1 % with 1000 cgroups, writes no file of a cgroup and no setting, and looks at no page",
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
/// With ten cgroups.
const FEW_BAR_PERCENT: f64 = 0.02;
/// With all of them. A round in which nobody is due still goes over every cgroup, in memory alone: 0.02 is what it should come down to.
const MANY_BAR_PERCENT: f64 = 0.1;
const SETTLE: Duration = Duration::from_mins(1);
const WINDOW: Duration = Duration::from_mins(5);
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
    let mut pod = None;
    for number in 0..CGROUPS {
        let cgroup = guest.cgroup(&format!("/pods/p{number:04}"))?;
        if number < WITH_PROCESS {
            let heat = if number % 2 == 0 { "hot" } else { "cold" };
            workloads.push(guest.spawn_workload(&cgroup, &format!("--region {heat}:4M"))?);
            pod = Some(cgroup);
        }
    }
    let pod = pod.context("no pod")?;
    let files = writable_files()?;
    let before = settings()?;
    let watch = Watch::new()?;
    let counted = counters()?;
    let generation = newest_generation(&pod)?;

    let few = cost(guest, "/pods/p000*")?;
    let many = cost(guest, "/pods/*")?;
    guest.say(format_args!("% of a native core with 10 cgroups {few:.4}, with {CGROUPS} {many:.4}"));
    for (cgroups, percent, bar) in [(10, few, FEW_BAR_PERCENT), (CGROUPS, many, MANY_BAR_PERCENT)] {
        let what = format!("CPU of the agent and what works for it, {cgroups} cgroups, % of a native core");
        guest.at_most(what, percent, bar);
    }

    untouched(guest, &watch, &files, &before)?;
    guest.equal("newest generation of a pod", newest_generation(&pod)?, &generation);
    for (name, before) in COUNTERS.iter().zip(counted) {
        guest.equal(*name, vmstat(name)? - before, &0);
    }
    let mut wrong = 0;
    for workload in &mut workloads {
        wrong += workload.verify()?.wrong;
    }
    guest.equal("pages with wrong content", wrong, &0);
    Ok(guest.verdict())
}

/// What an agent costs that manages the cgroups of the glob, in percent of a native core.
fn cost(guest: &mut Guest, glob: &str) -> Result<f64> {
    // As it is shipped: it is not told what to find.
    let config =
        format!("engine: Auto\n{}", agent_config(glob, "demote: { after: 10s }, dram: { ceiling: 50% }"));
    let agent = guest.spawn_agent(&config, &[])?;
    guest.expect_within(Duration::from_secs(30), "it says that there is no slow memory", || {
        agent.log().is_ok_and(|log| log.contains("no memory node is slower than DRAM"))
    })?;
    guest.sleep(SETTLE);
    let rounds = || -> Result<(Duration, u64, u64)> {
        let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
        let io = read(format!("/proc/{}/io", agent.pid()))?;
        let reads =
            io.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse().ok()).context("no syscr")?;
        Ok((agent.cpu()? + kthread_cpu()?, state["rounds"].as_u64().unwrap_or(0), reads))
    };
    let begun = rounds()?;
    guest.sleep(WINDOW);
    let ended = rounds()?;
    let spent = ended.0.saturating_sub(begun.0);
    guest.say(format_args!(
        "{glob}: {spent:?} of guest time in {WINDOW:?}, {} rounds, {} reads, RSS {} KiB",
        ended.1 - begun.1,
        ended.2 - begun.2,
        agent.rss()? >> 10
    ));
    let log = agent.log()?;
    log.lines().filter(|line| !line.contains("/pods/")).for_each(|line| guest.say(line));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check(format!("{glob}: exit status after SIGTERM"), status, "exit status: 0", status.success());
    Ok(100.0 * spent.as_secs_f64() / WINDOW.as_secs_f64() / SLOWDOWN)
}

type Files = std::collections::BTreeMap<std::path::PathBuf, String>;

fn untouched(guest: &mut Guest, watch: &Watch, files: &Files, before: &Files) -> Result<()> {
    // The probe tries what it may do with the agent's own cgroup.
    let mut written = watch.written()?;
    written.retain(|path| !path.starts_with("/sys/fs/cgroup/agent/"));
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
fn newest_generation(pod: &Cgroup) -> Result<u64> {
    let generations = lru_gen(pod)?;
    Ok(generations.on(FAST).last().context("no generation")?.seq)
}
