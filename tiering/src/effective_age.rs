//! The age at which this cgroup's memory really is cold.
//!
//! # Problem
//! A policy's `after` is a guess. Memory that is revisited a little less often than that goes down, comes back and goes
//! down again, for ever (a shell loop at 30 s beside a set touched every 30 s does just that).
//!
//! # Approach
//! Every demotion is an experiment: memory that comes back soon after it says that its revisit period is longer than
//! the age we used, and how long it is. So a comeback lengthens the age at once, past the period it shows; quiet time
//! shortens it slowly, to find memory whose behaviour changed. Each comeback doubles the quiet that the next shortening
//! takes, so that the count of wrong demotions grows with the logarithm of time, not with time.
//!
//! # Properties
//! - Bounds: never below `after`, never above `after_max`.
//! - A comeback never shortens; quiet never lengthens.
//! - After a comeback of memory with revisit period `p`, the age is above `p` (as far as `after_max` allows).

use core::time::Duration;

use crate::units::Instant;

/// The adaptive age of one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveAge {
    after: Duration,
    after_max: Duration,
    current: Duration,
    /// When the age last changed or memory last came back.
    quiet_since: Instant,
    /// Quiet that one shortening takes, as a multiple of the current age.
    patience: u32,
    comebacks: u64,
}

impl EffectiveAge {
    /// Quiet of this many ages comes before the first shortening.
    const PATIENCE: u32 = 8;
    /// Patience stops doubling here; at the default age of two minutes that is 17 hours.
    const PATIENCE_MAX: u32 = 1 << 9;

    /// Starts at the policy's `after`.
    #[must_use]
    pub fn new(after: Duration, after_max: Duration, now: Instant) -> Self {
        Self {
            after,
            after_max: after_max.max(after),
            current: after,
            quiet_since: now,
            patience: Self::PATIENCE,
            comebacks: 0,
        }
    }

    /// Adopts new bounds and keeps what was learned as far as they allow; where nothing was, the age is the new `after`.
    pub fn set_bounds(&mut self, after: Duration, after_max: Duration) {
        let learned = if self.is_lengthened() { self.current } else { after };
        self.after = after;
        self.after_max = after_max.max(after);
        self.current = learned.clamp(self.after, self.after_max);
    }

    /// The age.
    #[must_use]
    pub fn get(&self) -> Duration {
        self.current
    }

    /// How often memory came back.
    #[must_use]
    pub fn comebacks(&self) -> u64 {
        self.comebacks
    }

    /// Whether experience has made it longer than the policy asks.
    #[must_use]
    pub fn is_lengthened(&self) -> bool {
        self.current > self.after
    }

    /// Memory came back that had been demoted at most `since_demotion` ago. It was found idle for the current age at a
    /// scan, so half an age more at the most: its revisit period is at most the sum of the three.
    pub fn came_back(&mut self, since_demotion: Duration, now: Instant) {
        let period = self.current.saturating_add(self.current / 2).saturating_add(since_demotion);
        let past_it = period.saturating_add(period / 8);
        self.current = self.current.saturating_mul(2).max(past_it).clamp(self.after, self.after_max);
        self.quiet_since = now;
        self.comebacks += 1;
        self.patience = self.patience.saturating_mul(2).min(Self::PATIENCE_MAX);
    }

    /// Nothing came back: after enough of it, one eighth shorter.
    pub fn quiet(&mut self, now: Instant) {
        if self.is_lengthened() && now.since(self.quiet_since) >= self.current.saturating_mul(self.patience) {
            self.current = self.current.saturating_sub(self.current / 8).max(self.after);
            self.quiet_since = now;
        }
    }
}
