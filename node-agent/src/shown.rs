//! A picture as it is read back: of the running agent over its socket, or of this process. Keys that are not known are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::history::Done;
use crate::savings::{Savings, Sums};
use crate::snapshot::Snapshot;

/// The whole picture.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Shown {
    /// `run`, `observe`.
    pub command: String,
    /// Rounds since start.
    pub rounds: u64,
    /// Unix time of the last, in seconds.
    pub last_round_unix_seconds: f64,
    /// What the last round took.
    pub last_round_seconds: f64,
    /// `lru-gen`, `pages`...
    pub engine: String,
    /// `kernel`, `pages`, `none`...
    pub promoter: String,
    /// Fast to slow.
    pub tiers: Vec<Tier>,
    /// Of the node.
    pub conditions: Vec<Condition>,
    /// By path.
    pub cgroups: BTreeMap<String, Cgroup>,
    /// Sums.
    pub savings: Sums,
    /// Since start.
    pub totals: Totals,
    /// Where the policies come from.
    pub config: Config,
    /// Under Kubernetes.
    pub cluster: Option<Cluster>,
    /// What was done in the last hour, by path; of a running agent only.
    pub last_hour: BTreeMap<String, Done>,
}

/// A tier.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tier {
    /// `dram`, `pmem`...
    pub name: String,
    /// Memory of its nodes.
    pub capacity_bytes: u64,
    /// Free.
    pub free_bytes: u64,
}

/// A condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Whether it holds.
    pub status: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// File.
    pub path: String,
    /// Why the newest is not in force.
    pub error: Option<String>,
}

/// Sums since start.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// By engine and reason.
    pub demoted_bytes: BTreeMap<String, u64>,
    /// By who did it.
    pub promoted_bytes: BTreeMap<String, u64>,
    /// By engine and reason.
    pub failed_pages: BTreeMap<String, u64>,
    /// Times memory came back soon.
    pub comebacks: u64,
}

/// The cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// The node's name.
    pub node: String,
    /// Of the `NodeTiering` that is carried out; `None` without one.
    pub generation: Option<i64>,
    /// Pods in it.
    pub assigned_pods: usize,
}

/// One managed cgroup.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// Below the cgroup mount.
    pub path: String,
    /// Under Kubernetes.
    pub pod: Option<Pod>,
    /// Left alone, for another writer chose its nodes.
    pub pinned: bool,
    /// Its policy.
    pub policy: String,
    /// `Observe`, `Enforce`.
    pub mode: String,
    /// Anonymous bytes by tier.
    pub anon_bytes_by_tier: BTreeMap<String, u64>,
    /// Least age in seconds and bytes on fast nodes.
    pub ages: Vec<(f64, u64)>,
    /// What counts as cold.
    pub effective_age_seconds: f64,
    /// Cold bytes on fast nodes.
    pub cold_bytes: u64,
    /// What the policy could free.
    pub would_free_bytes: u64,
    /// What would be touched on slow nodes a minute then: modelled.
    pub would_touch_bytes_per_minute: u64,
    /// Accessed lately.
    pub working_set_bytes: u64,
    /// Within this time.
    pub working_set_seconds: f64,
    /// A minute, on slow nodes.
    pub slow_touched_bytes_per_minute: u64,
    /// Least DRAM.
    pub floor_bytes: u64,
    /// Most DRAM.
    pub ceiling_bytes: Option<u64>,
    /// The last decision.
    pub decision: Decision,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Files that others wrote.
    pub drift: Vec<Drift>,
}

/// A decision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// In words.
    pub text: String,
    /// `demote`, `promote`, `both`, `hold`.
    pub action: String,
    /// What kept it from more.
    pub limit: Option<String>,
    /// For how long.
    pub limit_seconds: f64,
}

/// A pod or container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub pod: String,
    /// A container apart.
    pub container: Option<String>,
}

/// Another writer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// The file.
    pub file: String,
    /// How often.
    pub count: u64,
    /// Who.
    pub comm: Option<String>,
}

impl Shown {
    /// What the running agent sent.
    ///
    /// # Errors
    /// It is not a picture.
    pub fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Of this process.
    ///
    /// # Errors
    /// Never, as the test of a full picture shows.
    pub fn of(snapshot: &Snapshot) -> serde_json::Result<Self> {
        serde_json::from_value(serde_json::to_value(snapshot)?)
    }

