//! Everything is hot and on the slow node: what comes up is bounded by each policy's rate and ceiling, or nothing comes.

use std::time::Duration;

use anyhow::Result;

use super::{BALANCING, DAMON_STAT, NR_KDAMONDS};
use crate::guest::{FAST, Guest, SLOW, kthread_cpu, numa_stat, read, write_file};
use crate::report::Verdict;
use crate::scenario::{Kernel, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "promotion-bounds",
    about: "with everything hot on the slow node, promote.maxRate and ceiling hold within 10 % over any minute, and promote.enabled: false holds",
    // DAMON moves pages on none of the older kernels.
    applies: |machine| machine.kernel > Kernel::V6_1,
    agent: true,
    guest_timeout: Duration::from_mins(10),
    run,
};

const MIB: f64 = (1 << 20) as f64;
const RATE_MIB: f64 = 3.0;
const CEILING_MIB: f64 = 64.0;
const CONFIG: &str = "stateFile: /run/thermocline/state
policies:
  - { name: slowly, cgroups: [/pods/slowly], spec: { promote: { maxRate: 3Mi } } }
  - { name: bound, cgroups: [/pods/bound], spec: { dram: { ceiling: 64Mi } } }
  - { name: stays, cgroups: [/pods/stays], spec: { promote: { enabled: false } } }
";
const PODS: [(&str, u64); 3] = [("slowly", 300), ("bound", 150), ("stays", 64)];
const SECONDS: usize = 80;
const MINUTE: usize = 60;

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let before = [BALANCING, NR_KDAMONDS, DAMON_STAT].map(|file| read(file).ok());
    let mut pods = Vec::new();
    for (name, mib) in PODS {
        let pod = guest.cgroup(&format!("/pods/{name}"))?;
        pod.write("cpuset.mems", SLOW.to_string())?;
        let workload = guest.spawn_workload(&pod, &format!("--region hot:{mib}M"))?;
        pod.write("cpuset.mems", "0-1")?;
        pods.push((pod, workload));
    }
    let agent = guest.spawn_agent(CONFIG, &[])?;
    let mut fast: [Vec<f64>; 3] = Default::default();
    let mut kdamond_before = None;
    for second in 0..=SECONDS {
        for ((pod, _), fast) in pods.iter().zip(&mut fast) {
            fast.push(numa_stat(pod, "anon")?[FAST] as f64 / MIB);
        }
        if second == SECONDS - MINUTE {
            kdamond_before = Some(kthread_cpu()?);
        }
        if second % 10 == 0 {
            guest.say(format_args!(
                "{second:3} s: MiB in DRAM: slowly {:.1}, bound {:.1}, stays {:.1}",
                fast[0][second], fast[1][second], fast[2][second]
            ));
        }
        guest.sleep(Duration::from_secs(1));
    }
    let [slowly, bound, stays] = &fast;
    let minutes: Vec<f64> =
        slowly.windows(MINUTE + 1).map(|window| (window[MINUTE] - window[0]) / MINUTE as f64).collect();
    let most = minutes.iter().copied().fold(0.0, f64::max);
    let last = minutes.last().copied().unwrap_or_default();
    guest.at_most("promoted under maxRate, most in any minute, a part of the rate", most / RATE_MIB, 1.1);
    guest.at_least("promoted under maxRate in the last minute, a part of the rate", last / RATE_MIB, 0.9);
    let highest = bound.iter().copied().fold(0.0, f64::max);
    guest.at_most("DRAM under a ceiling, most at any time, a part of it", highest / CEILING_MIB, 1.1);
    let end = bound.last().copied().unwrap_or_default();
    guest.at_least("DRAM under a ceiling in the end, a part of it", end / CEILING_MIB, 0.9);
    // A process that lives on takes a page now and then, on the fast node.
    let moved = stays.iter().copied().fold(0.0, f64::max) - stays.first().copied().unwrap_or_default();
    guest.at_most("promoted with promote.enabled: false, MiB", moved, 1.0);

    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let promoter = state["promoter"].as_str().unwrap_or_default().to_owned();
    guest.check("who promotes", &promoter, "= damon", promoter == "damon");
    let kdamond = kthread_cpu()?.saturating_sub(kdamond_before.unwrap_or_default());
    guest.say(format_args!("kdamond CPU in the last minute: {kdamond:?}; agent: {:?}", agent.cpu()?));
    guest.say(format_args!("totals {}", state["totals"]));

    let mut wrong = 0;
    for (_, workload) in &mut pods {
        wrong += workload.verify()?.wrong;
    }
    guest.equal("pages with wrong content", wrong, &0);
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    let after = [BALANCING, NR_KDAMONDS, DAMON_STAT].map(|file| read(file).ok());
    guest.check(
        "NUMA balancing, kdamonds and damon_stat afterwards",
        format!("{after:?}"),
        format!("= {before:?}"),
        after == before,
    );
    Ok(guest.verdict())
}
