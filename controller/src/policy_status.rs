//! What is said of policies: whether they are accepted, and how many pods have them.
//!
//! Whether a policy is accepted is written at once; counts of pods, which change with every rollout, at most once in
//! [`COUNT_INTERVAL`] and policy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::conditions::{reasons, types};
use api::{SpecError, TieringPolicyStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::index::Name;

/// The least time between two writes of a count.
pub const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// After a failed write.
const RETRY: Duration = Duration::from_secs(5);

/// What is known of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is assigned.
    Accepted,
    /// Its values make no policy.
    Rejected(SpecError),
    /// It is not as its schema says.
    Unreadable(String),
}

impl Acceptance {
    /// Whether it is assigned, the reason, and words.
    fn condition(&self) -> (bool, &'static str, String) {
        match self {
            Self::Accepted => {
                (true, reasons::VALID, "the policy is assigned to the pods that it applies to".to_owned())
            }
            Self::Rejected(error) => (false, reasons::INVALID, error.with_path()),
            Self::Unreadable(error) => (false, reasons::UNREADABLE, error.clone()),
        }
    }
}

/// The status that a policy should have, given the one that it has: unchanged where it says the same. `without_floors` are namespaces of
/// pods that its floor does not apply to.
#[must_use]
pub fn status(
    acceptance: &Acceptance,
    generation: i64,
    matched: u32,
    without_floors: &[Name],
    has: &TieringPolicyStatus,
    now: &Time,
) -> TieringPolicyStatus {
    let condition = |type_: &str, holds: bool, reason: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let before = has.conditions.iter().find(|before| before.type_ == type_ && before.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(generation),
            last_transition_time: before
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    };
    let (accepted, reason, message) = acceptance.condition();
    let mut conditions = vec![condition(types::ACCEPTED, accepted, reason, message)];
    // How many pods it is, metrics say: that changes with every pod.
    if let Some((first, others)) = without_floors.split_first() {
        let others = if others.is_empty() { "" } else { " and of others" };
        let message = format!(
            "floors of some pods of namespace {first}{others} do not apply: the namespace's quota is used up; Events of the pods say so"
        );
        conditions.push(condition(types::FLOORS_GRANTED, false, reasons::QUOTA_EXCEEDED, message));
    }
    TieringPolicyStatus { observed_generation: Some(generation), matched_pods: Some(matched), conditions }
}

/// What the API server has of the policies.
#[derive(Debug, Default)]
pub struct StoredPolicies {
    known: BTreeMap<Name, StoredPolicy>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredPolicy {
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Why it can't be read, if it can't.
    pub unreadable: Option<String>,
    /// Its status.
    pub status: TieringPolicyStatus,
}

impl StoredPolicies {
    /// It came or changed: whether what is said of it has to be looked at again.
    pub fn observe(&mut self, name: &Name, policy: StoredPolicy) -> bool {
        let changed = self.known.get(name) != Some(&policy);
        self.known.insert(Name::clone(name), policy);
        changed
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&StoredPolicy> {
        self.known.get(name)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.known.keys()
    }

    /// A status was written.
    pub fn status_written(&mut self, name: &str, status: TieringPolicyStatus) {
        if let Some(policy) = self.known.get_mut(name) {
            policy.status = status;
        }
    }

    /// It is gone.
    pub fn deleted(&mut self, name: &str) {
        self.known.remove(name);
    }
}

/// Which policies to write, and when.
#[derive(Debug, Default)]
pub struct StatusWrites {
    due: BTreeMap<Name, Instant>,
    in_flight: BTreeSet<Name>,
    last: BTreeMap<Name, Instant>,
}

impl StatusWrites {
    /// Something changed; `urgent` unless it is only the count.
    pub fn changed(&mut self, policy: &Name, urgent: bool, now: Instant) {
        let spaced = self.last.get(policy).map_or(now, |last| *last + COUNT_INTERVAL);
        let due = if urgent { now } else { spaced.max(now) };
        let known = self.due.entry(Name::clone(policy)).or_insert(due);
        *known = due.min(*known);
    }