    /// Leaves out the cgroups whose path is not `wanted`, and what they add to the sum.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        let before = self.cgroups.len();
        self.cgroups.retain(|path, _| wanted(path));
        if self.cgroups.len() == before {
            return;
        }
        let room = self.savings.total.would_free_bytes;
        self.savings = Sums::default();
        let all: Vec<Savings> = self.cgroups.values().map(|cgroup| self.savings_of(cgroup)).collect();
        for savings in all {
            self.savings.total.add(savings);
        }
        let total = &mut self.savings.total.would_free_bytes;
        *total = room.min(*total);
    }

    /// The tier whose use policies bound: `dram`, else the fastest.
    #[must_use]
    pub fn dram(&self) -> &str {
        let dram = self.tiers.iter().find(|tier| tier.name == "dram").or(self.tiers.first());
        dram.map_or("dram", |tier| tier.name.as_str())
    }

    /// Of one cgroup: what could be freed, of what.
    #[must_use]
    pub fn savings_of(&self, cgroup: &Cgroup) -> Savings {
        let dram_bytes = cgroup.on(self.dram());
        Savings {
            would_free_bytes: cgroup.would_free_bytes,
            would_touch_bytes_per_minute: (!cgroup.acts()).then_some(cgroup.would_touch_bytes_per_minute),
            dram_bytes,
            freed_bytes: if cgroup.acts() { cgroup.anon() - dram_bytes } else { 0 },
            freed_touched_bytes_per_minute: if cgroup.acts() {
                cgroup.slow_touched_bytes_per_minute
            } else {
                0
            },
        }
    }
}

impl Cgroup {
    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.pod {
            None => self.path.clone(),
            Some(Pod { namespace, pod, container: None }) => format!("{namespace}/{pod}"),
            Some(Pod { namespace, pod, container: Some(container) }) => {
                format!("{namespace}/{pod}/{container}")
            }
        }
    }

    /// Anonymous bytes on a tier.
    #[must_use]
    pub fn on(&self, tier: &str) -> u64 {
        self.anon_bytes_by_tier.get(tier).copied().unwrap_or(0)
    }

    /// On all.
    #[must_use]
    pub fn anon(&self) -> u64 {
        self.anon_bytes_by_tier.values().sum()
    }

    /// Whether its decisions are carried out.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.mode == "Enforce" && !self.pinned
    }
}

/// Bounds of four classes of age, in seconds, split at the age that counts as cold: a quarter of it, it, and five times it.
#[must_use]
pub fn age_bounds(cold: f64) -> [f64; 4] {
    [0.0, cold / 4.0, cold, cold * 5.0]
}

/// Bytes in each class.
#[must_use]
pub fn bytes_by_age(ages: &[(f64, u64)], cold: f64) -> [u64; 4] {
    let bounds = age_bounds(cold);
    let mut classes = [0; 4];
    for (age, bytes) in ages {
        classes[bounds.iter().rposition(|bound| age >= bound).unwrap_or(0)] += bytes;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_full_picture_is_read_back() {
        let snapshot = fixture::full();
        let shown = Shown::of(&snapshot).unwrap();
        let batch = &shown.cgroups["pods/batch"];
        assert_eq!((batch.name().as_str(), batch.anon()), ("jobs/batch/main", 900 << 20));
        assert_eq!(batch.ceiling_bytes, Some(400 << 20));
        assert_eq!(shown.dram(), "dram");
        assert_eq!(batch.decision.text, snapshot.cgroups["pods/batch"].decision.text);
    }

    #[test]
    fn what_is_left_out_is_not_in_the_sum() {
        let mut shown = Shown::of(&fixture::mixed()).unwrap();
        shown.keep(|path| path == "pods/batch");
        assert_eq!(shown.cgroups.len(), 1);
        assert_eq!(shown.savings.total.would_free_bytes, 180 << 20);
        assert_eq!(shown.savings.total.dram_bytes, 300 << 20);
    }

    #[test]
    fn what_is_cold_begins_a_class_of_its_own() {
        let ages = [(0.0, 1), (2.5, 2), (9.0, 4), (10.0, 8), (60.0, 16)];
        assert_eq!(bytes_by_age(&ages, 10.0), [1, 6, 8, 16]);
    }
}
