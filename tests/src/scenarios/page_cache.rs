//! A reader of files beside the pods pushes none of their warm memory out of DRAM.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::agent_config;
use crate::guest::{FAST, Guest, Pace, Reader, SLOW, node_memory, numa_stat, vmstat, write_file};
use crate::report::Verdict;
use crate::scenario::{Machine, Scenario};
use crate::workload::RegionLedger;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "page-cache",
    about: "another cgroup reads a block device in a loop: under the default policy warm anonymous memory stays in DRAM as without it",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(12),
    run,
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// All but the last are touched within the default `after`.
const REGIONS: &str =
    "--region hot:4M --region warm@30s:100M --region warm@50s:150M:name=slower --region cold:64M";
/// In a pod of its own: while the kernel reclaims from a cgroup's file lists it ages its anonymous memory, too, and then nothing of it is
/// provably cold for long.
const GIVEN_UP: &str = "--region lazyfree:32M --region warm@50s:8M";
/// Locked memory of another, or the reader would take minutes to fill the node.
const LOCKED: &str = "--region mlock:768M";
/// More than the fast node has left for its pages.
const DEVICE_MIB: u32 = 512;
const ALONE: Duration = Duration::from_secs(20);
/// Long enough for the cold memory, which is two minutes old at the earliest, to sink while the reader reads.
const WATCHED: Duration = Duration::from_mins(4);
const LOOK: Duration = Duration::from_secs(5);

fn run(guest: &mut Guest) -> Result<Verdict> {
    // A machine that has it off would else be served by another engine.
    if Machine::has_lower_tier(guest.machine()) {
        write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    }
    let device = guest.zram(DEVICE_MIB, false)?;
    let (pod, unmanaged) = (guest.cgroup("/pods/managed")?, guest.cgroup("/others/unmanaged")?);
    let readers = guest.cgroup("/others/reader")?;
    let locked = guest.cgroup("/others/locked")?;
    locked.write("cpuset.mems", FAST)?;
    let _locked = guest.spawn_workload(&locked, LOCKED)?;
    let mut other = guest.spawn_workload(&unmanaged, "--region cold:64M --region warm@50s:32M")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    let given_up = guest.cgroup("/pods/given-up")?;
    let mut given_up = guest.spawn_workload(&given_up, GIVEN_UP)?;
    let agent = guest.spawn_agent(&agent_config("/pods/*", ""), &[])?;
    let is_warm = |r: &RegionLedger| r.kind == "hot" || r.kind == "warm";
    let is_cold = |r: &RegionLedger| r.kind == "cold";

    guest.sleep(ALONE);
    let alone = workload.ledger()?.sum(is_warm, |r| r.fast_bytes);
    guest.say(format_args!("{} MiB of warm memory in DRAM without the reader", alone / MIB));
    let demoted_before = demotions()?;
    // In portions, or the emulator would do nothing else.
    let pace = Pace { portion: 64, pause: Duration::from_secs(1) };
    let reader = Reader::spawn(&readers, &device, DEVICE_MIB, pace)?;

    let (mut least, mut most_cache, mut least_free) = (alone, 0, u64::MAX);
    let mut watched = Duration::ZERO;
    while watched < WATCHED {
        guest.sleep(LOOK);
        watched += LOOK;
        let ledger = workload.ledger()?;
        let warm = ledger.sum(is_warm, |r| r.fast_bytes);
        let cold = ledger.sum(is_cold, |r| r.slow_bytes);
        let cache = numa_stat(&readers, "file")?[FAST];
        let free = node_memory(FAST)?.available();
        (least, most_cache, least_free) = (least.min(warm), most_cache.max(cache), least_free.min(free));
        if watched.as_secs().is_multiple_of(20) {
            guest.say(format_args!(
                "reading for {:3} s: warm {} MiB in DRAM, cold {} MiB below; cache {} MiB in DRAM, {} MiB free",
                watched.as_secs(),
                warm / MIB,
                cold / MIB,
                cache / MIB,
                free / MIB
            ));
        }
    }
    let mut by_kswapd = 0;
    for ((name, before), (_, now)) in demoted_before.iter().zip(demotions()?) {
        guest.say(format_args!("{name} {}", now - before));
        if *name == "pgdemote_kswapd" {
            by_kswapd = (now - before) * PAGE;
        }
    }
    // Without these the rest would say nothing.
    guest.at_least("page cache of the reader on the fast node, MiB", (most_cache / MIB) as f64, 64.0);
    let low = node_memory(FAST)?.high;
    guest.at_most(
        "least free memory, a share of the fast node",
        {
            let node = node_memory(FAST)?.managed;
            (least_free.saturating_sub(low)) as f64 / node as f64
        },
        0.05,
    );

    guest.at_least(
        "warm memory in DRAM with the reader, a share of that without",
        least as f64 / alone as f64,
        0.98,
    );
    let ledger = workload.ledger()?;
    let cold = ledger.sum(is_cold, |r| r.slow_bytes) as f64;
    guest.at_least("cold memory that sank meanwhile, a share", cold / (64 * MIB) as f64, 0.9);
    let ledger = given_up.ledger()?;
    let lazyfree = ledger.region("lazyfree").context("lazyfree")?;
    guest.say(format_args!("MADV_FREE memory: {} of 32 MiB freed", lazyfree.gone_bytes / MIB));
    // What kswapd comes to while an eviction of ours lets it demote goes down instead of being freed (docs/engines.md).
    let by_us = lazyfree.slow_bytes.saturating_sub(by_kswapd);
    guest.equal("MADV_FREE bytes on the slow node, but for kswapd's", by_us, &0);
    guest.at_most(
        "of all of them, MADV_FREE memory on the slow node, a share",
        lazyfree.slow_bytes as f64 / (32 * MIB) as f64,
        0.01,
    );
    guest.equal(
        "bytes of a cgroup without a policy on the slow node",
        other.ledger()?.sum(|_| true, |r| r.slow_bytes),
        &0,
    );
    let headroom = guest.http_get(9440, "/debug/state")?;
    let headroom: serde_json::Value = serde_json::from_str(&headroom)?;
    guest.say(format_args!("totals {}", headroom["totals"]));
    guest.say(format_args!(
        "pod {:?}, agent CPU {:?}",
        numa_stat(&pod, "anon")?.map(|b| b / MIB),
        agent.cpu()?
    ));
    guest.say(format_args!("unmanaged {:?}", numa_stat(&unmanaged, "anon")?[SLOW]));
    drop(reader);
    readers.write("cgroup.kill", 1)?;
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

/// Pages that the kernel has demoted, by who did it.
fn demotions() -> Result<[(&'static str, u64); 3]> {
    let of = |name| vmstat(name).map(|pages| (name, pages));
    Ok([of("pgdemote_kswapd")?, of("pgdemote_direct")?, of("pgdemote_proactive")?])
}
