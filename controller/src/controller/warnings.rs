//! Warnings, and those that there was no room for.
//!
//! Kept is what they are about, once however many there are: what is to be said is found again when there is room.

use std::time::Instant;

use super::{Controller, TELL_AGAIN, TELL_LATER, unix_now};
use crate::index::{Name, PodKey, Verdict};
use crate::node_tierings::Suspension;
use crate::occurrence::{About, Occurrence, What};
use crate::policy_status::Standing;

/// Of one pod, no more problems than this are told: its owner looks at the others once these are gone.
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

/// Which hour it is: what is told again in the same hour is one Event.
fn hour() -> u64 {
    unix_now().as_secs() / TELL_AGAIN.as_secs()
}

/// Which policy a pod has and why, or why it has none.
pub(super) fn words(verdict: &Verdict<Name>) -> String {
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

    /// What to tell again of what was not told; `None` for good news.
    fn of(occurrence: Occurrence) -> Option<Self> {
        match (occurrence.what, occurrence.about) {
            (What::Assigned(_) | What::Unassigned(_), _) => None,
            (What::Suspended(_), About::Pod { uid, .. }) => Some(Self::Suspended(uid)),
            (What::FloorDenied(_), About::Pod { namespace, name, .. }) => {
                Some(Self::Floor((namespace.into(), name.into())))
            }
            (_, About::Pod { namespace, name, .. }) => Some(Self::Pod((namespace.into(), name.into()))),
            (_, About::Namespace(name)) => Some(Self::Namespace(name.into())),
            (_, About::Policy { name, .. }) => Some(Self::Policy(name.into())),
            (_, About::Node { name, .. }) => Some(Self::Node(name.into())),
        }
    }
}

impl Controller {
    /// The server refused to take an Event: a warning is told again, if it still is so then.
    pub(super) fn not_posted(&mut self, occurrence: Occurrence, now: Instant) {
        if let Some(warning) = Warning::of(occurrence).filter(|_| self.leading) {
            self.tell_later(warning, now);
        }
    }

    /// Has something told some time later, once however often it is to be.
    pub(super) fn tell_later(&mut self, warning: Warning, now: Instant) {
        if self.later.is_empty() {
            self.tell_later_at = now + TELL_LATER;
        }
        self.later.insert(warning);
    }

    /// Has warnings told that waited, and every hour all of them.
    pub(super) fn tell_what_waited(&mut self, now: Instant) {
        if now >= self.tell_later_at {
            self.pending.append(&mut self.later);
        }
        if self.may_mark() && now >= self.tell_again_at {
            self.tell_all(now);
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

    /// Tells warnings that there was no room for, as far as there is now.
    pub(super) fn tell_pending(&mut self) {
        while self.leading
            && self.occurrences.has_room()
            && let Some(warning) = self.next_warning()
        {
            match warning {
                Warning::Pod(key) => self.tell_of_invalid(&key),
                Warning::Namespace(name) => self.tell_of_namespace(&name),
                Warning::Policy(name) => self.tell_of_policy(&name),
                Warning::Floor(key) => self.tell_of_floor(&key),
                Warning::Node(name) => self.tell_of_node(&name),
                Warning::Suspended(uid) => {
                    let suspension = self.tierings.suspensions().find(|pod| pod.uid == uid).cloned();
                    if let Some(suspension) = suspension {
                        self.tell_of_suspension(&suspension);
                    }
                }
            }
        }
    }

    pub(super) fn tell_of_invalid(&mut self, key: &PodKey) {
        let Some(uid) = self.index.pod_uid(key) else { return };
        let about = About::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
        let applies = self.index.verdict(key).map(words).unwrap_or_default();
        for problem in self.index.problems(key).iter().take(MOST_PROBLEMS) {
            let what = What::InvalidAnnotation(format!("{problem}; what applies to the pod: {applies}"));
            if !self.occurrences.tell(Occurrence { about: about.clone(), what, occasion: hour() }) {
                self.pending.insert(Warning::Pod(key.clone()));
                return;
            }
        }
    }

    pub(super) fn tell_of_floor(&mut self, key: &PodKey) {
        let Some((uid, why)) = self.index.pod_uid(key).zip(self.index.denied(key)) else { return };
        let about = About::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
        if !self.occurrences.tell(Occurrence { about, what: What::FloorDenied(why), occasion: hour() }) {
            self.pending.insert(Warning::Floor(key.clone()));
        }
    }

    pub(super) fn tell_of_node(&mut self, name: &Name) {
        let Some((uid, by)) = self.index.node_uid(name).zip(self.index.overcommitted_by(name)) else {
            return;
        };
        let about = About::Node { name: name.to_string(), uid: uid.to_owned() };
        let api::Overcommitted { floors, dram } = by;
        let why = format!(
            "floors of the node's pods sum to {floors}, and its DRAM is {dram}: not all can be honoured at once, and the least weight gives way"
        );
        if !self.occurrences.tell(Occurrence { about, what: What::Overcommitted(why), occasion: hour() }) {
            self.pending.insert(Warning::Node(Name::clone(name)));
        }
    }

    pub(super) fn tell_of_namespace(&mut self, name: &Name) {
        for problem in self.index.namespace_problems(name).iter().take(MOST_PROBLEMS) {
            let about = About::Namespace(name.to_string());
            let what = What::InvalidAnnotation(problem.to_string());
            if !self.occurrences.tell(Occurrence { about, what, occasion: hour() }) {
                self.pending.insert(Warning::Namespace(Name::clone(name)));
                return;
            }
        }
    }

    pub(super) fn tell_of_policy(&mut self, name: &Name) {
        let Some((policy, (standing, _))) = self.policies.get(name).zip(self.standing(name)) else { return };
        let error = match standing {
            Standing::Accepted => return,
            Standing::Rejected(error) => error.to_string(),
            Standing::Unreadable(error) => error,
        };
        let about = About::Policy { name: name.to_string(), uid: policy.uid.clone() };
        let occasion = policy.generation.unsigned_abs().rotate_left(32) ^ hour();
        if !self.occurrences.tell(Occurrence { about, what: What::Rejected(error), occasion }) {
            self.pending.insert(Warning::Policy(Name::clone(name)));
        }
    }

    pub(super) fn tell_of_suspension(&mut self, suspension: &Suspension) {
        if !self.leading {
            return;
        }
        let Suspension { namespace, name, uid, message, since } = suspension.clone();
        let about = About::Pod { namespace, name, uid: uid.clone() };
        let occasion = since.0.as_second().unsigned_abs().rotate_left(32) ^ hour();
        if !self.occurrences.tell(Occurrence { about, what: What::Suspended(message), occasion }) {
            self.pending.insert(Warning::Suspended(uid));
        }
    }
}
