//! Where there is nowhere to go, nothing is moved: nodes that are not allowed, full, or offline, and cgroups that a move would swap out.

use std::time::Duration;

use anyhow::Result;

use super::config_with_engine;
use crate::guest::{
    Cgroup, FAST, Guest, SLOW, Use, Workload, node_memory, numa_stat, offline_node, online_all, read, vmstat,
    write_file,
};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "no-target",
    about: "no move to a slow node outside cpuset.mems.effective, full or offline, nor where it would swap out: reasons say so, no storm, no OOM",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(20),
    run,
};

const MIB: u64 = 1 << 20;
const AFTER: Duration = Duration::from_secs(10);
/// Long enough for several walks after all is cold.
const WATCHED: Duration = Duration::from_mins(1);
/// What hogs leave above the low watermark: less than an agent may use.
const LEFT: u64 = 12 * MIB;
/// Room for all that is cold, above the watermarks and what the agent leaves free.
const ROOM: u64 = 256 * MIB;
const COLD: &str = "--region hot:16M --region cold:96M";

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    // A failed demotion may end in swap: there is some, to see that none is used.
    guest.zram(256, true)?;
    let engines: &[&str] =
        if guest.machine().has_lower_tier() { &["LruGen", "Pages", "Reclaim"] } else { &["Pages"] };
    let mut hogs = Hogs { group: guest.cgroup("/hog")?, hogs: Vec::new() };
    for engine in engines {
        outside_cpuset(guest, engine)?;
        full(guest, engine, &mut hogs)?;
    }
    hogs.hogs.clear();
    hogs.group.remove()?;
    if guest.machine().has_lower_tier() {
        may_swap(guest)?;
    }
    if guest.machine().has_kmem() {
        offline(guest)?;
    }
    Ok(guest.verdict())
}

/// The cgroup may use the fast node alone.
fn outside_cpuset(guest: &mut Guest, engine: &str) -> Result<()> {
    let name = format!("{engine}, not allowed");
    let pod = guest.cgroup("/pods/confined")?;
    pod.write("cpuset.mems", FAST)?;
    let mut workload = guest.spawn_workload(&pod, COLD)?;
    let before = Counts::read()?;
    let agent = guest.spawn_agent(&config(&pod, engine), &[])?;
    guest.sleep(WATCHED);
    let state = debug_state(guest)?;
    let view = &state["cgroups"][pod.path()];
    guest.say(format_args!("{name}: {} {}", view["decision"]["text"], state["totals"]));
    guest.equal(
        format!("{name}: bytes on the slow node"),
        workload.ledger()?.sum(|_| true, |r| r.slow_bytes),
        &0,
    );
    guest.equal(
        format!("{name}: the reason"),
        view["decision"]["limit"].as_str().unwrap_or("none"),
        &"no_target",
    );
    before.compare(guest, &name, &pod)?;
    agent.stop(Duration::from_secs(20))?;
    drop(workload);
    pod.remove()
}

