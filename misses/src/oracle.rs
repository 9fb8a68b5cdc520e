//! The oracle: with as many pages on slow memory as there were, the least that could have been missed there by a placement that
//! never changes, told the whole run beforehand: the pages that missed least are the slow ones.

use crate::line::Pages;

/// Misses to slow memory that the best placement has, if `slow` of `all` pages are slow. `missed` are the pages that missed at all, in
/// any order; those of `all` that are not among them missed never.
#[must_use]
pub fn least(missed: &[Pages], all: u64, slow: u64) -> u64 {
    let mut missed = missed.to_vec();
    missed.sort_by_key(|pages| pages.misses);
    let ever: u64 = missed.iter().map(|pages| pages.pages).sum();
    let mut left = slow.saturating_sub(all.saturating_sub(ever));
    let mut least = 0;
    for Pages { misses, pages } in missed {
        let taken = pages.min(left);
        least += taken * misses;
        left -= taken;
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSED: [Pages; 2] = [Pages { misses: 100, pages: 10 }, Pages { misses: 1, pages: 20 }];

    #[test]
    fn the_pages_that_missed_least_are_the_slow_ones() {
        for (slow, least_misses) in [(0, 0), (70, 0), (80, 10), (90, 20), (91, 120), (100, 1020), (200, 1020)]
        {
            assert_eq!(least(&MISSED, 100, slow), least_misses, "{slow}");
        }
    }
}
