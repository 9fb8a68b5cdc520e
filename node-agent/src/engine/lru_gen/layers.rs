//! How long memory of one cgroup on one node has gone untouched, as many readings of its generations tell.
//!
//! # Problem
//! There are at most four generations. Whoever opens a fifth, a walk or the kernel's own reclaim, merges the two oldest, and the
//! birth of what is left proves less than was known before.
//!
//! # Approach
//! A reading adds layers: so many pages of a generation were not touched after a moment. A layer stays what it is when its
//! generation is merged into the next. What a generation has lost since is taken from its oldest layers, what it has gained counts as
//! touched now. So for each age the pages are a least number. Which of a generation's pages an eviction takes first is not known:
//! [`Old::youngest`] is the least age that it may meet.
//!
//! # Properties
//! - `what_was_known_outlives_a_merger`
//! - `what_leaves_is_taken_from_the_oldest`
//! - `what_arrives_is_young`

use std::time::Duration;

use host::lru_gen::Generation;
use tiering::Instant;

/// More layers than this are merged, to the younger age.
const MOST_LAYERS: usize = 16;

/// Generations are older than this process; its clock begins with it.
const BEFORE_OUR_START: Duration = Duration::from_hours(24 * 365);

fn moment(now: Instant) -> Duration {
    now.0 + BEFORE_OUR_START
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    /// Oldest first.
    aged: Vec<Layer>,
    /// In the newest generation: touched at any time up to now.
    #[cfg(test)]
    young: u64,
    newest: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    /// The generation it is in.
    seq: u64,
    /// Not touched after this moment.
    untouched: Duration,
    pages: u64,
}

/// Memory that may be evicted: it is at the end of the lists of all generations up to `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) seq: u64,
    pub(super) pages: u64,
    /// Age of the oldest.
    pub(super) oldest: Duration,
    /// Age of the youngest in these generations, which may be younger than what was asked for: the kernel takes that first, for
    /// each merger turns the order of the older generation round (`inc_min_seq` moves tail after tail).
    pub(super) youngest: Duration,
}

impl Layers {
    /// Takes in a reading of all generations, oldest first.
    pub(super) fn read(&mut self, generations: &[Generation], now: Instant) {
        let (before, now) = (std::mem::take(self), moment(now));
        let (Some(oldest), Some(newest)) = (generations.first(), generations.last()) else { return };
        let mut known =
            before.aged.into_iter().map(|layer| Layer { seq: layer.seq.max(oldest.seq), ..layer }).peekable();
        for pair in generations.windows(2) {
            let (generation, next) = (pair[0], pair[1]);
            let first = self.aged.len();
            while let Some(layer) = known.next_if(|layer| layer.seq <= generation.seq) {
                self.aged.push(Layer { seq: generation.seq, ..layer });
            }
            let known: u64 = self.aged[first..].iter().map(|layer| layer.pages).sum();
            let mut left = known.saturating_sub(generation.anon_pages);
            for layer in &mut self.aged[first..] {
                let gone = left.min(layer.pages);
                (layer.pages, left) = (layer.pages - gone, left - gone);
            }
            // What was counted here before as another generation's came with a merger.
            let counted = before.newest.is_some_and(|newest| generation.seq < newest);
            let untouched =
                if counted { now } else { now.saturating_sub(Duration::from_millis(next.birth_age_ms)) };
            let untouched = self.aged.last().map_or(untouched, |last| last.untouched.max(untouched));
            let pages = generation.anon_pages.saturating_sub(known);
            self.aged.push(Layer { seq: generation.seq, untouched, pages });
        }
        self.aged.retain(|layer| layer.pages > 0);
        #[cfg(test)]
        {
            self.young = newest.anon_pages;
        }
        self.newest = Some(newest.seq);
        self.bound();
    }

    /// Merges those that are nearest in age until they are few.
    fn bound(&mut self) {
        while self.aged.len() > MOST_LAYERS {
            let gap = |i: &usize| match (&self.aged[*i], &self.aged[*i + 1]) {
                (a, b) if a.seq == b.seq => b.untouched.saturating_sub(a.untouched),
                _ => Duration::MAX,
            };
            let Some(i) = (0..self.aged.len() - 1).min_by_key(gap) else { return };
            self.aged[i + 1].pages += self.aged[i].pages;
            self.aged.remove(i);
        }
    }

    /// Least ages and pages, oldest first.
    #[cfg(test)]
    fn ages(&self, now: Instant) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let layers = self.aged.iter().map(move |layer| (layer.age(now), layer.pages));
        layers.chain(std::iter::once((Duration::ZERO, self.young)))
    }

    /// What is at least `age` old and may be evicted: the kernel never takes from the two newest generations.
    pub(super) fn at_least(&self, age: Duration, now: Instant) -> Option<Old> {
        let newest = self.newest?;
        let mut old: Option<Old> = None;
        for layer in &self.aged {
            let (seq, aged) = (layer.seq, layer.age(now));
            if aged < age || seq + 2 > newest {
                break;
            }
            let Old { pages, oldest, .. } =
                old.unwrap_or(Old { seq, pages: 0, oldest: aged, youngest: aged });
            old = Some(Old { seq, pages: pages + layer.pages, oldest, youngest: aged });
        }
        old.map(|old| {
            let youngest = self.aged.iter().rfind(|layer| layer.seq == old.seq).map(|layer| layer.age(now));
            Old { youngest: youngest.unwrap_or(old.youngest), ..old }
        })
    }

    /// The kernel found what seemed old in use: it keeps this much of its age, and has to prove the rest anew.
    pub(super) fn distrust(&mut self, keeps: Duration, now: Instant) {
        let proved = moment(now).saturating_sub(keeps);
        for layer in &mut self.aged {
            layer.untouched = layer.untouched.max(proved);
        }
    }
}

