//! Pods that fill DRAM before another comes: what that one was promised it gets.

use std::time::Duration;

use anyhow::Result;

use super::{BALANCING, DEMOTION, STATE};
use crate::guest::{FAST, Guest, Workload, node_memory, write_file};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "victim-and-hogs",
    about: "three pods fill the DRAM node before a fourth comes: it has 38 % fewer slow touches with the agent than with the kernel alone",
    applies: Machine::has_lower_tier,
    agent: true,
    guest_timeout: Duration::from_mins(20),
    run,
};

const MIB: u64 = 1 << 20;
/// As the world of this name has it, a GiB being a MiB.
const HOG: &str = "--region hot:140M --region cold:80M:name=rarely";
const VICTIM: &str = "--region hot:220M";
/// What the four have of the fast node.
const LEFT_MIB: u64 = 750;
const ALONE: Duration = Duration::from_secs(150);
const WATCHED: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_secs(2);

fn run(guest: &mut Guest) -> Result<Verdict> {
    let locked = guest.cgroup("/others/locked")?;
    locked.write("cpuset.mems", FAST)?;
    let free = node_memory(FAST)?.available() / MIB;
    let _locked =
        guest.spawn_workload(&locked, &format!("--region mlock:{}M", free.saturating_sub(LEFT_MIB)))?;
    let without = slow_touches(guest, false)?;
    let with = slow_touches(guest, true)?;
    guest.say(format_args!(
        "of the victim's touches {without:.3} are slow without the agent, {with:.3} with it"
    ));
    guest.at_least("slow share of the victim without the agent", without, 0.02);
    guest.at_most("slow touches with the agent, of those without", with / without, 0.62);
    Ok(guest.verdict())
}

/// The share of the victim's touches that are slow, in the second half.
fn slow_touches(guest: &mut Guest, agent: bool) -> Result<f64> {
    let mut hogs: Vec<Workload> = Vec::new();
    for i in 0..3 {
        let hog = guest.cgroup(&format!("/pods/hog-{i}"))?;
        hogs.push(guest.spawn_workload(&hog, HOG)?);
    }
    let config = format!(
        "stateFile: {STATE}\npolicies:\n  - {{ name: victim, cgroups: [\"/pods/victim\"], spec: {{ dram: {{ floor: 80%, weight: 400 }} }} }}\n  \
         - {{ name: hogs, cgroups: [\"/pods/*\"], spec: {{}} }}\n"
    );
    let agent = if agent {
        Some(guest.spawn_agent(&config, &[])?)
    } else {
        // The best that the kernel has.
        write_file(DEMOTION, "true")?;
        write_file(BALANCING, "2")?;
        None
    };
    guest.sleep(ALONE);
    let victim = guest.cgroup("/pods/victim")?;
    let mut workload = guest.spawn_workload(&victim, VICTIM)?;
    let (mut passed, mut shares) = (Duration::ZERO, Vec::new());
    while passed < WATCHED {
        guest.sleep(LOOK);
        passed += LOOK;
        let ledger = workload.ledger()?;
        let (slow, bytes) = (ledger.sum(|_| true, |r| r.slow_bytes), ledger.sum(|_| true, |r| r.bytes));
        if passed.as_secs().is_multiple_of(20) {
            guest.say(format_args!(
                "{passed:?}: {} of {} MiB slow; {} MiB free",
                slow / MIB,
                bytes / MIB,
                node_memory(FAST)?.available() / MIB
            ));
        }
        if passed > WATCHED / 2 {
            shares.push(slow as f64 / bytes as f64);
        }
    }
    for hog in &mut hogs {
        let ledger = hog.ledger()?;
        for r in &ledger.regions {
            guest.say(format_args!(
                "hog {:8} DRAM {:3} slow {:3} MiB",
                r.name,
                r.fast_bytes / MIB,
                r.slow_bytes / MIB
            ));
        }
    }
    if let Some(agent) = agent {
        guest.say(agent.log()?);
        let status = agent.stop(Duration::from_secs(20))?;
        guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    }
    drop((workload, hogs));
    guest.sleep(Duration::from_secs(2));
    victim.remove()?;
    write_file(DEMOTION, "false")?;
    write_file(BALANCING, "1")?;
    Ok(shares.iter().sum::<f64>() / shares.len().max(1) as f64)
}
