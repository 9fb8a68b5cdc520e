//! What annotations and policies say, found in the pods' memory and files.

use anyhow::Result;
use api::conditions::events;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::{MEMORY_HIGH, MIB, PATIENCE, Subject, Subjects};
use crate::guest::{Cluster, Guest};
use crate::workload::now_ms;

/// Share of the cold bytes that has to go down.
const RECALL: f64 = 0.98;
/// From the annotation, seconds: the age, two walks, and an emulated node's slowness.
const SINKS_WITHIN_S: f64 = 60.0;
/// What the policy says of `memory.high` when it has changed, and what an annotation of a pod says instead.
const HIGH: u64 = 160 * MIB;
const OWN_HIGH: u64 = 200 * MIB;

/// Creates a policy that lets cold memory sink at once, and a pod say `memory.high`.
pub(super) fn create(cluster: &Cluster) -> Result<()> {
    write(cluster, &json!({ "mode": "None" }))
}

fn write(cluster: &Cluster, memory_high: &Value) -> Result<()> {
    cluster.apply(json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": "sink" },
        "spec": {
            "demote": { "after": "10s", "slowTouchRate": "100%" },
            // Emulated, a program that starts up stalls others for longer than the pods of a machine would.
            "pressure": { "memory": "50%", "io": "50%" },
            "memoryHigh": memory_high,
            "allowOverrides": ["memoryHigh"],
        },
    }))
}

/// Annotated, cold memory sinks and hot memory stays.
pub(super) fn sink(guest: &mut Guest, cluster: &Cluster, subjects: &[&Subject]) -> Result<()> {
    let start = now_ms();
    for subject in subjects {
        subject.annotate(cluster, &json!({ "thermocline.io/policy": "sink" }))?;
    }
    for subject in subjects {
        let name = subject.name;
        let down = || subject.sunk().is_ok_and(|share| share >= RECALL);
        let sunk = guest.expect_within(PATIENCE, "cold memory sinks", down);
        guest.at_least(format_args!("cold bytes of {name} that sank, share"), subject.sunk()?, RECALL);
        sunk?;
        let hot = subject.ledger()?.sum(|region| region.name == "hot", |region| region.slow_bytes);
        guest.at_most(format_args!("hot bytes of {name} that sank, MiB"), (hot / MIB) as f64, 0.0);
        let after = (now_ms() - start) as f64 / 1e3;
        guest.at_most(format_args!("from the annotation until {name} had sunk, s"), after, SINKS_WITHIN_S);
    }
    Ok(())
}

/// What an annotation says of the pod's files is written there.
pub(super) fn follow(guest: &mut Guest, cluster: &Cluster, subject: &Subject) -> Result<()> {
    subject.annotate(cluster, &json!({ "thermocline.io/memory-high": "200Mi" }))?;
    becomes(guest, subject, "by its annotation", &OWN_HIGH.to_string())
}

/// The policy changes: its pods follow, but for the one that says otherwise.
pub(super) fn change(guest: &mut Guest, cluster: &Cluster, subjects: &Subjects) -> Result<()> {
    write(cluster, &json!({ "mode": "Fixed", "value": HIGH }))?;
    for subject in [&subjects.burstable, &subjects.besteffort] {
        becomes(guest, subject, "when the policy has changed", &HIGH.to_string())?;
    }
    becomes(guest, &subjects.guaranteed, "when the policy has changed", &OWN_HIGH.to_string())
}

/// An annotation that means nothing costs the pod nothing but an Event.
pub(super) fn misspell(guest: &mut Guest, cluster: &Cluster, subject: &Subject) -> Result<()> {
    subject.annotate(cluster, &json!({ "thermocline.io/memory-high": "a lot" }))?;
    let told = guest.expect_within(PATIENCE, "an Event says what is wrong with the annotation", || {
        let all = cluster.list::<Event>().unwrap_or_default();
        all.iter().any(|event| {
            event.involved_object.name.as_deref() == Some(subject.name)
                && event.reason.as_deref() == Some(events::INVALID_ANNOTATION)
                && event.message.as_deref().is_some_and(|message| message.contains("memory-high"))
        })
    })?;
    guest.say(format_args!("an Event spoke of the annotation after {told:?}"));
    becomes(guest, subject, "with a value that means nothing", &HIGH.to_string())
}

/// Who opts out gets the file's value back. Memory that has sunk stays until it is used.
pub(super) fn opt_out(guest: &mut Guest, cluster: &Cluster, subject: &Subject) -> Result<()> {
    becomes(guest, subject, "before it opts out", &HIGH.to_string())?;
    subject.annotate(cluster, &json!({ "thermocline.io/policy": "none" }))?;
    becomes(guest, subject, "when it has opted out", "max")?;
    guest.at_least(
        format_args!("cold bytes of {} that stay down, share", subject.name),
        subject.sunk()?,
        RECALL,
    );
    Ok(())
}

/// Waits until the pod's `memory.high` has a value.
pub(super) fn becomes(guest: &mut Guest, subject: &Subject, when: &str, value: &str) -> Result<()> {
    let passed = guest.expect_within(PATIENCE, "memory.high follows", || subject.has(MEMORY_HIGH, value));
    let now = subject.cgroup.read(MEMORY_HIGH)?;
    guest.equal(format_args!("memory.high of {} {when}", subject.name), now, &value.to_owned());
    guest.say(format_args!("memory.high of {} followed after {:?}", subject.name, passed?));
    Ok(())
}
