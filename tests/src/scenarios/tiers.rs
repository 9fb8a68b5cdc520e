//! A change of the allowed tiers: widen, move at the rate cap, narrow; refused where there is no room, or where the kernel
//! would have none for itself.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{DEMOTION, STATE};
use crate::guest::{
    AgentProcess, Cgroup, FAST, Guest, SLOW, Use, Workload, numa_stat, offline_node, online_all, read, vmstat,
};
use crate::report::Verdict;
use crate::scenario::{Kernel, Scenario};
use crate::workload::now_ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tiers",
    about: "pin to dram, cold-only, back: widened, moved at the rate cap, narrowed; refused where there is no room",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(10),
    run,
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const RATE_MIB: u64 = 12;
/// What the agent leaves for the narrowing at the most.
const REST_MIB: u64 = 8;
const REGIONS: &str =
    "--region hot:32M --region readhot:16M --region cold:80M --region cold:32M:thp:name=coldthp";
const POD: &str = "/pods/managed";
const NESTED: &str = "/narrow/pod";

/// `tiers` of the pod, or nothing, and then nothing is cold: what sinks meanwhile would come in the way of a full slow
/// node. A second policy for a cgroup whose parent may use node 0 only.
fn config(tiers: &str) -> String {
    let after = if tiers.is_empty() { "1h" } else { "20s" };
    format!(
        "stateFile: {STATE}\npolicies:\n  - name: pod\n    cgroups: [\"{POD}\"]\n    spec: {{ {tiers}demote: \
         {{ after: {after}, maxRate: {RATE_MIB}Mi }}, promote: {{ maxRate: {RATE_MIB}Mi }} }}\n  - name: nested\n    \
         cgroups: [\"{NESTED}\"]\n    spec: {{ tiers: [dram, slow] }}\n"
    )
}

/// What is seen of the pod at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    ms: u64,
    mems: String,
    /// Anonymous bytes by node.
    anon: [u64; 2],
    /// Bytes that NUMA balancing has promoted, in the whole guest.
    promoted: u64,
}

impl Seen {
    /// Whether both nodes are allowed: by the file, or because it is empty.
    fn is_wide(&self) -> bool {
        self.mems.is_empty() || self.mems == "0-1"
    }
}

/// A change from one set of nodes to another, watched.
struct Watched {
    seen: Vec<Seen>,
    done: bool,
}

impl Watched {
    /// Sets of nodes in the order in which they stood.
    fn path(&self) -> String {
        let mut path: Vec<&str> = self.seen.iter().map(|seen| seen.mems.as_str()).collect();
        path.dedup();
        path.join(" > ")
    }

    fn took(&self) -> Duration {
        let ms = |seen: Option<&Seen>| seen.map_or(0, |seen| seen.ms);
        Duration::from_millis(ms(self.seen.last()) - ms(self.seen.first()))
    }

    /// Most bytes that the agent moved to a node beyond `rate * time`, over any window while both nodes were allowed: what
    /// the kernel counts as promoted by itself is not the agent's.
    fn burst(&self, to: usize) -> u64 {
        let mut most = 0;
        let both: Vec<&Seen> = self.seen.iter().filter(|seen| seen.is_wide()).collect();
        for (index, first) in both.iter().enumerate() {
            for last in &both[index..] {
                let promoted = if to == FAST { last.promoted - first.promoted } else { 0 };
                let arrived = last.anon[to].saturating_sub(first.anon[to] + promoted);
                let allowed = (last.ms - first.ms) * RATE_MIB * MIB / 1000;
                most = most.max(arrived.saturating_sub(allowed));
            }
        }
        most
    }

    /// Bytes that arrived on a node beyond `rate * time` from the first to the last, whoever moved them.
    fn beyond_cap(&self, to: usize) -> u64 {
        let (Some(first), Some(last)) = (self.seen.first(), self.seen.last()) else { return 0 };
        let arrived = last.anon[to].saturating_sub(first.anon[to]);
        arrived.saturating_sub((last.ms - first.ms) * RATE_MIB * MIB / 1000)
    }

    /// What NUMA balancing promoted meanwhile.
    fn promoted(&self) -> u64 {
        let promoted = |seen: Option<&Seen>| seen.map_or(0, |seen| seen.promoted);
        promoted(self.seen.last()) - promoted(self.seen.first())
    }

    /// What the narrowing itself moved: left on a node just before.
    fn rest(&self, from: usize) -> u64 {
        self.seen.iter().rev().find(|seen| seen.is_wide()).map_or(0, |seen| seen.anon[from])
    }
}

