//! What a scenario works with inside a guest.
//!
//! The guest's readers of kernel files are its own: a scenario that trusted the product's would not notice its errors.

mod cgroup;
#[cfg(feature = "cluster")]
mod cluster;
mod cxl;
mod files;
mod gate;
mod init;
mod kmem;
mod memory_blocks;
mod modules;
mod node;
#[cfg(feature = "cluster")]
pub mod pod;
mod process;
mod reader;

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

pub use cgroup::Cgroup;
#[cfg(feature = "cluster")]
pub use cluster::Cluster;
pub use files::{
    Generation, LruGen, NodeGenerations, NodeMemory, anon_by_node, lru_gen, memory_tiers, node_memory,
    numa_stat, vmstat,
};
pub use gate::{Gate, Held};
use init::machine;
pub use init::{kernel_argument, main};

pub use memory_blocks::{Use, offline_node, online_all};
pub use node::{Node, RESIZES};
pub use process::{AgentProcess, Verified, Workload, cpu_time, kthread_cpu, resident_bytes};
pub use reader::{Pace, Reader};

use crate::report::{Check, Line, Verdict};
use crate::scenario::Machine;
use crate::workload::now_ms;

/// The node that memory of every guest comes from at first: it has CPUs. Among two sums, that of the fast nodes.
pub const FAST: usize = 0;
/// Slow node of plain machines. Among two sums, that of the slow nodes.
pub const SLOW: usize = 1;

/// The switch of the multi-generational LRU.
const LRU_GEN_ENABLED: &str = "/sys/kernel/mm/lru_gen/enabled";

/// The guest as a scenario sees it.
pub struct Guest {
    machine: Machine,
    started_ms: u64,
    checks: Vec<Check>,
    agents: usize,
}

impl Guest {
    fn new(machine: Machine) -> Self {
        Self { machine, started_ms: now_ms(), checks: Vec::new(), agents: 0 }
    }

    /// What kind of guest this is.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// A line for people, with the guest time.
    #[allow(clippy::unused_self, reason = "what is said is said by this guest")]
    pub fn say(&self, text: impl Display) {
        let now = now_ms();
        console(&format!("{:>4}.{:03} {text}", now / 1000, now % 1000));
    }

    /// Records a number beside its bar.
    pub fn check(&mut self, name: impl Display, value: impl Display, bar: impl Display, pass: bool) {
        let check = Check { name: name.to_string(), value: value.to_string(), bar: bar.to_string(), pass };
        console(&Line::Result(check.clone()).render());
        self.checks.push(check);
    }

    /// Records a ratio or count that must not be less.
    pub fn at_least(&mut self, name: impl Display, value: f64, bar: f64) {
        self.check(name, number(value), format!(">= {}", number(bar)), value >= bar);
    }

    /// Records a ratio or count that must not be more.
    pub fn at_most(&mut self, name: impl Display, value: f64, bar: f64) {
        self.check(name, number(value), format!("<= {}", number(bar)), value <= bar);
    }

    /// Records a value that must be exactly this.
    pub fn equal<T: PartialEq + Display>(&mut self, name: impl Display, value: T, bar: &T) {
        let pass = value == *bar;
        self.check(name, value, format!("= {bar}"), pass);
    }

