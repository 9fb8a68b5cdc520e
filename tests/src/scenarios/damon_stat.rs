//! DAMON's own statistics, on from boot, take accessed bits away: they are off while the agent decides by those, and on again afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{DAMON_STAT, agent_config};
use crate::guest::{Guest, read};
use crate::report::Verdict;
use crate::scenario::{Kernel, Machine, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "damon-stat",
    about: "damon_stat is off while the agent acts and on again afterwards; huge pages that it marked before sink an age later at most",
    applies: |machine| machine.kernel >= Kernel::V7_2 && Machine::has_lower_tier(machine),
    agent: true,
    guest_timeout: Duration::from_mins(5),
    run,
};

const AFTER: Duration = Duration::from_secs(20);
const SCAN: Duration = Duration::from_secs(10);

fn run(guest: &mut Guest) -> Result<Verdict> {
    ensure!(read(DAMON_STAT)?.trim() == "Y", "this kernel boots without damon_stat: nothing is shown here");
    let pod = guest.cgroup("/pods/managed")?;
    let mut workload = guest.spawn_workload(&pod, "--region hot:16M --region cold:192M:thp")?;
    // For it to meet most of them.
    guest.sleep(Duration::from_secs(20));
    let agent = guest.spawn_agent(
        &agent_config("/pods/managed", &format!("demote: {{ after: {}s, maxRate: 50Mi }}", AFTER.as_secs())),
        &[],
    )?;
    let bytes = workload.ledger()?.sum(|region| region.kind == "cold", |region| region.bytes) as f64;
    // As in `placement`, and once more for what the kernel refuses: it clears the mark and makes the page young.
    let limit = 2 * (AFTER + SCAN) + SCAN + Duration::from_secs_f64(bytes / f64::from(40 << 20));
    let sunk = guest.expect_within(limit, "98 % of the cold bytes sink", || {
        workload.ledger().is_ok_and(|ledger| {
            ledger.sum(|region| region.kind == "cold", |region| region.slow_bytes) as f64 >= 0.98 * bytes
        })
    });
    guest.equal("damon_stat while the agent acts", read(DAMON_STAT)?.trim(), &"N");
    guest.at_most("time until 98 % of the cold bytes sank, s", sunk?.as_secs_f64(), limit.as_secs_f64());
    guest.equal("pages with wrong content", workload.verify()?.wrong, &0);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    guest.equal("damon_stat after SIGTERM", read(DAMON_STAT)?.trim(), &"Y");
    Ok(guest.verdict())
}
