//! Floors, ceilings and weights hold while workloads grow; whom no policy names loses nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{AgentProcess, Cgroup, FAST, Guest, SLOW, node_memory, numa_stat, vmstat};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bounds",
    about: "floors and ceilings hold within 5 % or 8 MiB while workloads grow, hot or cold; shortage costs by weight; a neighbour nothing",
    applies: Machine::has_slow_node,
    agent: true,
    guest_timeout: Duration::from_mins(20),
    run,
};

const MIB: u64 = 1 << 20;
/// What each bound is held within, or 5 % of it where that is more.
const WITHIN_MIB: f64 = 8.0;
/// One more process of a growing workload: below the tolerance, or no agent that acts after the fact could hold the bound.
const STEP_MIB: u64 = 6;
const STEPS: u64 = 12;
const BETWEEN: Duration = Duration::from_secs(4);
/// What the hog leaves free at first: more than its page tables and one more step take.
const SPARE_MIB: u64 = 14;
const HOG_STEP_MIB: u64 = 8;
const CONFIG: &str = "stateFile: /run/thermocline/state
policies:
  - { name: floor, cgroups: [/pods/floor], spec: { dram: { floor: 64Mi }, demote: { after: 10s } } }
  - { name: half, cgroups: [/pods/half], spec: { dram: { floor: 50% }, demote: { after: 10s } } }
  - { name: ceiling, cgroups: [/pods/ceiling], spec: { dram: { ceiling: 64Mi }, demote: { after: 10s } } }
  - { name: most, cgroups: [/pods/most], spec: { dram: { ceiling: 60% }, demote: { after: 10s } } }
  - { name: heavy, cgroups: [/pods/heavy], spec: { dram: { weight: 300 }, demote: { after: 4m } } }
  - { name: light, cgroups: [/pods/light], spec: { dram: { weight: 100 }, demote: { after: 4m } } }
  - { name: kept, cgroups: [/pods/kept], spec: { dram: { weight: 1, floor: 64Mi }, demote: { after: 4m } } }
";

fn run(guest: &mut Guest) -> Result<Verdict> {
    guest.want_generations()?;
    let neighbour = guest.cgroup("/others/neighbour")?;
    let mut other = guest.spawn_workload(&neighbour, "--region cold:48M --region hot:16M")?;
    let agent = guest.spawn_agent(CONFIG, &[])?;

    let fixed = |mib: f64| move |_: f64| mib;
    let part = |part: f64| move |footprint: f64| footprint * part;
    growing(guest, "floor", "cold", &fixed(64.0), Side::Least)?;
    growing(guest, "half", "cold", &part(0.5), Side::Least)?;
    growing(guest, "ceiling", "hot", &fixed(64.0), Side::Most)?;
    growing(guest, "most", "hot", &part(0.6), Side::Most)?;
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    let agent = if guest.machine().kind.fast_nodes() == [FAST] {
        shortage(guest)?
    } else {
        // What one node is short of another has: `sockets` is about that.
        guest.say("no shortage on a machine of several fast nodes: floors and ceilings alone");
        guest.spawn_agent(CONFIG, &[])?
    };

    let moved = other.ledger()?.sum(|_| true, |r| r.slow_bytes);
    guest.equal("neighbour's bytes on the slow node", moved, &0);
    guest.say(format_args!("agent CPU {:?}", agent.cpu()?));
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status of the last agent", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Least,
    Most,
}

/// Lets a workload grow process by process, and compares its DRAM with its bound all the while.
fn growing(guest: &mut Guest, name: &str, heat: &str, bound: &dyn Fn(f64) -> f64, side: Side) -> Result<()> {
    let pod = guest.cgroup(&format!("/pods/{name}"))?;
    let mut processes = vec![guest.spawn_workload(&pod, &format!("--region {heat}:48M"))?];
    // What came all at once can't be within a ceiling at once.
    guest.sleep(Duration::from_secs(5));
    let mut worst = f64::MIN;
    let (mut dram, mut footprint) = (0.0, 0.0);
    let samples = 8;
    for step in 0..STEPS + 6 {
        if step < STEPS {
            processes.push(guest.spawn_workload(&pod, &format!("--region {heat}:{STEP_MIB}M"))?);
        }
        for _ in 0..samples {
            guest.sleep(BETWEEN / samples);
            let [fast, slow] = numa_stat(&pod, "anon")?;
            (dram, footprint) = (fast as f64 / MIB as f64, (fast + slow) as f64 / MIB as f64);
            let bound = bound(footprint);
            let crossed = match side {
                Side::Least => bound.min(footprint) - dram,
                Side::Most => dram - bound,
            };
            worst = worst.max(crossed - WITHIN_MIB.max(bound * 0.05));
        }
        guest.say(format_args!(
            "{name}: {dram:.1} of {footprint:.1} MiB in DRAM, bound {:.1}",
            bound(footprint)
        ));
    }
    guest.at_most(format!("{name}: worst crossing beyond the tolerance, MiB"), worst, 0.0);
    let bound = bound(footprint);
    let tolerance = WITHIN_MIB.max(bound * 0.05);
    guest.at_most(
        format!("{name}: MiB between DRAM and the bound in the end"),
        (dram - bound).abs(),
        tolerance,
    );
    drop(processes);
    pod.remove()
}