fn see(pod: &Cgroup) -> Result<Seen> {
    // Memory first: what is left is then what was left before the set became smaller.
    let anon = numa_stat(pod, "anon")?;
    let promoted = vmstat("pgpromote_success")? * PAGE;
    Ok(Seen { ms: now_ms(), mems: pod.read("cpuset.mems")?, anon, promoted })
}

/// Watches the pod until it may use `mems` alone and nothing is left elsewhere. `first` is what was seen before the
/// change was asked for.
fn watch(guest: &Guest, pod: &Cgroup, first: Seen, mems: &str, from: usize) -> Watched {
    let mut seen = vec![first];
    let done = guest
        .expect_within(Duration::from_mins(2), mems, || {
            seen.extend(see(pod).ok());
            seen.last().is_some_and(|seen| seen.mems == mems && seen.anon[from] < MIB)
        })
        .is_ok();
    Watched { seen, done }
}

fn state(guest: &Guest) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&guest.http_get(9440, "/debug/state").context("/debug/state")?)?)
}

/// A condition of a cgroup in words: `False Refused: ...`; empty where there is none.
fn condition(guest: &Guest, cgroup: &str, kind: &str) -> Result<String> {
    let state = state(guest)?;
    let conditions = state["cgroups"][cgroup]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(found.map_or_else(String::new, |found| {
        format!("{} {}: {}", found["status"], text(&found["reason"]), text(&found["message"]))
    }))
}

fn writes(agent: &AgentProcess, cgroup: &str) -> Result<f64> {
    let set = |line: &&str| line.contains("cpuset.mems set") && line.contains(&format!("\"{cgroup}\""));
    Ok(agent.log()?.lines().filter(set).count() as f64)
}

fn show(guest: &Guest, what: &str, watched: &Watched, workload: &mut Workload) -> Result<()> {
    guest.say(format_args!(
        "{what}: cpuset.mems {} in {:?}, the kernel promoted {} MiB",
        watched.path(),
        watched.took(),
        watched.promoted() / MIB
    ));
    let ledger = workload.ledger()?;
    let shown: Vec<String> = ledger
        .regions
        .iter()
        .map(|r| {
            format!(
                "{} {}+{}, slowest pass {} ms",
                r.name,
                r.fast_bytes / MIB,
                r.slow_bytes / MIB,
                r.pass_us_max / 1000
            )
        })
        .collect();
    guest.say(format_args!("{what}: MiB in DRAM + slow: {}", shown.join("; ")));
    Ok(())
}

fn check_change(guest: &mut Guest, what: &str, watched: &Watched, path: &str, from: usize, to: usize) {
    let bytes = watched.seen.first().map_or(0, |seen| seen.anon[from]);
    let limit = 5.0 + bytes as f64 / (0.8 * (RATE_MIB * MIB) as f64);
    guest.check(format_args!("{what}: done"), watched.done, "= true", watched.done);
    guest.equal(format_args!("{what}: cpuset.mems"), watched.path(), &path.to_owned());
    guest.at_most(format_args!("{what}: time, s"), watched.took().as_secs_f64(), limit);
    // A second's worth, and a step's last folio; what the agent counts it moved within its own round.
    let burst = watched.burst(to) as f64 / MIB as f64;
    guest.at_most(
        format_args!("{what}: MiB moved above the cap in any window"),
        burst,
        (RATE_MIB + 2) as f64,
    );
    let rest = watched.rest(from) as f64 / MIB as f64;
    guest.at_most(format_args!("{what}: MiB left for the narrowing"), rest, REST_MIB as f64);
    guest.at_most(
        format_args!("{what}: MiB above the cap over the whole change, the kernel's promotions included"),
        watched.beyond_cap(to) as f64 / MIB as f64,
        (RATE_MIB + 2 + REST_MIB) as f64,
    );
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    let pod = guest.cgroup(POD)?;
    let narrow = guest.cgroup("/narrow")?;
    let nested = guest.cgroup(NESTED)?;
    narrow.write("cpuset.mems", 0)?;
    let mut workload = guest.spawn_workload(&pod, REGIONS)?;
    let mut inner = guest.spawn_workload(&nested, "--region cold:16M --region hot:8M")?;
    let untouched = pod.read("cpuset.mems")?;
    let oom_kills = vmstat("oom_kill")?;

    let agent = guest.spawn_agent(&config("tiers: [dram], "), &[])?;
    let outcome = changes(guest, &agent, &pod, &mut workload, &untouched);
    if outcome.is_err() {
        guest.say(agent.log()?);
    }
    outcome?;

    guest.at_most(
        "times the cpuset.mems of a pod below a narrower parent was written",
        writes(&agent, NESTED)?,
        1.0,
    );
    let inner_slow = inner.ledger()?.sum(|_| true, |r| r.slow_bytes);
    guest.equal("bytes of it on the slow node", inner_slow, &0);
    guest.equal("OOM kills in the guest", vmstat("oom_kill")? - oom_kills, &0);
    guest.equal("OOM kills in the pod", pod.stat("memory.events", "oom_kill")?, &0);
    let verified = workload.verify()?;
    guest.check("pages with wrong content", verified.wrong, "= 0", verified.wrong == 0);
    guest.say(agent.log()?);

    // Ended while something of it stands.
    agent.write_config(&config("tiers: [dram], "))?;
    guest.expect_within(Duration::from_secs(30), "pinned again", || {
        pod.read("cpuset.mems").is_ok_and(|mems| mems == "0")
    })?;
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    check_released(guest, "after SIGTERM", &pod, &untouched)?;
    let demotion = read(DEMOTION).unwrap_or_default();
    guest.check("demotion_enabled after SIGTERM", demotion.trim(), "not true", demotion.trim() != "true");
    Ok(guest.verdict())
}

