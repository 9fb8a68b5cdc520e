//! Cgroups that come, go, freeze and come back under the same name, faster than the agent looks: it keeps up and leaks nothing.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{STATE, agent_config};
use crate::guest::{AgentProcess, Cgroup, Guest, read};
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::now_ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "churn",
    about: "cgroups come, go, freeze and are made again 500 times: managed within 1 s, no unexplained message, no leak",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(20),
    run,
};

const ROUNDS: usize = 500;
/// The agent has reached its size by then.
const WARM: usize = 100;
/// Names are used again this soon.
const NAMES: usize = 7;
const CONTAINERS: usize = 3;
/// Rounds between two pods that live long enough to be waited for.
const MEASURED: usize = 5;
const RELOADS: usize = 25;
/// Rounds between two configurations that must be refused.
const REFUSALS: usize = 100;

/// The only warning or error that the agent may log here: this scenario writes bad configurations.
const REFUSED: &str = "the new configuration is refused";

fn run(guest: &mut Guest) -> Result<Verdict> {
    guest.cgroup("/churn")?;
    let agent = guest.spawn_agent(&config(0), &[])?;
    guest.expect_within(Duration::from_secs(10), "the agent answers", || {
        guest.http_get(9440, "/readyz").is_ok()
    })?;
    let mut pods = Pods::default();
    let mut delays = Vec::new();
    let mut renames_refused = 0;
    let mut warm = None;
    for round in 0..ROUNDS {
        if round == WARM {
            pods.clear()?;
            warm = Some(Size::settled(guest, &agent)?);
        }
        let made_ms = now_ms();
        let pod = pods.make(guest, round)?;
        if round % 10 == 3 {
            let to = pod.dir().with_file_name("renamed");
            let refused = std::fs::rename(pod.dir(), to);
            ensure!(
                refused.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied),
                "a cgroup was renamed"
            );
            renames_refused += 1;
        }
        if round % 3 == 1 {
            pod.write("cgroup.freeze", 1)?;
        }
        if round % 6 == 1 {
            pod.write("cgroup.freeze", 0)?;
        }
        if round % RELOADS == RELOADS - 1 {
            let bad = round % REFUSALS == REFUSALS - 1;
            agent.write_config(&if bad { "policies: [\n".to_owned() } else { config(round) })?;
        }
        if round % MEASURED == 0 {
            let id = std::fs::metadata(pod.dir())?.ino();
            let managed = guest.expect_within(Duration::from_secs(10), "the new cgroup is managed", || {
                managed_id(guest, pod.path()) == Some(id)
            });
            if managed.is_err() {
                let log = agent.log()?;
                let lines: Vec<&str> = log.lines().collect();
                lines.iter().skip(lines.len().saturating_sub(30)).for_each(|line| guest.say(line));
            }
            managed.with_context(|| format!("round {round}"))?;
            delays.push(now_ms() - made_ms);
        }
        guest.sleep(Duration::from_millis([0, 3, 20, 150][round % 4]));
    }
    pods.clear()?;
    let size = Size::settled(guest, &agent)?;
    let warm = warm.context("no round was a warm one")?;
    guest.say(format_args!("after {WARM} rounds {warm:?}, after {ROUNDS} rounds {size:?}"));

    delays.sort_unstable();
    let percentile = |percent: usize| delays[(delays.len() - 1) * percent / 100] as f64;
    guest.at_most("time until a new cgroup is managed, median, ms", percentile(50), 1000.0);
    guest.at_most("time until a new cgroup is managed, 99 of 100, ms", percentile(99), 1000.0);
    guest.equal("renames that the kernel refused", renames_refused, &(ROUNDS / 10));
    guest.at_most("growth of the agent's RSS, KiB", size.rss_kib as f64 - warm.rss_kib as f64, 256.0);
    guest.equal("open files of the agent", size.files, &warm.files);
    guest.equal("watches of the agent", size.watches, &warm.watches);
    let state = std::fs::read_to_string(STATE).unwrap_or_default();
    guest.equal("records of cgroups that are gone", state.matches("/churn/").count(), &0);
    let published = guest.http_get(9440, "/debug/state")?;
    guest.equal("published cgroups that are gone", published.matches("\"/churn/").count(), &0);
    let metrics = guest.http_get(9440, "/metrics")?;
    guest.equal("series of cgroups that are gone", metrics.matches("/churn/").count(), &0);

    let log = agent.log()?;
    let unexplained: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .filter(|line| !line.contains(REFUSED))
        .collect();
    unexplained.iter().take(10).for_each(|line| guest.say(line));
    guest.equal("unexplained warnings and errors", unexplained.len(), &0);
    let refusals = log.lines().filter(|line| line.contains(REFUSED)).count();
    guest.at_least("configurations refused", refusals as f64, (ROUNDS / REFUSALS) as f64);
    let set = log.lines().filter(|line| line.contains("memory.high set")).count();
    guest.at_least("times memory.high was set", set as f64, 20.0);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

