//! Stops what only moves to and fro.
//!
//! # Problem
//! Where a working set is greater than its DRAM, what comes up pushes down what is needed next; each page that moves costs, and
//! nothing is gained. The kernel's promotion knows no ceiling and no cgroup.
//!
//! # Approach
//! Nomad (OSDI 2024) stops where promotions and demotions stay high and the hit ratio does not improve. In each window,
//! what went both ways counts; where that is much and the touches on slow nodes did not become fewer, promotion stops.
//! It is tried again after a pause, each time twice as long as the one before, until a try goes well.
//!
//! # Properties
//! - `churn_stops_within_a_minute`, and comes back for no longer than a window at a time.
//! - `retries_are_ever_rarer`.
//! - `progress_is_no_churn`.

use core::time::Duration;

use crate::units::{Bytes, Instant};

const WINDOW: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_mins(2);
const LONGEST_PAUSE: Duration = Duration::from_hours(2);

/// What moved of one cgroup, and whether it has to pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breaker {
    began: Instant,
    up: Bytes,
    down: Bytes,
    /// Touched per minute on slow nodes as of the window's begin.
    touched: Bytes,
    pause: Duration,
    until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            up: Bytes::ZERO,
            down: Bytes::ZERO,
            touched: Bytes::ZERO,
            pause: FIRST_PAUSE,
            until: None,
        }
    }

    pub(super) fn moved_up(&mut self, bytes: Bytes) {
        self.up += bytes;
    }

    pub(super) fn moved_down(&mut self, bytes: Bytes) {
        self.down += bytes;
    }

    /// Closes a window that is over.
    pub(super) fn tick(&mut self, footprint: Bytes, touched: Bytes, now: Instant) {
        if now.since(self.began) < WINDOW {
            return;
        }
        let both = self.up.min(self.down);
        // A thousandth of all: below that, it costs nobody anything.
        let much = both > Bytes(footprint.0 / 1000).max(Bytes::mib(4));
        let gained = touched.0 < self.touched.0 / 4 * 3;
        if much && !gained {
            self.until = Some(now + self.pause);
            self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        } else if self.until.is_some_and(|until| now.since(until) >= self.pause) {
            (self.until, self.pause) = (None, FIRST_PAUSE);
        }
        (self.began, self.up, self.down, self.touched) = (now, Bytes::ZERO, Bytes::ZERO, touched);
    }

    /// Whether promotion pauses.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}
