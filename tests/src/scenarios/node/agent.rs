//! The agent as the chart's daemon set: its rights and its cost.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use api::NodeTiering;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::policies::becomes;
use super::{MEMORY_HIGH, MIB, PATIENCE, Subject};
use crate::guest::{Cluster, Guest, pod, read, resident_bytes};
use crate::node::{AGENT, NAME, NAMESPACE};
use crate::scenarios::{BALANCING, DEMOTION, STATE};

/// Of the chart's release: the daemon set, and its container.
const DAEMON_SET: &str = "thermocline-agent";
const CONTAINER: &str = "agent";
/// What the chart asks for the agent, bytes.
const MEMORY_REQUEST: u64 = 64 * MIB;

/// Creates what the chart renders, as `kubectl create` does, and waits for the agent's first round.
pub(super) fn install(guest: &mut Guest, cluster: &Cluster) -> Result<()> {
    for object in rendered()? {
        cluster.create(object)?;
    }
    let ready = guest.expect_within(PATIENCE, "the agent's pod is ready", || is_ready(cluster))?;
    guest.say(format_args!("the agent's pod is ready after {ready:?}"));
    has_its_rights(guest, cluster)
}

/// The kernel's settings that the agent may change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tunables([String; 2]);

impl Tunables {
    /// As they are.
    pub(super) fn read() -> Result<Self> {
        let [demotion, balancing] = [DEMOTION, BALANCING].map(read);
        Ok(Self([demotion?, balancing?]))
    }
}

/// The agent is killed: what it wrote stands, and the next one takes it over.
pub(super) fn kill(guest: &mut Guest, cluster: &Cluster, subject: &Subject) -> Result<()> {
    let ours = subject.cgroup.read(MEMORY_HIGH)?;
    let killed = process(cluster)?;
    let pid = Pid::from_raw(killed).context("a process without a number")?;
    kill_process(pid, Signal::KILL)?;
    let back = guest.expect_within(PATIENCE, "the agent runs again", || {
        process(cluster).is_ok_and(|now| now != killed) && is_ready(cluster)
    })?;
    guest.say(format_args!("the agent is ready again after {back:?}"));
    guest.equal("restarts of the agent", pod::restarts(&pod(cluster)?, CONTAINER)?, &1);
    becomes(guest, subject, "after the agent was killed", &ours)
}

/// Deletes what the chart rendered, as `helm uninstall` does: no value of ours is left.
pub(super) fn uninstall(
    guest: &mut Guest,
    cluster: &Cluster,
    before: &Tunables,
    subjects: &[&Subject],
) -> Result<()> {
    for object in rendered()?.into_iter().rev() {
        cluster.delete(object)?;
    }
    let gone = guest.expect_within(PATIENCE, "the agent's pod is gone", || pod(cluster).is_err())?;
    guest.say(format_args!("the agent's pod is gone after {gone:?}"));
    for subject in subjects {
        becomes(guest, subject, "after the chart was uninstalled", "max")?;
    }
    let now = Tunables::read()?;
    guest.check(
        "settings of the kernel after that",
        format!("{now:?}"),
        format!("{before:?}"),
        now == *before,
    );
    let left = std::fs::read_to_string(STATE).unwrap_or_default();
    guest.equal("records of values to put back", left.matches("\"original\"").count(), &0);
    Ok(())
}

fn rendered() -> Result<Vec<Value>> {
    let documents = serde_saphyr::from_multiple::<Value>(&read(AGENT)?)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// It runs confined, and finds all that one without confinement finds.
fn has_its_rights(guest: &mut Guest, cluster: &Cluster) -> Result<()> {
    let status = read(format!("/proc/{}/status", process(cluster)?))?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    guest.equal("seccomp of the agent's process (2: a filter)", field("Seccomp"), &"2".to_owned());
    // SYS_ADMIN 21, SYS_PTRACE 19, DAC_READ_SEARCH 2, DAC_OVERRIDE 1.
    let capabilities = [21, 19, 2, 1].map(|bit| 1_u64 << bit).iter().sum::<u64>();
    guest.equal("its capabilities", field("CapEff"), &format!("{capabilities:016x}"));
    guest.equal("it may get more by exec (1: no)", field("NoNewPrivs"), &"1".to_owned());

    let probe = Command::new("/bin/thermocline-agent").args(["probe", "--output", "json"]).output()?;
    let probe: Value = serde_json::from_slice(&probe.stdout).context("probe")?;
    let rows = probe["rows"].as_array().context("probe has no rows")?;
    let unconfined: BTreeSet<_> = rows
        .iter()
        .filter(|row| row["state"] == "available")
        .filter_map(|row| row["feature"].as_str().map(str::to_owned))
        .collect();
    ensure!(!unconfined.is_empty(), "the probe found nothing: {probe}");
    let confined = || {
        let kernel = cluster.get::<NodeTiering>(NAME).ok()??.status?.kernel?;
        Some(kernel.features.into_iter().collect::<BTreeSet<_>>())
    };
    guest.expect_within(PATIENCE, "the agent reports the kernel's features", || confined().is_some())?;
    let missing: Vec<_> = unconfined.difference(&confined().unwrap_or_default()).cloned().collect();
    guest.equal(
        format_args!(
            "of {} features of the kernel, those that only an unconfined agent has",
            unconfined.len()
        ),
        missing.join(" "),
        &String::new(),
    );
    Ok(())
}

/// Its memory.
pub(super) fn cost(guest: &mut Guest, cluster: &Cluster) -> Result<()> {
    let pid = process(cluster)?;
    let rss = resident_bytes(&read(format!("/proc/{pid}/status"))?).context("VmRSS")?;
    guest.at_most(
        "resident memory of the agent, MiB",
        rss as f64 / MIB as f64,
        (MEMORY_REQUEST / MIB) as f64,
    );
    Ok(())
}

fn is_ready(cluster: &Cluster) -> bool {
    let set = cluster.get_in::<DaemonSet>(NAMESPACE, DAEMON_SET).ok().flatten();
    set.and_then(|set| set.status).is_some_and(|status| status.number_ready == 1)
}

fn pod(cluster: &Cluster) -> Result<Pod> {
    let pods = cluster.list::<Pod>()?;
    pods.into_iter().find(is_agents).context("the agent has no pod")
}

fn is_agents(pod: &Pod) -> bool {
    pod.namespace().as_deref() == Some(NAMESPACE) && pod.name_any().starts_with(DAEMON_SET)
}

/// The process id of the agent.
fn process(cluster: &Cluster) -> Result<i32> {
    let processes = pod::container_cgroup(&pod(cluster)?, CONTAINER)?.read("cgroup.procs")?;
    processes.lines().next().context("the agent has no process")?.parse().context("cgroup.procs")
}
