//! The rate cap, over arbitrary spending and arbitrary windows.

use core::time::Duration;

use proptest::prelude::*;
use tiering::{ByteRate, Bytes, Instant, TokenBucket};

/// Spends a part of what is available after each pause; the times and amounts of what passed.
fn spendings(rate: ByteRate, steps: &[(u64, u8)]) -> (TokenBucket, Vec<(Duration, u64)>) {
    let mut now = Instant::default();
    let mut bucket = TokenBucket::new(rate, now);
    let passed = steps
        .iter()
        .map(|(pause_us, part)| {
            now = now + Duration::from_micros(*pause_us);
            let available = bucket.available(now).0;
            let spent = u64::try_from(u128::from(available) * u128::from(*part) / 255).expect("a part");
            bucket.spend(Bytes(spent), now);
            (now.0, spent)
        })
        .collect();
    (bucket, passed)
}

proptest! {
    #[test]
    fn the_cap_holds_over_any_window(
        rate in prop_oneof![1_u64..100, 1_u64 << 20..1 << 32],
        steps in prop::collection::vec((0_u64..3_000_000, any::<u8>()), 1..60),
    ) {
        let rate = ByteRate(rate);
        let (bucket, passed) = spendings(rate, &steps);
        for from in 0..passed.len() {
            let mut total = 0;
            for to in from..passed.len() {
                total += passed[to].1;
                let window = passed[to].0.saturating_sub(passed[from].0);
                // One byte for a refill that completes a byte begun before the window.
                prop_assert!(
                    total <= rate.over(window).0 + bucket.burst().0 + 1,
                    "{total} bytes in {window:?} at {rate}"
                );
            }
        }
    }

    #[test]
    fn no_time_is_lost_to_rounding(rate in 1_u64..10_000, pauses in prop::collection::vec(1_u64..5_000, 1..200)) {
        let rate = ByteRate(rate);
        let mut now = Instant::default();
        let mut bucket = TokenBucket::new(rate, now);
        let full = bucket.available(now);
        bucket.spend(full, now);
        for pause in pauses {
            now = now + Duration::from_micros(pause);
            bucket.available(now);
        }
        prop_assert!(bucket.available(now).0 + 1 >= rate.over(now.0).0);
    }

    #[test]
    fn an_overshoot_is_paid_back(rate_mib in 1_u64..1000, overshoot_mib in 0_u64..4096) {
        let start = Instant::default();
        let mut bucket = TokenBucket::new(ByteRate::mib_per_s(rate_mib), start);
        let spent = bucket.burst() + Bytes::mib(overshoot_mib);
        bucket.spend(spent, start);
        let even = start + Duration::from_micros((overshoot_mib * 1_000_000).div_ceil(rate_mib));
        prop_assert!(bucket.available(even) <= ByteRate::mib_per_s(rate_mib).over(Duration::from_micros(1)));
        prop_assert!(bucket.available(even + Duration::from_secs(1)) >= Bytes::mib(rate_mib) - Bytes(1));
    }

    #[test]
    fn time_that_goes_backwards_brings_nothing(rate_mib in 1_u64..1000, back_s in 0_u64..100) {
        let now = Instant(Duration::from_secs(100));
        let mut bucket = TokenBucket::new(ByteRate::mib_per_s(rate_mib), now);
        let full = bucket.available(now);
        bucket.spend(full, now);
        let earlier = Instant(Duration::from_secs(100 - back_s));
        prop_assert_eq!(bucket.available(earlier), Bytes::ZERO);
        prop_assert_eq!(bucket.available(now), Bytes::ZERO);
    }

    #[test]
    fn a_new_rate_counts_from_its_change_on(before in 1_u64..1000, after in 1_u64..1000, pause_ms in 0_u64..5000) {
        let mut now = Instant::default();
        let mut bucket = TokenBucket::new(ByteRate::mib_per_s(before), now);
        let full = bucket.available(now);
        bucket.spend(full, now);
        bucket.set_rate(ByteRate::mib_per_s(after), now);
        now = now + Duration::from_millis(pause_ms);
        let due = ByteRate::mib_per_s(after).over(Duration::from_millis(pause_ms)).min(bucket.burst());
        let got = bucket.available(now);
        prop_assert!(got <= due && got + Bytes(1) >= due, "{got} of {due}");
    }
}
