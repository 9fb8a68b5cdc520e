//! A growing page cache is reclaimed before it meets a limit, so that nobody is throttled there.

use std::time::Duration;

use anyhow::Result;

use super::STATE;
use crate::guest::{Guest, Pace, Reader, SLOW, numa_stat, vmstat};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "reclaim-ahead",
    about: "reclaimAhead: page cache grows without end under memory.high and memory.max, and neither is met; without it they are",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(6),
    run,
};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 320 * MIB;
const DEVICE_MIB: u32 = 640;
/// As fast as an emulated processor reads, which is twelve times slower than a real one: that is more than 70 MiB a second of guest time.
const PACE: Pace = Pace { portion: 20, pause: Duration::from_millis(20) };
const READS: Duration = Duration::from_secs(20);
const ANONYMOUS: &str = "--region hot:16M --region cold:32M";

fn run(guest: &mut Guest) -> Result<Verdict> {
    let config = format!(
        "stateFile: {STATE}\npolicies:\n  - {{ name: ahead, cgroups: [\"/pods/ahead*\"], spec: {{ reclaimAhead: true }} }}\n  \
         - {{ name: usual, cgroups: [\"/pods/*\"], spec: {{}} }}\n"
    );
    let device = guest.zram(DEVICE_MIB, false)?;
    let agent = guest.spawn_agent(&config, &[])?;
    for (limit, event) in [("memory.high", "high"), ("memory.max", "max")] {
        for name in ["ahead", "usual"] {
            let pod = guest.cgroup(&format!("/pods/{name}-{event}"))?;
            pod.write(limit, LIMIT)?;
            let mut workload = guest.spawn_workload(&pod, ANONYMOUS)?;
            guest.sleep(Duration::from_secs(3));
            let met = pod.stat("memory.events", event)?;
            let reader = Reader::spawn(&pod, &device, DEVICE_MIB, PACE)?;
            guest.sleep(READS);
            let met = pod.stat("memory.events", event)? - met;
            let current: u64 = pod.read("memory.current")?.parse()?;
            let what = format!("{name}, {limit}");
            guest.say(format_args!("{what}: {} MiB charged, met {met} times", current / MIB));
            if name == "ahead" {
                guest.equal(format!("{what}: memory.events {event}"), met, &0);
                // What it may use it does use.
                guest.at_least(
                    format!("{what}: charged, a part of the limit"),
                    current as f64 / LIMIT as f64,
                    0.7,
                );
                guest.equal(
                    format!("{what}: page cache on the slow node"),
                    numa_stat(&pod, "file")?[SLOW],
                    &0,
                );
                let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
                let view = &state["cgroups"][pod.path()];
                let told = view["reclaimed_bytes"].as_u64().unwrap_or_default() as f64 / MIB as f64;
                guest.at_least(
                    format!("{what}: reclaimed, as it is told, MiB"),
                    told,
                    30.0 * READS.as_secs_f64(),
                );
            } else {
                guest.check(format!("{what}: memory.events {event}"), met, "> 0", met > 0);
            }
            guest.equal(format!("{what}: pages with wrong content"), workload.verify()?.wrong, &0);
            drop((reader, workload));
            pod.remove()?;
        }
    }
    guest.equal("pages swapped out", vmstat("pswpout")?, &0);
    guest.say(format_args!("agent CPU {:?}", agent.cpu()?));
    let log = agent.log()?;
    log.lines().filter(|line| !line.contains("INFO")).for_each(|line| guest.say(line));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}