    /// The verdict on all checks so far. A scenario that checked nothing fails.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict {
            pass: !self.checks.is_empty() && self.checks.iter().all(|check| check.pass),
            checks: self.checks.len(),
            error: None,
            guest_ms: now_ms(),
            boot_ms: self.started_ms,
        }
    }

    /// Creates the cgroup (and its parents) at a path below the root, or takes the one that is there.
    pub fn cgroup(&self, path: &str) -> Result<Cgroup> {
        Cgroup::create(path)
    }

    /// Switches the multi-generational LRU on, which 6.1 has off at boot, unless it can't be had on this machine.
    pub fn want_generations(&self) -> Result<()> {
        if self.machine.has_generations() { write_file(LRU_GEN_ENABLED, "y") } else { Ok(()) }
    }

    /// Starts `thermocline-agent run --config FILE ARGS`, in the cgroup `/agent`.
    pub fn spawn_agent(&mut self, config: &str, args: &[&str]) -> Result<AgentProcess> {
        self.agents += 1;
        // Where there are no generations or their files are closed, and where the kernel does not demote, it is the only one that
        // knows ages; it is never chosen by itself.
        let on = || read(LRU_GEN_ENABLED).is_ok_and(|bits| bits.trim() != "0x0000");
        let generations = self.machine.has_lower_tier() && self.machine.has_generations() && on();
        let settings = if generations { "" } else { "engine: Pages\n" };
        AgentProcess::spawn(self.agents, settings, config, args)
    }

    /// Starts the generator in a cgroup and waits until all its memory is populated.
    ///
    /// `spec` is its command line, e.g. `--region hot:64M --region cold:200M:thp`.
    pub fn spawn_workload(&self, cgroup: &Cgroup, spec: &str) -> Result<Workload> {
        Workload::spawn(cgroup, spec, &self.machine.kind.slow_nodes())
    }

    /// Lets guest time pass.
    pub fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    /// Waits until something holds, and says how long it took.
    ///
    /// # Errors
    /// When it does not hold within `duration`: the message names `what`.
    pub fn expect_within(
        &self,
        duration: Duration,
        what: &str,
        mut holds: impl FnMut() -> bool,
    ) -> Result<Duration> {
        let start = now_ms();
        loop {
            let passed = Duration::from_millis(now_ms() - start);
            if holds() {
                return Ok(passed);
            }
            ensure!(passed < duration, "not within {duration:?}: {what}");
            std::thread::sleep((duration / 200).clamp(Duration::from_millis(100), Duration::from_secs(1)));
        }
    }

    /// Body of a local HTTP answer.
    ///
    /// # Errors
    /// Also on a status other than 200: the message has it and the body.
    pub fn http_get(&self, port: u16, path: &str) -> Result<String> {
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            bail!("GET {path}: {status}: {body}");
        }
        Ok(body.to_owned())
    }

    /// Loads a kernel module and what it depends on; one that is built in or loaded already is fine.
    pub fn load_module(&self, name: &str) -> Result<()> {
        modules::load(name)
    }

    /// A compressed memory disk of that size, as swap (`true`) or as a backing for `file` regions (`--file`).
    pub fn zram(&self, megabytes: u32, swap: bool) -> Result<std::path::PathBuf> {
        self.load_module("zram")?;
        let id = read("/sys/class/zram-control/hot_add")?;
        let device = format!("/dev/zram{}", id.trim());
        write_file(format!("/sys/block/zram{}/disksize", id.trim()), format!("{megabytes}M"))?;
        self.expect_within(Duration::from_secs(2), &device, || Path::new(&device).exists())?;
        if swap {
            busybox(&["mkswap", &device])?;
            busybox(&["swapon", &device])?;
        }
        Ok(device.into())
    }
}

/// Up to three decimals, none for whole numbers.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Prints a line as it is.
pub(crate) fn console(text: &str) {
    // A console that cannot be written to leaves nobody to tell.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Reads a kernel file whole.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.as_ref().display()))
}

/// Writes a kernel file in one go.
pub fn write_file(path: impl AsRef<Path>, value: impl AsRef<str>) -> Result<()> {
    let value = value.as_ref();
    // Not `fs::write`: many kernel files refuse O_TRUNC and O_CREAT.
    let mut file = std::fs::File::options()
        .write(true)
        .open(&path)
        .with_context(|| format!("open {} for writing", path.as_ref().display()))?;
    file.write_all(value.as_bytes())
        .with_context(|| format!("write {value:?} to {}", path.as_ref().display()))
}

fn busybox(args: &[&str]) -> Result<()> {
    let output = std::process::Command::new("/bin/busybox").args(args).output()?;
    ensure!(output.status.success(), "{}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
