//! Which nodes are to be labelled by their slow tier.
//!
//! **Problem.** Schedulers and `DaemonSet`s select nodes by labels alone, and what memory a node has only its agent knows. Where the
//! agent itself is selected by the label, one that goes may not take the label along: it would never come back.
//!
//! **Approach.** What the agent said last holds, until it says another thing; a node that no agent ever spoke of keeps what it has.
//! Compared with the label that the node has, not with what was written before. Pure, as [`NodeWrites`] is.

use std::collections::BTreeMap;
use std::time::Instant;

use tiering::TierName;

use crate::index::Name;
use crate::node_writes::{Due, NodeWrites};
use crate::watch::objects::{Node, SlowTier};

/// The nodes that may need a label, and when to write it.
#[derive(Debug, Default)]
pub struct NodeLabels {
    nodes: BTreeMap<Name, LabelledNode>,
    writes: NodeWrites,
}

#[derive(Clone, Debug, Default)]
struct LabelledNode {
    /// Absent while only its agent speaks of it.
    uid: Option<Box<str>>,
    label: Option<Box<str>>,
    slow_tier: SlowTier,
}

/// A label that a node is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLabel {
    /// The uid of the node that is meant, and no other of its name.
    pub uid: Box<str>,
    /// Its value; `None` for no label.
    pub slow_tier: Option<TierName>,
}

impl NodeLabels {
    /// A node came or changed: whether it may need another label.
    pub fn observe_node(&mut self, name: &Name, node: &Node) -> bool {
        let uid = node.metadata.uid.as_deref().unwrap_or_default();
        let label = node.slow_tier_label();
        let known = self.nodes.entry(Name::clone(name)).or_default();
        let changed = known.uid.as_deref() != Some(uid) || known.label.as_deref() != label;
        if changed {
            known.uid = Some(uid.into());
            known.label = label.map(Into::into);
        }
        changed
    }

    /// A node is gone.
    pub fn delete_node(&mut self, name: &Name) {
        if self.nodes.remove(name).is_some() {
            self.writes.forget(name);
        }
    }

    /// An agent said what it found: whether its node may need another label.
    pub fn observe_agent(&mut self, node: &Name, found: SlowTier) -> bool {
        if found == SlowTier::Unknown {
            return false;
        }
        let known = self.nodes.entry(Name::clone(node)).or_default();
        std::mem::replace(&mut known.slow_tier, found) != found
    }

    /// The label that a node is to have, where it has another.
    #[must_use]
    pub fn wanted(&self, node: &Name) -> Option<NodeLabel> {
        let LabelledNode { uid, label, slow_tier } = self.nodes.get(node)?;
        let slow_tier = match slow_tier {
            SlowTier::Unknown => return None,
            SlowTier::Absent => None,
            SlowTier::Present(name) => Some(*name),
        };
        let is_so = slow_tier.map(|name| name.to_string()).as_deref() == label.as_deref();
        let uid = uid.clone().filter(|_| !is_so)?;
        Some(NodeLabel { uid, slow_tier })
    }

    /// A node may need another label.
    pub fn changed(&mut self, node: &Name, now: Instant) {
        if self.wanted(node).is_some() {
            self.writes.changed(node, None, now);
        }
    }

    /// Every node may.
    pub fn all_changed(&mut self, now: Instant) {
        let nodes: Vec<Name> = self.nodes.keys().cloned().collect();
        for node in &nodes {
            self.changed(node, now);
        }
    }

    /// The next node to label now, and how. [`Self::finished`] must follow.
    pub fn take_due(&mut self, now: Instant) -> Option<(Due, NodeLabel)> {
        while let Some(due) = self.writes.take_due(now) {
            if let Some(label) = self.wanted(&due.node) {
                return Some((due, label));
            }
            self.writes.unneeded(&due);
            self.writes.forget(&due.node);
        }
        None
    }

