//! A world: a host, its pods and what is asked of it, as a file that a user can write.
//!
//! The notations are those of policies: `512Gi`, `90s`, `0.2%`. A field that a world does not know is an error with its place.

mod bar;
mod heat;

use std::time::Duration;

use api::{Percentage, PolicySpec, Quantity, Rate, WireDuration};
use serde::Deserialize;
use tiering::Policy;

pub use bar::{AgeBack, Bar, Moved, SetRef, SharesOf, Shift, Sinks, Within, WouldFree};
pub use heat::{Activity, Heat, Part};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// A world.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// What it shows, in a sentence.
    pub about: String,
    /// How long it is watched.
    pub lasts: WireDuration,
    /// Virtual time between two looks at everything. Default: 1s.
    #[serde(default = "second")]
    pub tick: WireDuration,
    /// The host.
    pub host: HostSpec,
    /// Its pods.
    pub pods: Vec<PodSpec>,
    /// The agent.
    #[serde(default)]
    pub agent: AgentSpec,
    /// What must hold.
    #[serde(default)]
    pub bars: Vec<Bar>,
    /// How far a guest with a real kernel may be from it. Default: it is not laid beside one.
    #[serde(default)]
    pub beside_guest: Option<BesideGuest>,
}

/// How far a guest and the simulated host may be apart.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BesideGuest {
    /// In what lies on slow nodes, as a share of the managed memory.
    pub sunk: Apart<Percentage>,
    /// In what is touched there a minute, as a share of the managed memory.
    pub touched: Apart<Percentage>,
    /// In the age that counts as cold.
    pub age: Apart<WireDuration>,
}

/// How far two may be apart.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apart<T> {
    /// At most, where either may be a moment ahead.
    pub most: T,
    /// In the mean, at the same moments.
    pub mean: T,
}

/// A host.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// CPUs; counters of cgroups lag by 64 page updates each.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Memory nodes.
    pub nodes: Vec<NodeSpec>,
    /// `numa/demotion_enabled` as the host has it without us. Default: false.
    #[serde(default)]
    pub demotion_enabled: bool,
    /// Whether `kernel.numa_balancing` is 2: the kernel promotes at hint faults. Default: true.
    #[serde(default = "yes")]
    pub numa_balancing: bool,
    /// `kernel.numa_balancing_promote_rate_limit_MBps`, per node. Default: the kernel's 64 GiB/s.
    #[serde(default = "default_promote_rate")]
    pub promote_rate_limit: Rate,
}

/// A memory node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Its number.
    pub id: u32,
    /// Its tier.
    pub kind: NodeKind,
    /// `MemTotal`.
    pub size: Quantity,
    /// The SLIT row: distance to nodes in the order of the file. Default: 10 to itself, 20 to others.
    #[serde(default)]
    pub distances: Vec<u32>,
}

/// A node's tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeKind {
    /// DRAM.
    Fast,
    /// PMEM, CXL.
    Slow,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    /// Its name; with `count`, a number follows.
    pub name: String,
    /// So many alike.
    #[serde(default = "one")]
    pub count: u32,
    /// The fast node that its CPUs are next to. With `count`, pods are dealt out to the fast nodes where it is left out.
    pub node: Option<u32>,
    /// Whether the agent manages it. Default: true.
    #[serde(default = "yes")]
    pub managed: bool,
    /// Its policy, as in a `TieringPolicy`. What it leaves out has the product's defaults.
    #[serde(default)]
    pub policy: PolicySpec,
    /// `memory.low`.
    #[serde(default)]
    pub memory_low: Option<Quantity>,
    /// `memory.max`.
    #[serde(default)]
    pub memory_max: Option<Quantity>,
    /// When it starts. Default: at once.
    #[serde(default)]
    pub starts: Option<WireDuration>,
    /// When it ends. Default: never.
    #[serde(default)]
    pub ends: Option<WireDuration>,
    /// Its sets of memory.
    #[serde(default)]
    pub memory: Vec<SetSpec>,
    /// The files that it reads.
    #[serde(default)]
    pub files: Option<FileSpec>,
}

/// A set of a pod's memory that is used alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// Its size, or what it starts with where it grows.
    pub size: Quantity,
    /// What the kernel takes it for. Default: anonymous.
    #[serde(default)]
    pub kind: Kind,
    /// How it is used.
    #[serde(default)]
    pub touched: Heat,
    /// It grows by so much a second, while it is there.
    #[serde(default)]
    pub grows: Option<Rate>,
    /// It grows to this size.
    #[serde(default)]
    pub up_to: Option<Quantity>,
    /// When it is allocated. Default: with the pod.
    #[serde(default)]
    pub allocated: Option<WireDuration>,
    /// When it is freed. Default: never.
    #[serde(default)]
    pub freed: Option<WireDuration>,
}

/// What the kernel takes memory for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Anonymous, on the evictable lists.
    #[default]
    Anonymous,
    /// Anonymous on the evictable lists, but held by a driver (VFIO, RDMA, `io_uring`): it can't be moved and nothing tells.
    Pinned,
    /// mlocked: on no evictable list, in `unevictable`.
    Locked,
    /// Shared memory: on the anonymous lists, but a file in the counts.
    Shared,
}

