//! How a set of memory is used.

use std::time::Duration;

use api::WireDuration;
use serde::Deserialize;

/// How a set is used. Of `every`, `perSecond` and `zipf`, one; none of them is memory that is never touched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heat {
    /// All of it at once, this often.
    pub every: Option<WireDuration>,
    /// Each page at random times, so often a second in the mean.
    pub per_second: Option<f64>,
    /// Pages by Zipf's law with this exponent, with `accesses`.
    pub zipf: Option<f64>,
    /// Accesses a second to the whole set, for `zipf`.
    pub accesses: Option<f64>,
    /// Used from this time of the world on.
    pub from: Option<WireDuration>,
    /// Used until this time of the world.
    pub until: Option<WireDuration>,
    /// Used each day from this time, with `for`; the world begins at midnight.
    pub daily: Option<WireDuration>,
    /// So long each day.
    #[serde(rename = "for")]
    pub for_: Option<WireDuration>,
    /// One part of it is used at a time, the next one after this long, with `parts`.
    pub shifts: Option<WireDuration>,
    /// In so many parts.
    pub parts: Option<u32>,
}

/// When pages are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activity {
    /// Never.
    Never,
    /// Each page at random, so often a second.
    Random(f64),
    /// All pages at once, this often, first at the offset.
    AtOnce {
        /// Time between.
        period: Duration,
        /// The first time.
        offset: Duration,
    },
}

/// A part of a set whose pages have one heat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Its share of the set's pages.
    pub pages: u64,
    /// How it is used while it is.
    pub activity: Activity,
    /// Which of the shifting parts it belongs to.
    pub shift: u32,
}

impl Heat {
    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        let kinds = [self.every.is_some(), self.per_second.is_some(), self.zipf.is_some()];
        if kinds.into_iter().filter(|is| *is).count() > 1 {
            return Err("touched takes one of every, perSecond and zipf".to_owned());
        }
        if self.zipf.is_some() != self.accesses.is_some() {
            return Err(
                "zipf needs accesses, the accesses a second to the whole set, and the other way round"
                    .to_owned(),
            );
        }
        if self.daily.is_some() != self.for_.is_some() {
            return Err("daily needs for, how long it is used each day, and the other way round".to_owned());
        }
        if self.shifts.is_some() != self.parts.is_some() {
            return Err("shifts needs parts, and the other way round".to_owned());
        }
        if self.every.is_some_and(|every| every.0.is_zero())
            || self.shifts.is_some_and(|shifts| shifts.0.is_zero())
        {
            return Err("a period of no length".to_owned());
        }
        if self.parts == Some(0) {
            return Err("parts is 0".to_owned());
        }
        let negative = |value: Option<f64>| value.is_some_and(|value| !value.is_finite() || value < 0.0);
        if negative(self.per_second) || negative(self.zipf) || negative(self.accesses) {
            return Err("a negative number".to_owned());
        }
        Ok(())
    }

    /// The set's pages by heat. `jitter` scales periods and rates, `offset` in 0 to 1 is where in its first period a set
    /// is touched that is touched all at once.
    #[must_use]
    pub fn parts(&self, pages: u64, jitter: f64, offset: f64) -> Vec<Part> {
        let shifts = self.parts.unwrap_or(1);
        let mut parts = Vec::new();
        for shift in 0..shifts {
            let n = u64::from(shifts);
            let of_shift = pages * (u64::from(shift) + 1) / n - pages * u64::from(shift) / n;
            let part = |pages, activity| Part { pages, activity, shift };
            if let Some(every) = self.every {
                let period = every.0.mul_f64(jitter);
                parts.push(part(of_shift, Activity::AtOnce { period, offset: period.mul_f64(offset) }));
            } else if let Some(rate) = self.per_second {
                parts.push(part(of_shift, Activity::Random(rate * jitter)));
            } else if let (Some(exponent), Some(accesses)) = (self.zipf, self.accesses) {
                parts.extend(
                    zipf(of_shift, exponent, accesses * jitter)
                        .into_iter()
                        .map(|(pages, rate)| part(pages, Activity::Random(rate))),
                );
            } else {
                parts.push(part(of_shift, Activity::Never));
            }
        }
        parts
    }

    /// Whether a part is used at this time of the world.
    #[must_use]
    pub fn is_active(&self, shift: u32, now: Duration) -> bool {
        const DAY: u64 = 86_400_000;
        if self.from.is_some_and(|from| now < from.0) || self.until.is_some_and(|until| now >= until.0) {
            return false;
        }
        if let (Some(daily), Some(length)) = (self.daily, self.for_) {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let since = (ms(now) % DAY + DAY - ms(daily.0) % DAY) % DAY;
            if since >= ms(length.0) {
                return false;
            }
        }
        if let (Some(shifts), Some(parts)) = (self.shifts, self.parts) {
            let turn = now.as_nanos() / shifts.0.as_nanos().max(1) % u128::from(parts);
            return turn == u128::from(shift);
        }
        true
    }
}

/// Pages and accesses a second of each page, hottest first: `accesses` a second over `pages` pages, the page of rank r
/// in proportion to r to the power of minus `exponent`. Bins are a quarter wider from one to the next and hold at most 1/64
/// of all pages, so that within one, rates differ by a quarter at most.
fn zipf(pages: u64, exponent: f64, accesses: f64) -> Vec<(u64, f64)> {
    // The sum of k^-s for k in (a, b], by the integral with half-steps (error below 1 % from the first bin on).
    let mass = |a: u64, b: u64| {
        let (a, b) = (a as f64 + 0.5, b as f64 + 0.5);
        if (exponent - 1.0).abs() < 1e-9 {
            (b / a).ln()
        } else {
            (b.powf(1.0 - exponent) - a.powf(1.0 - exponent)) / (1.0 - exponent)
        }
    };
    let all = mass(0, pages);
    let widest = (pages / 64).max(1);
    let mut bins = Vec::new();
    // The first ranks have so few pages that one bin of them tells all: they are always hot.
    let (mut from, mut to) = (0, pages.min(64));
    while from < pages {
        let count = to - from;
        bins.push((count, accesses * mass(from, to) / all / count as f64));
        from = to;
        to = (from + (from / 4).clamp(1, widest)).min(pages);
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_keeps_pages_and_accesses() {
        for exponent in [0.8, 1.0, 1.2] {
            let bins = zipf(100_000, exponent, 5000.0);
            assert_eq!(bins.iter().map(|(pages, _)| pages).sum::<u64>(), 100_000);
            let accesses: f64 = bins.iter().map(|(pages, rate)| *pages as f64 * rate).sum();
            assert!((accesses - 5000.0).abs() < 1.0, "{accesses}");
            assert!(bins.windows(2).all(|pair| pair[0].1 > pair[1].1), "hottest first");
            assert!(bins.len() < 150, "{}", bins.len());
        }
    }

    #[test]
    fn parts_are_used_in_turn_and_by_the_clock() {
        let hours = |n: u64| WireDuration(Duration::from_hours(n));
        let shifting = Heat { shifts: Some(hours(1)), parts: Some(2), ..Heat::default() };
        let at = |h: u64| Duration::from_hours(h);
        assert_eq!([0, 1, 2].map(|h| shifting.is_active(1, at(h))), [false, true, false]);
        let nightly = Heat { daily: Some(hours(23)), for_: Some(hours(2)), ..Heat::default() };
        assert_eq!(
            [22, 23, 24, 25, 26].map(|h| nightly.is_active(0, at(h))),
            [false, true, true, false, false]
        );
    }
}
