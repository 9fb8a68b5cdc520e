//! What it costs a pod at its own limit that the kernel may demote all the time, beside only while the agent acts.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::STATE;
use crate::guest::{Guest, write_file};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};
use crate::workload::now_ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kernel-demotion",
    about: "a pod at its own memory.high or memory.max, with kernelDemotion WhileActing and Always: stalls, hot bytes sunk",
    applies: Machine::has_lower_tier,
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

const MIB: u64 = 1 << 20;
/// The pod needs 8 MiB more than it may use.
const REGIONS: &str = "--region hot:48M --region cold:24M --region cold:24M:name=more";
const LIMIT_MIB: u64 = 88;
const WATCHED: Duration = Duration::from_secs(20);

/// What one pod at one limit paid.
struct Cost {
    high_events: u64,
    stalled: Duration,
    /// Time that the growth past the limit took.
    growth: Duration,
    hot_sunk: u64,
    hot_swapped: u64,
    slow: u64,
    swapped: u64,
    slowest_pass: Duration,
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    // A machine that has it off would else be served by another engine.
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let mut sums = [Duration::ZERO; 2];
    let mut hot = [0; 2];
    for (limit, swap) in [("memory.high", false), ("memory.high", true), ("memory.max", true)] {
        if limit == "memory.high" && swap {
            guest.zram(256, true)?;
        }
        for (index, mode) in ["WhileActing", "Always"].into_iter().enumerate() {
            let cost = at_limit(guest, limit, mode).with_context(|| format!("{limit} {mode}"))?;
            let swap = if swap { "swap" } else { "no swap" };
            guest.say(format_args!(
                "{limit} {swap:7} {mode:11}: events.high {:3}, stalled {:6.2} s, growth took {:6.2} s; hot MiB on the slow node {:2}, \
                 swapped {:2}; all MiB slow {:2}, swapped {:2}; slowest pass over the hot set {:.3} s",
                cost.high_events,
                cost.stalled.as_secs_f64(),
                cost.growth.as_secs_f64(),
                cost.hot_sunk / MIB,
                cost.hot_swapped / MIB,
                cost.slow / MIB,
                cost.swapped / MIB,
                cost.slowest_pass.as_secs_f64()
            ));
            sums[index] += cost.stalled;
            hot[index] += cost.hot_sunk;
        }
    }
    // The default must not be the worse one: docs/decisions/kernel-demotion.md.
    guest.at_most("hot MiB that the kernel demoted, WhileActing", (hot[0] / MIB) as f64, 1.0);
    guest.at_most(
        "hot MiB demoted, WhileActing less Always",
        (hot[0] / MIB) as f64 - (hot[1] / MIB) as f64,
        0.0,
    );
    guest.say(format_args!("stalled in all: WhileActing {:?}, Always {:?}", sums[0], sums[1]));
    Ok(guest.verdict())
}

fn at_limit(guest: &mut Guest, limit: &str, mode: &str) -> Result<Cost> {
    let pod = guest.cgroup("/pods/limited")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    workload.free("more")?;
    pod.write(limit, LIMIT_MIB * MIB)?;
    // Nothing becomes cold for the agent: what sinks, the kernel sank.
    let config = format!(
        "stateFile: {STATE}\nkernelDemotion: {mode}\npolicies:\n  - name: limited\n    cgroups: \
         [\"/pods/limited\"]\n    spec: {{ demote: {{ after: 1h }} }}\n"
    );
    let agent = guest.spawn_agent(&config, &[])?;
    guest.sleep(Duration::from_secs(3));
    let stalled = |pod: &crate::guest::Cgroup| -> Result<u64> {
        let pressure = pod.read("memory.pressure")?;
        let some = pressure.lines().next().and_then(|some| some.rsplit("total=").next());
        some.and_then(|total| total.parse().ok()).context("memory.pressure")
    };
    let (stalled_before, high_before) = (stalled(&pod)?, pod.stat("memory.events", "high")?);
    let growth = workload.fill("more")?;
    let until = now_ms() + u64::try_from(WATCHED.as_millis())?;
    // The most that was away from DRAM at any time: promotion brings it back.
    let (mut hot_sunk, mut hot_swapped) = (0, 0);
    let mut ledger = workload.ledger()?;
    loop {
        let region = ledger.region("hot").context("hot")?;
        hot_sunk = hot_sunk.max(region.slow_bytes);
        hot_swapped = hot_swapped.max(region.swapped_bytes);
        if now_ms() >= until {
            break;
        }
        guest.sleep(Duration::from_secs(1));
        ledger = workload.ledger()?;
    }
    let cost = Cost {
        high_events: pod.stat("memory.events", "high")? - high_before,
        stalled: Duration::from_micros(stalled(&pod)? - stalled_before),
        growth,
        hot_sunk,
        hot_swapped,
        slow: ledger.sum(|_| true, |r| r.slow_bytes),
        swapped: ledger.sum(|_| true, |r| r.swapped_bytes),
        slowest_pass: Duration::from_micros(ledger.region("hot").context("hot")?.pass_us_max),
    };
    let wrong = workload.verify()?.wrong;
    guest.equal(format_args!("{limit} {mode}: pages with wrong content"), wrong, &0);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check(format_args!("{limit} {mode}: exit status"), status, "exit status: 0", status.success());
    drop(workload);
    pod.remove()?;
    Ok(cost)
}
