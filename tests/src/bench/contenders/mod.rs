//! Who is compared. To add one: a file here, and a line in the table.

mod kernel;
mod lru_gen_loop;
mod nobody;
mod numa_balancing;
mod ours;
mod script;
mod tmo;

use anyhow::Result;

use crate::guest::{AgentProcess, Cgroup, Guest, Workload};

/// The cgroup of the pod that is to be managed.
pub(super) const POD: &str = "/pods/managed";

/// Something that moves memory.
pub struct Contender {
    /// On the command line and in the table.
    pub name: &'static str,
    /// With which settings it runs.
    pub settings: &'static str,
    /// Starts it. `cold` bytes of the pod are never touched.
    pub(super) start: fn(guest: &mut Guest, cold: u64) -> Result<Running>,
}

/// Everybody, ours first.
pub const CONTENDERS: &[Contender] = &[
    ours::CONTENDER,
    nobody::CONTENDER,
    kernel::CONTENDER,
    numa_balancing::CONTENDER,
    tmo::DEFAULT,
    tmo::TUNED,
    lru_gen_loop::CONTENDER,
];

impl Contender {
    /// The one of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CONTENDERS.iter().find(|contender| contender.name == name)
    }
}

/// One at work.
pub(super) enum Running {
    /// The agent.
    Agent(AgentProcess),
    /// A program and the cgroup that it is in.
    Program(std::process::Child, Cgroup),
    /// The kernel, with what takes its DRAM away, if anything.
    Kernel(Option<Workload>),
}

impl Running {
    /// Where its processes are.
    pub(super) fn cgroup(&self, guest: &Guest) -> Result<Option<Cgroup>> {
        match self {
            Self::Agent(_) => guest.cgroup("/agent").map(Some),
            Self::Program(_, cgroup) => Ok(Some(cgroup.clone())),
            Self::Kernel(_) => Ok(None),
        }
    }

    /// `kill -9`. Returns what it had said.
    pub(super) fn kill(self) -> Result<String> {
        match self {
            Self::Agent(agent) => {
                let log = agent.log()?;
                agent.kill()?;
                Ok(log)
            }
            Self::Program(mut child, _) => {
                child.kill()?;
                child.wait()?;
                Ok(String::new())
            }
            Self::Kernel(neighbour) => {
                drop(neighbour);
                Ok(String::new())
            }
        }
    }
}
