//! Labels of nodes by their slow tier.

use std::time::{Duration, Instant};

use kube::ResourceExt as _;

use super::writes::NODES_IN_A_TURN;
use super::{Controller, Event};
use crate::index::Name;
use crate::node_writes::Due;
use crate::snapshot::WriteKind;
use crate::watch::objects::{Node, SlowTier};
use crate::write::WriteError;

impl Controller {
    pub(super) fn observe_label(&mut self, node: &Node) {
        let name = Name::from(node.name_any());
        if self.labels.as_mut().is_some_and(|labels| labels.observe_node(&name, node)) {
            self.label_changed(&name);
        }
    }

    pub(super) fn observe_slow_tier(&mut self, node: &Name, found: SlowTier) {
        if self.labels.as_mut().is_some_and(|labels| labels.observe_agent(node, found)) {
            self.label_changed(node);
        }
    }

    pub(super) fn forget_label(&mut self, node: &str) {
        if let Some(labels) = &mut self.labels {
            labels.delete_node(&Name::from(node));
        }
    }

    fn label_changed(&mut self, node: &Name) {
        let may_mark = self.may_mark();
        if let Some(labels) = self.labels.as_mut().filter(|_| may_mark) {
            labels.changed(node, Instant::now());
        }
    }

    /// Begins writes of labels that are due, while the lease is held.
    pub(super) fn label_what_is_due(&mut self) {
        for _ in 0..NODES_IN_A_TURN {
            let may_write = self.may_write();
            let due =
                self.labels.as_mut().filter(|_| may_write).and_then(|labels| labels.take_due(Instant::now()));
            let Some((due, label)) = due else { return };
            let (writer, events) = (self.writer.clone(), self.events.clone());
            tokio::spawn(async move {
                let result = writer.node_label(&due.node, &label).await;
                let _ = events.send(Event::Labelled(due, result)).await;
            });
        }
    }

    pub(super) fn labelled(&mut self, due: &Due, result: &Result<(), WriteError>) {
        self.tallies.write_ended(WriteKind::NodeLabel, result.as_ref().err(), Duration::ZERO);
        if let Err(error) = result {
            tracing::warn!(node = &*due.node, %error, "the label of a node was not written; it is tried again");
        }
        if let Some(labels) = &mut self.labels {
            labels.finished(due, result.is_ok(), Instant::now());
        }
    }
}
