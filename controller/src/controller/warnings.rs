//! Warnings, and those that there was no room for.
//!
//! Kept is what they are about, once however many there are: what is to be said is found again when there is room.

use std::time::Instant;

use super::{Controller, POSTPONE_FOR, REPEAT_EVERY, unix_now};
use crate::event_queue::{KubeEvent, Reason, Regarding};
use crate::index::{Name, PodKey, Verdict};
use crate::node_tierings::Suspension;
use crate::policy_status::Acceptance;

/// Of one pod, no more problems than this are posted: its owner looks at the others once these are gone.
const MOST_PROBLEMS: usize = 32;

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Warning {
    /// Annotations of a pod.
    Pod(PodKey),
    /// Annotations of a namespace.
    Namespace(Name),
    /// A policy that is not accepted.
    Policy(Name),
    /// A pod of this uid whose agent stood down.
    Suspended(String),
    /// A pod whose floor does not apply.
    Floor(PodKey),
    /// A node whose pods' floors sum to more than its DRAM.
    Node(Name),
}

/// Which hour it is: what is posted again in the same hour is one Event.
fn hour() -> u64 {
    unix_now().as_secs() / REPEAT_EVERY.as_secs()
}

/// Which policy a pod has and why, or why it has none.
pub(super) fn describe(verdict: &Verdict<Name>) -> String {
    match verdict {
        Verdict::Policy(name, _) => format!("policy {name} ({verdict})"),
        Verdict::Unusable(..) | Verdict::NotAllowed(..) | Verdict::UnknownNamespace => verdict.to_string(),
        Verdict::Unmanaged(why) => format!("no policy: {why}"),
    }
}

impl Warning {
    /// The least that is greater than all of the same kind and namespace.
    fn after_its_namespace(&self) -> Self {
        let after = |namespace: &Name| (Name::from(format!("{namespace}\0")), Name::from(""));
        match self {
            Self::Pod((namespace, _)) => Self::Pod(after(namespace)),
            Self::Floor((namespace, _)) => Self::Floor(after(namespace)),
            other => other.clone(),
        }
    }

    /// What to post again of what was not posted; `None` for good news.
    fn of(event: KubeEvent) -> Option<Self> {
        match (event.reason, event.regarding) {
            (Reason::Assigned(_) | Reason::Unassigned(_), _) => None,
            (Reason::Suspended(_), Regarding::Pod { uid, .. }) => Some(Self::Suspended(uid)),
            (Reason::FloorDenied(_), Regarding::Pod { namespace, name, .. }) => {
                Some(Self::Floor((namespace.into(), name.into())))
            }
            (_, Regarding::Pod { namespace, name, .. }) => Some(Self::Pod((namespace.into(), name.into()))),
            (_, Regarding::Namespace(name)) => Some(Self::Namespace(name.into())),
            (_, Regarding::Policy { name, .. }) => Some(Self::Policy(name.into())),
            (_, Regarding::Node { name, .. }) => Some(Self::Node(name.into())),
        }
    }
}

impl Controller {
    /// The server refused to take an Event: a warning is posted again, if it still is so then.
    pub(super) fn not_posted(&mut self, event: KubeEvent, now: Instant) {
        if let Some(warning) = Warning::of(event).filter(|_| self.leading) {
            self.postpone(warning, now);
        }
    }

    /// Has a warning posted some time later, once however often it is postponed.
    pub(super) fn postpone(&mut self, warning: Warning, now: Instant) {
        if self.postponed.is_empty() {
            self.postponed_until = now + POSTPONE_FOR;
        }
        self.postponed.insert(warning);
    }

    /// Has warnings posted that were postponed, and every hour all of them.
    pub(super) fn post_postponed(&mut self, now: Instant) {
        if now >= self.postponed_until {
            self.pending.append(&mut self.postponed);
        }
        if self.may_mark() && now >= self.repeat_at {
            self.warn_of_all(now);
        }
    }

    /// The next that waits: of each namespace one in turn.
    fn next_warning(&mut self) -> Option<Warning> {
        let from = self.next_warning.take();
        let next = from.and_then(|from| self.pending.range(from..).next().cloned());
        let next = next.or_else(|| self.pending.first().cloned())?;
        self.pending.remove(&next);
        self.next_warning = Some(next.after_its_namespace());
        Some(next)
    }

