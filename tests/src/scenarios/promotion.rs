//! Promotion keeps to its bounds while everything is hot: a ceiling, by the kernel and by DAMON, and `promote.maxRate` by DAMON, which has a
//! new hot set up within seconds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{BALANCING, NR_KDAMONDS, agent_config};
use crate::guest::{AgentProcess, Cgroup, Guest, Workload, anon_by_node, read, vmstat};
use crate::report::Verdict;
use crate::scenario::{Kernel, Machine, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "promotion",
    about: "while everything is hot a ceiling holds without going to and fro, whoever promotes; by DAMON promote.maxRate does, too",
    applies: |machine| machine.kernel >= Kernel::V6_12 && Machine::has_lower_tier(machine),
    agent: true,
    guest_timeout: Duration::from_mins(30),
    run,
};

const MIB: u64 = 1 << 20;
const AFTER: Duration = Duration::from_secs(20);
const SET_MIB: u64 = 100;

fn run(guest: &mut Guest) -> Result<Verdict> {
    guest.want_generations()?;
    let balancing = read(BALANCING)?;
    ceiling(guest, "Auto")?;
    ceiling(guest, "Damon")?;
    back(guest)?;
    rate(guest)?;
    guest.equal("kdamonds after SIGTERM", read(NR_KDAMONDS)?.trim(), &"0");
    guest.equal("numa_balancing after SIGTERM", read(BALANCING)?.trim(), &balancing.trim());
    Ok(guest.verdict())
}

/// A pod whose cold memory has sunk, and the agent that manages it.
struct Sunk {
    pod: Cgroup,
    workload: Workload,
    agent: AgentProcess,
}

fn sink(guest: &mut Guest, name: &str, promoter: &str, regions: &str, spec: &str) -> Result<Sunk> {
    let path = format!("/pods/{name}");
    let pod = guest.cgroup(&path)?;
    let mut workload = guest.spawn_workload(&pod, regions)?;
    let spec = format!("demote: {{ after: {}s, maxRate: 200Mi }}, {spec}", AFTER.as_secs());
    let agent = guest.spawn_agent(&format!("promoter: {promoter}\n{}", agent_config(&path, &spec)), &[])?;
    let sunk = guest.expect_within(15 * AFTER, "what is cold sinks", || {
        slow(&mut workload, "cold").is_ok_and(|(slow, all)| slow as f64 >= 0.95 * all as f64)
    });
    if sunk.is_err() {
        guest.say(agent.log()?);
    }
    sunk?;
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let expected = if promoter == "Damon" { "damon" } else { "kernel" };
    guest.equal(format!("{name}: promoter"), state["promoter"].as_str().unwrap_or("none"), &expected);
    guest.sleep(AFTER);
    Ok(Sunk { pod, workload, agent })
}

impl Sunk {
    fn end(self, guest: &mut Guest, name: &str) -> Result<()> {
        let status = self.agent.stop(Duration::from_secs(20))?;
        guest.check(format!("{name}: exit status after SIGTERM"), status, "exit status: 0", status.success());
        drop(self.workload);
        guest.sleep(Duration::from_secs(1));
        Ok(())
    }
}

/// Bytes of a region on the slow node, and all of them.
fn slow(workload: &mut Workload, name: &str) -> Result<(u64, u64)> {
    let ledger = workload.ledger()?;
    let region = ledger.region(name).with_context(|| format!("no region {name}"))?;
    Ok((region.slow_bytes, region.bytes))
}

