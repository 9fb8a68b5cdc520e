//! Processes of a scenario: the agent, workloads, and what they cost.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Cgroup, read, write_file};
use crate::workload::Ledger;

/// Names of the kernel threads whose work is ours: compaction, reclaim, DAMON.
const DRIVEN_THREADS: [&str; 3] = ["kcompactd", "kswapd", "kdamond"];

/// CPU time of a process with its living threads.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
        nanos += sched_nanos(&task?.path())?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// CPU time of the kernel threads that move or free memory on our behalf.
pub fn kthread_cpu() -> Result<Duration> {
    let mut nanos = 0;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may be gone by now.
        let Ok(comm) = std::fs::read_to_string(path.join("comm")) else { continue };
        if DRIVEN_THREADS.iter().any(|name| comm.starts_with(name)) {
            nanos += sched_nanos(&path)?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Exact run time; the times in `stat` are in hundredths of a second.
fn sched_nanos(task: &Path) -> Result<u64> {
    let text = read(task.join("schedstat"))?;
    text.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .with_context(|| format!("{}: {text}", task.display()))
}

/// Resident memory by a text of `/proc/PID/status`, bytes; `None` for a process that has ended.
#[must_use]
pub fn resident_bytes(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kib.parse::<u64>().ok()? << 10)
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    cgroup: Cgroup,
    settings: &'static str,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its standard output and error.
    pub log: PathBuf,
}

fn with_settings(settings: &str, config: &str) -> String {
    if config.contains("engine:") { config.to_owned() } else { format!("{settings}{config}") }
}

impl AgentProcess {
    /// `settings` go before each of its configurations that names no engine.
    pub(super) fn spawn(number: usize, settings: &'static str, config: &str, args: &[&str]) -> Result<Self> {
        let cgroup = Cgroup::create("/agent")?;
        let config_path = PathBuf::from(format!("/run/agent-{number}.yaml"));
        let log = PathBuf::from(format!("/run/agent-{number}.log"));
        std::fs::write(&config_path, with_settings(settings, config))?;
        let out = std::fs::File::create(&log)?;
        let child = Command::new("/bin/thermocline-agent")
            .args(["run", "--config"])
            .arg(&config_path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("thermocline-agent")?;
        cgroup.write("cgroup.procs", child.id())?;
        Ok(Self { child, cgroup, settings, config: config_path, log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        read(&self.log)
    }

    /// CPU time of every agent that ran in this guest, from its cgroup: exited threads count.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(Duration::from_micros(self.cgroup.stat("cpu.stat", "usage_usec")?))
    }

    /// Resident memory, bytes.
    pub fn rss(&self) -> Result<u64> {
        resident_bytes(&read(format!("/proc/{}/status", self.pid()))?)
            .context("no VmRSS: the agent has ended")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Writes a new configuration over the old one, as an editor does: a new file in its place.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let new = self.config.with_extension("new");
        std::fs::write(&new, with_settings(self.settings, config))?;
        Ok(std::fs::rename(new, &self.config)?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("signal {signal:?}"))
    }

    /// SIGTERM, then waits for its end.
    pub fn stop(mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        for _ in 0..within.as_millis() / 50 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the agent did not end within {within:?} of SIGTERM; its log:\n{}", self.log()?)
    }

    /// `kill -9`: it has no say in it.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Nobody asked it to end: what it said last is why the scenario fails.
        if let Ok(Some(status)) = self.child.try_wait()
            && !status.success()
            && status.signal().is_none_or(|signal| signal == Signal::ABORT.as_raw())
        {
            let log = self.log().unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "the agent ended: {status}");
            last.into_iter().rev().for_each(|line| drop(writeln!(out, "{line}")));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`Workload::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Verified {
    /// Pages read.
    pub pages: u64,
    /// Of them, pages with lost or foreign content.
    pub wrong: u64,
    /// The first of those.
    pub first_wrong: Option<String>,
}

/// Answer to `free` and `fill`.
#[derive(Deserialize)]
struct Filled {
    us: u64,
}

/// A running generator. Killed when dropped.
#[derive(Debug)]
pub struct Workload {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Workload {
    /// `slow`: nodes that its ledger counts as slow.
    pub(super) fn spawn(cgroup: &Cgroup, spec: &str, slow: &[usize]) -> Result<Self> {
        let mut child = Command::new("/bin/thermocline-workload")
            .arg("--cgroup")
            .arg(cgroup.dir())
            .args(spec.split_whitespace())
            .args(slow.iter().flat_map(|node| ["--slow".to_owned(), node.to_string()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("thermocline-workload")?;
        // It would inherit that nobody may kill it, and a kill for lack of memory must be seen, not panic the guest.
        write_file(format!("/proc/{}/oom_score_adj", child.id()), "0")?;
        let commands = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?);
        let mut workload = Self { child, commands, answers };
        workload.answer::<serde_json::Value>().context("the workload did not start")?;
        Ok(workload)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it touched when, and where that lies now.
    pub fn ledger(&mut self) -> Result<Ledger> {
        self.ask("ledger")
    }

    /// Lets the hot set shift.
    pub fn shift(&mut self) -> Result<Ledger> {
        self.ask("shift")
    }

    /// Has it read every page and compare. That makes all of them young.
    pub fn verify(&mut self) -> Result<Verified> {
        self.ask("verify")
    }

    /// Has it give back the memory of a region.
    pub fn free(&mut self, region: &str) -> Result<Duration> {
        self.ask::<Filled>(&format!("free {region}")).map(|done| Duration::from_micros(done.us))
    }

    /// Has it write a region anew; how long that took it.
    pub fn fill(&mut self, region: &str) -> Result<Duration> {
        self.ask::<Filled>(&format!("fill {region}")).map(|done| Duration::from_micros(done.us))
    }

    fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T> {
        writeln!(self.commands, "{command}").with_context(|| format!("{command}: the workload has ended"))?;
        self.answer().with_context(|| command.to_owned())
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the workload ended: {}", self.child.wait()?);
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps a process from the OOM killer's first choice, for those that must report it.
pub(super) fn spare_from_oom(pid: u32) -> Result<()> {
    write_file(format!("/proc/{pid}/oom_score_adj"), "-1000")
}
