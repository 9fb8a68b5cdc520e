//! How long a change waits that the author of a pod makes by its annotations.
//!
//! **Problem.** An annotation costs its author nothing, and may change many times a second; each change has the whole object of the
//! pod's node written anew. That load is on the API server and on all other tenants of the node.
//!
//! **Approach.** The first changes of a pod are written at once. What goes on changing waits ever longer, up to [`LONGEST`], and the
//! newest state is written then. All pods of a namespace have a budget together, which fills up again with time. What is written for
//! another reason meanwhile has the newest state of all, so nobody else waits.
//!
//! Pure: every function that needs the time takes `now`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::index::{Name, PodKey};

/// Changes of a pod that do not wait.
pub const FREE: u32 = 4;
/// How long the first waits that does; each waits twice as long as the one before.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_mins(1);
/// A pod that did not change for this long begins anew.
pub const QUIET: Duration = Duration::from_mins(2);
/// Changes of a namespace's pods that do not wait.
pub const NAMESPACE_FREE: f64 = 1000.0;
/// Changes of a namespace's pods per second that do not wait for long.
pub const NAMESPACE_RATE: f64 = 10.0;
/// Pods and namespaces that are kept before those are forgotten that begin anew anyway.
const KEPT: usize = 4096;

/// What changed lately.
#[derive(Debug, Default)]
pub struct Debounce {
    pods: BTreeMap<PodKey, Streak>,
    namespaces: BTreeMap<Name, Budget>,
}

#[derive(Clone, Copy, Debug)]
struct Streak {
    changes: u32,
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Changes that are left; below zero, changes that were made beyond.
    left: f64,
    last: Instant,
}

impl Budget {
    fn at(self, now: Instant) -> f64 {
        let filled = now.saturating_duration_since(self.last).as_secs_f64() * NAMESPACE_RATE;
        (self.left + filled).min(NAMESPACE_FREE)
    }
}

impl Debounce {
    /// A pod's annotations changed: how long that waits.
    pub fn changed(&mut self, pod: &PodKey, now: Instant) -> Duration {
        self.forget(now);
        let streak = self.pods.entry(pod.clone()).or_insert(Streak { changes: 0, last: now });
        if now.saturating_duration_since(streak.last) >= QUIET {
            streak.changes = 0;
        }
        streak.changes = streak.changes.saturating_add(1);
        streak.last = now;
        let of_pod = match streak.changes.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(beyond) => FIRST.saturating_mul(1 << beyond.min(16)).min(LONGEST),
        };
        let full = Budget { left: NAMESPACE_FREE, last: now };
        let budget = self.namespaces.entry(Name::clone(&pod.0)).or_insert(full);
        // What is unconfirmed is bounded: whoever stops has its budget again some time.
        let least = -NAMESPACE_RATE * LONGEST.as_secs_f64();
        *budget = Budget { left: (budget.at(now) - 1.0).max(least), last: now };
        let of_namespace = Duration::from_secs_f64((-budget.left).max(0.0) / NAMESPACE_RATE);
        of_pod.max(of_namespace)
    }

    fn forget(&mut self, now: Instant) {
        if self.pods.len() >= KEPT {
            self.pods.retain(|_, streak| now.saturating_duration_since(streak.last) < QUIET);
        }
        if self.namespaces.len() >= KEPT {
            self.namespaces.retain(|_, budget| budget.at(now) < NAMESPACE_FREE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodKey {
        ("a".into(), name.into())
    }

    #[test]
    fn what_changes_all_the_time_waits_ever_longer_and_begins_anew_once_it_was_quiet() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        let waits: Vec<u64> = (0..14).map(|_| debounce.changed(&pod("flips"), start).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(debounce.changed(&pod("other"), start), Duration::ZERO);
        assert_eq!(debounce.changed(&pod("flips"), start + QUIET / 2), LONGEST);
        assert_eq!(debounce.changed(&pod("flips"), start + QUIET / 2 + QUIET), Duration::ZERO);
    }

    #[test]
    fn a_namespace_has_a_budget_however_many_pods_it_has() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        let waits = (0..1200).map(|n| debounce.changed(&pod(&n.to_string()), start)).collect::<Vec<_>>();
        assert!(waits[..1000].iter().all(Duration::is_zero));
        assert_eq!(waits[1199], Duration::from_secs(20));
        assert_eq!(debounce.changed(&("b".into(), "web".into()), start), Duration::ZERO);
        assert_eq!(debounce.changed(&pod("late"), start + Duration::from_mins(2)), Duration::ZERO);
    }

    #[test]
    fn no_more_is_kept_than_changes() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        for n in 0..KEPT {
            debounce.changed(&(n.to_string().into(), "web".into()), start);
        }
        debounce.changed(&pod("late"), start + QUIET);
        assert_eq!((debounce.pods.len(), debounce.namespaces.len()), (1, 1));
    }
}