impl Layer {
    fn age(&self, now: Instant) -> Duration {
        moment(now).saturating_sub(self.untouched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequence number, birth age in seconds, pages.
    type Line = (u64, u64, u64);

    /// Oldest first.
    fn generations(of: &[Line]) -> Vec<Generation> {
        let one = |(seq, birth_s, anon_pages): &Line| Generation {
            seq: *seq,
            birth_age_ms: birth_s * 1000,
            anon_pages: *anon_pages,
            file_pages: 0,
        };
        of.iter().map(one).collect()
    }

    /// Readings at seconds, and the ages in the end: seconds and pages.
    fn check(readings: &[(u64, &[Line])], ages: &[(u64, u64)]) -> Layers {
        let mut layers = Layers::default();
        let mut now = Instant::default();
        for (at, of) in readings {
            now = Instant(Duration::from_secs(*at));
            layers.read(&generations(of), now);
        }
        let found: Vec<(u64, u64)> = layers.ages(now).map(|(age, pages)| (age.as_secs(), pages)).collect();
        assert_eq!(found, ages);
        layers
    }

    const FOUR: &[Line] = &[(4, 90, 300), (5, 60, 40), (6, 30, 0), (7, 1, 100)];

    #[test]
    fn a_generation_is_as_old_as_its_successor() {
        let layers = check(&[(100, FOUR)], &[(60, 300), (30, 40), (0, 100)]);
        let old = |age| layers.at_least(Duration::from_secs(age), Instant(Duration::from_secs(100)));
        assert_eq!(old(61), None);
        let (half, minute) = (Duration::from_secs(30), Duration::from_mins(1));
        assert_eq!(old(60), Some(Old { seq: 4, pages: 300, oldest: minute, youngest: minute }));
        assert_eq!(old(30), Some(Old { seq: 5, pages: 340, oldest: minute, youngest: half }));
    }

    #[test]
    fn what_was_known_outlives_a_merger() {
        let merged: &[_] = &[(5, 62, 340), (6, 32, 0), (7, 3, 0), (8, 0, 100)];
        let layers = check(&[(100, FOUR), (102, merged)], &[(62, 300), (32, 40), (0, 100)]);
        let old = layers.at_least(Duration::from_mins(1), Instant(Duration::from_secs(102)));
        let youngest = Duration::from_secs(32);
        assert_eq!(old.map(|old| (old.seq, old.pages, old.youngest)), Some((5, 300, youngest)));
        // Without what was known before, the birth of the next is all there is.
        check(&[(102, merged)], &[(32, 340), (0, 100)]);
    }

    #[test]
    fn what_leaves_is_taken_from_the_oldest() {
        let merged: &[_] = &[(5, 62, 290), (6, 32, 0), (7, 3, 0), (8, 0, 150)];
        check(&[(100, FOUR), (102, merged)], &[(62, 250), (32, 40), (0, 150)]);
    }

    #[test]
    fn what_arrives_is_young() {
        let grown: &[_] = &[(4, 91, 300), (5, 61, 50), (6, 31, 0), (7, 2, 100)];
        check(&[(100, FOUR), (101, grown)], &[(61, 300), (31, 40), (0, 10), (0, 100)]);
        let touched: &[_] = &[(4, 91, 200), (5, 61, 40), (6, 31, 0), (7, 2, 100), (8, 0, 100)];
        check(&[(100, FOUR), (101, touched)], &[(61, 200), (31, 40), (0, 100), (0, 100)]);
    }

    #[test]
    fn layers_are_few() {
        let mut layers = Layers::default();
        for walk in 0..100 {
            let of = [(walk, 3, 10 * walk), (walk + 1, 2, 10), (walk + 2, 1, 10), (walk + 3, 0, 10)];
            layers.read(&generations(&of), Instant(Duration::from_secs(walk)));
        }
        assert!(layers.aged.len() <= MOST_LAYERS);
        assert!(layers.aged.is_sorted_by_key(|layer| layer.untouched));
    }

    #[test]
    fn what_was_found_in_use_proves_its_age_anew() {
        let mut layers = check(&[(100, FOUR)], &[(60, 300), (30, 40), (0, 100)]);
        let (age, at) = (Duration::from_mins(1), |second| Instant(Duration::from_secs(second)));
        layers.distrust(age / 2, at(100));
        for (second, is_old) in [(100, false), (129, false), (130, true)] {
            assert_eq!(layers.at_least(age, at(second)).is_some(), is_old, "{second} s");
        }
    }
}
