//! One line of JSON for each ring: the counts since the start.

use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Accesses, and what of them missed the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Instructions that loaded.
    pub loads: u64,
    /// Instructions that stored.
    pub stores: u64,
    /// Misses to fast memory.
    pub fast: u64,
    /// Misses to slow memory.
    pub slow: u64,
}

impl Counts {
    /// All misses.
    #[must_use]
    pub fn misses(self) -> u64 {
        self.fast + self.slow
    }

    /// The slow share of the misses, 0 where nothing missed.
    #[must_use]
    pub fn slow_share(self) -> f64 {
        if self.misses() == 0 { 0.0 } else { self.slow as f64 / self.misses() as f64 }
    }

    /// What the misses to slow memory would have added to a run of that many nanoseconds, as a share of it, where each takes
    /// `extra_ns` longer than one to fast memory. Nothing is taken to overlap.
    #[must_use]
    pub fn slowdown(self, extra_ns: f64, run_ns: f64) -> f64 {
        self.slow as f64 * extra_ns / run_ns
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.loads += more.loads;
        self.stores += more.stores;
        self.fast += more.fast;
        self.slow += more.slow;
    }
}

impl Sub for Counts {
    type Output = Self;

    /// What was counted since `before`.
    fn sub(self, before: Self) -> Self {
        Self {
            loads: self.loads - before.loads,
            stores: self.stores - before.stores,
            fast: self.fast - before.fast,
            slow: self.slow - before.slow,
        }
    }
}

/// So many pages missed so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Misses of each.
    pub misses: u64,
    /// How many pages.
    pub pages: u64,
}

/// What is written at a ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The word that was read.
    pub mark: u64,
    /// By slot.
    pub slots: Vec<Counts>,
    /// Programs' accesses outside of the slots.
    pub programs: Counts,
    /// The kernel's own.
    pub kernel: Counts,
    /// By slot, the pages that missed at all; at [`crate::END`] only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Vec<Pages>>,
}

impl Line {
    /// The sum of some slots.
    #[must_use]
    pub fn of_slots(&self, slots: std::ops::Range<usize>) -> Counts {
        let mut sum = Counts::default();
        for counts in self.slots.get(slots).into_iter().flatten() {
            sum += *counts;
        }
        sum
    }

    /// As it is written, without the line's end.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what was written, line by line.
    ///
    /// # Errors
    /// Names the line that is none.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let parse = |(at, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))
        };
        text.lines().enumerate().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowdown_is_the_time_of_the_slow_misses_beside_the_run() {
        let counts = Counts { fast: 900, slow: 100, ..Counts::default() };
        assert!((counts.slow_share() - 0.1).abs() < 1e-12);
        assert!((counts.slowdown(150.0, 1e6) - 0.015).abs() < 1e-12);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let good = serde_json::to_string(&Line::default()).unwrap();
        assert!(Line::parse_all(&format!("{good}\n{{\n")).unwrap_err().starts_with("line 2:"));
    }
}
