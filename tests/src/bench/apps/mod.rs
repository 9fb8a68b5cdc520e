//! Programs of Debian, unmodified, a pod each, loaded by what asks them as their users do, while the agent moves their memory. To add
//! one: a file here, a line in the table, its packages in `xtask/src/bench/apps/packages.rs`.

mod addresses;
mod keys;
mod load;
mod memcached;
mod nginx;
mod redis;
mod store;

use std::fs::File;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::doorbell::Doorbell;
use super::told::{AppMoment, AppsMoment, Told};
use super::{AFTER, BEFORE, POLICY, RUNS, SEED, seconds, word};
use crate::guest::{
    AgentProcess, Cgroup, FAST, Guest, console, kernel_argument, kthread_cpu, numa_stat, read,
};
use crate::report::Verdict;
use crate::scenarios::agent_config;
use crate::workload::now_ms;
use load::{Client, Load};

/// An application under load.
pub struct App {
    /// On the command line and in the table.
    pub name: &'static str,
    /// What it holds and is asked for.
    pub about: &'static str,
    /// Starts it in its cgroup and stores what it is to hold; keys follow from the number.
    start: fn(guest: &Guest, cgroup: &Cgroup, seed: u64) -> Result<Started>,
}

/// Each has the slot of its place.
pub const APPS: &[App] = &[redis::APP, memcached::APP, nginx::APP];

impl App {
    /// The one of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        APPS.iter().find(|app| app.name == name)
    }

    fn slot(&self) -> Result<u8> {
        let slot = APPS.iter().position(|app| app.name == self.name);
        Ok(u8::try_from(slot.context("an application is in the table")?)?)
    }
}

/// One that holds its data.
struct Started {
    process: Process,
    client: Box<dyn Client>,
    /// In a burst.
    portions: u32,
}

