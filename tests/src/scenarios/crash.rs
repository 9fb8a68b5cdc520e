//! The agent is killed at random points, inside every kind of write; afterwards nothing of it may be left.

mod refusals;
mod spot;

use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{BALANCING, DAMON_STAT, DEMOTION, LRU_GEN, NR_KDAMONDS, STATE};
use crate::guest::{
    AgentProcess, Cgroup, Guest, SLOW, Use, Workload, kernel_argument, numa_stat, offline_node, online_all,
    read, vmstat, write_file,
};
use crate::machine::node_list;
use crate::report::Verdict;
use crate::scenario::{Kernel, Machine, Scenario};
use spot::Spot;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash",
    about: "kill -9 inside every kind of write, 34 times on each machine, and SIGTERM: original values stand again",
    applies: Machine::has_slow_node,
    agent: true,
    guest_timeout: Duration::from_mins(25),
    run,
};

/// Kills in a guest.
pub const KILLS: usize = 34;
/// SIGTERMs in a guest.
pub const TERMS: usize = 10;

/// `main` gets a limit and sinks, `cold` moves from DRAM to the slow tier, `pinned` is bound to DRAM.
const CONFIG: &str = r#"
listen: off
interval: 100ms
stateFile: /run/thermocline/state
policies:
  - name: main
    cgroups: ["/pods/main"]
    spec:
      demote: { after: 2s, maxRate: 16Mi }
      memoryHigh: { mode: Fixed, value: 8Mi }
  - name: cold
    cgroups: ["/pods/cold"]
    spec: { tiers: [slow] }
  - name: pinned
    cgroups: ["/pods/pinned"]
    spec: { tiers: [dram] }
"#;

/// Numbers that look random and come again with the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn pick(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or_default()
    }

    fn micros(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound))
    }
}

/// The three cgroups with their processes.
struct Pods {
    main: Cgroup,
    cold: Cgroup,
    pinned: Cgroup,
    workloads: [Workload; 3],
    /// All nodes.
    all: String,
}

/// Nodes as the kernel lists them.
struct Nodes {
    dram: String,
    slow: String,
    dram_and_slow: String,
    all: String,
}

impl Nodes {
    fn of(machine: Machine) -> Self {
        let (dram, slow) = (machine.kind.dram_nodes(), machine.kind.slow_nodes());
        let mut both = [dram.clone(), slow.clone()].concat();
        both.sort_unstable();
        Self {
            dram: node_list(&dram),
            slow: node_list(&slow),
            dram_and_slow: node_list(&both),
            all: node_list(&machine.kind.all_nodes()),
        }
    }
}

/// What the kernel's files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Values {
    high: String,
    cold: String,
    pinned: String,
    demotion: Option<String>,
    balancing: String,
    kdamonds: Option<String>,
    damon_stat: Option<String>,
    lru_gen: Option<String>,
}

impl Pods {
    fn start(guest: &Guest) -> Result<Self> {
        let [main, cold, pinned] =
            ["main", "cold", "pinned"].map(|name| guest.cgroup(&format!("/pods/{name}")));
        let (main, cold, pinned) = (main?, cold?, pinned?);
        let Nodes { dram, all, .. } = Nodes::of(guest.machine());
        cold.write("cpuset.mems", &dram)?;
        let workloads = [
            guest.spawn_workload(&main, "--region hot:2M --region cold:12M --region cold:24M:name=spare")?,
            guest.spawn_workload(&cold, "--region cold:12M")?,
            guest.spawn_workload(&pinned, "--region hot:1M")?,
        ];
        Ok(Self { main, cold, pinned, workloads, all })
    }

    fn values(&self) -> Result<Values> {
        let trimmed = |path: &str| read(path).map(|text| text.trim().to_owned());
        Ok(Values {
            high: self.main.read("memory.high")?,
            cold: self.cold.read("cpuset.mems")?,
            pinned: self.pinned.read("cpuset.mems")?,
            demotion: trimmed(DEMOTION).ok(),
            balancing: trimmed(BALANCING)?,
            kdamonds: trimmed(NR_KDAMONDS).ok(),
            damon_stat: trimmed(DAMON_STAT).ok(),
            lru_gen: trimmed(LRU_GEN).ok(),
        })
    }