/// The original again. Kernels before 7 refuse to empty the file of a cgroup with processes: all nodes mean the same.
fn check_released(guest: &mut Guest, when: &str, pod: &Cgroup, original: &str) -> Result<()> {
    let back = if guest.machine().kernel < Kernel::V7_2 { "0-1" } else { original };
    guest.equal(format_args!("cpuset.mems {when}"), pod.read("cpuset.mems")?, &back.to_owned());
    guest.equal(
        format_args!("cpuset.mems.effective {when}"),
        pod.read("cpuset.mems.effective")?,
        &"0-1".to_owned(),
    );
    Ok(())
}

fn changes(
    guest: &mut Guest,
    agent: &AgentProcess,
    pod: &Cgroup,
    workload: &mut Workload,
    untouched: &str,
) -> Result<()> {
    // Pinned: nothing is elsewhere, so it is narrowed at once, and nothing sinks however cold.
    let pinned = guest.expect_within(Duration::from_secs(10), "pinned to dram", || {
        pod.read("cpuset.mems").is_ok_and(|mems| mems == "0")
    })?;
    guest.say(format_args!("pinned after {pinned:?}"));
    guest.sleep(Duration::from_secs(50));
    guest.equal("pinned: bytes on the slow node", workload.ledger()?.sum(|_| true, |r| r.slow_bytes), &0);

    agent.write_config(&config(""))?;
    guest.sleep(Duration::from_secs(3));
    check_released(guest, "without tiers", pod, untouched)?;
    guest.equal("TiersAllowed without tiers", condition(guest, POD, "TiersAllowed")?, &String::new());

    if guest.machine().has_kmem() {
        movable_only(guest, agent, pod, untouched)?;
    }

    // Cold-only while the slow node is full.
    let hog_cgroup = guest.cgroup("/hog")?;
    hog_cgroup.write("cpuset.mems", 1)?;
    let free = node_free_mib(SLOW)?;
    // Left free: less than the pod needs, more than the kernel's watermarks.
    let hog_mib = (free - 100) / 2 * 2;
    let before = pod.read("cpuset.mems")?;
    let hog = guest.spawn_workload(&hog_cgroup, &format!("--region cold:{hog_mib}M:thp"))?;
    guest.say(format_args!("the hog took {hog_mib} of {free} MiB of the slow node"));
    check_refused(guest, "full slow node", agent, pod, &[" free above ", " MiB would have to move"])?;
    guest.equal("full slow node: OOM kills", vmstat("oom_kill")?, &0);

    // It goes away: the change proceeds by itself.
    let first = see(pod)?;
    drop(hog);
    hog_cgroup.remove()?;
    let down = watch(guest, pod, first, "1", FAST);
    show(guest, "cold-only", &down, workload)?;
    check_change(guest, "cold-only", &down, &format!("{before} > 1"), FAST, SLOW);
    guest.sleep(Duration::from_secs(20));
    let ledger = workload.ledger()?;
    let up = ledger.sum(|_| true, |r| r.fast_bytes);
    guest.equal("cold-only: bytes in DRAM, hot ones included", up, &0);
    let settled = condition(guest, POD, "TiersAllowed")?;
    guest.equal("cold-only: condition", settled, &"true Settled: cpuset.mems is 1".to_owned());

    // And back.
    let first = see(pod)?;
    agent.write_config(&config("tiers: [dram], "))?;
    let back = watch(guest, pod, first, "0", SLOW);
    show(guest, "back in dram", &back, workload)?;
    check_change(guest, "back in dram", &back, "1 > 0-1 > 0", SLOW, FAST);

    let first = see(pod)?;
    agent.write_config(&config("tiers: [slow], "))?;
    let down = watch(guest, pod, first, "1", FAST);
    show(guest, "from pinned to cold-only", &down, workload)?;
    check_change(guest, "from pinned to cold-only", &down, "0 > 0-1 > 1", FAST, SLOW);

    agent.write_config(&config(""))?;
    guest.sleep(Duration::from_secs(3));
    check_released(guest, "without tiers again", pod, untouched)
}

