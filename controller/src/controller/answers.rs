//! What is answered to who asks.

use super::{Controller, Question};
use crate::snapshot::Snapshot;
use crate::watched::Kind;

impl Controller {
    /// Whoever does not wait any more is not answered.
    pub(super) fn answer(&self, question: Question) {
        match question {
            Question::Snapshot(answer) => {
                let _ = answer.send(self.snapshot());
            }
            Question::Explain { namespace, pod, answer } => {
                let _ = answer.send(self.index.explain(&namespace, &pod));
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (synced, awaited): (Vec<Kind>, Vec<Kind>) =
            Kind::ALL.into_iter().partition(|kind| self.synced.contains(kind));
        let names = |kinds: Vec<Kind>| kinds.into_iter().map(Kind::plural).collect();
        let objects = |kind: Kind| match kind {
            Kind::NodeTiering => self.told.nodes().count(),
            kind => self.index.len(kind),
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
            invalid_pods: self.index.invalid_pods().count(),
            nodes_waiting: self.nodes.waiting(),
            nodes_in_flight: self.nodes.in_flight(),
            events_waiting: self.occurrences.waiting(),
            events: self.occurrences.counts(),
            tallies: self.tallies.clone(),
        }
    }
}
