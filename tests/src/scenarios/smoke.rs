//! The guest itself: two nodes, a workload whose ledger agrees with the kernel, and a demotion by hand.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{BALANCING, DEMOTION};
use crate::guest::{Cgroup, FAST, Guest, SLOW, lru_gen, memory_tiers, numa_stat, vmstat, write_file};
use crate::report::Verdict;
use crate::scenario::{Kernel, Scenario};
use crate::workload::{Ledger, RegionLedger};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "smoke",
    about: "the guest has two tiers, the ledger agrees with the kernel, the kernel demotes cold pages when told",
    applies: |_| true,
    agent: false,
    guest_timeout: Duration::from_mins(3),
    run,
};

const MIB: f64 = 1024.0 * 1024.0;
const LRU_GEN: &str = "/sys/kernel/debug/lru_gen";
/// Pages that a kernel isolates at a time.
const BATCH: u64 = 64;
/// Rounds of aging and eviction, at most.
const ROUNDS: u32 = 4;
/// Share of the cold bytes that has to go down.
const RECALL: f64 = 0.98;
const LAZYFREE_MIB: u64 = 16;
const REGIONS: &str = "--region hot:48M --region readhot:16M --region cold:96M --region cold:32M:thp \
                       --region lazyfree:16M --region mlock:8M --region shmem:8M --region fork:8M";

fn run(guest: &mut Guest) -> Result<Verdict> {
    let tiers = memory_tiers()?;
    let lower = tiers.values().next_back().is_some_and(|nodes| nodes == "1") && tiers.len() == 2;
    guest.check(
        "node 1 is a lower tier",
        lower,
        guest.machine().has_lower_tier(),
        lower == guest.machine().has_lower_tier(),
    );

    // Promotion by the kernel would undo what is measured.
    write_file(BALANCING, "0")?;
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let pod = guest.cgroup("/pod")?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    guest.sleep(Duration::from_secs(3));

    // What it did not take as given back is ordinary cold memory to it, whatever the ledger says.
    guest.equal(
        "pages that the kernel took as given back",
        pod.stat("memory.stat", "pglazyfree")?,
        &(LAZYFREE_MIB * 256),
    );
    let before = workload.ledger()?;
    compare(guest, "before", &before, &pod)?;
    guest.at_most(
        "bytes on the slow node at the start, MiB",
        before.sum(|_| true, |r| r.slow_bytes) as f64 / MIB,
        0.0,
    );

    // `fork` is as cold as `cold`; shared memory is on the same lists, so a kernel may take it, too.
    let cold = |region: &RegionLedger| region.kind == "cold" || region.kind == "fork";
    let (mut demoted, mut rounds) = (0, 0);
    let (after, found) = loop {
        demoted += demote(guest, &pod)?;
        rounds += 1;
        let ledger = workload.ledger()?;
        let found = ledger.sum(cold, |r| r.slow_bytes) as f64 / ledger.sum(cold, |r| r.bytes) as f64;
        guest.say(format_args!("round {rounds}: {found:.3} of the cold bytes on the slow node"));
        // 7.2 makes some huge pages young again instead of moving them: they come in a later round.
        if found >= RECALL || rounds == ROUNDS || !guest.machine().has_lower_tier() {
            break (ledger, found);
        }
    };
    report(guest, &after);
    for key in ["thp_migration_success", "thp_migration_fail", "thp_migration_split", "pgmigrate_fail"] {
        guest.say(format_args!("{key} {}", vmstat(key)?));
    }

    let cold_demoted = after.sum(cold, |r| r.slow_bytes);
    let mut untouched = vec!["hot", "readhot", "mlock"];
    if guest.machine().has_lower_tier() {
        compare(guest, "after", &after, &pod)?;
        guest.at_least("cold bytes demoted, share", found, RECALL);
        guest.at_most("rounds of aging and eviction", f64::from(rounds), f64::from(ROUNDS));
        guest.at_least("pages the kernel counts as demoted", demoted as f64, cold_demoted as f64 / 4096.0);
        untouched.push("lazyfree");
    } else {
        // Without a lower tier the same command is plain reclaim: it frees what may be freed and moves nothing.
        guest.equal("bytes on the slow node", after.sum(|_| true, |r| r.slow_bytes), &0);
        guest.equal(
            "cold bytes still on the fast node",
            after.sum(cold, |r| r.fast_bytes),
            &after.sum(cold, |r| r.bytes),
        );
        guest.equal("pages the kernel counts as demoted", demoted, &0);
    }
    for name in untouched {
        let region = after.region(name).context(name)?;
        guest.equal(format!("{name} bytes demoted"), region.slow_bytes, &0);
        guest.equal(format!("{name} bytes gone"), region.gone_bytes + region.swapped_bytes, &0);
    }
    let hot = after.region("hot").context("hot")?;
    guest.at_least("passes over the hot region", hot.touches as f64, 15.0);

    let verified = workload.verify()?;
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);
    Ok(guest.verdict())
}

