//! Slow memory comes online while the agent runs, goes, and comes back.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{BALANCING, DEMOTION, agent_config};
use crate::guest::{
    AgentProcess, Cgroup, FAST, Guest, SLOW, Use, numa_stat, offline_node, online_all, read, write_file,
};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hotplug",
    about: "an agent waits for slow memory at no cost, uses what comes online within seconds, and lets go what goes offline",
    applies: Machine::has_kmem,
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

const MIB: u64 = 1 << 20;
/// What is cold, and how much of it is to sink.
const COLD_MIB: u64 = 64;
const SINKS_MIB: u64 = 58;
/// A change of the host's nodes is to be seen within this time: two looks, with an idle agent's pause before each.
const SEEN: Duration = Duration::from_secs(15);

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let originals = settings()?;
    guest.say(format_args!("{} blocks of memory taken away", offline_node(SLOW)?));
    let pod = guest.cgroup("/pods/a")?;
    let _workload = guest.spawn_workload(&pod, &format!("--region hot:8M --region cold:{COLD_MIB}M"))?;
    // Many more that nothing can be done for.
    let others = (0..100).map(|i| guest.cgroup(&format!("/pods/other-{i}"))).collect::<Result<Vec<_>>>()?;
    let config = agent_config("/pods/*", "demote: { after: 4s, slowTouchRate: 100% }");
    let mut agent = guest.spawn_agent(&config, &[])?;

    waits(guest, &mut agent)?;
    for time in ["at first", "again"] {
        comes(guest, &pod, time)?;
        goes(guest, &mut agent, &pod, &originals)?;
    }
    online_all(Use::Movable)?;
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status", status, "exit status: 0", status.success());
    drop(others);
    Ok(guest.verdict())
}

/// Without slow memory it runs, says so, and costs nothing.
fn waits(guest: &mut Guest, agent: &mut AgentProcess) -> Result<()> {
    guest.sleep(Duration::from_secs(20));
    let (before, watched) = (agent.cpu()?, Duration::from_mins(1));
    guest.sleep(watched);
    let cpu = agent.cpu()?.saturating_sub(before);
    guest.check("it waits for slow memory", agent.is_running()?, "true", agent.is_running()?);
    guest.at_most("CPU of a second meanwhile, ms", cpu.as_secs_f64() * 1e3 / watched.as_secs_f64(), 0.5);
    let state = debug_state(guest)?;
    guest.equal("its engine", state["engine"].as_str().unwrap_or_default(), &"none");
    let reason = condition(&state, "TiersAvailable");
    guest.equal("it says why", reason.as_str(), &"NoSlowTier");
    Ok(())
}

fn comes(guest: &mut Guest, pod: &Cgroup, time: &str) -> Result<()> {
    online_all(Use::Movable)?;
    let seen = guest.expect_within(SEEN, "a second tier", || tiers(guest) == 2);
    let took = seen.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check(format!("online {time}: seen"), took, format!("within {SEEN:?}"), seen.is_ok());
    let sank = guest.expect_within(Duration::from_mins(2), "what is cold sinks", || {
        numa_stat(pod, "anon").is_ok_and(|anon| anon[SLOW] >= SINKS_MIB * MIB)
    });
    let took = sank.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check(format!("online {time}: what is cold sinks"), took, "within 2 min", sank.is_ok());
    Ok(())
}

fn goes(guest: &mut Guest, agent: &mut AgentProcess, pod: &Cgroup, originals: &[String]) -> Result<()> {
    offline_node(SLOW)?;
    let seen = guest.expect_within(SEEN, "one tier", || tiers(guest) == 1);
    let took = seen.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check("offline: seen", took, format!("within {SEEN:?}"), seen.is_ok());
    guest.sleep(Duration::from_secs(10));
    guest.check("offline: it runs on", agent.is_running()?, "true", agent.is_running()?);
    guest.equal("offline: settings of the host are back", settings()?.join(" "), &originals.join(" "));
    let anon = numa_stat(pod, "anon")?;
    guest.equal("offline: MiB of the pod on the slow node", anon[SLOW] / MIB, &0);
    guest.at_least("offline: MiB of the pod on DRAM", (anon[FAST] / MIB) as f64, (COLD_MIB + 8) as f64);
    let state = debug_state(guest)?;
    let view = &state["cgroups"][pod.path()]["decision"];
    guest.say(format_args!("offline: {} {}", view["text"], state["totals"]));
    guest.equal("offline: the action", view["action"].as_str().unwrap_or("none"), &"hold");
    Ok(())
}

/// The two settings that an agent holds while it works.
fn settings() -> Result<Vec<String>> {
    [DEMOTION, BALANCING].iter().map(|path| Ok(read(path)?.trim().to_owned())).collect()
}

fn tiers(guest: &Guest) -> usize {
    debug_state(guest).ok().and_then(|state| Some(state["tiers"].as_array()?.len())).unwrap_or(0)
}

fn condition(state: &Value, kind: &str) -> String {
    let found = state["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == kind);
    found.and_then(|one| one["reason"].as_str()).unwrap_or("none").to_owned()
}

fn debug_state(guest: &Guest) -> Result<Value> {
    Ok(serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?)
}
