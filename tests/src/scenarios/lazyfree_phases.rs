//! Memory that is written between a walk and an eviction never makes the kernel take `MADV_FREE` memory or page cache in its place.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::config_with_engine;
use crate::guest::{Cgroup, Guest, SLOW, Workload, numa_stat, vmstat, write_file};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lazyfree-phases",
    about: "warm memory written at 20 phases between walk and eviction: no byte of MADV_FREE memory or page cache beside it moves",
    applies: Machine::has_lower_tier,
    agent: true,
    guest_timeout: Duration::from_mins(12),
    run,
};

const MIB: u64 = 1 << 20;
const PHASES: u32 = 20;
/// No multiple of a walk's interval, so that the phases differ from pass to pass, too.
const PERIOD_MS: u32 = 13_300;
const WATCHED: Duration = Duration::from_mins(2);
const CACHE_MIB: u32 = 4;

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let device = guest.zram(CACHE_MIB * PHASES, false)?;
    // Whatever comes back, the age stays below the period and demotion goes on: each pass looks cold before it is written.
    let spec = "demote: { after: 10s, afterMax: 10s, slowTouchRate: 100% }, \
                pressure: { memory: 100%, io: 100% }";
    let agent = guest.spawn_agent(&config_with_engine("LruGen", "/pods/*", spec), &[])?;
    let demoted = || Ok::<_, anyhow::Error>(vmstat("pgdemote_direct")? + vmstat("pgdemote_proactive")?);
    let (demoted_before, file_before) = (demoted()?, vmstat("pgsteal_file")?);

    let mut pods = Vec::new();
    for phase in 0..PHASES {
        let pod = guest.cgroup(&format!("/pods/phase{phase}"))?;
        // Huge pages in every other one: an eviction overshoots by one.
        let page = if phase % 2 == 0 { "4k" } else { "thp" };
        let regions = format!(
            "--region warm@{PERIOD_MS}ms:12M:{page} --region lazyfree:6M:{page} --region lazyfree:2M:4k:name=lazysmall"
        );
        let workload = guest.spawn_workload(&pod, &regions)?;
        fill_page_cache(&pod, device.to_str().context("device")?, phase)?;
        pods.push((pod, workload));
        guest.sleep(Duration::from_millis(u64::from(PERIOD_MS / PHASES)));
    }
    let mut moved = vec![(0, 0); pods.len()];
    let mut warm = vec![0; pods.len()];
    let mut watched = Duration::ZERO;
    while watched < WATCHED {
        guest.sleep(Duration::from_secs(5));
        watched += Duration::from_secs(5);
        for (index, (pod, workload)) in pods.iter_mut().enumerate() {
            let (lazy, cache, sunk) = on_slow(pod, workload)?;
            moved[index].0 = moved[index].0.max(lazy);
            moved[index].1 = moved[index].1.max(cache);
            warm[index] = warm[index].max(sunk);
        }
    }
    for (phase, ((lazy, cache), warm)) in moved.iter().zip(&warm).enumerate() {
        guest.say(format_args!(
            "phase {phase:2}: most on the slow node: warm {} MiB, lazyfree {lazy} B, page cache {cache} B",
            warm / MIB
        ));
    }
    let lazy: u64 = moved.iter().map(|(lazy, _)| lazy).sum();
    let cache: u64 = moved.iter().map(|(_, cache)| cache).sum();
    guest.equal("MADV_FREE bytes that moved, all phases", lazy, &0);
    guest.equal("page cache bytes that moved, all phases", cache, &0);
    guest.equal("pages that evictions took from file lists", vmstat("pgsteal_file")? - file_before, &0);
    // Without demotion the rest would say nothing.
    let demoted = (demoted()? - demoted_before) * 4096 / MIB;
    guest.at_least("MiB demoted meanwhile", demoted as f64, 40.0);
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    guest.say(format_args!("engine {} totals {}", state["engine"], state["totals"]));
    guest.say(format_args!("agent CPU {:?}", agent.cpu()?));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

/// Bytes on the slow node: of `MADV_FREE` memory, of page cache, of warm memory.
fn on_slow(pod: &Cgroup, workload: &mut Workload) -> Result<(u64, u64, u64)> {
    let ledger = workload.ledger()?;
    let lazy = ledger.sum(|r| r.kind == "lazyfree", |r| r.slow_bytes);
    let warm = ledger.sum(|r| r.kind == "warm", |r| r.slow_bytes);
    let cache = numa_stat(pod, "file")?[SLOW] - numa_stat(pod, "shmem")?[SLOW];
    Ok((lazy, cache, warm))
}

/// Reads a part of the device of its own from inside the cgroup, which is charged for the cache.
fn fill_page_cache(pod: &Cgroup, device: &str, phase: u32) -> Result<()> {
    let script = format!(
        "echo 0 > {}/cgroup.procs && exec dd if={device} of=/dev/null bs=1M skip={} count={CACHE_MIB}",
        pod.dir().display(),
        phase * CACHE_MIB
    );
    let output = Command::new("/bin/busybox").args(["sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "dd: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
