//! The workload of a simulated world, watched while the agent moves its memory: what the simulated host is compared with.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::told::{Moment, Told};
use super::{ENGINE, EVERY, LASTS, POLICY, REGIONS, seconds, word};
use crate::guest::{Guest, console, read, write_file};
use crate::report::Verdict;
use crate::scenarios::{BALANCING, config_with_engine};
use crate::workload::now_ms;

const POD: &str = "/pods/managed";

pub(super) fn run(guest: &mut Guest) -> Result<Verdict> {
    let (lasts, every) = (seconds(LASTS)?, seconds(EVERY)?);
    let regions: Vec<String> = word(REGIONS)?.split(',').map(|region| format!("--region {region}")).collect();
    let policy = word(POLICY)?;
    let spec = policy.strip_prefix('{').and_then(|policy| policy.strip_suffix('}'));
    let spec = spec.with_context(|| format!("{POLICY} takes an object in JSON, not {policy}"))?;
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    // Whoever promotes sets it; as the kernel boots, it would move pages for nobody.
    write_file(BALANCING, "0")?;

    let pod = guest.cgroup(POD)?;
    let mut workload = guest.spawn_workload(&pod, &regions.join(" "))?;
    let began = now_ms();
    let agent = guest.spawn_agent(&config_with_engine(&word(ENGINE)?, POD, spec), &[])?;
    let kernel = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    console(&Told::Began { kernel, settings: policy, regions: Vec::new() }.render());

    let mut next = every;
    while next <= lasts {
        let passed = Duration::from_millis(now_ms() - began);
        guest.sleep(next.saturating_sub(passed));
        let ledger = workload.ledger()?;
        let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
        let managed = &state["cgroups"][POD];
        let age = managed["effective_age_seconds"].as_f64();
        let touched = managed["slow_touched_bytes_per_minute"].as_u64();
        let moment = Moment {
            at_ms: ledger.t_ms - began,
            sunk: ledger.sum(|_| true, |region| region.slow_bytes),
            touched: touched.context("/debug/state says nothing of touches on slow nodes")?,
            age: age.context("/debug/state says no age")?,
        };
        console(&Told::Moment(moment).render());
        let sunk = ledger.regions.iter().filter(|region| region.slow_bytes > 0);
        let sunk: Vec<String> =
            sunk.map(|region| format!("{} {}", region.name, region.slow_bytes >> 20)).collect();
        guest.say(format_args!("MiB on the slow node: {}", sunk.join(", ")));
        next += every;
    }
    let verified = workload.verify()?;
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);
    guest.say(agent.log()?);
    Ok(guest.verdict())
}
