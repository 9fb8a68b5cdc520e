//! A container whose limit somebody raises in place, again and again, as a Vertical Pod Autoscaler does, beside kubelet's `MemoryQoS`,
//! which has the runtime write `memory.high` each time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::NodeTiering;
use api::conditions::reasons;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{MEMORY_HIGH, MIB, NAMESPACE, PATIENCE, Subject, Subjects};
use crate::guest::{Cgroup, Cluster, Guest, Node, RESIZES, pod};
use crate::node::NAME;

/// In the pods and the policy.
const RESIZED: &str = "resized";
const REQUEST: u64 = 64;
const LIMIT: u64 = 128;
/// More often than another writer is answered before the file is left to it.
const LIMITS: [u64; 4] = [160, 192, 224, 256];
/// So far apart, changes are no single burst.
const APART: Duration = Duration::from_secs(65);

/// What the policy makes of a limit, in bytes.
fn high(limit: u64) -> u64 {
    (REQUEST + (limit - REQUEST) / 2) * MIB
}

pub(super) fn by_an_autoscaler(guest: &mut Guest, cluster: &Cluster, node: &Node) -> Result<()> {
    let minor = node.kubelet_minor();
    if minor < RESIZES {
        guest.say(format_args!(
            "NOT RUN: resize of a running container beside MemoryQoS: it needs kubelet 1.{RESIZES}, and this is 1.{minor}; name a \
             newer one by THERMOCLINE_KUBE_CACHE"
        ));
        return Ok(());
    }
    let memory = |mib: u64| json!({ "memory": format!("{mib}Mi") });
    let resources = json!({ "requests": memory(REQUEST), "limits": memory(LIMIT) });
    let manifest = pod::manifest(RESIZED, &resources, "--region hot:8M --region cold:16M");
    cluster.create(manifest)?;
    let subject = Subjects::wait(guest, cluster, RESIZED, 16 * MIB, "/kubepods/burstable/pod")?;
    let container = pod::workload_cgroup(&subject.pod)?;
    let kubelets = container.read(MEMORY_HIGH)?;
    if kubelets == "max" {
        guest.say("NOT RUN: kubelet's memory.high beside ours: its MemoryQoS sets none on this container");
    }
    cluster.apply(json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": RESIZED },
        "spec": { "demote": { "after": "1h" }, "memoryHigh": { "mode": "Formula", "factor": "50%" } },
    }))?;
    let key = format!("container.thermocline.io/{}", pod::CONTAINER);
    subject.annotate(cluster, &json!({ key.as_str(): RESIZED }))?;
    becomes(guest, &container, MEMORY_HIGH, "by the container's policy", high(LIMIT))?;

    for limit in LIMITS {
        guest.sleep(APART);
        cluster.resize(NAMESPACE, RESIZED, pod::CONTAINER, &format!("{limit}Mi"))?;
        becomes(guest, &container, "memory.max", "after a resize", limit * MIB)?;
        becomes(guest, &container, MEMORY_HIGH, "after a resize", high(limit))?;
    }
    guest.sleep(APART);
    let last = high(LIMITS[LIMITS.len() - 1]);
    becomes(guest, &container, MEMORY_HIGH, "a while after the last resize", last)?;
    guest.equal("the agent stood down", stood_down(cluster, &subject)?, &false);
    guest.equal("restarts of the resized pod", pod::restarts(&subject.now(cluster)?, pod::CONTAINER)?, &0);

    subject.annotate(cluster, &json!({ key.as_str(): null }))?;
    let ours = last.to_string();
    guest.expect_within(PATIENCE, "memory.high is given back", || {
        container.read(MEMORY_HIGH).is_ok_and(|now| now != ours)
    })?;
    cluster.delete(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": RESIZED } }))?;
    guest.expect_within(PATIENCE, "the pod is gone", || {
        cluster.get_in::<Pod>(NAMESPACE, RESIZED).is_ok_and(|pod| pod.is_none())
    })?;
    Ok(())
}

fn becomes(guest: &mut Guest, cgroup: &Cgroup, file: &str, when: &str, value: u64) -> Result<()> {
    let value = value.to_string();
    let is_so = || cgroup.read(file).is_ok_and(|now| now == value);
    let passed = guest.expect_within(PATIENCE, "the container's file follows", is_so);
    guest.equal(format_args!("{file} of the container {when}"), cgroup.read(file)?, &value);
    guest.say(format_args!("{file} followed after {:?}", passed?));
    Ok(())
}

/// Whether the node says that it left the pod's files to another.
fn stood_down(cluster: &Cluster, subject: &Subject) -> Result<bool> {
    let node: NodeTiering = cluster.get(NAME)?.context("the node has no NodeTiering")?;
    let pods = node.status.map(|status| status.pods).unwrap_or_default();
    Ok(pods.iter().any(|pod| pod.name == subject.name && pod.reason == reasons::STOOD_DOWN))
}
