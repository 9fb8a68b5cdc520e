//! What must not move stays, or moves only as docs/engines.md says of that engine and kernel.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::config_with_engine;
use crate::guest::{Cgroup, Guest, SLOW, numa_stat, vmstat, write_file};
use crate::report::Verdict;
use crate::scenario::{Kernel, Machine, Scenario};
use crate::workload::RegionLedger;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "never-moves",
    about: "lazyfree, file, page cache, shmem, locked and hugetlb memory stays with each engine, or as docs/engines.md says",
    applies: Machine::has_slow_node,
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

const MIB: u64 = 1 << 20;
const AFTER: Duration = Duration::from_secs(10);
const REGIONS: &str = "--region hot:16M --region cold:64M --region cold:32M:thp:name=coldthp --region fork:16M \
                       --region lazyfree:16M --region lazyfree:8M:thp:name=lazythp --region rewritten:16M \
                       --region file:16M --region shmem:16M --region mlock:16M --region hugetlb:16M";
const CACHE_MIB: u64 = 16;
/// What the region takes.
const HUGETLB_PAGES: u64 = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    LruGen,
    Pages,
    Reclaim,
}

impl Engine {
    const ALL: [Self; 3] = [Self::LruGen, Self::Pages, Self::Reclaim];

    /// As in a policy, as in the agent's picture.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::LruGen => ("LruGen", "lru-gen"),
            Self::Pages => ("Pages", "pages"),
            Self::Reclaim => ("Reclaim", "reclaim"),
        }
    }

    fn works_on(self, machine: Machine) -> bool {
        match self {
            Self::LruGen => machine.has_lower_tier() && machine.has_generations(),
            Self::Pages => true,
            Self::Reclaim => machine.has_lower_tier(),
        }
    }
}

/// What becomes of a region beside cold memory. docs/engines.md says the same in words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Sinks,
    /// At least half of it sinks.
    SinksInPart,
    /// Any part of it may sink.
    MaySink,
}

impl Engine {
    #[allow(clippy::match_same_arms, reason = "each has its own cause")]
    fn fate(self, machine: Machine, region: &str) -> Fate {
        match (self, region) {
            // It knows no ages and probes in small steps, so it is not held to a time.
            (Self::Reclaim, "coldthp") => Fate::MaySink,
            // Without generations what is inactive is nearly a matter of chance: other cold memory goes before it.
            (Self::Reclaim, "cold") if machine.kind.boot.lru_gen == Some(false) => Fate::SinksInPart,
            (_, "cold" | "coldthp") => Fate::Sinks,
            // The kernel keeps shared memory on the anonymous lists, and pages of a fork on those of their cgroup.
            (Self::LruGen, "shmem" | "fork") => Fate::Sinks,
            (Self::Reclaim, "shmem" | "fork") => Fate::MaySink,
            // Before 7.2 the kernel takes no word on what kind of memory to reclaim, or only on what to take first.
            (Self::Reclaim, "file" | "cache" | "lazyfree" | "lazythp" | "rewritten")
                if machine.kernel < Kernel::V7_2 =>
            {
                Fate::MaySink
            }
            _ => Fate::Stays,
        }
    }
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    if guest.machine().has_lower_tier() {
        guest.want_generations()?;
    }
    // A pool of the whole host would be on slow nodes in part.
    for node in guest.machine().kind.dram_nodes() {
        let pool = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages");
        write_file(pool, HUGETLB_PAGES.to_string())?;
    }
    let device = guest.zram(64, false)?;
    let machine = guest.machine();
    for engine in Engine::ALL.into_iter().filter(|engine| engine.works_on(machine)) {
        one_engine(guest, engine, device.to_str().context("device")?)?;
    }
    Ok(guest.verdict())
}