/// Cold-only is asked for and refused, once, in words that have `says` in them, and nothing is written.
fn check_refused(
    guest: &mut Guest,
    what: &str,
    agent: &AgentProcess,
    pod: &Cgroup,
    says: &[&str],
) -> Result<()> {
    let refusals =
        || Ok::<_, anyhow::Error>(agent.log()?.lines().filter(|line| line.contains("tiers refused")).count());
    let (before, written, logged) = (pod.read("cpuset.mems")?, writes(agent, POD)?, refusals()?);
    agent.write_config(&config("tiers: [slow], "))?;
    guest.sleep(Duration::from_secs(15));
    let refused = condition(guest, POD, "TiersAllowed")?;
    let clear = refused.starts_with("false Refused: ") && says.iter().all(|words| refused.contains(words));
    guest.check(
        format_args!("{what}: condition"),
        &refused,
        format_args!("false Refused: {}", says.join("...")),
        clear,
    );
    guest.equal(format_args!("{what}: refusals in the log"), refusals()? - logged, &1);
    guest.equal(format_args!("{what}: cpuset.mems"), pod.read("cpuset.mems")?, &before);
    guest.equal(format_args!("{what}: writes of cpuset.mems"), writes(agent, POD)? - written, &0.0);
    Ok(())
}

/// What a shell that may use the slow node alone says on its standard error when it writes to a pipe.
fn pipe_error(bound: &Cgroup) -> Result<String> {
    const ERRORS: &str = "/run/pipe-error";
    bound.write("cpuset.mems", SLOW)?;
    let mut shell = Command::new("/bin/busybox")
        .args(["sh", "-c", "read go; echo through | cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Not a pipe: it could not complain.
        .stderr(File::create(ERRORS)?)
        .spawn()?;
    bound.write("cgroup.procs", shell.id())?;
    shell.stdin.take().context("stdin")?.write_all(b"go\n")?;
    shell.wait()?;
    Ok(read(ERRORS)?.trim().to_owned())
}

/// The slow node as dax/kmem memory comes up, for processes alone. Afterwards the kernel may use it, too.
fn movable_only(guest: &mut Guest, agent: &AgentProcess, pod: &Cgroup, untouched: &str) -> Result<()> {
    let bound = guest.cgroup("/bound")?;
    let error = pipe_error(&bound)?;
    let refused = error.contains("Cannot allocate memory");
    guest.check(
        "movable memory only: what a bound process is told",
        error,
        "Cannot allocate memory",
        refused,
    );
    check_refused(
        guest,
        "movable memory only",
        agent,
        pod,
        &["nodes 1, of movable memory only", "allow dram too"],
    )?;
    agent.write_config(&config(""))?;
    guest.sleep(Duration::from_secs(3));
    check_released(guest, "after movable memory only", pod, untouched)?;
    let blocks = offline_node(SLOW)?;
    online_all(Use::Kernel)?;
    guest.say(format_args!("{blocks} blocks of the slow node are the kernel's, too"));
    guest.equal("kernel memory too: what a bound process is told", pipe_error(&bound)?, &String::new());
    bound.remove()
}

fn node_free_mib(node: usize) -> Result<u64> {
    let meminfo = read(format!("/sys/devices/system/node/node{node}/meminfo"))?;
    let line = meminfo.lines().find(|line| line.contains("MemFree:")).context("no MemFree")?;
    let kib = line.split_whitespace().rev().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    Ok(kib.context("MemFree")? / 1024)
}
