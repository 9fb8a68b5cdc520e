//! What is answered to who asks.

use std::sync::Arc;
use std::time::Instant;

use super::{Controller, PUBLISH_EVERY, Published, Question};
use crate::snapshot::Snapshot;
use crate::watch::objects::Kind;

impl Controller {
    /// Whoever does not wait any more is not answered.
    pub(super) fn answer(&self, question: Question) {
        let Question { namespace, pod, answer } = question;
        let _ = answer.send(self.index.explain(&namespace, &pod));
    }

    /// Says how things are, where it is time to: when it is next.
    pub(super) fn publish(&self, now: Instant) -> Instant {
        let next = self.published.borrow().at + PUBLISH_EVERY;
        if now < next && !self.published.borrow().snapshot.objects.is_empty() {
            return next;
        }
        self.published.send_replace(Published { snapshot: Arc::new(self.snapshot()), at: now });
        now + PUBLISH_EVERY
    }

    fn snapshot(&self) -> Snapshot {
        let (synced, awaited): (Vec<Kind>, Vec<Kind>) =
            Kind::ALL.into_iter().partition(|kind| self.synced.contains(kind));
        let names = |kinds: Vec<Kind>| kinds.into_iter().map(Kind::plural).collect();
        let objects = |kind: Kind| match kind.indexed() {
            Some(kind) => self.index.len(kind),
            None => self.tierings.nodes().count(),
        };
        let policies = || self.index.policies();
        Snapshot {
            leading: self.leading,
            synced: names(synced),
            awaited: names(awaited),
            objects: Kind::ALL.into_iter().map(|kind| (kind.plural(), objects(kind))).collect(),
            assigned: policies().map(|(name, _, _, matched)| (name.to_string(), matched)).collect(),
            unmanaged: self.index.unmanaged().iter().map(|(why, count)| (why.to_string(), *count)).collect(),
            rejected: policies()
                .filter_map(|(name, _, accepted, _)| {
                    Some((name.to_string(), accepted.as_ref().err()?.to_string()))
                })
                .collect(),
            default_problem: self.index.problem_of_default().map(|cause| cause.to_string()),
            invalid_pods: self.index.invalid(),
            held_pods: self.index.held(),
            cut_pods: self.tierings.cut_pods(),
            floors: self.index.floors().map(|(name, used)| (name.to_string(), used)).collect(),
            overcommitted_nodes: self.index.overcommitted().map(ToString::to_string).collect(),
            nodes_waiting: self.nodes.waiting(),
            oldest_waiting_seconds: self.nodes.oldest_waiting(Instant::now()).as_secs_f64(),
            nodes_in_flight: self.nodes.in_flight(),
            events_waiting: self.event_queue.waiting(),
            events: self.event_queue.counts(),
            tallies: self.tallies.clone(),
        }
    }
}
