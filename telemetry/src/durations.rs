//! Durations by how long they are.

use std::time::Duration;

use serde::Serialize;

/// Upper bounds of what is counted together, in seconds.
pub const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Durations, counted by [`BOUNDS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Durations {
    /// How many were at most as long as each of the bounds, and longer than the one before; the last are longer than all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_at_the_least_bound_that_holds_it() {
        let mut durations = Durations::default();
        for millis in [1, 2, 250, 11_000] {
            durations.add(Duration::from_millis(millis));
        }
        let mut expected = [0; BOUNDS.len() + 1];
        for place in [0, 1, 8, BOUNDS.len()] {
            expected[place] = 1;
        }
        assert_eq!(durations.counts, expected);
        assert!((durations.sum - 11.253).abs() < 1e-9);
    }
}