/// The hot set moves, and nothing but the rate bounds how soon it is up.
fn back(guest: &mut Guest) -> Result<()> {
    let regions = format!("--region hot:{SET_MIB}M --region cold:{SET_MIB}M");
    let mut sunk = sink(guest, "back", "Damon", &regions, "promote: { maxRate: 200Mi }")?;
    sunk.workload.shift()?;
    let began = Instant::now();
    let up = guest.expect_within(Duration::from_mins(2), "95 % of the new hot set are up", || {
        slow(&mut sunk.workload, "cold").is_ok_and(|(slow, all)| slow as f64 <= 0.05 * all as f64)
    });
    if up.is_err() {
        guest.say(sunk.agent.log()?);
    }
    up?;
    guest.at_most("time until 95 % of the new hot set were up, s", began.elapsed().as_secs_f64(), 30.0);
    sunk.end(guest, "back")
}

/// All that has sunk is hot at once: what comes up in any minute is what the policy allows.
fn rate(guest: &mut Guest) -> Result<()> {
    const RATE_MIB: u64 = 3;
    const MINUTE: usize = 60;
    let mut sunk = sink(
        guest,
        "rate",
        "Damon",
        "--region hot:32M --region cold:200M",
        &format!("promote: {{ maxRate: {RATE_MIB}Mi }}"),
    )?;
    sunk.workload.shift()?;
    let mut up = Vec::new();
    for _ in 0..2 * MINUTE {
        up.push(slow(&mut sunk.workload, "cold")?.0);
        guest.sleep(Duration::from_secs(1));
    }
    let most =
        up.windows(MINUTE).map(|minute| minute[0].saturating_sub(minute[MINUTE - 1])).max().unwrap_or(0);
    let allowed = RATE_MIB * MINUTE as u64;
    guest.at_most("promoted in any minute, MiB", most as f64 / MIB as f64, 1.1 * allowed as f64);
    // What DAMON tries and does not move counts as moved to it.
    guest.at_least("promoted in the best minute, MiB", most as f64 / MIB as f64, 0.1 * allowed as f64);
    sunk.end(guest, "rate")
}

/// A ceiling below the working set: DRAM stays near it, and next to nothing goes to and fro.
fn ceiling(guest: &mut Guest, promoter: &str) -> Result<()> {
    const CEILING_MIB: u64 = 64;
    const WORKING_SET_MIB: u64 = 200;
    const MINUTE: usize = 60;
    let name = format!("ceiling-{}", promoter.to_lowercase());
    let spec = format!("dram: {{ ceiling: {CEILING_MIB}Mi }}, promote: {{ maxRate: 50Mi }}");
    let regions = format!("--region hot:32M --region cold:{WORKING_SET_MIB}M");
    let mut sunk = sink(guest, &name, promoter, &regions, &spec)?;
    sunk.workload.shift()?;
    // What came up before promotion stopped has to sink first, and hot memory resists.
    guest.sleep(2 * AFTER);
    let dram = |pod: &Cgroup| -> Result<f64> {
        Ok(anon_by_node(pod)?.get(&0).copied().unwrap_or(0) as f64 / MIB as f64)
    };
    let most = 1.05 * CEILING_MIB as f64;
    let back = guest.expect_within(Duration::from_mins(5), "DRAM is back at its ceiling", || {
        dram(&sunk.pod).is_ok_and(|dram| dram <= most)
    });
    if back.is_err() {
        guest.say(sunk.agent.log()?);
    }
    guest.say(format_args!("{name}: back at its ceiling within {:?}", 2 * AFTER + back?));
    let (mut greatest, mut moved) = (0.0_f64, Vec::new());
    for _ in 0..MINUTE * 3 / 2 {
        greatest = greatest.max(dram(&sunk.pod)?);
        moved.push(vmstat("pgpromote_success")?);
        guest.sleep(Duration::from_secs(1));
    }
    guest.at_most(format!("{name}: DRAM, MiB"), greatest, most);
    let in_a_minute = moved.windows(MINUTE).map(|minute| minute[MINUTE - 1] - minute[0]).max().unwrap_or(0);
    let share = (in_a_minute * 4) as f64 / (WORKING_SET_MIB << 10) as f64;
    guest.at_most(format!("{name}: promoted in any minute, of the working set"), share, 0.01);
    sunk.end(guest, &name)
}
