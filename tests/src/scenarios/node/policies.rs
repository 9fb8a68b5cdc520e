//! What annotations and policies say, found in the pods' memory and files.

use anyhow::Result;
use serde_json::json;

use super::{MEMORY_HIGH, MIB, PATIENCE, Subject};
use crate::guest::{Cluster, Guest};
use crate::workload::now_ms;

/// Share of the cold bytes that has to go down.
const RECALL: f64 = 0.98;
/// Creates a policy that lets cold memory sink at once, and a pod say `memory.high`.
pub(super) fn create(cluster: &Cluster) -> Result<()> {
    cluster.apply(json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": "sink" },
        "spec": {
            "demote": { "after": "10s", "slowTouchRate": "100%" },
            // Emulated, a program that starts up stalls others for longer than the pods of a machine would.
            "pressure": { "memory": "50%", "io": "50%" },
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
        let hot = subject.ledger()?.sum(|region| region.name == "hot", |region| region.n1_bytes);
        guest.at_most(format_args!("hot bytes of {name} that sank, MiB"), (hot / MIB) as f64, 0.0);
        guest.say(format_args!("{name} had sunk {} ms after the annotation", now_ms() - start));
    }
    Ok(())
}

/// What an annotation says of the pod's files is written there.
pub(super) fn follow(guest: &mut Guest, cluster: &Cluster, subject: &Subject) -> Result<()> {
    let value = (200 * MIB).to_string();
    subject.annotate(cluster, &json!({ "thermocline.io/memory-high": "200Mi" }))?;
    let followed = guest.expect_within(PATIENCE, "memory.high follows", || subject.has(MEMORY_HIGH, &value));
    let now = subject.cgroup.read(MEMORY_HIGH)?;
    guest.equal(format_args!("memory.high of {} by its annotation", subject.name), now, &value);
    guest.say(format_args!("memory.high followed after {:?}", followed?));
    Ok(())
}
