//! The effective age, over arbitrary histories.

use core::time::Duration;

use proptest::prelude::*;
use tiering::{EffectiveAge, Instant};

#[derive(Clone, Debug)]
enum Event {
    CameBack { since_s: u64 },
    Quiet,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![(0_u64..4000).prop_map(|since_s| Event::CameBack { since_s }), Just(Event::Quiet)]
}

proptest! {
    #[test]
    fn it_keeps_its_bounds_and_each_event_its_direction(
        after_s in 2_u64..1000,
        factor in 1_u64..20,
        events in prop::collection::vec((0_u64..100_000, event()), 0..100),
    ) {
        let (after, after_max) = (Duration::from_secs(after_s), Duration::from_secs(after_s * factor));
        let mut now = Instant::default();
        let mut age = EffectiveAge::new(after, after_max, now);
        for (pause_s, event) in events {
            now = now + Duration::from_secs(pause_s);
            let before = age.get();
            match event {
                Event::CameBack { since_s } => {
                    age.came_back(Duration::from_secs(since_s), now);
                    prop_assert!(age.get() >= before, "a comeback shortened it");
                }
                Event::Quiet => {
                    age.quiet(now);
                    prop_assert!(age.get() <= before, "quiet lengthened it");
                }
            }
            prop_assert!(after <= age.get() && age.get() <= after_max);
            prop_assert_eq!(age.is_lengthened(), age.get() > after);
        }
    }

    #[test]
    fn after_a_comeback_it_is_above_the_period(
        after_s in 2_u64..1000,
        // Memory is found idle at the age, or up to a scan (half an age) later.
        late_percent in 0_u64..50,
        since_percent in 0_u64..250,
    ) {
        let after = Duration::from_secs(after_s);
        let since = Duration::from_millis(after_s * 10 * since_percent);
        let period = after + Duration::from_millis(after_s * 10 * late_percent) + since;
        let mut age = EffectiveAge::new(after, after * 16, Instant::default());
        age.came_back(since, Instant::default());
        prop_assert!(age.get() > period, "{:?} after a comeback of {period:?}", age.get());
    }

    #[test]
    fn quiet_takes_longer_after_each_of_the_first_comebacks(after_s in 2_u64..1000, comebacks in 1_u32..=6) {
        let after = Duration::from_secs(after_s);
        let (mut age, mut last) = (EffectiveAge::new(after, after * 2, Instant::default()), Duration::ZERO);
        let mut now = Instant::default();
        for _ in 0..comebacks {
            age.came_back(Duration::ZERO, now);
            let began = now;
            while age.get() == after * 2 {
                now = now + after;
                age.quiet(now);
            }
            prop_assert!(now.since(began) > last);
            last = now.since(began);
        }
    }

    #[test]
    fn new_bounds_keep_what_they_allow(after_s in 2_u64..500, factor in 1_u32..16, since_s in 0_u64..3000) {
        let after = Duration::from_secs(after_s);
        let mut age = EffectiveAge::new(Duration::from_mins(2), Duration::from_mins(32), Instant::default());
        age.came_back(Duration::from_secs(since_s), Instant::default());
        let learned = age.get();
        age.set_bounds(after, after * factor);
        prop_assert_eq!(age.get(), learned.clamp(after, after * factor));
    }

    #[test]
    fn where_nothing_was_learned_the_age_is_what_the_policy_asks_now(before_s in 2_u64..500, after_s in 2_u64..500) {
        let (before, after) = (Duration::from_secs(before_s), Duration::from_secs(after_s));
        let mut age = EffectiveAge::new(before, before * 16, Instant::default());
        age.set_bounds(after, after * 16);
        prop_assert_eq!(age.get(), after);
        prop_assert!(!age.is_lengthened());
    }
}
