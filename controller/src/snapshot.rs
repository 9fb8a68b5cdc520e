//! How things are, at one moment: what metrics and `/debug/state` are made of.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use telemetry::Durations;

use crate::index::FloorUse;
use crate::watch::objects::Kind;
use crate::write::WriteError;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WriteKind {
    /// A node's assignment.
    NodeTiering,
    /// The removal of the object of a node that is no more.
    Removal,
    /// The label of a node.
    NodeLabel,
    /// The status of a policy.
    PolicyStatus,
}

impl WriteKind {
    /// For metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeTiering => "node_tiering",
            Self::Removal => "removal",
            Self::NodeLabel => "node_label",
            Self::PolicyStatus => "policy_status",
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tallies {
    /// Lists that began, by kind: the first, and one for each watch that could not go on.
    pub lists: BTreeMap<&'static str, u64>,
    /// Watches and lists that failed, by kind.
    pub watch_failures: BTreeMap<&'static str, u64>,
    /// Objects that could not be read, by kind.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Writes by what and how they ended.
    pub writes: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Nodes that were looked at and needed no write.
    pub unneeded: u64,
    /// How long writes of nodes took.
    pub write_durations: Durations,
    /// From an event to the end of the write that it caused.
    pub event_to_write: Durations,
}

impl Tallies {
    pub(crate) fn list_began(&mut self, kind: Kind) {
        *self.lists.entry(kind.plural()).or_default() += 1;
    }

    pub(crate) fn watch_failed(&mut self, kind: Kind) {
        *self.watch_failures.entry(kind.plural()).or_default() += 1;
    }

    pub(crate) fn malformed(&mut self, kind: Kind) {
        *self.malformed.entry(kind.plural()).or_default() += 1;
    }

    pub(crate) fn unneeded(&mut self) {
        self.unneeded += 1;
    }

    pub(crate) fn write_ended(&mut self, kind: WriteKind, error: Option<&WriteError>, took: Duration) {
        let result = error.map_or("ok", |error| error.fault.as_str());
        *self.writes.entry(kind.as_str()).or_default().entry(result).or_default() += 1;
        if kind == WriteKind::NodeTiering {
            self.write_durations.add(took);
        }
    }

    pub(crate) fn event_to_write(&mut self, took: Duration) {
        self.event_to_write.add(took);
    }
}

/// Counts of Events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// The server has them.
    pub posted: u64,
    /// The server did not take them.
    pub failed: u64,
    /// Good news that there was no room for.
    pub dropped: u64,
}

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Whether this process holds the lease.
    pub leading: bool,
    /// Kinds of which all objects have come.
    pub synced: Vec<&'static str>,
    /// Kinds of which they have not.
    pub awaited: Vec<&'static str>,
    /// Objects by kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// Pods by policy.
    pub assigned: BTreeMap<String, u32>,
    /// Pods without a policy, by why.
    pub unmanaged: BTreeMap<String, u32>,
    /// Policies that are not accepted, and why.
    pub rejected: BTreeMap<String, String>,
    /// Why the default policy does not apply, where it does not.
    pub default_problem: Option<String>,
    /// Pods with annotations that do not apply.
    pub invalid_pods: u32,
    /// Pods that keep what they had, or are observed, for want of a usable policy or of their namespace.
    pub held_pods: u32,
    /// Pods that are left alone for want of room in the object of their node.
    pub cut_pods: u32,
    /// Floors by namespace, where there are any.
    pub floors: BTreeMap<String, FloorUse>,
    /// Nodes whose pods' floors sum to more than their DRAM.
    pub overcommitted_nodes: Vec<String>,
    /// Nodes that wait for a write.
    pub nodes_waiting: usize,
    /// How long the one of them has waited that waits longest.
    pub oldest_waiting_seconds: f64,
    /// Writes of nodes under way.
    pub nodes_in_flight: usize,
    /// Events that wait.
    pub events_waiting: usize,
    /// What became of Events.
    pub events: EventCounts,
    /// Counts since the start.
    pub tallies: Tallies,
}
