//! Memory of a CXL device that the kernel's own drivers set up is a slow tier like any other. Little of it: each access is a call into the emulator.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::agent_config;
use super::placement::say_regions;
use crate::guest::{Guest, read};
use crate::machine::NodeKind;
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::RegionLedger;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cxl",
    about: "cold memory sinks to a CXL type-3 device by the kernel's own drivers, a few MiB of it, and comes back whole",
    applies: |machine| machine.kind.has(NodeKind::Cxl),
    agent: true,
    guest_timeout: Duration::from_mins(5),
    run,
};

fn run(guest: &mut Guest) -> Result<Verdict> {
    let device = read("/sys/bus/cxl/devices/region0/target0")?;
    guest.say(format_args!("the region is of {}", device.trim()));
    let pod = guest.cgroup("/pods/managed")?;
    let mut workload = guest.spawn_workload(&pod, "--region hot:2M --region cold:8M")?;
    let agent = guest.spawn_agent(&agent_config(pod.path(), "demote: { after: 10s }"), &[])?;
    let cold = |r: &RegionLedger| r.kind == "cold";
    let bytes = workload.ledger()?.sum(cold, |r| r.bytes);
    let sunk = guest.expect_within(Duration::from_mins(2), "the cold memory sinks", || {
        workload.ledger().is_ok_and(|ledger| ledger.sum(cold, |r| r.slow_bytes) * 100 >= bytes * 98)
    });
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    guest.say(format_args!(
        "engine {} promoter {} totals {}",
        state["engine"], state["promoter"], state["totals"]
    ));
    let ledger = workload.ledger()?;
    say_regions(guest, &ledger);
    guest.say(agent.log()?);
    sunk?;
    guest.equal("engine", state["engine"].as_str().unwrap_or_default(), &"lru-gen");
    guest.at_least(
        "cold bytes on the device, share",
        ledger.sum(cold, |r| r.slow_bytes) as f64 / bytes as f64,
        0.98,
    );
    guest.equal("hot bytes on the device", ledger.region("hot").context("hot")?.slow_bytes, &0);
    let verified = workload.verify()?;
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}