    /// Posts warnings that there was no room for, as far as there is now.
    pub(super) fn post_pending(&mut self) {
        while self.leading
            && self.event_queue.has_room()
            && let Some(warning) = self.next_warning()
        {
            match warning {
                Warning::Pod(key) => self.warn_of_annotations(&key),
                Warning::Namespace(name) => self.warn_of_namespace(&name),
                Warning::Policy(name) => self.warn_of_policy(&name),
                Warning::Floor(key) => self.warn_of_floor(&key),
                Warning::Node(name) => self.warn_of_overcommit(&name),
                Warning::Suspended(uid) => {
                    let suspension = self.tierings.suspensions().find(|pod| pod.uid == uid).cloned();
                    if let Some(suspension) = suspension {
                        self.warn_of_suspension(&suspension);
                    }
                }
            }
        }
    }

    pub(super) fn warn_of_annotations(&mut self, key: &PodKey) {
        let Some(uid) = self.index.pod_uid(key) else { return };
        let regarding =
            Regarding::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
        let applies = self.index.verdict(key).map(describe).unwrap_or_default();
        for problem in self.index.problems(key).iter().take(MOST_PROBLEMS) {
            let reason = Reason::InvalidAnnotation(format!("{problem}; what applies to the pod: {applies}"));
            if !self.event_queue.push(KubeEvent { regarding: regarding.clone(), reason, occasion: hour() }) {
                self.pending.insert(Warning::Pod(key.clone()));
                return;
            }
        }
    }

    pub(super) fn warn_of_floor(&mut self, key: &PodKey) {
        let Some((uid, why)) = self.index.pod_uid(key).zip(self.index.denied(key)) else { return };
        let regarding =
            Regarding::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
        if !self.event_queue.push(KubeEvent { regarding, reason: Reason::FloorDenied(why), occasion: hour() })
        {
            self.pending.insert(Warning::Floor(key.clone()));
        }
    }

    pub(super) fn warn_of_overcommit(&mut self, name: &Name) {
        let Some((uid, by)) = self.index.node_uid(name).zip(self.index.overcommitted_by(name)) else {
            return;
        };
        let regarding = Regarding::Node { name: name.to_string(), uid: uid.to_owned() };
        let api::Overcommitted { floors, dram } = by;
        let why = format!(
            "floors of the node's pods sum to {floors}, and its DRAM is {dram}: not all can be honoured at once, and the least weight gives way"
        );
        if !self.event_queue.push(KubeEvent {
            regarding,
            reason: Reason::Overcommitted(why),
            occasion: hour(),
        }) {
            self.pending.insert(Warning::Node(Name::clone(name)));
        }
    }

    pub(super) fn warn_of_namespace(&mut self, name: &Name) {
        for problem in self.index.namespace_problems(name).iter().take(MOST_PROBLEMS) {
            let regarding = Regarding::Namespace(name.to_string());
            let reason = Reason::InvalidAnnotation(problem.to_string());
            if !self.event_queue.push(KubeEvent { regarding, reason, occasion: hour() }) {
                self.pending.insert(Warning::Namespace(Name::clone(name)));
                return;
            }
        }
    }

    pub(super) fn warn_of_policy(&mut self, name: &Name) {
        let Some((policy, (acceptance, _))) = self.policies.get(name).zip(self.acceptance(name)) else {
            return;
        };
        let error = match acceptance {
            Acceptance::Accepted => return,
            Acceptance::Rejected(error) => error.to_string(),
            Acceptance::Unreadable(error) => error,
        };
        let regarding = Regarding::Policy { name: name.to_string(), uid: policy.uid.clone() };
        let occasion = policy.generation.unsigned_abs().rotate_left(32) ^ hour();
        if !self.event_queue.push(KubeEvent { regarding, reason: Reason::Rejected(error), occasion }) {
            self.pending.insert(Warning::Policy(Name::clone(name)));
        }
    }

    pub(super) fn warn_of_suspension(&mut self, suspension: &Suspension) {
        if !self.leading {
            return;
        }
        let Suspension { namespace, name, uid, message, since } = suspension.clone();
        let regarding = Regarding::Pod { namespace, name, uid: uid.clone() };
        let occasion = since.0.as_second().unsigned_abs().rotate_left(32) ^ hour();
        if !self.event_queue.push(KubeEvent { regarding, reason: Reason::Suspended(message), occasion }) {
            self.pending.insert(Warning::Suspended(uid));
        }
    }
}
