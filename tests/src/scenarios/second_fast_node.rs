//! Two fast nodes: what is touched on the second is seen, though the first was walked before it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{LRU_GEN, agent_config};
use crate::guest::{Guest, anon_by_node, read};
use crate::report::Verdict;
use crate::scenario::{Kernel, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "second-fast-node",
    about: "hot memory on the second of two fast nodes never looks cold, before 6.12 as after; lru_gen/enabled is put back",
    applies: |machine| machine.kernel == Kernel::V6_1,
    agent: true,
    guest_timeout: Duration::from_mins(8),
    run,
};

const MIB: f64 = (1 << 20) as f64;
const COLD_MIB: u64 = 32;
const HOT_MIB: u64 = 48;

fn run(guest: &mut Guest) -> Result<Verdict> {
    guest.want_generations()?;
    let before = enabled()?;
    let pod = guest.cgroup("/pods/a")?;
    // The first process has all its memory on the second node; the other's, on the first, is what has it walked.
    pod.write("cpuset.mems", "1")?;
    let mut second =
        guest.spawn_workload(&pod, &format!("--region cold:{COLD_MIB}M --region hot:{HOT_MIB}M"))?;
    pod.write("cpuset.mems", "0-2")?;
    let first = guest.spawn_workload(&pod, "--region hot:8M")?;
    let on = anon_by_node(&pod)?;
    guest.say(format_args!("before the agent: {on:?}"));
    let on_second = on.get(&1).copied().unwrap_or(0) as f64 / MIB;
    guest.at_least("on the second node, MiB", on_second, (COLD_MIB + HOT_MIB) as f64);

    let agent = guest.spawn_agent(&agent_config("/pods/*", "demote: { after: 20s }"), &[])?;
    let sunk = guest.expect_within(Duration::from_mins(3), "the cold memory sinks", || {
        anon_by_node(&pod)
            .is_ok_and(|on| on.get(&2).copied().unwrap_or(0) as f64 >= 0.98 * COLD_MIB as f64 * MIB)
    });
    guest.check("cold memory of the second node sinks", sunk.is_ok(), "true", sunk.is_ok());
    guest.equal("lru_gen/enabled while the agent acts", enabled()?, &"0x0003".to_owned());
    let mut most: f64 = 0.0;
    for _ in 0..24 {
        guest.sleep(Duration::from_secs(5));
        most = most.max(cold(guest)?);
    }
    let hot = second.ledger()?.sum(|region| region.kind == "hot", |region| region.slow_bytes);
    guest.say(format_args!(
        "after it: {:?}, {} MiB of the hot on the slow node",
        anon_by_node(&pod)?,
        hot as f64 / MIB
    ));
    guest.at_most("called cold in two minutes after, at most, MiB", most / MIB, 2.0);
    guest.at_most("hot memory on the slow node, MiB", hot as f64 / MIB, 0.5);
    drop((first, second));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    guest.equal("lru_gen/enabled after it", enabled()?, &before);
    Ok(guest.verdict())
}

fn enabled() -> Result<String> {
    Ok(read(LRU_GEN)?.trim().to_owned())
}

/// What the agent calls cold of the pod.
fn cold(guest: &Guest) -> Result<f64> {
    let metrics = guest.http_get(9440, "/metrics")?;
    let series = |line: &&str| line.starts_with("thermocline_cgroup_cold_bytes{");
    let line = metrics.lines().find(series).context("no thermocline_cgroup_cold_bytes")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}
