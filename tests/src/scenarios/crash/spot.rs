//! Where in its work the agent is killed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;

use super::{CONFIG, Nodes, Pods, Random};
use crate::guest::{AgentProcess, Cgroup, Gate, Guest, read};
use crate::scenario::Machine;
use crate::scenarios::{DEMOTION, STATE};

const LRU_GEN: &str = "/sys/kernel/debug/lru_gen";
const PATIENCE: Duration = Duration::from_secs(15);

/// One kind of point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    StateSave,
    NumaBalancing,
    MemoryHighSet,
    MemsWiden,
    MemsNarrow,
    DemotionWindow,
    Eviction,
    Restore,
    Anywhere,
}

/// What the kill hit.
#[derive(Debug, Default)]
pub(super) struct Killed {
    /// Whether it was inside what the spot names.
    pub(super) inside: bool,
    /// Whether a value was recorded that was not written yet.
    pub(super) recorded_only: bool,
    /// The agent's last words.
    pub(super) log: String,
}

/// The state file.
pub(super) fn state() -> Result<Value> {
    Ok(serde_json::from_str(&read(STATE)?)?)
}

/// Values of ours that the state file has for a cgroup's file, the last one last.
fn ours(cgroup: &Cgroup, file: &str) -> Vec<String> {
    let Ok(state) = state() else { return Vec::new() };
    let record = state["files"].as_array().and_then(|files| {
        files.iter().find(|record| record["path"] == cgroup.path() && record["file"] == file)
    });
    let values = record.and_then(|record| record["ours"].as_array());
    values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn tunable(name: &str) -> Option<Value> {
    let state = state().ok()?;
    state["tunables"].get(name).cloned()
}

impl Spot {
    pub(super) const ALL: [Self; 9] = [
        Self::StateSave,
        Self::NumaBalancing,
        Self::MemoryHighSet,
        Self::MemsWiden,
        Self::MemsNarrow,
        Self::DemotionWindow,
        Self::Eviction,
        Self::Restore,
        Self::Anywhere,
    ];

    /// Without a lower tier, or generations, the kernel is never asked to demote.
    pub(super) fn applies(self, machine: Machine) -> bool {
        self != Self::DemotionWindow || evicts(machine)
    }

    /// Starts an agent and kills it at this point.
    pub(super) fn kill(self, guest: &mut Guest, pods: &mut Pods, random: &mut Random) -> Result<Killed> {
        let later = random.pick(3);
        let (agent, inside) = match self {
            Self::StateSave => in_state_save(guest, random)?,
            Self::NumaBalancing if later == 0 => before_the_first_write(guest)?,
            Self::NumaBalancing => {
                let file = pods.main.dir().join("memory.numa_stat");
                held(guest, &file, later - 1, || Ok(tunable("numa_balancing").is_some()))?
            }
            Self::MemoryHighSet => {
                let file = pods.main.dir().join("memory.high");
                held(guest, &file, later, || Ok(!ours(&pods.main, "memory.high").is_empty()))?
            }
            Self::MemsWiden | Self::MemsNarrow => {
                let Nodes { dram_and_slow, slow, .. } = Nodes::of(guest.machine());
                let wanted = if self == Self::MemsWiden { dram_and_slow } else { slow };
                let file = pods.cold.dir().join("cpuset.mems");
                held(guest, &file, later, || Ok(ours(&pods.cold, "cpuset.mems").last() == Some(&wanted)))?
            }
            Self::DemotionWindow => {
                held(guest, DEMOTION.as_ref(), later, || Ok(tunable("demotion_enabled").is_some()))?
            }
            Self::Eviction if evicts(guest.machine()) => in_an_eviction(guest, pods, random)?,
            Self::Eviction => {
                let agent = guest.spawn_agent(CONFIG, &[])?;
                let sinks = || pods.sunk().is_ok_and(|sunk| sunk > 0);
                guest.expect_within(PATIENCE, "memory sinks", sinks)?;
                guest.sleep(random.micros(100_000));
                (agent, true)
            }
            Self::Restore => in_a_restore(guest, pods, random, later)?,
            Self::Anywhere => {
                let agent = guest.spawn_agent(CONFIG, &[])?;
                guest.sleep(random.micros(5_000_000));
                (agent, true)
            }
        };
        let path = agent.log.clone();
        agent.kill()?;
        let log = read(&path)?;
        std::fs::remove_file(path)?;
        Ok(Killed { inside, recorded_only: recorded_only(pods)?, log })
    }
}

/// Whether the agent of this scenario has the kernel evict generations.
fn evicts(machine: Machine) -> bool {
    machine.has_lower_tier() && machine.has_generations()
}

/// At the new file or at the directory of a save, or a little later.
fn in_state_save(guest: &mut Guest, random: &mut Random) -> Result<(AgentProcess, bool)> {
    std::fs::create_dir_all("/run/thermocline")?;
    let mut gate = Gate::before("/run/thermocline")?;
    let agent = guest.spawn_agent(CONFIG, &[])?;
    // The lock, the file as it was, then per save the new file and the directory.
    let mut left = 3 + random.below(8);
    let held = gate.wait(agent.pid(), PATIENCE, || {
        left -= 1;
        Ok(left == 0)
    })?;
    let inside = held.is_some();
    if let Some(held) = held.filter(|_| random.below(2) == 0) {
        held.release()?;
        guest.sleep(random.micros(300));
    }
    agent.signal(Signal::KILL)?;
    Ok((agent, inside))
}

/// When `kernel.numa_balancing` is recorded and not yet written.
fn before_the_first_write(guest: &mut Guest) -> Result<(AgentProcess, bool)> {
    std::fs::create_dir_all("/run/thermocline")?;
    let _ = std::fs::remove_file(STATE);
    let mut gate = Gate::before("/run/thermocline")?;
    let agent = guest.spawn_agent(CONFIG, &[])?;
    // The lock, the new file, the directory.
    let mut opens = 0;
    let inside = kill_at(&mut gate, &agent, 0, || {
        opens += 1;
        Ok(opens == 3)
    })?;
    Ok((agent, inside))
}

/// While the kernel evicts for us.
fn in_an_eviction(guest: &mut Guest, pods: &Pods, random: &mut Random) -> Result<(AgentProcess, bool)> {
    let switch = File::open(DEMOTION)?;
    let mut gate = Gate::before(LRU_GEN)?;
    let agent = guest.spawn_agent(CONFIG, &[])?;
    let held = gate.wait(agent.pid(), PATIENCE, || {
        let mut byte = [0];
        switch.read_at(&mut byte, 0)?;
        Ok(byte == *b"t")
    })?;
    if let Some(held) = held {
        held.release()?;
    }
    guest.sleep(random.micros(5000));
    agent.signal(Signal::KILL)?;
    drop(gate);
    Ok((agent, read(DEMOTION)?.trim() == "true" || pods.sunk()? > 0))
}

/// While an agent that was told to end puts things back.
fn in_a_restore(
    guest: &mut Guest,
    pods: &Pods,
    random: &mut Random,
    later: usize,
) -> Result<(AgentProcess, bool)> {
    let agent = guest.spawn_agent(CONFIG, &[])?;
    guest.sleep(Duration::from_secs(1) + random.micros(2_000_000));
    let mut gate = Gate::before(&restored_files(pods)[random.pick(3)])?;
    agent.signal(Signal::TERM)?;
    let inside = kill_at(&mut gate, &agent, later, || Ok(agent.log()?.contains("stopping")))?;
    Ok((agent, inside))
}

/// What a restore opens.
fn restored_files(pods: &Pods) -> [PathBuf; 3] {
    [pods.main.dir().join("memory.high"), pods.cold.dir().join("cpuset.mems"), "/run/thermocline".into()]
}

/// Starts an agent and kills it at an open of the file once `ready` holds, or so many opens later.
fn held(
    guest: &mut Guest,
    file: &Path,
    later: usize,
    ready: impl FnMut() -> Result<bool>,
) -> Result<(AgentProcess, bool)> {
    let mut gate = Gate::before(file)?;
    let agent = guest.spawn_agent(CONFIG, &[])?;
    let inside = kill_at(&mut gate, &agent, later, ready)?;
    Ok((agent, inside))
}

/// Kills the agent at an open of what is behind the gate once `ready` holds, or so many opens later; in any case.
fn kill_at(
    gate: &mut Gate,
    agent: &AgentProcess,
    mut later: usize,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let held = gate.wait(agent.pid(), PATIENCE, || {
        if !ready()? {
            return Ok(false);
        }
        later = later.wrapping_sub(1);
        Ok(later == usize::MAX)
    })?;
    let inside = held.is_some();
    // While it is held: the end of the gate lets it through.
    agent.signal(Signal::KILL)?;
    Ok(inside)
}

fn recorded_only(pods: &Pods) -> Result<bool> {
    let now = pods.values()?;
    let unwritten = |ours: Vec<String>, now: &str| ours.last().is_some_and(|last| last != now);
    let balancing =
        tunable("numa_balancing").and_then(|record| record["ours"][0].as_str().map(str::to_owned));
    Ok(unwritten(ours(&pods.main, "memory.high"), &now.high)
        || unwritten(ours(&pods.cold, "cpuset.mems"), &now.cold)
        || unwritten(ours(&pods.pinned, "cpuset.mems"), &now.pinned)
        || unwritten(balancing.into_iter().collect(), &now.balancing))
}

/// Runs `restore` and kills it at one of its writes, or not if it writes less.
pub(super) fn kill_restore(pods: &Pods, random: &mut Random) -> Result<()> {
    let mut gate = Gate::before(&restored_files(pods)[random.pick(3)])?;
    let mut child = Command::new("/bin/thermocline-agent")
        .args(["restore", "--state", STATE])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("restore")?;
    let mut left = random.below(4);
    let held = gate.wait(child.id(), Duration::from_secs(1), || {
        left = left.wrapping_sub(1);
        Ok(left == u64::MAX)
    })?;
    child.kill()?;
    drop(held);
    drop(gate);
    child.wait()?;
    Ok(())
}
