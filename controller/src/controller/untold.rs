//! Warnings, and those that there was no room for.
//!
//! Kept is what they are about, once however many there are: what is to be said is found again when there is room.

use std::time::Instant;

use super::{Controller, TELL_REFUSED};
use crate::index::{Name, PodKey, Verdict};
use crate::occurrence::{About, Occurrence, What};
use crate::policy_status::Standing;
use crate::told::Suspension;

/// Of one pod, no more problems than this are told: its owner looks at the others once these are gone.
const MOST_PROBLEMS: usize = 32;

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Untold {
    /// Annotations of a pod.
    Pod(PodKey),
    /// Annotations of a namespace.
    Namespace(Name),
    /// A policy that is not accepted.
    Policy(Name),
    /// A pod of this uid whose agent stood down.
    Suspended(String),
}

/// Which policy a pod has and why, or why it has none.
pub(super) fn words(verdict: &Verdict<Name>) -> String {
    match verdict {
        Verdict::Policy(name, _) => format!("policy {name} ({verdict})"),
        Verdict::Unusable(..) | Verdict::UnknownNamespace => verdict.to_string(),
        Verdict::Unmanaged(why) => format!("no policy: {why}"),
    }
}

impl Untold {
    /// What to tell again of what was not told; `None` for good news.
    fn of(occurrence: Occurrence) -> Option<Self> {
        match (occurrence.what, occurrence.about) {
            (What::Assigned(_) | What::Unassigned(_), _) => None,
            (What::Suspended(_), About::Pod { uid, .. }) => Some(Self::Suspended(uid)),
            (_, About::Pod { namespace, name, .. }) => Some(Self::Pod((namespace.into(), name.into()))),
            (_, About::Namespace(name)) => Some(Self::Namespace(name.into())),
            (_, About::Policy { name, .. }) => Some(Self::Policy(name.into())),
        }
    }
}

impl Controller {
    /// The server refused to take an Event: a warning is told again, if it still is so then.
    pub(super) fn not_posted(&mut self, occurrence: Occurrence, now: Instant) {
        let Some(warning) = Untold::of(occurrence).filter(|_| self.leading) else { return };
        if self.refused.is_empty() {
            self.tell_refused_at = now + TELL_REFUSED;
        }
        self.refused.insert(warning);
    }

    /// Has warnings told again that the server refused to take, once it is time.
    pub(super) fn tell_refused(&mut self, now: Instant) {
        if now >= self.tell_refused_at {
            self.untold.append(&mut self.refused);
        }
    }

    /// Tells warnings that there was no room for, as far as there is now.
    pub(super) fn tell_untold(&mut self) {
        while self.leading
            && self.occurrences.has_room()
            && let Some(untold) = self.untold.pop_first()
        {
            match untold {
                Untold::Pod(key) => self.tell_of_invalid(&key),
                Untold::Namespace(name) => self.tell_of_namespace(&name),
                Untold::Policy(name) => self.tell_of_policy(&name),
                Untold::Suspended(uid) => {
                    let suspension = self.told.suspensions().find(|pod| pod.uid == uid).cloned();
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
            if !self.occurrences.tell(Occurrence { about: about.clone(), what, occasion: 0 }) {
                self.untold.insert(Untold::Pod(key.clone()));
                return;
            }
        }
    }

    pub(super) fn tell_of_namespace(&mut self, name: &Name) {
        for problem in self.index.namespace_problems(name).iter().take(MOST_PROBLEMS) {
            let about = About::Namespace(name.to_string());
            let what = What::InvalidAnnotation(problem.to_string());
            if !self.occurrences.tell(Occurrence { about, what, occasion: 0 }) {
                self.untold.insert(Untold::Namespace(Name::clone(name)));
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
        let occasion = policy.generation.unsigned_abs();
        if !self.occurrences.tell(Occurrence { about, what: What::Rejected(error), occasion }) {
            self.untold.insert(Untold::Policy(Name::clone(name)));
        }
    }

    pub(super) fn tell_of_suspension(&mut self, suspension: &Suspension) {
        if !self.leading {
            return;
        }
        let Suspension { namespace, name, uid, message, since } = suspension.clone();
        let about = About::Pod { namespace, name, uid: uid.clone() };
        let occasion = since.0.as_second().unsigned_abs();
        if !self.occurrences.tell(Occurrence { about, what: What::Suspended(message), occasion }) {
            self.untold.insert(Untold::Suspended(uid));
        }
    }
}
