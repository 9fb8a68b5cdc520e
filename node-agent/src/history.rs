//! What was done in the last hour, from the sums that only grow.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::snapshot::{CgroupView, Snapshot};

/// Between two samples, in seconds.
const EVERY: f64 = 60.0;
/// Samples kept: an hour of them, and the one before.
const MOST: usize = 61;

/// What was done to one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Bytes moved down.
    pub demoted_bytes: u64,
    /// Bytes moved up, by whomever.
    pub promoted_bytes: u64,
    /// Pages that stayed where they were.
    pub failed_pages: u64,
    /// Times memory came back soon.
    pub comebacks: u64,
}

impl Done {
    fn of(cgroup: &CgroupView) -> Self {
        Self {
            demoted_bytes: cgroup.demoted_bytes.values().sum(),
            promoted_bytes: cgroup.promoted_bytes.values().sum(),
            failed_pages: cgroup.failed_pages.values().sum(),
            comebacks: cgroup.comebacks,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            demoted_bytes: self.demoted_bytes.saturating_sub(before.demoted_bytes),
            promoted_bytes: self.promoted_bytes.saturating_sub(before.promoted_bytes),
            failed_pages: self.failed_pages.saturating_sub(before.failed_pages),
            comebacks: self.comebacks.saturating_sub(before.comebacks),
        }
    }
}

#[derive(Debug)]
struct Sample {
    at: f64,
    /// By cgroup id, for a path may be another's by now. Whoever is not in it had nothing done to it.
    done: BTreeMap<u64, Done>,
}

/// A bounded record of samples.
#[derive(Debug, Default)]
pub struct History(VecDeque<Sample>);

impl History {
    /// Takes a picture, if the last one is old enough.
    pub fn note(&mut self, snapshot: &Snapshot) {
        let at = snapshot.last_round_unix_seconds;
        // A clock that was set back begins anew.
        if self.0.back().is_some_and(|last| at < last.at) {
            self.0.clear();
        }
        if self.0.back().is_some_and(|last| at - last.at < EVERY) {
            return;
        }
        let done = snapshot.cgroups.values().map(|cgroup| (cgroup.id, Done::of(cgroup)));
        let done = done.filter(|(_, done)| *done != Done::default()).collect();
        self.0.push_back(Sample { at, done });
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// What was done within the last hour, by path.
    #[must_use]
    pub fn last_hour(&self, snapshot: &Snapshot) -> BTreeMap<String, Done> {
        let first = self.0.front().filter(|_| self.0.len() == MOST);
        snapshot
            .cgroups
            .values()
            .map(|cgroup| {
                // Who was not there an hour ago had nothing done to it then.
                let before =
                    first.and_then(|sample| sample.done.get(&cgroup.id)).copied().unwrap_or_default();
                (cgroup.path.clone(), Done::of(cgroup).since(before))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{cgroup, node};

    fn picture(minute: u32, demoted: u64) -> Snapshot {
        let mut view = cgroup("a", &[], &[], "hold");
        view.demoted_bytes = BTreeMap::from([("cold", demoted)]);
        let mut snapshot = node(vec![], vec![view]);
        snapshot.last_round_unix_seconds = f64::from(minute) * 60.0;
        snapshot
    }

    #[test]
    fn the_last_hour_is_what_came_to_the_sums_in_it() {
        let mut history = History::default();
        for minute in 0..=59 {
            history.note(&picture(minute, u64::from(minute)));
        }
        // Less than an hour: all there is.
        assert_eq!(history.last_hour(&picture(59, 59))["a"].demoted_bytes, 59);
        for minute in 60..200 {
            history.note(&picture(minute, u64::from(minute)));
            history.note(&picture(minute, u64::from(minute)));
        }
        assert_eq!(history.0.len(), MOST);
        assert_eq!(history.last_hour(&picture(199, 199))["a"].demoted_bytes, 60);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let mut history = History::default();
        history.note(&picture(100, 1));
        history.note(&picture(10, 2));
        assert_eq!(history.0.len(), 1);
    }
}