    /// Sets what a failed restore left, so that the next kill stands for itself.
    fn repair(&self, originals: &Values) -> Result<()> {
        self.main.write("memory.high", &originals.high)?;
        self.cold.write("cpuset.mems", &originals.cold)?;
        self.pinned.write("cpuset.mems", &self.all)?;
        if let Some(demotion) = &originals.demotion {
            write_file(DEMOTION, demotion)?;
        }
        write_file(BALANCING, &originals.balancing)?;
        if let Some(kdamonds) = &originals.kdamonds {
            // None may be there, or none may run.
            let _ = write_file("/sys/kernel/mm/damon/admin/kdamonds/0/state", "off");
            write_file(NR_KDAMONDS, kdamonds)?;
        }
        if let Some(damon_stat) = &originals.damon_stat {
            write_file(DAMON_STAT, damon_stat)?;
        }
        if let Some(lru_gen) = &originals.lru_gen {
            write_file(LRU_GEN, lru_gen)?;
        }
        let _ = std::fs::remove_file(STATE);
        Ok(())
    }

    fn sunk(&self) -> Result<u64> {
        Ok(numa_stat(&self.main, "anon")?[SLOW])
    }

    /// Brings the memory of `main` back to DRAM: fresh pages are taken there.
    fn lift(&mut self) -> Result<()> {
        if self.sunk()? > 0 {
            for region in ["cold", "spare"] {
                self.workloads[0].free(region)?;
                self.workloads[0].fill(region)?;
            }
        }
        Ok(())
    }
}

/// What is not as it was: empty where all is well.
fn leftovers(machine: Machine, originals: &Values, pods: &Pods) -> Result<Vec<String>> {
    let now = pods.values()?;
    let mut left = Vec::new();
    let mut compare = |what: &str, original: &str, now: &str| {
        if original != now {
            left.push(format!("{what} is {now:?}, was {original:?}"));
        }
    };
    compare("memory.high", &originals.high, &now.high);
    compare("cpuset.mems of cold", &originals.cold, &now.cold);
    // Before 7 the kernel lets no cgroup with processes inherit again; all nodes come to the same.
    if machine.kernel >= Kernel::V7_2 || now.pinned != pods.all {
        compare("cpuset.mems of pinned", &originals.pinned, &now.pinned);
    }
    compare("demotion_enabled", &format!("{:?}", originals.demotion), &format!("{:?}", now.demotion));
    compare("numa_balancing", &originals.balancing, &now.balancing);
    compare("nr_kdamonds", &format!("{:?}", originals.kdamonds), &format!("{:?}", now.kdamonds));
    compare("damon_stat", &format!("{:?}", originals.damon_stat), &format!("{:?}", now.damon_stat));
    compare("lru_gen", &format!("{:?}", originals.lru_gen), &format!("{:?}", now.lru_gen));
    if let Ok(state) = spot::state() {
        compare("records of files", "[]", &state["files"].to_string());
        compare("records of settings", "{}", &state["tunables"].to_string());
        compare("record of a kdamond", "null", &state["nr_kdamonds"].to_string());
    }
    Ok(left)
}

/// `thermocline-agent restore`: its exit status and all it said.
fn restore() -> Result<(ExitStatus, String)> {
    let output = Command::new("/bin/thermocline-agent").args(["restore", "--state", STATE]).output()?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status, said))
}

/// Another agent takes over, and is then ended in order.
fn take_over(guest: &mut Guest, random: &mut Random) -> Result<String> {
    let agent = guest.spawn_agent(CONFIG, &[])?;
    guest.expect_within(Duration::from_secs(20), "it starts", || {
        agent.log().is_ok_and(|log| log.contains("did not end in order") || log.contains("\"managed\""))
    })?;
    guest.sleep(random.micros(600_000));
    end(agent)
}

