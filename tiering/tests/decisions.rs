//! Decisions about arbitrary cgroups, and about one whose decisions are carried out.

use core::time::Duration;
use std::collections::BTreeMap;

use proptest::prelude::*;
use tiering::decide::{Bounds, decide};
use tiering::{
    AgeHistogram, ByteRate, Bytes, CgroupSample, Decision, DemoteReason, Instant, Mode, Model, NodeId,
    NodeSet, NodeUse, Policy, Ratio, Share, StallTotals, Target, Track,
};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(0), 0_u64..1 << 22, 0_u64..1 << 36].prop_map(Bytes)
}

fn ratio() -> impl Strategy<Value = Ratio> {
    (0_u32..=1_000_000).prop_map(|ppm| Ratio::from_ppm(ppm).expect("a ratio"))
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![bytes().prop_map(Share::Bytes), ratio().prop_map(Share::OfFootprint)]
}

fn seconds(max: u64) -> impl Strategy<Value = Duration> {
    (0..max).prop_map(Duration::from_secs)
}

fn policy() -> impl Strategy<Value = Policy> {
    (share(), prop::option::of(share()), any::<bool>(), ratio()).prop_map(
        |(floor, ceiling, promote, touch)| {
            let mut policy = Policy::default();
            (policy.dram.floor, policy.dram.ceiling) = (Some(floor), ceiling);
            policy.promote.enabled = promote;
            policy.demote.slow_touch_rate = touch;
            policy
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let ages = prop::collection::vec((seconds(4000), bytes()), 0..6);
    let stall = || prop::option::of(prop_oneof![Just(Ratio::ZERO), ratio()]);
    (ages, bytes(), bytes(), ratio(), prop::option::of(bytes()), stall(), stall()).prop_map(
        |(ages, unseen, slow_anon, unmovable, slow_touched, memory_stall, io_stall)| {
            let ages = AgeHistogram::new(ages);
            let fast_anon = ages.total() + unseen;
            Model {
                at: Instant::default(),
                elapsed: Duration::from_secs(1),
                anon_by_node: BTreeMap::new(),
                fast_anon,
                slow_anon,
                fast_unmovable: unmovable.of(fast_anon),
                ages,
                promoted: Bytes::ZERO,
                slow_touched,
                current: fast_anon + slow_anon,
                memory_stall,
                io_stall,
            }
        },
    )
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let target = prop_oneof![
        6 => bytes().prop_map(Target::Room),
        1 => Just(Target::None),
        1 => Just(Target::MaySwap),
    ];
    let fields = (target, bytes(), bytes(), bytes(), bytes(), bytes());
    fields.prop_map(|(target, fast_room, give_up, hot_slow, demote_cap, promote_cap)| Bounds {
        target,
        fast_room,
        give_up,
        hot_slow,
        demote_cap,
        promote_cap,
    })
}

fn room(target: Target) -> Bytes {
    match target {
        Target::Room(room) => room,
        Target::None | Target::MaySwap => Bytes::ZERO,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn floor_is_never_crossed(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let decision = decide(&model, &policy, age, touched, bounds);
        let after = model.fast_anon - decision.demote;
        prop_assert!(after >= decision.floor.min(model.fast_anon));
    }

    #[test]
    fn promotion_stays_under_the_ceiling(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let decision = decide(&model, &policy, age, touched, bounds);
        prop_assert!(decision.promote.is_zero() || model.fast_anon + decision.promote <= decision.ceiling);
    }

    #[test]
    fn ceiling_is_asked_for(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let decision = decide(&model, &policy, age, touched, bounds);
        let over = (model.fast_anon - decision.ceiling).min(model.fast_anon - model.fast_unmovable);
        let possible = bounds.demote_cap.min(room(bounds.target));
        prop_assert!(decision.demote >= over.min(possible));
    }

    #[test]
    fn it_asks_for_nothing_that_is_not_there_or_has_no_room(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let decision = decide(&model, &policy, age, touched, bounds);
        prop_assert!(decision.demote <= model.fast_anon);
        prop_assert!(decision.demote <= room(bounds.target).min(bounds.demote_cap));
        prop_assert!(decision.promote <= model.slow_anon);
        prop_assert!(decision.promote <= bounds.fast_room.min(bounds.promote_cap).min(bounds.hot_slow));
        prop_assert!(policy.promote.enabled || decision.promote.is_zero());
    }

    #[test]
    fn older_ages_demote_less(model in model(), policy in policy(), a in seconds(4000), b in seconds(4000), touched in bytes(), bounds in bounds()) {
        let younger = decide(&model, &policy, a.min(b), touched, bounds);
        let older = decide(&model, &policy, a.max(b), touched, bounds);
        prop_assert!(older.demote <= younger.demote);
    }

    #[test]
    fn observe_decides_the_same(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let observing = Policy { mode: Mode::Observe, ..policy.clone() };
        let enforcing = Policy { mode: Mode::Enforce, ..policy };
        prop_assert_eq!(decide(&model, &observing, age, touched, bounds), decide(&model, &enforcing, age, touched, bounds));
    }

    #[test]
    fn only_cold_memory_is_demoted_unless_forced(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let decision = decide(&model, &policy, age, touched, bounds);
        if decision.reason == DemoteReason::Cold {
            prop_assert_eq!(decision.demote_age, age);
            prop_assert!(decision.demote <= model.ages.at_least(age));
        } else {
            prop_assert!(bounds.give_up > Bytes::ZERO || model.fast_anon > decision.ceiling);
        }
    }

    #[test]
    fn a_stalled_cgroup_demotes_only_what_it_must(mut model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        model.memory_stall = Some(Ratio::ONE);
        let decision = decide(&model, &policy, age, touched, bounds);
        prop_assert!(decision.demote <= bounds.give_up.max(model.fast_anon - decision.ceiling));
    }

    #[test]
    fn a_hold_has_a_reason(model in model(), policy in policy(), age in seconds(4000), touched in bytes(), bounds in bounds()) {
        let decision = decide(&model, &policy, age, touched, bounds);
        if decision.demote.is_zero() {
            prop_assert!(decision.limit.is_some());
        }
        if decision.promote.is_zero() && !bounds.hot_slow.min(model.slow_anon).is_zero() {
            prop_assert!(decision.promote_limit.is_some());
        }
    }
}

/// A host of one cgroup, whose pages are numbers. Node 0 is fast.
struct Host {
    /// On which node, and when last touched.
    pages: Vec<(u32, Instant)>,
    free: [u64; 2],
}

const PAGE: u64 = 2 << 20;

impl Host {
    fn on(&self, node: u32) -> u64 {
        self.pages.iter().filter(|(on, _)| *on == node).count() as u64 * PAGE
    }

    fn sample(&self, at: Instant, walked: Instant) -> CgroupSample {
        let usage = |node| (NodeId(node), NodeUse { anon: Bytes(self.on(node)), unmovable: Bytes::ZERO });
        let touched = self.pages.iter().filter(|(on, touched)| *on == 1 && *touched > walked).count();
        CgroupSample {
            at,
            nodes: [usage(0), usage(1)].into(),
            current: Bytes(self.pages.len() as u64 * PAGE),
            ages: self
                .pages
                .iter()
                .filter(|(on, _)| *on == 0)
                .map(|(_, t)| (at.since(*t), Bytes(PAGE)))
                .collect(),
            slow_touched: Some(Bytes(touched as u64 * PAGE)),
            promoted_total: None,
            stalls: StallTotals::default(),
        }
    }

    /// Moves whole pages, the first of `order`; which ones.
    fn move_pages(&mut self, mut order: Vec<usize>, bytes: Bytes, to: u32) -> Vec<usize> {
        order.truncate(usize::try_from(bytes.0 / PAGE).expect("a count"));
        for page in &order {
            assert_ne!(self.pages[*page].0, to);
            self.pages[*page].0 = to;
            self.free[to as usize] = self.free[to as usize].checked_sub(PAGE).expect("room");
            self.free[1 - to as usize] += PAGE;
        }
        order
    }

    fn apply(&mut self, decision: &Decision, now: Instant, walked: Instant) -> (Vec<usize>, Vec<usize>) {
        let mut coldest = self.on_node(0);
        coldest.sort_by_key(|page| self.pages[*page].1);
        coldest.retain(|page| now.since(self.pages[*page].1) >= decision.demote_age);
        let demoted = self.move_pages(coldest, decision.demote, 1);
        // Of all that is there now, also what was just demoted.
        let mut hot = self.on_node(1);
        hot.retain(|page| self.pages[*page].1 > walked);
        (demoted, self.move_pages(hot, decision.promote, 0))
    }

    /// Which pages are on a node.
    fn on_node(&self, node: u32) -> Vec<usize> {
        (0..self.pages.len()).filter(|page| self.pages[*page].0 == node).collect()
    }
}

proptest! {
    #[test]
    fn bytes_are_conserved_and_no_page_goes_both_ways(
        placed in prop::collection::vec(0_u32..2, 1..60),
        room in (0_u64..40, 0_u64..40),
        floor in ratio(),
        ceiling in prop::option::of(ratio()),
        rounds in prop::collection::vec((1_u64..200, prop::collection::vec(any::<prop::sample::Index>(), 0..20), 0_u64..10), 1..20),
    ) {
        let fast: NodeSet = [0_u32].into_iter().collect();
        let mut policy = Policy::default();
        policy.dram.floor = Some(Share::OfFootprint(floor));
        policy.dram.ceiling = ceiling.map(Share::OfFootprint);
        policy.demote.max_rate = ByteRate(PAGE * 8);
        let mut now = Instant::default();
        let mut walked = now;
        let mut host = Host {
            pages: placed.into_iter().map(|node| (node, now)).collect(),
            free: [room.0 * PAGE, room.1 * PAGE],
        };
        let (all, free) = (host.on(0) + host.on(1), host.free[0] + host.free[1]);
        let mut track = Track::new(policy, now);
        for (pause_s, touches, give_up) in rounds {
            now = now + Duration::from_secs(pause_s);
            for page in touches {
                let page = page.index(host.pages.len());
                host.pages[page].1 = now;
            }
            track.observe(host.sample(now, walked), &fast);
            let (slow_room, fast_room) = (Bytes(host.free[1]), Bytes(host.free[0]));
            let decision = track.decide(Target::Room(slow_room), fast_room, Bytes(give_up * PAGE), now).expect("a model");
            let before = host.on(0);
            let (demoted, promoted) = host.apply(&decision, now, walked);
            walked = now;
            prop_assert!(demoted.iter().all(|page| !promoted.contains(page)), "both ways in one round");
            track.demoted(Bytes(demoted.len() as u64 * PAGE), Some(decision.reason), now);
            track.promoted(Bytes(promoted.len() as u64 * PAGE), now);
            prop_assert_eq!((host.on(0) + host.on(1), host.free[0] + host.free[1]), (all, free));
            prop_assert!(Bytes(host.on(0)) >= decision.floor.min(Bytes(before)));
            prop_assert!(Bytes(host.on(0)) <= decision.ceiling.max(Bytes(before)));
        }
    }
}

#[test]
fn hot_memory_finds_room_where_the_fast_nodes_are_full_of_cold_memory() {
    let mut policy = Policy::default();
    policy.dram.ceiling = None;
    let fast: NodeSet = [0_u32].into_iter().collect();
    let mut now = Instant::default();
    let mut host = Host { pages: vec![(0, now); 50], free: [0, 100 * PAGE] };
    host.pages.extend(vec![(1, now); 30]);
    let mut track = Track::new(policy, now);
    for _ in 0..8 {
        let walked = now;
        now = now + Duration::from_mins(1);
        for page in &mut host.pages[50..] {
            page.1 = now;
        }
        track.observe(host.sample(now, walked), &fast);
        let rooms = (Bytes(host.free[1]), Bytes(host.free[0]));
        let decision = track.decide(Target::Room(rooms.0), rooms.1, Bytes::ZERO, now).expect("a model");
        let (demoted, promoted) = host.apply(&decision, now, walked);
        track.demoted(Bytes(demoted.len() as u64 * PAGE), Some(decision.reason), now);
        track.promoted(Bytes(promoted.len() as u64 * PAGE), now);
    }
    assert!(host.pages[50..].iter().all(|(node, _)| *node == 0), "hot pages are still on the slow node");
}
