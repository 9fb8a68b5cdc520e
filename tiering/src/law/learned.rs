//! What was learned of a cgroup, as it outlives the agent and is shared by replicas of one workload.
//!
//! # Problem
//! An agent that starts anew, and a new replica of a workload that is known, would make all wrong descents again.
//!
//! # Approach
//! What the minutes of a day wanted ([`super::touches`]) and the day's working set, as plain numbers of bounded size. Of two lessons the more careful counts for
//! the age. What another version wrote, or is out of bounds, is dropped.
//!
//! # Properties
//! - `what_was_learned_counts_for_a_replica`.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::touches::{LADDER, TouchLaw};
use crate::units::Bytes;

/// What was learned. Plain numbers of bounded size; a reader drops what has another version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// [`Learned::VERSION`] of the writer.
    pub version: u32,
    /// Weight of the minutes that wanted each age of the ladder, youngest first; see [`super::touches`].
    pub wanted: Vec<u32>,
    /// The day's working set in bytes.
    pub working_set: u64,
    /// Seconds for which the cgroup was watched, all agents together.
    pub watched_seconds: u64,
}

impl Learned {
    /// Changes whenever the meaning of a field does.
    pub const VERSION: u32 = 1;

    /// Whether it can be used here: of this version, and within bounds.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.version == Self::VERSION && self.wanted.len() <= LADDER
    }

    /// The lesson of two replicas: the more careful one counts for the age, the one watched longer for its weight.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        match (self.is_usable(), other.is_usable()) {
            (false, false) => return Self::default(),
            (true, false) => return self.clone(),
            (false, true) => return other.clone(),
            (true, true) => {}
        }
        let len = self.wanted.len().max(other.wanted.len());
        let at = |of: &Self, i: usize| of.wanted.get(i).copied().unwrap_or(0);
        Self {
            version: Self::VERSION,
            wanted: (0..len).map(|i| at(self, i).max(at(other, i))).collect(),
            working_set: self.working_set.max(other.working_set),
            watched_seconds: self.watched_seconds.max(other.watched_seconds),
        }
    }

    pub(super) fn of(touches: &TouchLaw, watched: Duration) -> Self {
        Self {
            version: Self::VERSION,
            wanted: touches.wanted().to_vec(),
            working_set: touches.working_set().0,
            watched_seconds: watched.as_secs(),
        }
    }

    pub(super) fn working_set(&self) -> Bytes {
        Bytes(self.working_set)
    }
}
