//! Pods of the node: their cgroups as kubelet and containerd made them, and what their generator says.

use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::cgroup::ROOT;
use super::{Cgroup, read};
use crate::node::{NAME, POD_LOGS, WORKLOAD_IMAGE};
use crate::workload::Ledger;

/// The one container of the pods of [`manifest`].
pub const CONTAINER: &str = "workload";

/// A pod of this node that runs one generator: `regions` is its command line. Its resources make its `QoS` class.
#[must_use]
pub fn manifest(name: &str, resources: &Value, regions: &str) -> Value {
    let mut args = vec!["--report", "1s"];
    args.extend(regions.split_whitespace());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeName": NAME,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": CONTAINER, "image": WORKLOAD_IMAGE, "imagePullPolicy": "Never", "args": args,
                "resources": resources,
            }],
        },
    })
}

/// Whether it runs: the first words of the generator come when all its memory is populated.
#[must_use]
pub fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
        && last_report(pod).is_ok()
}

fn container_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == container)
}

/// How often kubelet has started a container again.
pub fn restarts(pod: &Pod, container: &str) -> Result<i32> {
    let status = container_status(pod, container);
    Ok(status.with_context(|| format!("{} has no {container}", pod.name_any()))?.restart_count)
}

/// The cgroup of a container by its name.
pub fn container_cgroup(pod: &Pod, container: &str) -> Result<Cgroup> {
    let status = container_status(pod, container);
    let id = status.and_then(|status| status.container_id.as_deref()?.strip_prefix("containerd://"));
    let id = id.with_context(|| format!("container {container} of {} has no id", pod.name_any()))?;
    find(Path::new(ROOT), id)?.with_context(|| format!("no cgroup is named {id}"))
}

/// The cgroup of the generator of a pod of [`manifest`].
pub fn workload_cgroup(pod: &Pod) -> Result<Cgroup> {
    container_cgroup(pod, CONTAINER)
}

fn find(dir: &Path, name: &str) -> Result<Option<Cgroup>> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            return Cgroup::at(&entry.path()).map(Some);
        }
        if let Some(found) = find(&entry.path(), name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The last ledger that the generator of a pod of [`manifest`] printed.
pub fn last_report(pod: &Pod) -> Result<Ledger> {
    let uid = pod.uid().context("a pod without uid")?;
    let namespace = pod.namespace().context("a pod without namespace")?;
    let dir = Path::new(POD_LOGS).join(format!("{namespace}_{}_{uid}", pod.name_any())).join(CONTAINER);
    let log = read(dir.join("0.log"))?;
    // Each line has its time, the stream's name, and whether it is whole (F) before it.
    let mut ledgers =
        log.lines().rev().filter_map(|line| serde_json::from_str(line.split_once(" stderr F ")?.1).ok());
    ledgers.next().with_context(|| format!("{} has printed no ledger", pod.name_any()))
}