/// Ages the pod's pages, then evicts the old generations from the fast node with demotion on.
///
/// Returns the pages demoted by the kernel's count.
fn demote(guest: &mut Guest, pod: &Cgroup) -> Result<u64> {
    // Anonymous pages only; older kernels take the most they have for "anonymous first".
    let swappiness = if guest.machine().kernel >= Kernel::V7_2 { "max" } else { "200" };
    let counted = || {
        ["pgdemote_direct", "pgdemote_kswapd", "pgdemote_proactive"]
            .iter()
            .map(|key| vmstat(key))
            .sum::<Result<u64>>()
    };
    let start = counted()?;
    write_file(DEMOTION, "1")?;
    for _ in 0..3 {
        let lru = lru_gen(pod)?;
        let newest = lru.on(FAST).last().context("no generation on node 0")?.seq;
        write_file(LRU_GEN, format!("+ {} {FAST} {newest} {swappiness} 1", lru.id))?;
        guest.sleep(Duration::from_secs(4));
    }
    let lru = lru_gen(pod)?;
    for generation in lru.on(FAST) {
        guest.say(format_args!("node {FAST} {generation:?}"));
    }
    let newest = lru.on(FAST).last().context("no generation on node 0")?.seq;
    let old = newest - 2;
    let listed: u64 = lru
        .on(FAST)
        .iter()
        .filter(|generation| generation.seq <= old)
        .map(|generation| generation.anon)
        .sum();
    // Asked for more than there is, older kernels go on with file pages, and they overshoot by up to one batch.
    let pages = listed.saturating_sub(BATCH);
    guest.say(format_args!("evicting {pages} pages up to generation {old}"));
    write_file(LRU_GEN, format!("- {} {FAST} {old} {swappiness} {pages}", lru.id))?;
    write_file(DEMOTION, "0")?;
    Ok(counted()? - start)
}

/// Ledger and kernel within what the process itself uses and the counters lag behind.
fn compare(guest: &mut Guest, when: &str, ledger: &Ledger, pod: &Cgroup) -> Result<()> {
    let [anon, shmem] = [numa_stat(pod, "anon")?, numa_stat(pod, "shmem")?];
    for (node, column) in
        [(FAST, (|r: &RegionLedger| r.fast_bytes) as fn(&RegionLedger) -> u64), (SLOW, |r| r.slow_bytes)]
    {
        let known = ledger.sum(|_| true, column);
        let counted = anon[node] + shmem[node];
        let off = (counted as f64 - known as f64).abs() / MIB;
        guest.at_most(format!("{when}: ledger and memory.numa_stat differ on node {node}, MiB"), off, 2.0);
    }
    Ok(())
}

fn report(guest: &Guest, ledger: &Ledger) {
    for r in &ledger.regions {
        guest.say(format_args!(
            "{:10} {:4} MiB {:3}: node0 {:4} node1 {:4} gone {:3} MiB, {} passes, slowest {} us",
            r.name,
            r.bytes >> 20,
            r.page,
            r.fast_bytes >> 20,
            r.slow_bytes >> 20,
            (r.gone_bytes + r.swapped_bytes) >> 20,
            r.touches,
            r.pass_us_max
        ));
    }
}
