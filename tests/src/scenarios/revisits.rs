//! Memory that is revisited at intervals nobody told the agent does not go up and down for ever.

use std::time::Duration;

use anyhow::Result;

use super::agent_config;
use crate::guest::{Guest, vmstat, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "revisits",
    about: "under the default policy, sets revisited every 20, 60 and 150 s go down at most twice in ten minutes",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

const MIB: u64 = 1 << 20;
const REGIONS: &str = "--region hot:32M --region readhot:16M --region warm@20s:32M:name=warm20 \
                       --region warm@60s:32M:name=warm60 --region warm@150s:32M:name=warm150 --region cold:96M";
const WATCHED: Duration = Duration::from_mins(10);

/// How often a region went down: from mostly in DRAM to mostly not.
#[derive(Default)]
struct Descents {
    down: bool,
    count: u32,
}

impl Descents {
    fn note(&mut self, slow_share: f64) -> bool {
        let went = !self.down && slow_share > 0.5;
        self.count += u32::from(went);
        self.down = if self.down { slow_share > 0.1 } else { went };
        went
    }
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    // A machine that has it off would else be served by the `pages` engine.
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let pod = guest.cgroup("/pods/managed")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    // Whatever lands on the slow node at first has nothing to do with the agent.
    let agent = guest.spawn_agent(&agent_config("/pods/managed", ""), &[])?;

    let names = ["hot", "readhot", "warm20", "warm60", "warm150"];
    let mut descents: [Descents; 5] = Default::default();
    let mut slow_before = [0; 6];
    let begun = workload.ledger()?.t_ms;
    loop {
        guest.sleep(Duration::from_secs(5));
        let ledger = workload.ledger()?;
        let at = (ledger.t_ms - begun) / 1000;
        let slow: Vec<u64> = ledger.regions.iter().map(|r| r.slow_bytes).collect();
        if slow.iter().zip(&slow_before).any(|(now, before)| now.abs_diff(*before) >= 4 * MIB) {
            let shown: Vec<String> =
                ledger.regions.iter().map(|r| format!("{} {}", r.name, r.slow_bytes / MIB)).collect();
            guest.say(format_args!("after {at:3} s, MiB on the slow node: {}", shown.join(", ")));
            slow_before.copy_from_slice(&slow);
        }
        for (name, descents) in names.iter().zip(&mut descents) {
            let Some(region) = ledger.region(name) else { continue };
            if descents.note(region.slow_bytes as f64 / region.bytes as f64) {
                guest.say(format_args!("after {at:3} s: {name} went down"));
            }
        }
        if Duration::from_secs(at) >= WATCHED {
            break;
        }
    }
    for (name, descents) in names.iter().zip(&descents) {
        let bar = if name.starts_with("warm") { 2 } else { 0 };
        guest.at_most(
            format!("times {name} went down in ten minutes"),
            f64::from(descents.count),
            f64::from(bar),
        );
    }
    let ledger = workload.ledger()?;
    for r in &ledger.regions {
        let gone = (r.gone_bytes + r.swapped_bytes) / MIB;
        guest.say(format_args!(
            "{:8} DRAM {:3} slow {:3} gone {gone} MiB",
            r.name,
            r.fast_bytes / MIB,
            r.slow_bytes / MIB
        ));
    }
    let cold = ledger.sum(|r| r.kind == "cold", |r| r.slow_bytes) as f64;
    guest.at_least(
        "cold share on the slow node",
        cold / ledger.sum(|r| r.kind == "cold", |r| r.bytes) as f64,
        0.98,
    );
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let managed = &state["cgroups"]["/pods/managed"];
    guest.say(format_args!(
        "engine {}, effective age {} s, comebacks {}, demoted {}, promoted {}",
        state["engine"],
        managed["effective_age_seconds"],
        managed["comebacks"],
        managed["demoted_bytes"],
        managed["promoted_bytes"]
    ));
    guest.say(format_args!("totals {}", state["totals"]));
    for key in ["pgpromote_success", "numa_hint_faults", "pgmigrate_success", "pgdemote_direct"] {
        guest.say(format_args!("{key} {}", vmstat(key)?));
    }
    guest.say(format_args!("agent CPU {:?} in {WATCHED:?}", agent.cpu()?));
    guest.say(agent.log()?);
    Ok(guest.verdict())
}
