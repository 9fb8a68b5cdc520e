//! `memory.high` along arbitrary usage.

use proptest::prelude::*;
use tiering::memory_high::{Step, formula, step};
use tiering::{Bytes, MemoryHighPolicy, Ratio};

const PAGE: u64 = 4096;

/// The file, as steps write it.
struct File {
    original: Option<Bytes>,
    ours: Option<Bytes>,
    writes: usize,
}

impl File {
    fn new(original: Option<Bytes>) -> Self {
        Self { original, ours: None, writes: 0 }
    }

    fn step(&mut self, want: Bytes, current: Bytes) -> Step {
        let step = step(MemoryHighPolicy::Fixed(want), current, self.original, self.ours, PAGE);
        if let Step::Set(value) | Step::Toward { value, .. } = step {
            self.ours = Some(value);
            self.writes += 1;
        }
        step
    }
}

fn kib(max: u64) -> impl Strategy<Value = Bytes> {
    (1..max).prop_map(|n| Bytes(n << 10))
}

proptest! {
    #[test]
    fn nothing_is_written_below_usage_or_above_an_original(
        want in kib(1 << 23),
        original in prop::option::of(kib(1 << 23)),
        usage in prop::collection::vec(kib(1 << 23), 1..50),
    ) {
        let mut file = File::new(original);
        for current in usage {
            if let Step::Set(value) | Step::Toward { value, .. } = file.step(want, current) {
                prop_assert!(value >= current, "{value} below a usage of {current}");
                prop_assert!(original.is_none_or(|original| value < original), "{value} loosens {original:?}");
                prop_assert!(value.0.is_multiple_of(PAGE));
            }
        }
    }

    #[test]
    fn it_reaches_the_policys_value_as_usage_falls(want_mib in 64_u64..4096, above_mib in 0_u64..4096, fall in 1_u64..40) {
        let want = Bytes::mib(want_mib);
        let mut file = File::new(None);
        let mut current = Bytes::mib(want_mib + above_mib);
        while current > Bytes::mib(want_mib / 2) {
            file.step(want, current);
            current = current - Bytes(current.0 * fall / 100).max(Bytes(PAGE));
        }
        file.step(want, current);
        prop_assert_eq!(file.ours, Some(want));
        prop_assert_eq!(file.step(want, current), Step::Settled(want));
    }

    #[test]
    fn the_policys_value_stands_once_it_is_reached(want_mib in 64_u64..4096, usage in prop::collection::vec(kib(1 << 23), 1..50)) {
        let want = Bytes::mib(want_mib);
        let mut file = File::new(None);
        file.step(want, Bytes::mib(1));
        for current in usage {
            prop_assert_eq!(file.step(want, current), Step::Settled(want));
        }
        prop_assert_eq!(file.writes, 1);
    }

    #[test]
    fn usage_that_trembles_causes_no_second_write(
        want_mib in 1_u64..4096,
        current_mib in 1_u64..4096,
        // Within a quarter of the slack.
        tremble in prop::collection::vec(-4_i64 << 20..4 << 20, 1..100),
    ) {
        let mut file = File::new(None);
        let base = Bytes::mib(current_mib);
        file.step(Bytes::mib(want_mib), base);
        let first = file.writes;
        for by in tremble {
            file.step(Bytes::mib(want_mib), Bytes(base.0.saturating_add_signed(by)));
        }
        // Where usage trembles around what the wish needs, the wish itself is written, once.
        prop_assert!(file.writes <= first + 1, "{} writes", file.writes);
    }

    #[test]
    fn a_rising_usage_is_followed_in_few_writes(want_mib in 1_u64..16, rise_mib in 1_u64..8192) {
        let mut file = File::new(None);
        for mib in 64..64 + rise_mib {
            file.step(Bytes::mib(want_mib), Bytes::mib(mib));
        }
        prop_assert!(file.writes as u64 <= 2 + rise_mib / 8);
    }

    #[test]
    fn the_formula_is_between_request_and_limit(request in kib(1 << 23), more in kib(1 << 23), ppm in 0_u32..=1_000_000) {
        let limit = request + more;
        let high = formula(request, limit, Ratio::from_ppm(ppm).expect("a ratio"), PAGE);
        prop_assert!(high.0 + PAGE > request.0 && high <= limit && high.0.is_multiple_of(PAGE));
    }
}

#[test]
fn no_memory_high_means_no_step() {
    let step = step(MemoryHighPolicy::None, Bytes::mib(1), None, Some(Bytes::mib(2)), PAGE);
    assert_eq!(step, Step::Leave);
}
