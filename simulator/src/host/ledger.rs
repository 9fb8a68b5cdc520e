//! What really happens, page by page, as no law can see it.

use std::time::Duration;

use tiering::Policy;

use super::{Group, Host};
use crate::world::{Activity, Kind, NodeKind, PAGE};

/// Minutes over which accesses are summed for the oracle: in more, a law that follows a shift would be better than it.
const WINDOW_MINUTES: u64 = 1;

/// A minute of a pod, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Minute {
    /// Anonymous pages on fast nodes at its end.
    pub fast: u64,
    /// On slow nodes.
    pub slow: u64,
    /// Distinct pages touched.
    pub working_set: u64,
    /// Distinct pages touched on slow nodes.
    pub slow_touched: u64,
    /// Of them, what the policy has to answer for: all but what comes back after longer than its greatest age, the first two times of a
    /// set, and a set whose use begins while it is brought up: three scans and its bytes at 0.8 of the promotion rate.
    pub answered_for: u64,
    /// Accesses.
    pub accesses: f64,
    /// Of them, to slow nodes.
    pub slow_accesses: f64,
    /// Demoted.
    pub demoted: u64,
    /// Promoted.
    pub promoted: u64,
    /// The age that counted as cold at its end, in seconds.
    pub age: f64,
}

impl Minute {
    /// Two pods' minute together.
    pub fn add(&mut self, other: &Self) {
        self.fast += other.fast;
        self.slow += other.slow;
        self.working_set += other.working_set;
        self.slow_touched += other.slow_touched;
        self.answered_for += other.answered_for;
        self.accesses += other.accesses;
        self.slow_accesses += other.slow_accesses;
        self.demoted += other.demoted;
        self.promoted += other.promoted;
        self.age = self.age.max(other.age);
    }
}

/// What happened to a pod.
#[derive(Clone, Debug, Default)]
pub struct PodLedger {
    /// This minute so far.
    pub(super) minute: Minute,
    /// Minutes since the world began.
    pub minutes: Vec<Minute>,
    /// Pages that found no room anywhere.
    pub refused: u64,
    /// The age that the law says counts as cold.
    pub age: f64,
    /// Pages that the law says it could free.
    pub would_free: u64,
    /// What the law said of it, and when it began to; numbers alone are nothing new.
    pub said: Vec<(Duration, String)>,
}

impl PodLedger {
    /// The law's words about the pod now.
    pub fn note(&mut self, now: Duration, words: String) {
        let without_numbers =
            |text: &str| text.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect::<String>();
        let is_new =
            self.said.last().is_none_or(|(_, last)| without_numbers(last) != without_numbers(&words));
        if is_new {
            self.said.push((now, words));
        }
    }
}

/// A minute of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Accesses.
    pub accesses: f64,
    /// Of them, to slow nodes.
    pub slow_accesses: f64,
    /// Pages, in the mean.
    pub pages: f64,
    /// Of them on slow nodes, in the mean.
    pub slow: f64,
}

/// How a group was used.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupUse {
    /// In this minute.
    pub(super) accesses: f64,
    pub(super) slow_accesses: f64,
    pub(super) minute_seen: u64,
    pub(super) minute_slow_seen: u64,
    /// Pages demoted in all.
    pub demoted: u64,
    /// Pages promoted in all.
    pub promoted: u64,
    /// Pages touched on slow nodes, by minutes, in all.
    pub(super) came_back: u64,
    pub(super) window: Window,
    /// By minutes.
    pub windows: Vec<Window>,
}

