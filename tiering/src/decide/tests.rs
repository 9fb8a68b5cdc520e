use super::*;
use crate::age::AgeHistogram;
use crate::policy::{DramPolicy, Share};
use crate::units::Instant;
use crate::units::Ratio;
use alloc::collections::BTreeMap;
use std::string::ToString;

const AGE: Duration = Duration::from_mins(2);

/// 100 MiB cold and 100 MiB young on fast nodes, 50 MiB on slow ones.
fn model() -> Model {
    Model {
        at: Instant::default(),
        elapsed: Duration::from_secs(1),
        anon_by_node: BTreeMap::new(),
        fast_anon: Bytes::mib(200),
        slow_anon: Bytes::mib(50),
        fast_unmovable: Bytes::ZERO,
        ages: AgeHistogram::new([(AGE, Bytes::mib(100)), (Duration::ZERO, Bytes::mib(100))]),
        promoted: Bytes::ZERO,
        slow_touched: None,
        current: Bytes::mib(250),
        memory_stall: None,
        io_stall: None,
    }
}

fn bounds() -> Bounds {
    Bounds {
        target: Target::Room(Bytes::mib(1000)),
        fast_room: Bytes::mib(1000),
        give_up: Bytes::ZERO,
        hot_slow: Bytes::ZERO,
        demote_cap: Bytes::mib(1000),
        promote_cap: Bytes::mib(1000),
    }
}

fn dram(floor_mib: u64, ceiling_mib: Option<u64>) -> Policy {
    let floor = Share::Bytes(Bytes::mib(floor_mib));
    let ceiling = ceiling_mib.map(|mib| Share::Bytes(Bytes::mib(mib)));
    Policy { dram: DramPolicy { floor: Some(floor), ceiling, weight: 100 }, ..Policy::default() }
}

fn stalled(memory_ppm: u32, io_ppm: u32) -> Model {
    Model { memory_stall: Ratio::from_ppm(memory_ppm), io_stall: Ratio::from_ppm(io_ppm), ..model() }
}

fn check(model: &Model, policy: &Policy, touched_mib: u64, bounds: Bounds, says: &str) {
    assert_eq!(decide(model, policy, AGE, Bytes::mib(touched_mib), bounds).to_string(), says);
}

#[test]
fn a_decision_says_what_and_why() {
    let any = Policy::default();
    check(&model(), &any, 0, bounds(), "demote 100 MiB: 100 MiB not accessed for 120s");
    check(&model(), &dram(0, Some(80)), 0, bounds(), "demote 120 MiB: over the ceiling of 80 MiB");
    let short = Bounds { give_up: Bytes::mib(130), ..bounds() };
    check(&model(), &any, 0, short, "demote 130 MiB: the host is short of DRAM");
    let hot = Bounds { hot_slow: Bytes::mib(20), ..bounds() };
    check(
        &model(),
        &any,
        0,
        hot,
        "demote 100 MiB: 100 MiB not accessed for 120s; promote 20 MiB: touched on a slow node",
    );
    let young = Model { ages: AgeHistogram::default(), ..model() };
    check(&young, &any, 0, bounds(), "hold: nothing is cold");
}

#[test]
fn the_saving_is_net_of_floor_room_and_what_cannot_move_but_not_of_rates_and_guards() {
    let check = |model: &Model, policy: &Policy, bounds: Bounds, mib: u64| {
        assert_eq!(decide(model, policy, AGE, Bytes::mib(50), bounds).would_free, Bytes::mib(mib));
    };
    let any = Policy::default();
    check(&model(), &any, bounds(), 100);
    check(&model(), &any, Bounds { demote_cap: Bytes::mib(1), ..bounds() }, 100);
    check(&stalled(900_000, 0), &any, bounds(), 100);
    check(&model(), &dram(160, None), bounds(), 40);
    check(&model(), &dram(300, None), bounds(), 0);
    check(&model(), &any, Bounds { target: Target::Room(Bytes::mib(30)), ..bounds() }, 30);
    check(&model(), &any, Bounds { target: Target::None, ..bounds() }, 0);
    check(&Model { fast_unmovable: Bytes::mib(150), ..model() }, &any, bounds(), 50);
}