fn one_engine(guest: &mut Guest, engine: Engine, device: &str) -> Result<()> {
    let (word, name) = engine.words();
    let pod = guest.cgroup(&format!("/pods/{name}"))?;
    let mut workload = guest.spawn_workload(&pod, &format!("{REGIONS} --file {device}"))?;
    fill_page_cache(&pod, device)?;
    let start = workload.ledger()?;
    let thp_before = huge_bytes(&pod)?;
    let split_before = vmstat("thp_split_page")?;

    // `reclaim` knows no ages: a ceiling makes it take what the kernel calls inactive, down to the hot set and what can't move.
    let dram = if engine == Engine::Reclaim { "dram: { ceiling: 96Mi }, " } else { "" };
    let spec = format!("{dram}demote: {{ after: {}s }}, promote: {{ enabled: false }}", AFTER.as_secs());
    let agent = guest.spawn_agent(&config_with_engine(word, pod.path(), &spec), &[])?;
    let cold = |r: &RegionLedger| r.kind == "cold";
    let bytes = start.sum(cold, |r| r.bytes);
    let sunk = guest.expect_within(Duration::from_mins(2), "the cold memory sinks", || {
        workload.ledger().is_ok_and(|ledger| ledger.sum(cold, |r| r.slow_bytes) * 100 >= bytes * 98)
    });
    // What should not follow has time to.
    guest.sleep(4 * AFTER);
    let end = workload.ledger()?;
    for r in &end.regions {
        guest.say(format_args!(
            "{name:8} {:10} {:4} MiB {:7}: DRAM {:8} slow {:8} gone {:8} bytes",
            r.name,
            r.bytes / MIB,
            r.page,
            r.fast_bytes,
            r.slow_bytes,
            r.gone_bytes + r.swapped_bytes
        ));
    }
    for key in ["anon", "file", "file_mapped", "shmem", "inactive_file", "active_file"] {
        guest.say(format_args!("{name:8} {key:14} {:?}", numa_stat(&pod, key)?));
    }
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    guest.say(format_args!("engine {} totals {}", state["engine"], state["totals"]));
    guest.say(format_args!("decision {}", state["cgroups"][pod.path()]["decision"]["text"]));
    match sunk {
        Ok(took) => guest.say(format_args!("{name}: 98 % of the cold bytes sank within {took:?}")),
        Err(error) => guest.say(format_args!("{name}: {error}\n{}", agent.log()?)),
    }
    guest.equal(format!("{name}: engine"), state["engine"].as_str().unwrap_or_default(), &name);
    for r in &end.regions {
        let fate = engine.fate(guest.machine(), &r.name);
        check_fate(guest, name, &r.name, fate, r.slow_bytes, r.bytes);
    }
    let cache = numa_stat(&pod, "file")?[SLOW] - numa_stat(&pod, "shmem")?[SLOW];
    let fate = engine.fate(guest.machine(), "cache");
    check_fate(guest, name, "page cache", fate, cache, (CACHE_MIB + 16) * MIB);

    // Freeing what was given up is the kernel's right.
    let freed = end.region("lazythp").context("lazythp")?.gone_bytes;
    guest.equal(format!("{name}: bytes in huge pages"), huge_bytes(&pod)?, &(thp_before - freed));
    guest.equal(format!("{name}: huge pages split"), vmstat("thp_split_page")? - split_before, &0);
    let verified = workload.verify()?;
    guest.check(format!("{name}: pages with wrong content"), verified.wrong, "= 0", verified.wrong == 0);
    let status = agent.stop(Duration::from_secs(20))?;
    ensure!(status.success(), "the agent ended with {status}");
    drop(workload);
    pod.remove()
}

fn check_fate(guest: &mut Guest, engine: &str, what: &str, fate: Fate, slow: u64, bytes: u64) {
    let check = format!("{engine}: {what} bytes on the slow node");
    match fate {
        Fate::Stays => guest.equal(check, slow, &0),
        Fate::Sinks => guest.at_least(check, slow as f64, 0.98 * bytes as f64),
        Fate::SinksInPart => guest.at_least(check, slow as f64, 0.5 * bytes as f64),
        Fate::MaySink => guest.at_most(check, slow as f64, bytes as f64),
    }
}

/// Reads part of the device that no region maps, from inside the cgroup, which is charged for the cache.
fn fill_page_cache(pod: &Cgroup, device: &str) -> Result<()> {
    write_file("/proc/sys/vm/drop_caches", "1")?;
    let script = format!(
        "echo 0 > {}/cgroup.procs && exec dd if={device} of=/dev/null bs=1M skip=32 count={CACHE_MIB}",
        pod.dir().display()
    );
    let output = Command::new("/bin/busybox").args(["sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "dd: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Bytes in huge pages, of those with mappings that NUMA balancing has made inaccessible, too: `smaps` of 6.1 passes over them.
fn huge_bytes(pod: &Cgroup) -> Result<u64> {
    Ok(numa_stat(pod, "anon_thp")?.into_iter().sum())
}