/// Ends an agent in order; what it logged.
fn end(agent: AgentProcess) -> Result<String> {
    let path = agent.log.clone();
    let status = agent.stop(Duration::from_secs(20))?;
    let log = read(&path)?;
    ensure!(status.success(), "the agent ended with {status} after SIGTERM:\n{log}");
    std::fs::remove_file(&path)?;
    Ok(log)
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    let machine = guest.machine();
    guest.want_generations()?;
    if machine.has_kmem() {
        // `tiers: [1]` would be refused: nobody is bound to movable memory alone.
        offline_node(SLOW)?;
        online_all(Use::Kernel)?;
    }
    let number = Machine::all().position(|other| other == machine).unwrap_or_default() as u64;
    let seed = match kernel_argument("thermocline.seed")? {
        Some(seed) => seed.parse().context("thermocline.seed")?,
        None => 0x7e47_0c11_0000_0001 + number,
    };
    guest.say(format_args!("seed {seed}"));
    let mut random = Random(seed);
    let mut pods = Pods::start(guest)?;
    let originals = pods.values()?;
    guest.say(format_args!("before: {originals:?}"));

    let spots: Vec<Spot> = Spot::ALL.into_iter().filter(|spot| spot.applies(machine)).collect();
    let mut hits = vec![0_u32; spots.len()];
    let (mut half_done, mut failures) = (0, 0);
    for kill in 0..KILLS {
        // Each kind twice, the rest as chance will have it.
        let index = if kill < 2 * spots.len() { kill % spots.len() } else { random.pick(spots.len()) };
        pods.lift()?;
        let killed = spots[index].kill(guest, &mut pods, &mut random)?;
        hits[index] += u32::from(killed.inside);
        if !killed.inside {
            guest.say(format_args!("kill {kill} missed {:?}:\n{}", spots[index], killed.log));
        }
        half_done += u32::from(killed.recorded_only);
        let (way, said) = match random.below(3) {
            0 => ("taken over", take_over(guest, &mut random)?),
            way => {
                if way == 2 {
                    spot::kill_restore(&pods, &mut random)?;
                }
                let (status, said) = restore()?;
                ensure!(status.success(), "restore ended with {status}: {said}");
                (if way == 1 { "restored" } else { "restored, killed, restored" }, said)
            }
        };
        let left = leftovers(machine, &originals, &pods)?;
        if !left.is_empty() {
            failures += 1;
            guest.say(format_args!(
                "kill {kill} {:?} {killed:?}, {way}: {left:?}\n{said}\n{}",
                spots[index], killed.log
            ));
            pods.repair(&originals)?;
        }
    }
    for (spot, hits) in spots.iter().zip(hits) {
        guest.at_least(format_args!("kills inside: {spot:?}"), hits.into(), 1.0);
    }
    guest.say(format_args!("{half_done} kills came after a value was recorded and before it was written"));
    guest.equal(format_args!("of {KILLS} kills those that left something"), failures, &0);

    let mut failures = 0;
    let mut early = 0;
    for _ in 0..TERMS {
        pods.lift()?;
        let mut agent = guest.spawn_agent(CONFIG, &[])?;
        guest.sleep(random.micros(4_000_000));
        agent.signal(Signal::TERM)?;
        guest.expect_within(Duration::from_secs(20), "it ends", || {
            agent.is_running().is_ok_and(|runs| !runs)
        })?;
        // Before it listens to signals it has written nothing.
        early += u32::from(!agent.log()?.contains("stopping"));
        let left = leftovers(machine, &originals, &pods)?;
        if !left.is_empty() {
            failures += 1;
            guest.say(format_args!("SIGTERM: {left:?}\n{}", agent.log()?));
            pods.repair(&originals)?;
        }
    }
    guest.equal(
        format_args!("of {TERMS} SIGTERMs ({early} while it started) those that left something"),
        failures,
        &0,
    );

    refusals::run(guest, &pods, &originals)?;
    wrong_pages(guest, &mut pods)?;
    Ok(guest.verdict())
}

fn wrong_pages(guest: &mut Guest, pods: &mut Pods) -> Result<()> {
    let mut wrong = 0;
    for workload in &mut pods.workloads {
        wrong += workload.verify()?.wrong;
    }
    guest.equal("pages with wrong content", wrong, &0);
    let mut kills = 0;
    for cgroup in [&pods.main, &pods.cold, &pods.pinned] {
        kills += cgroup.stat("memory.events", "oom_kill")?;
    }
    guest.equal("processes killed for lack of memory", kills + vmstat("oom_kill")?, &0);
    Ok(())
}