    /// The write of a label ended. What failed, is to be written again.
    pub fn finished(&mut self, due: &Due, succeeded: bool, now: Instant) {
        self.writes.finished(due, succeeded, now);
        if succeeded {
            self.writes.forget(&due.node);
        }
    }

    /// When the next label is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.writes.next_due()
    }

    /// Writes under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.writes.in_flight()
    }

    /// Forgets what waits: another writes from here on.
    pub fn clear(&mut self) {
        self.writes.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node_writes::LONGEST_SETTLE;

    fn node(uid: &str, label: Option<&str>) -> Node {
        let labels = label.map(|label| json!({ api::SLOW_TIER: label }));
        serde_json::from_value(json!({ "metadata": { "name": "n1", "uid": uid, "labels": labels } })).unwrap()
    }

    /// What is to be written, in words.
    fn wanted(labels: &NodeLabels) -> String {
        let label = labels.wanted(&"n1".into());
        label.map_or_else(
            || "nothing".to_owned(),
            |label| label.slow_tier.map_or_else(|| "no label".to_owned(), |name| name.to_string()),
        )
    }

    #[test]
    fn a_node_is_labelled_as_its_agent_said_last() {
        let (mut labels, name) = (NodeLabels::default(), Name::from("n1"));
        labels.observe_agent(&name, SlowTier::Present(TierName::Cxl));
        assert_eq!(wanted(&labels), "nothing", "there is no such node yet");
        assert!(labels.observe_node(&name, &node("u", None)));
        assert_eq!(wanted(&labels), "cxl");
        assert!(labels.observe_node(&name, &node("u", Some("cxl"))));
        assert!(!labels.observe_node(&name, &node("u", Some("cxl"))));
        assert_eq!(wanted(&labels), "nothing");
        assert!(labels.observe_agent(&name, SlowTier::Present(TierName::Pmem)));
        assert_eq!(wanted(&labels), "pmem");
        assert!(labels.observe_agent(&name, SlowTier::Absent));
        assert_eq!(wanted(&labels), "no label");
        // Another took it away already.
        labels.observe_node(&name, &node("u", None));
        assert_eq!(wanted(&labels), "nothing");
    }

    #[test]
    fn a_label_stays_while_no_agent_speaks() {
        let (mut labels, name) = (NodeLabels::default(), Name::from("n1"));
        labels.observe_node(&name, &node("u", Some("cxl")));
        assert!(!labels.observe_agent(&name, SlowTier::Unknown));
        assert_eq!(wanted(&labels), "nothing");
        labels.observe_agent(&name, SlowTier::Present(TierName::Cxl));
        assert!(!labels.observe_agent(&name, SlowTier::Unknown), "its object was made anew");
        assert_eq!(wanted(&labels), "nothing");
        // Not of another node that has the name now.
        labels.delete_node(&name);
        labels.observe_node(&name, &node("v", None));
        assert_eq!(wanted(&labels), "nothing");
    }

    #[test]
    fn what_failed_is_written_again_and_what_is_so_is_not() {
        let (mut labels, name, now) = (NodeLabels::default(), Name::from("n1"), Instant::now());
        labels.observe_node(&name, &node("u", None));
        labels.observe_agent(&name, SlowTier::Present(TierName::Slow));
        labels.changed(&name, now);
        assert_eq!(labels.take_due(now), None, "another change may follow");
        let now = now + LONGEST_SETTLE;
        let (due, label) = labels.take_due(now).unwrap();
        assert_eq!(label, NodeLabel { uid: "u".into(), slow_tier: Some(TierName::Slow) });
        labels.finished(&due, false, now);
        let again = labels.next_due().unwrap();
        assert!(again > now);
        labels.observe_node(&name, &node("u", Some("slow")));
        assert_eq!(labels.take_due(again), None);
        assert_eq!((labels.next_due(), labels.in_flight()), (None, 0));
    }
}
