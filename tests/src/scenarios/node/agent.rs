//! The agent as the chart's daemon set: its rights and its cost.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use api::NodeTiering;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;

use super::{MIB, PATIENCE};
use crate::guest::{Cluster, Guest, pod, read};
use crate::node::{AGENT, NAME, NAMESPACE};

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
    let ready = guest.expect_within(PATIENCE, "the agent's pod is ready", || {
        cluster
            .get_in::<DaemonSet>(NAMESPACE, DAEMON_SET)
            .is_ok_and(|set| set.and_then(|set| set.status).is_some_and(|status| status.number_ready == 1))
    })?;
    guest.say(format_args!("the agent's pod is ready after {ready:?}"));
    has_its_rights(guest, cluster)
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
        let available = kernel.features.into_iter().filter(|feature| feature.available);
        Some(available.map(|feature| feature.name).collect::<BTreeSet<_>>())
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
    let status = read(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let rss: f64 = rss.context("VmRSS")?.parse()?;
    guest.at_most("resident memory of the agent, MiB", rss / 1024.0, (MEMORY_REQUEST / MIB) as f64);
    Ok(())
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
