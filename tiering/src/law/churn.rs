//! Stops what only moves to and fro.
//!
//! # Problem
//! Where a working set is greater than its DRAM, what comes up pushes down what is needed next; each page that moves costs, and
//! nothing is gained. The kernel's promotion knows no ceiling and no cgroup.
//!
//! # Approach
//! Nomad (OSDI 2024) stops where promotions and demotions stay high and the hit ratio does not improve. In each window,
//! what went both ways counts; where that is much and the touches on slow nodes did not become fewer, promotion stops.
//! After a pause it is tried again at a trickle; a try that only moves to and fro makes the next pause twice as long.
//!
//! # Properties
//! - `churn_stops_within_a_minute`.
//! - `retries_are_ever_rarer`, and a trickle.
//! - `progress_is_no_churn`.

use core::time::Duration;

use crate::units::{ByteRate, Bytes, Instant};

const WINDOW: Duration = Duration::from_secs(20);
const TRIAL: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_mins(2);
const LONGEST_PAUSE: Duration = Duration::from_hours(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Paused { until: Instant },
    Trial,
}

/// What moved of one cgroup, and whether it has to pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breaker {
    phase: Phase,
    began: Instant,
    up: Bytes,
    down: Bytes,
    /// Touched per minute on slow nodes as of the window's begin; `None` before the first window ends.
    touched: Option<Bytes>,
    pause: Duration,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Free,
            began: now,
            up: Bytes::ZERO,
            down: Bytes::ZERO,
            touched: None,
            pause: FIRST_PAUSE,
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
        if let Phase::Paused { until } = self.phase {
            if now < until {
                return;
            }
            self.phase = Phase::Trial;
            self.begin(touched, now);
        }
        let window = if self.phase == Phase::Trial { TRIAL } else { WINDOW };
        if now.since(self.began) < window {
            return;
        }
        let both = self.up.min(self.down);
        // A thousandth of all: below that, it costs nobody anything.
        let much = match self.phase {
            Phase::Trial => both.0 > self.up.0 / 2 && !self.up.is_zero(),
            Phase::Free | Phase::Paused { .. } => both > Bytes(footprint.0 / 1000).max(Bytes::mib(4)),
        };
        let gained = self.touched.is_none_or(|before| touched.0 < before.0 / 4 * 3);
        if much && !gained {
            self.phase = Phase::Paused { until: now + self.pause };
            self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        } else if self.phase == Phase::Trial && !self.up.is_zero() {
            (self.phase, self.pause) = (Phase::Free, FIRST_PAUSE);
        }
        self.begin(touched, now);
    }

    fn begin(&mut self, touched: Bytes, now: Instant) {
        (self.began, self.up, self.down, self.touched) = (now, Bytes::ZERO, Bytes::ZERO, Some(touched));
    }

    /// What may be promoted per second of a cgroup of this footprint, where the policy allows `most`: in a trial, a third of a percent a
    /// minute.
    pub(super) fn allows(&self, most: ByteRate, footprint: Bytes) -> ByteRate {
        match self.phase {
            Phase::Free => most,
            Phase::Paused { .. } => ByteRate(0),
            Phase::Trial => ByteRate(footprint.0 / 20_000).max(ByteRate(1 << 18)).min(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: ByteRate = ByteRate::mib_per_s(200);
    const FOOTPRINT: Bytes = Bytes::mib(8192);

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    /// Seconds in which promotion was free, or on trial, of an hour in which all that comes up goes down again.
    fn churned() -> (u64, u64, Bytes) {
        let mut breaker = Breaker::new(at(0));
        let (mut free, mut trial, mut moved) = (0, 0, Bytes::ZERO);
        for second in 0..3600 {
            let rate = breaker.allows(MOST, FOOTPRINT);
            free += u64::from(rate == MOST);
            trial += u64::from(rate > ByteRate(0) && rate < MOST);
            breaker.moved_up(Bytes(rate.0));
            breaker.moved_down(Bytes(rate.0));
            if second >= 60 {
                moved += Bytes(rate.0);
            }
            breaker.tick(FOOTPRINT, Bytes::mib(1000), at(second));
        }
        (free, trial, moved)
    }

    #[test]
    fn churn_stops_within_a_minute() {
        let (free, _, moved) = churned();
        assert!(free <= 60, "{free} s");
        assert!(moved < Bytes(FOOTPRINT.0 / 50), "{moved} in the hour after the first minute");
    }

    #[test]
    fn retries_are_ever_rarer() {
        let (_, trial, _) = churned();
        // Pauses of 2, 4, 8, 16 minutes fit into the hour, each followed by a minute's trial.
        assert!(trial <= 5 * 62, "{trial} s");
    }

    #[test]
    fn progress_is_no_churn() {
        let mut breaker = Breaker::new(at(0));
        let mut touched = Bytes::mib(1 << 20);
        for second in 0..300 {
            breaker.moved_up(Bytes::mib(100));
            breaker.moved_down(Bytes::mib(100));
            touched = Bytes(touched.0 / 100 * 98);
            breaker.tick(FOOTPRINT, touched, at(second));
            assert_eq!(breaker.allows(MOST, FOOTPRINT), MOST, "{second} s");
        }
    }
}