/// A neighbour's hog takes DRAM in steps; pods give way by weight, and one that has but its floor not at all.
fn shortage(guest: &mut Guest) -> Result<AgentProcess> {
    let [heavy, light, kept] = ["heavy", "light", "kept"].map(|name| guest.cgroup(&format!("/pods/{name}")));
    let (heavy, light, kept) = (heavy?, light?, kept?);
    let pods = [(&heavy, 150), (&light, 150), (&kept, 60)]
        .map(|(pod, mib)| guest.spawn_workload(pod, &format!("--region cold:{mib}M")));
    // Its first walk sees all of them. A walk later one would seem younger by as much as the weights are apart.
    let agent = guest.spawn_agent(CONFIG, &[])?;
    let hog_group = guest.cgroup("/others/hog")?;
    hog_group.write("cpuset.mems", FAST)?;
    let before = node_memory(FAST)?;
    // The agent keeps 2 % of the node free above the low watermark.
    let headroom = before.low + before.managed / 50;
    // What waits on lists of single CPUs fills half of it at most: the kernel does not see it at its watermarks.
    let for_any = before.high.max(before.low + before.managed / 100);
    let spare = || {
        node_memory(FAST).map(|memory| {
            let above_headroom = memory.available() as f64 - headroom as f64;
            above_headroom.min(memory.free as f64 - for_any as f64) / MIB as f64
        })
    };
    // How much waits there changes as the hog grows, so its last part comes in steps.
    let most = (before.available() - headroom) / MIB - 10 * HOG_STEP_MIB;
    let mut hogs = vec![guest.spawn_workload(&hog_group, &format!("--region mlock:{most}M"))?];
    let hog_step = format!("--region mlock:{HOG_STEP_MIB}M");
    while spare()? > (SPARE_MIB + HOG_STEP_MIB) as f64 {
        hogs.push(guest.spawn_workload(&hog_group, &hog_step)?);
    }
    guest.say(format_args!("{:.1} MiB to spare, {:?}", spare()?, node_memory(FAST)?));
    ensure!(spare()? > 0.0, "the hog took more than it was to take");
    // What others need is taken from what was idle for `after`, and for half of it only while the kernel's own low watermark is passed.
    guest.sleep(Duration::from_secs(140));
    let given = |pod: &Cgroup| numa_stat(pod, "anon").map(|anon| anon[SLOW] as f64 / MIB as f64);
    guest.at_most("given up before there is a shortage, MiB", given(&heavy)? + given(&light)?, 0.0);

    let mut first = None;
    for step in 0..20 {
        let memory = node_memory(FAST)?;
        if memory.free > memory.low + (SPARE_MIB / 2) * MIB {
            hogs.push(guest.spawn_workload(&hog_group, "--region mlock:4M")?);
        } else if memory.free > memory.low {
            hogs.push(guest.spawn_workload(&hog_group, "--region mlock:1M")?);
        } else if first.is_none() {
            first = Some(guest.expect_within(Duration::from_secs(30), "demotion begins", || {
                given(&light).is_ok_and(|given| given > 0.0) || given(&heavy).is_ok_and(|given| given > 0.0)
            })?);
        }
        guest.sleep(Duration::from_secs(1));
        let (from_heavy, from_light) = (given(&heavy)?, given(&light)?);
        guest.say(format_args!(
            "hog step {step}: {:.1} MiB to spare, heavy gave {from_heavy:.1}, light {from_light:.1} MiB, {:?}",
            spare()?,
            node_memory(FAST)?
        ));
    }
    // The age falls by an eighth of `after` in two seconds, and the memory is a little older than five of these.
    let first = first.context("there was no shortage")?;
    guest.at_most("time from shortage to demotion, s", first.as_secs_f64(), 12.0);
    let (from_heavy, from_light) = (given(&heavy)?, given(&light)?);
    guest.at_least("given by the light one, MiB", from_light, 8.0);
    guest.at_most("given by the heavy one, a share", from_heavy / (from_heavy + from_light), 0.1);
    guest.at_most("given by the one that has but its floor, MiB", given(&kept)?, 0.0);
    guest.equal("processes killed for lack of memory", vmstat("oom_kill")?, &0);
    let memory = node_memory(FAST)?;
    guest.at_least(
        "free in the end, against the low watermark",
        memory.available() as f64 / memory.low as f64,
        0.9,
    );
    drop(hogs);
    for pod in pods {
        drop(pod?);
    }
    Ok(agent)
}
