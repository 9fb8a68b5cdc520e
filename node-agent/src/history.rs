//! What was done in the last hour, from the sums that only grow.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::snapshot::{CgroupView, Snapshot};

/// A minute, in seconds.
const EVERY: f64 = 60.0;
/// Minutes kept.
const MOST: usize = 60;

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
    /// Bytes reclaimed ahead of limits.
    pub reclaimed_bytes: u64,
    /// Times memory came back soon.
    pub comebacks: u64,
}

impl Done {
    fn of(cgroup: &CgroupView) -> Self {
        Self {
            demoted_bytes: cgroup.demoted_bytes.values().sum(),
            promoted_bytes: cgroup.promoted_bytes.values().sum(),
            failed_pages: cgroup.failed_pages.values().sum(),
            reclaimed_bytes: cgroup.reclaimed_bytes,
            comebacks: cgroup.comebacks,
        }
    }

    fn and(self, more: Self) -> Self {
        Self {
            demoted_bytes: self.demoted_bytes.saturating_add(more.demoted_bytes),
            promoted_bytes: self.promoted_bytes.saturating_add(more.promoted_bytes),
            failed_pages: self.failed_pages.saturating_add(more.failed_pages),
            reclaimed_bytes: self.reclaimed_bytes.saturating_add(more.reclaimed_bytes),
            comebacks: self.comebacks.saturating_add(more.comebacks),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            demoted_bytes: self.demoted_bytes.saturating_sub(before.demoted_bytes),
            promoted_bytes: self.promoted_bytes.saturating_sub(before.promoted_bytes),
            failed_pages: self.failed_pages.saturating_sub(before.failed_pages),
            reclaimed_bytes: self.reclaimed_bytes.saturating_sub(before.reclaimed_bytes),
            comebacks: self.comebacks.saturating_sub(before.comebacks),
        }
    }
}

/// What was done in one minute, by cgroup id, for a path may be another's by now. Most cgroups have nothing done to them in most minutes.
#[derive(Debug)]
struct Minute {
    at: f64,
    done: Vec<(u64, Done)>,
}

/// A bounded record of minutes.
#[derive(Debug, Default)]
pub struct History {
    minutes: VecDeque<Minute>,
    /// The sums as of the last of them. Whoever is not in it had nothing done to it.
    sums: BTreeMap<u64, Done>,
}

impl History {
    /// Takes a picture, if the last one is old enough.
    pub fn note(&mut self, snapshot: &Snapshot) {
        let at = snapshot.last_round_unix_seconds;
        // A clock that was set back begins anew.
        if self.minutes.back().is_some_and(|last| at < last.at) {
            *self = Self::default();
        }
        if self.minutes.back().is_some_and(|last| at - last.at < EVERY) {
            return;
        }
        let done = snapshot.cgroups.values().map(|cgroup| (cgroup.id, self.since_last(cgroup)));
        let done = done.filter(|(_, done)| *done != Done::default()).collect();
        self.minutes.push_back(Minute { at, done });
        if self.minutes.len() > MOST {
            self.minutes.pop_front();
        }
        let sums = snapshot.cgroups.values().map(|cgroup| (cgroup.id, Done::of(cgroup)));
        self.sums = sums.filter(|(_, done)| *done != Done::default()).collect();
    }

    fn since_last(&self, cgroup: &CgroupView) -> Done {
        Done::of(cgroup).since(self.sums.get(&cgroup.id).copied().unwrap_or_default())
    }

    /// What was done within the last hour, by path.
    #[must_use]
    pub fn last_hour(&self, snapshot: &Snapshot) -> BTreeMap<String, Done> {
        let mut hour: BTreeMap<u64, Done> = BTreeMap::new();
        for (id, done) in self.minutes.iter().flat_map(|minute| &minute.done) {
            let sum = hour.entry(*id).or_default();
            *sum = sum.and(*done);
        }
        let of = |cgroup: &CgroupView| {
            hour.get(&cgroup.id).copied().unwrap_or_default().and(self.since_last(cgroup))
        };
        snapshot.cgroups.values().map(|cgroup| (cgroup.path.clone(), of(cgroup))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{cgroup, node};

    fn picture(minute: u32, demoted: u64) -> Snapshot {
        let mut view = cgroup("a", &[], &[], "hold");
        view.demoted_bytes = litemap::LiteMap::from_iter([("cold", demoted)]);
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
        assert_eq!(history.minutes.len(), MOST);
        assert_eq!(history.last_hour(&picture(199, 199))["a"].demoted_bytes, 60);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let mut history = History::default();
        history.note(&picture(100, 1));
        history.note(&picture(10, 2));
        assert_eq!(history.minutes.len(), 1);
    }
}