/// Sets something in each cgroup, so that there are records and watches to lose.
fn config(round: usize) -> String {
    let high = 64 + round % 2;
    agent_config(
        "/churn/*",
        &format!("demote: {{ after: 10s }}, memoryHigh: {{ mode: Fixed, value: {high}Mi }}"),
    )
}

/// A pod's cgroups and the processes in them.
struct Pod {
    cgroup: Cgroup,
    containers: Vec<Cgroup>,
    processes: Vec<Child>,
}

impl Pod {
    /// Each container forks and ends processes all the time.
    fn make(guest: &Guest, path: &str) -> Result<Self> {
        let cgroup = guest.cgroup(path)?;
        let mut pod = Self { cgroup, containers: Vec::new(), processes: Vec::new() };
        for number in 0..CONTAINERS {
            let container = guest.cgroup(&format!("{path}/c{number}"))?;
            let procs = container.dir().join("cgroup.procs");
            let script = format!(
                "echo 0 > {}; while :; do (:) & (:) & wait; /bin/busybox sleep 0.5; done",
                procs.display()
            );
            let shell =
                Command::new("/bin/busybox").args(["sh", "-c", &script]).stderr(Stdio::null()).spawn()?;
            pod.containers.push(container);
            pod.processes.push(shell);
        }
        Ok(pod)
    }

    fn remove(mut self) -> Result<()> {
        for process in &mut self.processes {
            // It may not have entered its cgroup yet.
            process.kill()?;
            process.wait()?;
        }
        for container in self.containers {
            container.remove()?;
        }
        self.cgroup.remove()
    }
}

#[derive(Default)]
struct Pods(Vec<Option<Pod>>);

impl Pods {
    /// Makes a pod under a name that another may have just left.
    fn make(&mut self, guest: &Guest, round: usize) -> Result<Cgroup> {
        self.0.resize_with(NAMES, || None);
        let slot = &mut self.0[round % NAMES];
        if let Some(old) = slot.take() {
            old.remove()?;
        }
        let pod = Pod::make(guest, &format!("/churn/pod{}", round % NAMES))?;
        let cgroup = pod.cgroup.clone();
        *slot = Some(pod);
        Ok(cgroup)
    }

    fn clear(&mut self) -> Result<()> {
        self.0.drain(..).flatten().try_for_each(Pod::remove)
    }
}

/// What an agent without cgroups holds.
#[derive(Debug)]
struct Size {
    rss_kib: u64,
    files: usize,
    watches: usize,
}

impl Size {
    fn settled(guest: &Guest, agent: &AgentProcess) -> Result<Self> {
        guest.sleep(Duration::from_secs(5));
        let proc = format!("/proc/{}", agent.pid());
        let (mut files, mut watches) = (0, 0);
        for entry in std::fs::read_dir(Path::new(&proc).join("fdinfo"))? {
            let text = read(entry?.path())?;
            files += 1;
            watches +=
                text.lines().filter(|l| l.starts_with("inotify ") || l.starts_with("fanotify ino")).count();
        }
        Ok(Self { rss_kib: agent.rss()? >> 10, files, watches })
    }
}

/// The inode of the cgroup that the agent manages at a path.
fn managed_id(guest: &Guest, path: &str) -> Option<u64> {
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state").ok()?).ok()?;
    state["cgroups"][path]["id"].as_u64()
}