impl Host {
    /// Closes the minute, where it is over.
    pub(super) fn keep_ledger(&mut self) {
        if !self.now.as_secs().is_multiple_of(60) || self.now.subsec_nanos() != 0 {
            return;
        }
        let minute = self.now.as_secs() / 60;
        for group in &mut self.groups {
            let pod = &mut self.pods[group.pod];
            let pages = group.pages();
            for cell in group.cells.iter_mut().flatten() {
                cell.seen = 0;
            }
            let slow = (0..self.nodes.len())
                .filter(|node| self.nodes[*node].kind == NodeKind::Slow)
                .map(|node| group.on(node))
                .sum::<u64>();
            let answered_for = group.answered_for(pages, self.now, &pod.policy);
            let usage = &mut group.usage;
            let this = &mut pod.ledger.minute;
            if group.kind != Kind::Shared {
                this.fast += pages - slow;
                this.slow += slow;
            }
            this.accesses += usage.accesses;
            this.slow_accesses += usage.slow_accesses;
            this.working_set += usage.minute_seen;
            this.slow_touched += usage.minute_slow_seen;
            this.answered_for += answered_for;
            usage.window.accesses += usage.accesses;
            usage.window.slow_accesses += usage.slow_accesses;
            usage.window.pages += pages as f64 / WINDOW_MINUTES as f64;
            (usage.accesses, usage.slow_accesses, usage.minute_seen, usage.minute_slow_seen) =
                (0.0, 0.0, 0, 0);
            if minute.is_multiple_of(WINDOW_MINUTES) {
                usage.windows.push(std::mem::take(&mut usage.window));
            }
        }
        for pod in &mut self.pods {
            let ledger = &mut pod.ledger;
            ledger.minutes.push(Minute { age: ledger.age, ..std::mem::take(&mut ledger.minute) });
        }
    }

    /// What can be moved of managed pods, by group and minute: for the oracle.
    pub(crate) fn movable_windows(&self) -> impl Iterator<Item = (usize, &[Window])> {
        self.groups
            .iter()
            .filter(|group| group.kind == Kind::Anonymous && self.pods[group.pod].managed)
            .map(|group| (group.pod, group.usage.windows.as_slice()))
    }

    /// How often each page of a set went down, in the mean; the greatest of its parts. What was down before, by group, is left out.
    pub(crate) fn sinks(&self, pod: usize, set: Option<&str>, before: Option<&[u64]>) -> f64 {
        let first = self.pods[pod].groups.start;
        let of_set =
            |group: &Group| set.is_none_or(|name| self.sets[self.pods[pod].spec][group.set].name == name);
        self.groups[self.pods[pod].groups.clone()]
            .iter()
            .enumerate()
            .filter(|(_, group)| of_set(group))
            .map(|(index, group)| {
                let before = before.map_or(0, |before| before[first + index]);
                (group.usage.demoted - before) as f64 / group.part.pages.max(1) as f64
            })
            .fold(0.0, f64::max)
    }

    /// Pages that went down, by group.
    pub(crate) fn demoted_by_group(&self) -> Vec<u64> {
        self.groups.iter().map(|group| group.usage.demoted).collect()
    }

    /// Pages of a set that went down in all.
    pub(crate) fn demoted_of(&self, pod: usize, set: Option<&str>) -> u64 {
        self.groups_of(pod, set).map(|group| group.usage.demoted).sum()
    }
}

impl Group {
    /// What the policy has to answer for of what was touched of it on slow nodes in this minute: of what is touched all at once, each page may
    /// come back twice.
    fn answered_for(&mut self, pages: u64, now: Duration, policy: &Policy) -> u64 {
        let touched = self.usage.minute_slow_seen;
        let to_learn = (2 * pages).saturating_sub(self.usage.came_back);
        self.usage.came_back += touched;
        let touched = match self.part.activity {
            Activity::AtOnce { period, .. } if period > policy.demote.after_max => 0,
            Activity::AtOnce { .. } => touched.saturating_sub(to_learn),
            _ => touched,
        };
        // From the start of the world on, all use is known. What comes up later takes three scans, and the rate.
        let is_shift = self.began > Duration::from_mins(3);
        let bytes = (pages * PAGE) as f64;
        let moving = Duration::from_secs_f64(bytes / (policy.promote.max_rate.0.max(1) as f64 * 0.8));
        let comes_up = policy.demote.after * 3 / 2 + moving + Duration::from_mins(1);
        if is_shift && now.saturating_sub(self.began) <= comes_up { 0 } else { touched }
    }
}