#[test]
fn what_is_only_observed_says_so_before_anything_else() {
    let check = |bounds, says: &str| {
        let decision = decide(&model(), &Policy::default(), AGE, Bytes::ZERO, bounds);
        assert_eq!(decision.words(Mode::Observe).to_string(), says);
    };
    check(bounds(), "would demote 100 MiB (observed): 100 MiB not accessed for 120s");
    check(Bounds { target: Target::None, ..bounds() }, "hold: no slow node is allowed to it");
    let hot = Bounds { hot_slow: Bytes::mib(20), target: Target::None, ..bounds() };
    check(
        hot,
        "hold: no slow node is allowed to it; would promote 20 MiB (observed): touched on a slow node",
    );
}

#[test]
fn what_bounds_a_decision_is_said() {
    let cold = "100 MiB not accessed for 120s";
    let any = Policy::default();
    let bounded = |says: &str| std::format!("demote 40 MiB: {cold} ({says})");
    check(&model(), &dram(160, None), 0, bounds(), &bounded("the floor is reached"));
    let slow = |demote_mib| Bounds { demote_cap: Bytes::mib(demote_mib), ..bounds() };
    check(&model(), &any, 0, slow(40), &bounded("the rate cap is reached"));
    let small = Bounds { target: Target::Room(Bytes::mib(40)), ..bounds() };
    check(&model(), &any, 0, small, &bounded("the slow nodes have no room above their watermarks"));
    let none = Bounds { target: Target::None, ..bounds() };
    check(&model(), &any, 0, none, "hold: no slow node is allowed to it");
    let swaps = "hold: it may swap, and engine reclaim would swap out what lies on slow nodes: set its \
                 memory.swap.max to 0, or use engine pages";
    check(&model(), &any, 0, Bounds { target: Target::MaySwap, ..bounds() }, swaps);
}

#[test]
fn guards_hold_what_is_voluntary() {
    let any = Policy::default();
    check(&stalled(1_000, 1_000), &any, 0, bounds(), "demote 100 MiB: 100 MiB not accessed for 120s");
    check(&stalled(20_000, 0), &any, 0, bounds(), "hold: it stalls on memory 2 % of the time");
    let mut by_io = Policy::default();
    by_io.pressure.io = Some(Ratio::of_parts(1, 1000));
    check(&stalled(0, 1_001), &by_io, 0, bounds(), "hold: it stalls on I/O 0.1001 % of the time");
    let touches = "hold: it touches 9 MiB a minute on slow nodes, 2 MiB are allowed";
    check(&model(), &any, 9, bounds(), touches);
    let over = "demote 120 MiB: over the ceiling of 80 MiB";
    check(&stalled(20_000, 0), &dram(0, Some(80)), 0, bounds(), over);
    let short = Bounds { give_up: Bytes::mib(30), ..bounds() };
    let held = "demote 30 MiB: the host is short of DRAM (it stalls on memory 2 % of the time)";
    check(&stalled(20_000, 0), &any, 0, short, held);
}

#[test]
fn slow_touches_do_not_hold_what_makes_room_for_promotion() {
    let full = Bounds { hot_slow: Bytes::mib(20), fast_room: Bytes::mib(5), ..bounds() };
    let says = "demote 15 MiB: 100 MiB not accessed for 120s \
                (it touches 20 MiB a minute on slow nodes, 2 MiB are allowed); \
                promote 5 MiB: touched on a slow node (promotion: the fast nodes have no room for it)";
    check(&model(), &Policy::default(), 20, full, says);
}

#[test]
fn memory_that_cannot_move_is_not_asked_for() {
    let locked = Model { fast_unmovable: Bytes::mib(150), ages: AgeHistogram::default(), ..model() };
    check(&locked, &dram(0, Some(80)), 0, bounds(), "demote 50 MiB: over the ceiling of 80 MiB");
}

#[test]
fn a_policy_without_promotion_promotes_nothing() {
    let mut policy = Policy::default();
    policy.promote.enabled = false;
    let hot = Bounds { hot_slow: Bytes::mib(20), ..bounds() };
    let decision = decide(&model(), &policy, AGE, Bytes::ZERO, hot);
    assert_eq!((decision.promote, decision.promote_limit), (Bytes::ZERO, Some(Limit::PromotionOff)));
}

#[test]
fn a_hold_is_no_emergency() {
    let young = Model { ages: AgeHistogram::default(), ..model() };
    assert_eq!(decide(&young, &Policy::default(), AGE, Bytes::ZERO, bounds()).reason, DemoteReason::Cold);
}