/// Files that a pod reads, one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSpec {
    /// Bytes read a second.
    pub read: Rate,
    /// Of files of this size together, in a loop.
    pub of: Quantity,
}

/// The agent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSpec {
    /// It is started again at these times.
    #[serde(default)]
    pub restarts: Vec<WireDuration>,
    /// Until this time it only observes. Default: it enforces from the start.
    #[serde(default)]
    pub enforces: Option<WireDuration>,
    /// Who promotes. Default: the kernel.
    #[serde(default)]
    pub promotes: Promotes,
}

/// Who promotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Promotes {
    /// NUMA balancing in tiering mode.
    #[default]
    Kernel,
    /// The agent, what its walks find touched on slow nodes; NUMA balancing is off.
    Agent,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn default_cpus() -> u32 {
    64
}

fn second() -> WireDuration {
    WireDuration(Duration::from_secs(1))
}

fn default_promote_rate() -> Rate {
    Rate(tiering::ByteRate::mib_per_s(65_536))
}

/// Why a text makes no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// It can't be read as YAML of this shape.
    #[error("{0}")]
    Text(String),
    /// The values do not fit each other.
    #[error("{0}")]
    Sense(String),
}

impl World {
    /// A world from its file's text.
    pub fn parse(text: &str) -> Result<Self, WorldError> {
        let world: Self =
            serde_saphyr::from_str(text).map_err(|error| WorldError::Text(error.to_string()))?;
        world.check().map_err(WorldError::Sense)?;
        Ok(world)
    }

    /// The same world where every managed pod has this policy.
    pub fn with_policy(mut self, policy: &PolicySpec) -> Result<Self, WorldError> {
        for pod in self.pods.iter_mut().filter(|pod| pod.managed) {
            pod.policy = policy.clone();
        }
        self.check().map_err(WorldError::Sense)?;
        Ok(self)
    }

    fn check(&self) -> Result<(), String> {
        let nodes = &self.host.nodes;
        if !nodes.iter().any(|node| node.kind == NodeKind::Fast) {
            return Err("host.nodes has no fast node: pods start on one".to_owned());
        }
        for (at, node) in nodes.iter().enumerate() {
            if nodes[..at].iter().any(|other| other.id == node.id) {
                return Err(format!("host.nodes has node {} twice", node.id));
            }
            if node.size.0.0 < PAGE {
                return Err(format!("node {} has no memory", node.id));
            }
            if !node.distances.is_empty() && node.distances.len() != nodes.len() {
                return Err(format!("node {}: distances needs one number for each node", node.id));
            }
        }
        if self.tick.0.is_zero() || self.tick.0 > Duration::from_mins(1) {
            return Err("tick must be between 1ns and 1m".to_owned());
        }
        for pod in &self.pods {
            let fast = |id: u32| nodes.iter().any(|node| node.id == id && node.kind == NodeKind::Fast);
            if pod.node.is_some_and(|id| !fast(id)) {
                return Err(format!("pod {}: node must be a fast node of the host", pod.name));
            }
            pod.policy().map_err(|error| format!("pod {}: policy: {error}", pod.name))?;
            for set in &pod.memory {
                set.touched
                    .check()
                    .map_err(|error| format!("pod {}: set {}: {error}", pod.name, set.name))?;
            }
        }
        for bar in &self.bars {
            for set in bar.sets() {
                let known = self.pods.iter().any(|pod| {
                    pod.name == set.pod
                        && set.set.as_ref().is_none_or(|name| pod.memory.iter().any(|set| set.name == *name))
                });
                if !known {
                    return Err(format!("bars: {set} is no pod, or no set of it"));
                }
            }
        }
        Ok(())
    }
}

/// A policy from a file's text: the spec of a `TieringPolicy`, or the whole object.
pub fn parse_policy(text: &str) -> Result<PolicySpec, WorldError> {
    #[derive(Deserialize)]
    struct Object {
        spec: PolicySpec,
    }
    match serde_saphyr::from_str::<Object>(text) {
        Ok(object) => Ok(object.spec),
        Err(_) => serde_saphyr::from_str(text).map_err(|error| WorldError::Text(error.to_string())),
    }
}

impl PodSpec {
    /// Its policy with the product's defaults.
    pub fn policy(&self) -> Result<Policy, api::SpecError> {
        self.policy.to_policy(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_makes_no_sense_says_why() {
        let check = |text: &str, says: &str| {
            let error = World::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        let host = "about: x\nlasts: 1m\nhost: { nodes: [{ id: 0, kind: fast, size: 1Gi }] }\n";
        check("about: x\n", "lasts");
        check(
            "about: x\nlasts: 1m\nhost: { nodes: [{ id: 0, kind: slow, size: 1Gi }] }\npods: []\n",
            "no fast node",
        );
        check(&format!("{host}pods: [{{ name: a, node: 3 }}]\n"), "node must be a fast node");
        check(&format!("{host}pods: [{{ name: a, colour: red }}]\n"), "colour");
        check(
            &format!(
                "{host}pods: [{{ name: a, memory: [{{ name: b, size: 1Gi, touched: {{ zipf: 1.0 }} }}] }}]\n"
            ),
            "zipf needs accesses",
        );
        check(&format!("{host}pods: []\nbars: [{{ neverDemoted: [a/b] }}]\n"), "a/b is no pod");
    }
}