/// Hogs have taken the slow node up to its watermarks, until one goes away.
fn full(guest: &mut Guest, engine: &str, hogs: &mut Hogs) -> Result<()> {
    let name = format!("{engine}, full");
    let pod = guest.cgroup("/pods/squeezed")?;
    if engine == "Reclaim" {
        // See `may_swap`.
        pod.write("memory.swap.max", 0)?;
    }
    let mut workload = guest.spawn_workload(&pod, COLD)?;
    let free = node_memory(SLOW)?.free;
    hogs.fill(guest)?;
    let left = node_memory(SLOW)?.free;
    guest.say(format_args!("{name}: slow node {} MiB free, was {}", left / MIB, free / MIB));
    let before = Counts::read()?;
    let scanned = vmstat("pgscan_anon")?;
    let agent = guest.spawn_agent(&config(&pod, engine), &[])?;
    guest.sleep(Duration::from_secs(20));
    let cpu = agent.cpu()?;
    guest.sleep(WATCHED);
    let cpu = agent.cpu()?.saturating_sub(cpu);
    let state = debug_state(guest)?;
    let view = &state["cgroups"][pod.path()];
    guest.say(format_args!("{name}: {} {}", view["decision"]["text"], state["totals"]));
    let moved = workload.ledger()?.sum(|_| true, |r| r.slow_bytes);
    guest.at_most(format!("{name}: bytes that found room, MiB"), moved as f64 / MIB as f64, 16.0);
    let reason = view["decision"]["limit"].as_str().unwrap_or("none");
    guest.equal(format!("{name}: the reason"), reason, &"target_full");
    guest.at_most(
        format!("{name}: agent CPU of a second, ms"),
        cpu.as_secs_f64() * 1e3 / WATCHED.as_secs_f64(),
        12.0,
    );
    guest.at_most(
        format!("{name}: pages scanned by reclaim, k"),
        (vmstat("pgscan_anon")? - scanned) as f64 / 1e3,
        60.0,
    );
    before.compare(guest, &name, &pod)?;

    hogs.give_back(ROOM)?;
    let back = guest.expect_within(Duration::from_mins(1), "what is cold sinks once there is room", || {
        numa_stat(&pod, "anon").is_ok_and(|anon| anon[SLOW] >= 90 * MIB)
    });
    let took = back.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check(format!("{name}: sinks once there is room"), took, "within 60 s", back.is_ok());
    agent.stop(Duration::from_secs(20))?;
    drop(workload);
    pod.remove()
}

/// Memory on the slow node that can't be pushed out.
struct Hogs {
    group: Cgroup,
    hogs: Vec<Workload>,
}

impl Hogs {
    /// Fills the slow node up to little above its low watermark.
    fn fill(&mut self, guest: &Guest) -> Result<()> {
        loop {
            let slow = node_memory(SLOW)?;
            guest.say(format_args!("filling: {} MiB of the slow node are free", slow.free / MIB));
            let room = slow.free.saturating_sub(slow.low + LEFT) / MIB;
            if room < 2 {
                return Ok(());
            }
            // Huge pages go faster; at the end there may be none whole on the slow node.
            let region =
                if room >= 64 { format!("{}M:thp", (room / 2).min(96) * 2) } else { format!("{room}M") };
            // It starts on the fast node and is moved: a process that may use a movable node alone gets no buffers for pipes.
            self.group.write("cpuset.mems", "0-1")?;
            self.hogs.push(guest.spawn_workload(&self.group, &format!("--region mlock:{region}:name=hog"))?);
            self.group.write("cpuset.mems", SLOW)?;
            guest.expect_within(Duration::from_mins(2), "the hog is on the slow node", || {
                numa_stat(&self.group, "anon").is_ok_and(|anon| anon[FAST] < 2 * MIB)
            })?;
            self.group.write("cpuset.mems", "0-1")?;
        }
    }

    /// Ends hogs, the latest first, until that much is free.
    fn give_back(&mut self, room: u64) -> Result<()> {
        while node_memory(SLOW)?.free < room && self.hogs.pop().is_some() {}
        Ok(())
    }
}