    /// When the next is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let idle = self.due.iter().filter(|(policy, _)| !self.in_flight.contains(*policy));
        idle.map(|(_, due)| *due).min()
    }

    /// Policies to write now. [`Self::finished`] must follow for each.
    pub fn take_due(&mut self, now: Instant) -> Vec<Name> {
        let ready = self.due.iter().filter(|(policy, due)| **due <= now && !self.in_flight.contains(*policy));
        let ready: Vec<Name> = ready.map(|(policy, _)| Name::clone(policy)).collect();
        for policy in &ready {
            self.due.remove(policy);
            self.in_flight.insert(Name::clone(policy));
            self.last.insert(Name::clone(policy), now);
        }
        ready
    }

    /// A write ended, or was not needed. What failed is tried again.
    pub fn finished(&mut self, policy: &Name, succeeded: bool, now: Instant) {
        self.in_flight.remove(policy);
        if !succeeded {
            self.due.entry(Name::clone(policy)).or_insert(now + RETRY);
        }
    }

    /// Writes under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A policy is no more.
    pub fn forget(&mut self, policy: &str) {
        self.due.remove(policy);
        self.last.remove(policy);
    }

    /// Forgets all that waits: another writes from here on.
    pub fn clear(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    /// What a policy is refused for whose floor is above its ceiling.
    fn bounds_crossed() -> SpecError {
        let spec: api::PolicySpec =
            serde_json::from_value(serde_json::json!({ "dram": { "floor": "2Gi", "ceiling": "1Gi" } }))
                .unwrap();
        spec.to_policy(None).unwrap_err()
    }

    #[test]
    fn the_time_of_a_transition_moves_only_when_the_status_flips() {
        let accepted = status(&Acceptance::Accepted, 1, 3, &[], &TieringPolicyStatus::default(), &at(10));
        assert_eq!((accepted.observed_generation, accepted.matched_pods), (Some(1), Some(3)));
        assert_eq!(accepted.conditions[0].last_transition_time, at(10));
        assert_eq!(status(&Acceptance::Accepted, 1, 3, &[], &accepted, &at(20)), accepted);
        let newer = status(&Acceptance::Accepted, 2, 4, &[], &accepted, &at(30));
        assert_eq!(
            (newer.conditions[0].observed_generation, &newer.conditions[0].last_transition_time),
            (Some(2), &at(10))
        );
        let rejected = status(&Acceptance::Rejected(SpecError::NoTiers), 3, 0, &[], &newer, &at(40));
        let condition = &rejected.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Invalid"));
        assert!(condition.message.starts_with("tiers is empty"), "{}", condition.message);
        assert_eq!(condition.last_transition_time, at(40));
        // The field is named once.
        let above = status(&Acceptance::Rejected(bounds_crossed()), 3, 0, &[], &newer, &at(40));
        assert_eq!(
            above.conditions[0].message,
            "dram.floor is above dram.ceiling: no amount of DRAM satisfies both"
        );
        let unreadable =
            status(&Acceptance::Unreadable("unknown field".to_owned()), 4, 0, &[], &rejected, &at(50));
        assert_eq!(unreadable.conditions[0].last_transition_time, at(40));
    }

    #[test]
    fn counts_are_written_at_intervals_and_all_else_at_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let policy = Name::from("batch");
        let mut writes = StatusWrites::default();
        writes.changed(&policy, false, at(0));
        assert_eq!(writes.take_due(at(0)), [Name::clone(&policy)]);
        // Not twice at once.
        writes.changed(&policy, true, at(0));
        assert!(writes.take_due(at(1)).is_empty());
        writes.finished(&policy, true, at(1));
        assert_eq!(writes.take_due(at(1)).len(), 1);
        writes.finished(&policy, true, at(1));
        writes.changed(&policy, false, at(2));
        assert_eq!(writes.next_due(), Some(at(6)));
        writes.changed(&policy, true, at(3));
        assert_eq!(writes.take_due(at(3)).len(), 1);
        writes.finished(&policy, false, at(3));
        assert_eq!(writes.next_due(), Some(at(8)));
    }
}
