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

#[cfg(test)]
mod tests {
    use crate::world::{Activity, Heat};

    const PAGES: u64 = 16 << 20;

    /// Slow accesses over the oracle's of a law that has counted each access of each page since the beginning and keeps those
    /// down that it saw least of, `share` of all; pages alike are drawn at random. Nobody can know more of pages that are touched at random.
    fn counted(zipf: f64, share: f64, seconds: f64) -> f64 {
        let heat = Heat { zipf: Some(zipf), accesses: Some(1e6), ..Heat::default() };
        let rate = |activity| if let Activity::Random(rate) = activity { rate } else { 0.0 };
        let mut parts: Vec<(f64, f64)> =
            heat.parts(PAGES, 1.0, 0.0).iter().map(|part| (part.pages as f64, rate(part.activity))).collect();
        parts.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut left = PAGES as f64 * share;
        let mut oracle = 0.0;
        for (pages, rate) in &parts {
            oracle += rate * pages.min(left);
            left -= pages.min(left);
        }
        // Of each part, the chance to have been seen `count` times (Poisson).
        let mut chances: Vec<f64> = parts.iter().map(|(_, rate)| (-rate * seconds).exp()).collect();
        let (mut left, mut slow) = (PAGES as f64 * share, 0.0);
        for count in 1.. {
            let seen = |of: fn(f64, f64) -> f64| -> f64 {
                parts.iter().zip(&chances).map(|((pages, rate), chance)| of(*pages, *rate) * chance).sum()
            };
            let (pages, accesses) = (seen(|pages, _| pages), seen(|pages, rate| pages * rate));
            let part = (left / pages.max(1.0)).min(1.0);
            slow += accesses * part;
            left -= pages * part;
            if left < 1.0 {
                break;
            }
            for (chance, (_, rate)) in chances.iter_mut().zip(&parts) {
                *chance *= rate * seconds / f64::from(count);
            }
        }
        slow / oracle
    }

    fn in_second_half(zipf: f64, share: f64, hours: f64) -> f64 {
        let n = 8;
        let at = |i: i32| hours * 3600.0 * (0.5 + (f64::from(i) + 0.5) / f64::from(2 * n));
        (0..n).map(|i| counted(zipf, share, at(i))).sum::<f64>() / f64::from(n)
    }

    #[test]
    fn in_two_hours_nobody_knows_the_coldest_quarter_of_zipf_1_2() {
        assert!(in_second_half(1.2, 0.25, 2.0) > 1.2);
        assert!(in_second_half(1.2, 0.25, 12.0) < 1.1);
        assert!(in_second_half(1.2, 0.5, 2.0) < 1.15);
        assert!(in_second_half(1.0, 0.25, 2.0) < 1.1);
    }
}
