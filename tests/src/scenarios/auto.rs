//! Where the generations of memory can't be had, an agent whom nobody told its engine does without them.

use std::time::Duration;

use anyhow::Result;

use super::config_with_engine;
use super::placement::{REGIONS, say_regions};
use crate::guest::Guest;
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::RegionLedger;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "auto",
    about: "without generations, and not told its engine, the agent sinks a quarter of what is cold within five minutes, and nothing hot",
    applies: |machine| machine.has_lower_tier() && !machine.has_generations(),
    agent: true,
    guest_timeout: Duration::from_mins(8),
    run,
};

/// It knows no ages and goes by 1/64 a look: twenty looks.
const WATCHED: Duration = Duration::from_mins(5);
const SINKS: f64 = 0.25;

fn run(guest: &mut Guest) -> Result<Verdict> {
    let pod = guest.cgroup("/pods/managed")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    let agent = guest.spawn_agent(&config_with_engine("Auto", pod.path(), "demote: { after: 20s }"), &[])?;
    guest.sleep(WATCHED);
    let ledger = workload.ledger()?;
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    guest.say(format_args!("engine {} promoter {}", state["engine"], state["promoter"]));
    guest.say(format_args!("totals {}", state["totals"]));
    say_regions(guest, &ledger);
    guest.say(agent.log()?);

    guest.equal("engine", state["engine"].as_str().unwrap_or_default(), &"reclaim");
    let share = |kind: &str| {
        let of = |r: &RegionLedger| r.kind == kind;
        ledger.sum(of, |r| r.slow_bytes) as f64 / ledger.sum(of, |r| r.bytes) as f64
    };
    guest.at_least("cold bytes that sank, share", share("cold"), SINKS);
    for kind in ["hot", "readhot"] {
        guest.at_most(format!("{kind} bytes that sank, share"), share(kind), 0.005);
    }
    // What is touched every 8 s is inactive to the kernel now and then.
    guest.at_most("warm bytes that sank, share", share("warm"), 0.25);
    let verified = workload.verify()?;
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}
