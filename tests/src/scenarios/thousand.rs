//! A thousand managed cgroups, small and mostly idle: what the agent costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::agent_config;
use crate::guest::{AgentProcess, Guest, SLOW, Workload, kthread_cpu, numa_stat, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "thousand",
    about: "1000 managed cgroups, mostly idle: 0.5 % of a core, 24 MiB of memory",
    applies: |machine| machine.has_lower_tier(),
    agent: true,
    guest_timeout: Duration::from_mins(40),
    run,
};

const MIB: u64 = 1 << 20;
const CGROUPS: usize = 1000;
/// Of them, those whose process goes on touching its memory.
const ACTIVE: usize = 20;
/// Guest time is 4 ns an instruction; a core at 3 GHz that completes one instruction a cycle takes a third of one. See
/// docs/decisions/cpu-scaling.md for how near that is.
const SLOWDOWN: f64 = 12.0;
/// Share of a native core.
const CPU_BAR_PERCENT: f64 = 0.5;
const RSS_BAR_MIB: f64 = 24.0;
/// Long enough for each cgroup to be walked several times.
const WINDOW: Duration = Duration::from_mins(3);
/// The default policy's age, with two walks and some.
const SETTLE: Duration = Duration::from_mins(4);

fn run(guest: &mut Guest) -> Result<Verdict> {
    let files = Some(8 * CGROUPS as u64);
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })
        .context("raise the limit of open files")?;
    // As the probe advises where it is off, which it is on 6.1: what `pages` costs is in docs/engines.md.
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let agent = guest.spawn_agent(&agent_config("/pods/*", ""), &[])?;
    let mut pods = Vec::new();
    let mut spent = Duration::ZERO;
    for count in [1, 10, CGROUPS] {
        let before = cost(&agent)?;
        while pods.len() < count {
            pods.push(pod(guest, pods.len())?);
        }
        guest.expect_within(Duration::from_secs(30), "all are managed", || {
            managed(guest).is_ok_and(|n| n == count)
        })?;
        let found = cost(&agent)?.saturating_sub(before);
        guest.sleep(SETTLE);
        let settled = cost(&agent)?;
        let sunk = numa_stat(&guest.cgroup("/pods")?, "anon")?[SLOW];
        let moving = settled.saturating_sub(before).saturating_sub(found);
        guest.say(format_args!(
            "{count} cgroups: {:.3} ms each to begin with, {:.1} MiB sank in {SETTLE:?} at {:.3} ms/MiB, native",
            native_ms(found) / count as f64,
            sunk as f64 / MIB as f64,
            native_ms(moving) / (sunk as f64 / MIB as f64),
        ));
        let io = io_counts(agent.pid())?;
        guest.sleep(WINDOW);
        spent = cost(&agent)?.saturating_sub(settled);
        let after = io_counts(agent.pid())?;
        let per_second = |kind: usize| (after[kind] - io[kind]) as f64 / WINDOW.as_secs_f64();
        guest.say(format_args!(
            "{count} cgroups with nothing to move: {:.4} % of a native core ({:.3} % of the guest's), {:.1} reads/s of {:.0} KiB/s, \
             {:.1} writes/s; RSS {} KiB",
            percent(spent) / SLOWDOWN,
            percent(spent),
            per_second(0),
            per_second(2) / 1024.0,
            per_second(1),
            agent.rss()? >> 10,
        ));
    }
    reading_costs(guest)?;
    guest.at_most(
        "agent CPU with 1000 cgroups, % of a native core",
        percent(spent) / SLOWDOWN,
        CPU_BAR_PERCENT,
    );
    guest.at_most("agent RSS with 1000 cgroups, MiB", agent.rss()? as f64 / MIB as f64, RSS_BAR_MIB);
    let log = agent.log()?;
    guest.say(format_args!("{} lines of log, of them warnings and errors:", log.lines().count()));
    log.lines().filter(|line| !line.contains("INFO")).take(10).for_each(|line| guest.say(line));
    agent.stop(Duration::from_secs(20))?;
    Ok(guest.verdict())
}

/// What the kernel files cost that the agent reads, to compare with a real machine.
fn reading_costs(guest: &Guest) -> Result<()> {
    let pod = "/sys/fs/cgroup/pods/p0500";
    for (file, times) in [
        (format!("{pod}/memory.numa_stat"), 20),
        (format!("{pod}/memory.stat"), 20),
        (format!("{pod}/memory.pressure"), 50),
        (format!("{pod}/memory.current"), 50),
        (format!("{pod}/cpuset.mems.effective"), 50),
        (format!("{pod}/cpu.stat"), 50),
        ("/proc/self/stat".to_owned(), 50),
        ("/proc/vmstat".to_owned(), 20),
        ("/proc/zoneinfo".to_owned(), 20),
        ("/sys/devices/system/node/node0/meminfo".to_owned(), 50),
        ("/sys/kernel/debug/lru_gen".to_owned(), 3),
    ] {
        // The clock, since the kernel counts a running process's time in ticks; the best, since both CPUs share the clock.
        let batch = || {
            let began = Instant::now();
            (0..times).try_for_each(|_| crate::guest::read(&file).map(drop))?;
            Ok::<_, anyhow::Error>(began.elapsed() / times)
        };
        let batches: Vec<Duration> = (0..5).map(|_| batch()).collect::<Result<_>>()?;
        let each = batches.into_iter().min().unwrap_or_default();
        guest.say(format_args!(
            "one reading of {file}: {each:?} of guest time, {:?} native",
            each.div_f64(SLOWDOWN)
        ));
    }
    Ok(())
}

/// A cgroup with one process: idle, or one that touches its memory all the time.
fn pod(guest: &Guest, number: usize) -> Result<Workload> {
    let cgroup = guest.cgroup(&format!("/pods/p{number:04}"))?;
    let heat = if number % (CGROUPS / ACTIVE) == 1 { "hot" } else { "cold" };
    guest.spawn_workload(&cgroup, &format!("--region {heat}:512K"))
}

fn managed(guest: &Guest) -> Result<usize> {
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    Ok(state["cgroups"].as_object().map_or(0, serde_json::Map::len))
}

/// CPU of the agent with its system calls, and of the kernel threads that work for it.
fn cost(agent: &AgentProcess) -> Result<Duration> {
    Ok(agent.cpu()? + kthread_cpu()?)
}

fn percent(spent: Duration) -> f64 {
    100.0 * spent.as_secs_f64() / WINDOW.as_secs_f64()
}

fn native_ms(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e3 / SLOWDOWN
}

/// Read calls, write calls and bytes read of a process.
fn io_counts(pid: u32) -> Result<[u64; 3]> {
    let text = crate::guest::read(format!("/proc/{pid}/io"))?;
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        value.and_then(|value| value.parse().ok()).with_context(|| format!("no {key}"))
    };
    Ok([value("syscr")?, value("syscw")?, value("rchar")?])
}