/// `memory.reclaim` would swap out what is on the slow node: of a cgroup that may swap nothing is moved, until it may not.
fn may_swap(guest: &mut Guest) -> Result<()> {
    let pod = guest.cgroup("/pods/swapping")?;
    let mut workload = guest.spawn_workload(&pod, COLD)?;
    let before = Counts::read()?;
    let agent = guest.spawn_agent(&config(&pod, "Reclaim"), &[])?;
    guest.sleep(WATCHED);
    let state = debug_state(guest)?;
    let view = &state["cgroups"][pod.path()];
    guest.say(format_args!("may swap: {} {}", view["decision"]["text"], state["totals"]));
    let moved = workload.ledger()?.sum(|_| true, |r| r.slow_bytes);
    guest.equal("may swap: bytes on the slow node", moved, &0);
    let reason = view["decision"]["limit"].as_str().unwrap_or("none");
    guest.equal("may swap: the reason", reason, &"may_swap");
    let text = view["decision"]["text"].as_str().unwrap_or_default().to_owned();
    guest.check("may swap: what to do is said", &text, "memory.swap.max", text.contains("memory.swap.max"));

    // A limit above it counts as its own.
    guest.cgroup("/pods")?.write("memory.swap.max", 0)?;
    let sinks = guest.expect_within(Duration::from_mins(1), "it sinks once it may not swap", || {
        numa_stat(&pod, "anon").is_ok_and(|anon| anon[SLOW] >= 80 * MIB)
    });
    let took = sinks.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check("may swap: sinks once it may not", took, "within 60 s", sinks.is_ok());
    before.compare(guest, "may swap", &pod)?;
    agent.stop(Duration::from_secs(20))?;
    drop(workload);
    pod.remove()
}

/// The slow node's memory is taken away and comes back.
fn offline(guest: &mut Guest) -> Result<()> {
    let pod = guest.cgroup("/pods/left")?;
    let mut workload = guest.spawn_workload(&pod, COLD)?;
    let agent = guest.spawn_agent(&config(&pod, "Auto"), &[])?;
    guest.sleep(Duration::from_secs(2));
    let blocks = offline_node(SLOW)?;
    guest.say(format_args!(
        "{blocks} blocks taken away; has_memory {}",
        read("/sys/devices/system/node/has_memory")?.trim()
    ));
    let before = Counts::read()?;
    guest.sleep(WATCHED);
    let state = debug_state(guest)?;
    let view = &state["cgroups"][pod.path()];
    guest.say(format_args!(
        "offline: {} {} {}",
        view["decision"]["text"], state["totals"], state["conditions"]
    ));
    guest.equal("offline: bytes on the slow node", workload.ledger()?.sum(|_| true, |r| r.slow_bytes), &0);
    guest.equal("offline: the action", view["decision"]["action"].as_str().unwrap_or("none"), &"hold");
    let limit = view["decision"]["limit"].as_str().unwrap_or("none");
    guest.check("offline: the reason", limit, "no_target", limit == "no_target");
    before.compare(guest, "offline", &pod)?;
    online_all(Use::Movable)?;
    let back =
        guest.expect_within(Duration::from_mins(1), "what is cold sinks once the node is back", || {
            numa_stat(&pod, "anon").is_ok_and(|anon| anon[SLOW] >= 90 * MIB)
        });
    let took = back.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check("offline: sinks once the node is back", took, "within 60 s", back.is_ok());
    guest.say(agent.log()?);
    agent.stop(Duration::from_secs(20))?;
    drop(workload);
    pod.remove()
}

fn config(pod: &Cgroup, engine: &str) -> String {
    // `reclaim` knows no ages; with a ceiling it has something to wish for.
    let dram = if engine == "Reclaim" { "dram: { ceiling: 20Mi }, " } else { "" };
    config_with_engine(engine, pod.path(), &format!("{dram}demote: {{ after: {}s }}", AFTER.as_secs()))
}

fn debug_state(guest: &Guest) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?)
}

/// What must not grow.
struct Counts {
    swapped_out: u64,
    killed: u64,
}

impl Counts {
    fn read() -> Result<Self> {
        Ok(Self { swapped_out: vmstat("pswpout")?, killed: vmstat("oom_kill")? })
    }

    fn compare(&self, guest: &mut Guest, name: &str, pod: &Cgroup) -> Result<()> {
        let now = Self::read()?;
        guest.equal(format!("{name}: pages swapped out"), now.swapped_out - self.swapped_out, &0);
        guest.equal(format!("{name}: processes killed for memory"), now.killed - self.killed, &0);
        guest.equal(format!("{name}: its processes killed"), pod.stat("memory.events", "oom_kill")?, &0);
        Ok(())
    }
}
