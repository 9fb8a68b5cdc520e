//! How much memory has gone unaccessed for how long.

use alloc::vec::Vec;
use core::time::Duration;

use crate::sample::Generation;
use crate::units::Bytes;

/// Anonymous bytes by the least time since their last access, oldest first. An entry's true age may be greater.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgeHistogram(Vec<(Duration, Bytes)>);

impl AgeHistogram {
    /// From pairs of least age and bytes, in any order.
    pub fn new(entries: impl IntoIterator<Item = (Duration, Bytes)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().filter(|(_, bytes)| !bytes.is_zero()).collect();
        entries.sort_unstable_by_key(|(age, _)| core::cmp::Reverse(*age));
        entries.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        Self(entries)
    }

    /// The least age of each generation's memory, oldest generation first.
    ///
    /// A walk moves what was accessed into the generation that is newest at that time and then begins a new one. So
    /// a page in generation `g` was last known to be accessed before `g + 1` was begun: that generation's birth age
    /// is the least age of `g`'s pages. The newest generation's pages may have been accessed now.
    pub fn of_generations(generations: &[Generation]) -> impl Iterator<Item = (Duration, Bytes)> + '_ {
        let births =
            generations.iter().skip(1).map(|next| next.birth_age).chain(core::iter::once(Duration::ZERO));
        generations.iter().zip(births).map(|(generation, least_age)| (least_age, generation.anon))
    }

    /// Bytes not accessed for at least `age`.
    #[must_use]
    pub fn at_least(&self, age: Duration) -> Bytes {
        self.0.iter().take_while(|(least, _)| *least >= age).map(|(_, bytes)| *bytes).sum()
    }

    /// All bytes.
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.at_least(Duration::ZERO)
    }

    /// Entries of least age and bytes, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[(Duration, Bytes)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn generation(seq: u64, birth_s: u64, anon_mib: u64) -> Generation {
        Generation {
            seq,
            birth_age: Duration::from_secs(birth_s),
            anon: Bytes::mib(anon_mib),
            file: Bytes::ZERO,
        }
    }

    #[test]
    fn a_generation_is_as_old_as_its_successor() {
        let histogram = AgeHistogram::new(AgeHistogram::of_generations(&[
            generation(4, 90, 300),
            generation(5, 60, 40),
            generation(6, 30, 0),
            generation(7, 1, 100),
        ]));
        let check = |age_s, mib| {
            assert_eq!(histogram.at_least(Duration::from_secs(age_s)), Bytes::mib(mib), "{age_s} s");
        };
        check(0, 440);
        check(1, 340);
        check(30, 340);
        check(31, 300);
        check(60, 300);
        check(61, 0);
    }

    #[test]
    fn entries_of_one_age_are_one() {
        let s = Duration::from_secs;
        let histogram =
            AgeHistogram::new([(s(5), Bytes(1)), (s(9), Bytes(2)), (s(5), Bytes(3)), (s(7), Bytes(0))]);
        assert_eq!(histogram.entries(), vec![(s(9), Bytes(2)), (s(5), Bytes(4))]);
    }
}
