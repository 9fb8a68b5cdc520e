//! When to write which node.
//!
//! **Problem.** A rollout changes a hundred pods of a node within seconds; each change should reach the node within 250 ms, in few
//! writes, and a node whose write fails must hold up no other.
//!
//! **Approach.** A change waits until no other has followed for a moment, but not for long. After a write, the next waits until
//! [`SPACING`] after the last one began.
//! One write of a node at a time, a bounded number of all; a failed one backs off alone. A change that is to wait is written with
//! whatever is written before.
//!
//! Pure: every function that needs the time takes `now`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::index::Name;

/// A change is written when no other has followed it for this long.
pub const SETTLE: Duration = Duration::from_millis(20);
/// A change waits no longer than this for those that follow it.
pub const LONGEST_SETTLE: Duration = Duration::from_millis(100);
/// From the beginning of a node's write to that of its next.
pub const SPACING: Duration = Duration::from_millis(150);
/// Writes under way at a time.
pub const MOST_IN_FLIGHT: usize = 16;
/// After a failed write; doubles each time.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest backoff.
pub const LAST_BACKOFF: Duration = Duration::from_mins(1);

/// Nodes that wait for a write, or are being written.
#[derive(Debug, Default)]
pub struct NodeWrites {
    nodes: BTreeMap<Name, PendingNode>,
    /// Nodes with a change that are not being written, by when they are due.
    due: BTreeSet<(Instant, Name)>,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct PendingNode {
    /// The first change that is not written.
    changed: Option<Changed>,
    /// When the first is due of those that are to wait.
    later: Option<Instant>,
    /// When it is due, while it is in `due`.
    due: Option<Instant>,
    in_flight: bool,
    /// When the last write began.
    began: Option<Instant>,
    failures: u32,
    /// Not before this, after a failure.
    held_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Changed {
    first: Instant,
    last: Instant,
    /// When the event came, where there was one.
    event: Option<Instant>,
}

/// A node that is to be written now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub node: Name,
    /// When the first event came that the write is for; `None` where it is for no event, as after a start.
    pub event: Option<Instant>,
}

impl NodeWrites {
    /// Something changed for a node, `event` being when the event came that says so.
    pub fn changed(&mut self, node: &Name, event: Option<Instant>, now: Instant) {
        let state = self.nodes.entry(Name::clone(node)).or_default();
        let before = state.changed;
        state.changed = Some(Changed {
            first: before.map_or(now, |before| before.first),
            last: now,
            event: before.and_then(|before| before.event).or(event),
        });
        self.schedule(node);
    }

    /// Something changed for a node that may wait until then.
    pub fn changed_later(&mut self, node: &Name, until: Instant) {
        let state = self.nodes.entry(Name::clone(node)).or_default();
        state.later = Some(state.later.map_or(until, |known| known.min(until)));
        self.schedule(node);
    }

    /// When the next write is due, unless as many as may be are under way.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        (self.in_flight < MOST_IN_FLIGHT).then_some(*due)
    }

    /// The next node to write now. [`Self::finished`] must follow.
    pub fn take_due(&mut self, now: Instant) -> Option<Due> {
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let (_, node) = self.due.pop_first()?;
        let state = self.nodes.get_mut(&node)?;
        state.due = None;
        state.in_flight = true;
        state.began = Some(now);
        state.later = None;
        self.in_flight += 1;
        let event = state.changed.take().and_then(|changed| changed.event);
        Some(Due { node, event })
    }

    /// The write of a node ended. What failed, is to be written again.
    pub fn finished(&mut self, due: &Due, succeeded: bool, now: Instant) {
        let Some(state) = self.nodes.get_mut(&due.node) else { return };
        state.in_flight = false;
        self.in_flight -= 1;
        if succeeded {
            state.failures = 0;
            state.held_until = None;
        } else {
            let backoff = FIRST_BACKOFF.saturating_mul(1 << state.failures.min(16)).min(LAST_BACKOFF);
            state.failures += 1;
            state.held_until = Some(now + backoff);
            let changed = state.changed;
            state.changed = Some(Changed {
                first: changed.map_or(now, |changed| changed.first),
                last: changed.map_or(now, |changed| changed.last),
                event: due.event.or(changed.and_then(|changed| changed.event)),
            });
        }
        self.schedule(&due.node);
    }

    /// There was nothing to write after all. Follows [`Self::take_due`] in place of [`Self::finished`].
    pub fn unneeded(&mut self, due: &Due) {
        if let Some(state) = self.nodes.get_mut(&due.node) {
            state.in_flight = false;
            state.began = None;
            state.failures = 0;
            state.held_until = None;
            self.in_flight -= 1;
        }
        self.schedule(&due.node);
    }

    /// Forgets a node that is no more, unless something waits for it.
    pub fn forget(&mut self, node: &Name) {
        if self
            .nodes
            .get(node)
            .is_some_and(|state| !state.in_flight && state.changed.is_none() && state.later.is_none())
        {
            self.nodes.remove(node);
        }
    }

    /// Forgets all that waits: another writes from here on.
    pub fn clear(&mut self) {
        self.due.clear();
        for state in self.nodes.values_mut() {
            state.changed = None;
            state.later = None;
            state.due = None;
        }
        self.nodes.retain(|_, state| state.in_flight);
    }

    /// Nodes that wait, but for those whose changes are to.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.nodes.values().filter(|state| state.changed.is_some()).count()
    }

    /// How long the change has waited that waits longest.
    #[must_use]
    pub fn oldest_waiting(&self, now: Instant) -> Duration {
        let first = self.nodes.values().filter_map(|state| state.changed.map(|changed| changed.first)).min();
        first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first))
    }

    /// Writes under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn schedule(&mut self, node: &Name) {
        let Some(state) = self.nodes.get_mut(node) else { return };
        if let Some(due) = state.due.take() {
            self.due.remove(&(due, Name::clone(node)));
        }
        if state.in_flight {
            return;
        }
        let settled = |changed: Changed| (changed.last + SETTLE).min(changed.first + LONGEST_SETTLE);
        let Some(settled) = state.changed.map(settled).into_iter().chain(state.later).min() else { return };
        let spaced = state.began.map(|began| began + SPACING);
        let due = [spaced, state.held_until].into_iter().flatten().fold(settled, Instant::max);
        state.due = Some(due);
        self.due.insert((due, Name::clone(node)));
    }
}

#[cfg(test)]
mod tests;