/// Its first process. Killed when dropped.
struct Process {
    child: Child,
    log: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between two moments.
const TICK: Duration = Duration::from_secs(10);
/// What most take is seconds of it.
const START_LIMIT: Duration = Duration::from_mins(5);

pub(super) fn run(guest: &mut Guest) -> Result<Verdict> {
    let (before, after) = (seconds(BEFORE)?, seconds(AFTER)?);
    let seed: u64 = word(SEED)?.parse().context(SEED)?;
    let policy = kernel_argument(POLICY)?;
    prepare()?;
    guest.want_generations()?;
    let mut pods = Vec::new();
    for name in word(RUNS)?.split(',') {
        let app = App::find(name).with_context(|| format!("no application is named {name}"))?;
        let cgroup = guest.cgroup(&format!("/pods/{name}"))?;
        let started = (app.start)(guest, &cgroup, seed).with_context(|| name.to_owned())?;
        guest.say(format_args!("{name} holds {} MiB", numa_stat(&cgroup, "anon")?[FAST] >> 20));
        pods.push((app, cgroup, started));
    }
    let kernel = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let regions = pods.iter().map(|(app, ..)| (app.name.to_owned(), 0)).collect();
    console(&Told::Began { kernel, settings: policy.clone().unwrap_or_default(), regions }.render());

    let agent = policy.as_deref().map(|policy| manage(guest, policy)).transpose()?;
    let doorbell = Doorbell::new()?;
    let mut watch = Watch { pods: Vec::new(), agent, doorbell, start_ms: 0 };
    for (app, cgroup, started) in pods {
        let Started { process, client, portions } = started;
        watch.pods.push(Pod { app, cgroup, process, load: Load::start(client, portions) });
    }
    watch.tell()?;
    watch.doorbell.start();
    watch.start_ms = now_ms();
    watch.until(guest, before)?;
    console(&Told::Shifted { at_ms: now_ms() - watch.start_ms }.render());
    watch.pods.iter().for_each(|pod| pod.load.shift());
    watch.until(guest, before + after)?;
    watch.doorbell.end();
    end(guest, watch)
}

/// Starts the agent with a policy for all pods.
fn manage(guest: &mut Guest, policy: &str) -> Result<AgentProcess> {
    let spec = policy.strip_prefix('{').and_then(|policy| policy.strip_suffix('}'));
    let spec = spec.with_context(|| format!("{POLICY} takes an object in JSON, not {policy}"))?;
    guest.spawn_agent(&agent_config("/pods/*", spec), &[])
}

/// What programs of a distribution find on every host.
fn prepare() -> Result<()> {
    std::fs::create_dir_all("/etc")?;
    std::fs::write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write("/etc/group", "root:x:0:\n")?;
    Ok(())
}

/// Starts a program of Debian in a cgroup, which is charged for all its memory, and waits until it listens.
fn program(guest: &Guest, cgroup: &Cgroup, path: &str, args: &[&str], port: Option<u16>) -> Result<Process> {
    let log = format!("/run{}.log", cgroup.path().replace('/', "-"));
    let out = File::create(&log).with_context(|| log.clone())?;
    let script = format!("echo 0 > {}/cgroup.procs; exec \"$0\" \"$@\"", cgroup.dir().display());
    let child = Command::new("/bin/busybox")
        .args(["sh", "-c", &script, path])
        .args(args)
        .env_clear()
        .env("PATH", "/bin:/usr/bin")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .context("sh")?;
    let mut process = Process { child, log };
    if let Some(port) = port {
        let mut ended = false;
        let listens = || {
            ended = !matches!(process.child.try_wait(), Ok(None));
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        };
        guest
            .expect_within(START_LIMIT, &format!("{path} listens"), listens)
            .with_context(|| process.last_words())?;
        ensure!(!ended, "{path} ended; {}", process.last_words());
    }
    Ok(process)
}

impl Process {
    fn last_words(&self) -> String {
        let log = read(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("the end of {}:\n{}", self.log, lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

/// One application at work.
struct Pod {
    app: &'static App,
    cgroup: Cgroup,
    process: Process,
    load: Load<Box<dyn Client>>,
}

impl Pod {
    fn moment(&self) -> Result<AppMoment> {
        let [fast, slow] = numa_stat(&self.cgroup, "anon")?;
        let met = self.load.met();
        Ok(AppMoment {
            fast,
            slow,
            cpu_us: self.cgroup.stat("cpu.stat", "usage_usec")?,
            requests: met.answered.requests,
            busy_us: u64::try_from(met.busy.as_micros())?,
            p99_us: met.p99_us(),
            wrong: met.answered.wrong,
        })
    }
}

/// What is looked at at each tick.
struct Watch {
    pods: Vec<Pod>,
    agent: Option<AgentProcess>,
    doorbell: Doorbell,
    start_ms: u64,
}

impl Watch {
    fn until(&mut self, guest: &Guest, end: Duration) -> Result<()> {
        let end = u64::try_from(end.as_millis())?;
        loop {
            self.moment(guest)?;
            let at = now_ms() - self.start_ms;
            if at >= end {
                return Ok(());
            }
            guest.sleep(TICK.min(Duration::from_millis(end - at)));
        }
    }

    /// Tells the counter where programs have their memory by now.
    fn tell(&self) -> Result<()> {
        let pods = self.pods.iter().map(|pod| Ok((pod.app.slot()?, &pod.cgroup)));
        self.doorbell.tell(&addresses::of(&pods.collect::<Result<Vec<_>>>()?)?);
        Ok(())
    }

    fn moment(&mut self, guest: &Guest) -> Result<()> {
        self.tell()?;
        let (at_ms, mark) = (now_ms() - self.start_ms, self.doorbell.mark());
        if let Some(at) = self.pods.iter().position(|pod| !pod.load.is_running()) {
            let Pod { app, process, load, .. } = self.pods.remove(at);
            load.end().with_context(|| format!("{}; {}", app.name, process.last_words()))?;
            bail!("{} is asked for nothing any more", app.name);
        }
        let (agent, rss) = match &mut self.agent {
            Some(agent) => {
                ensure!(agent.is_running()?, "the agent ended:\n{}", agent.log()?);
                (agent.cpu()?, agent.rss()?)
            }
            None => (Duration::ZERO, 0),
        };
        let apps = self.pods.iter().map(Pod::moment).collect::<Result<Vec<_>>>()?;
        let sunk: u64 = apps.iter().map(|app| app.slow).sum();
        guest.say(format_args!("{} s: {} MiB are not in DRAM", at_ms / 1000, sunk >> 20));
        let agent_us = u64::try_from((agent + kthread_cpu()?).as_micros())?;
        console(&Told::Apps(AppsMoment { at_ms, mark, apps, agent_us, rss }).render());
        Ok(())
    }
}

/// Has each application's data looked at.
fn end(guest: &mut Guest, watch: Watch) -> Result<Verdict> {
    let mut wrong = Vec::new();
    for Pod { app, process, load, .. } in watch.pods {
        let mut client = load.end().with_context(|| format!("{}; {}", app.name, process.last_words()))?;
        let lost = client.verify().with_context(|| format!("{}; {}", app.name, process.last_words()))?;
        guest.check(format_args!("{}: wrong data", app.name), lost, "= 0", lost == 0);
        wrong.push(lost);
    }
    if let Some(agent) = watch.agent {
        guest.say(agent.log()?);
    }
    console(&Told::Verified { wrong }.render());
    Ok(guest.verdict())
}
