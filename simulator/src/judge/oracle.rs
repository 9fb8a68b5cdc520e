//! The best that any policy could do.
//!
//! # Problem
//! What a saving must cost depends on the world: slow accesses alone say nothing about a law.
//!
//! # Approach
//! The oracle knows how often each group of pages is accessed in each minute, and has as many bytes on slow nodes as the law
//! had then: those with the fewest accesses a page. It moves for nothing and at once. So no policy is better, and few come near where sets
//! are touched all at once, for it holds them down in between.

use crate::host::Host;

/// Slow accesses of a law and of the oracle at the same saving.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regret {
    /// The law's.
    pub ours: f64,
    /// The oracle's.
    pub oracle: f64,
    /// All accesses.
    pub accesses: f64,
    /// Pages saved, in the mean.
    pub saved: f64,
    /// Pages that could be moved, in the mean.
    pub movable: f64,
}

impl Regret {
    /// Of the second half of a run: what the law does once it knows the world.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let windows = host.movable_windows().map(|(_, windows)| windows.len()).max().unwrap_or(0);
        let mut regret = Self::default();
        for at in windows / 2..windows {
            let mut groups: Vec<_> = host
                .movable_windows()
                .filter_map(|(_, windows)| windows.get(at))
                .filter(|w| w.pages > 0.0)
                .collect();
            let density = |window: &crate::host::Window| window.accesses / window.pages;
            groups.sort_by(|a, b| density(a).total_cmp(&density(b)));
            let mut saved: f64 = groups.iter().map(|window| window.slow).sum();
            regret.saved += saved;
            for window in groups {
                regret.ours += window.slow_accesses;
                regret.accesses += window.accesses;
                regret.movable += window.pages;
                let down = saved.min(window.pages);
                saved -= down;
                regret.oracle += window.accesses * down / window.pages;
            }
        }
        let n = (windows - windows / 2).max(1) as f64;
        regret.saved /= n;
        regret.movable /= n;
        regret
    }

    /// How many times the oracle's slow accesses; none over none is 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        // Below one access in a million, both are none.
        let least = (self.accesses * 1e-6).max(f64::MIN_POSITIVE);
        (self.ours + least) / (self.oracle + least)
    }

    /// Share of accesses that are slow.
    #[must_use]
    pub fn slow_share(&self) -> f64 {
        self.ours / self.accesses.max(f64::MIN_POSITIVE)
    }

    /// Share of the movable memory that is saved.
    #[must_use]
    pub fn saved_share(&self) -> f64 {
        self.saved / self.movable.max(1.0)
    }
}
