//! What was learned, kept for the agent that comes after and for replicas.

use std::time::Duration;

use tiering::Instant;

use super::Agent;
use crate::learned::workload_of;
use crate::managed::Managed;

/// What is learned in less time than this may be lost in a crash.
const KEEP_EVERY: Duration = Duration::from_mins(5);

/// What a lesson is about: a workload of a cluster, whose pods come and go, or a cgroup.
pub(super) fn subject(managed: &Managed) -> String {
    managed.pod.as_ref().map_or_else(
        || managed.cgroup.path().to_string(),
        |pod| {
            let identity = &pod.identity;
            workload_of(&identity.namespace, &identity.pod, identity.container.as_deref())
        },
    )
}

impl Agent {
    /// Notes what was learned of every cgroup, and writes it where that is due.
    pub(super) fn keep_learned(&mut self, now: Instant) {
        if now.since(self.learned.kept) >= KEEP_EVERY {
            self.learned.kept = now;
            self.learn_all();
        }
    }

    /// Notes what was learned of every cgroup, and writes it.
    pub(super) fn learn_all(&mut self) {
        let now = self.now();
        for managed in self.managed.values() {
            if let Some(learned) = self.law.learned(managed.key(), now) {
                self.learned.note(subject(managed), &learned);
            }
        }
        if let Err(error) = self.learned.save() {
            tracing::warn!(%error, "what was learned can't be kept; the agent goes on with it");
        }
    }
}
