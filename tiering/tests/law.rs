//! The law as a whole: what one plan for a host does, by the names of its properties.

use std::collections::BTreeMap;
use std::time::Duration;

use tiering::law::{
    AgeReading, CgroupKey, CgroupSample, Host, HostSample, Learned, Limits, Moved, NodeSample, NodeUse, Plan,
    Promoter, Reach, Settings, Speed, Stayed,
};
use tiering::{
    ByteRate, Bytes, DemoteReason, Instant, Limit, Mode, NodeId, NodeSet, Policy, Ratio, Share, StallTotals,
};

const fn gib(n: u64) -> Bytes {
    Bytes::mib(n * 1024)
}

const fn mins(n: u64) -> Duration {
    Duration::from_mins(n)
}

fn at(seconds: u64) -> Instant {
    Instant(Duration::from_secs(seconds))
}

/// A fast node of 512 GiB with this much free and this much clean file memory.
fn fast(node: u32, targets: &[u32], free: Bytes, file: Bytes) -> NodeSample {
    NodeSample {
        node: NodeId(node),
        speed: Speed::Fast,
        total: gib(512),
        free,
        pcp: Bytes::ZERO,
        min: Bytes::mib(400),
        low: Bytes::mib(600),
        high: Bytes::mib(1200),
        reclaimable_file: file,
        targets: targets.iter().copied().map(NodeId).collect(),
    }
}

fn slow(node: u32, targets: &[u32], free: Bytes) -> NodeSample {
    NodeSample { speed: Speed::Slow, ..fast(node, targets, free, Bytes::ZERO) }
}

/// One cgroup's anonymous memory on fast nodes by age, and what is touched of what is on slow ones.
type OnFast<'a> = &'a [(u32, &'a [(Duration, Bytes)])];

struct Run {
    host: Host,
    second: u64,
}

impl Run {
    fn new(promoter: Promoter) -> Self {
        Self { host: Host::new(Settings { promoter, ..Settings::default() }), second: 0 }
    }

    fn add(&mut self, key: u64, policy: Policy) {
        let now = at(self.second);
        self.host.add(CgroupKey(key), policy.validated().expect("a valid policy"), None, now);
        let allowed: NodeSet = (0..8_u32).collect();
        self.host.set_reach(CgroupKey(key), Reach { allowed, ..Reach::default() });
    }

    fn nodes(&mut self, nodes: Vec<NodeSample>) {
        self.host.observe_nodes(HostSample { at: at(self.second), nodes });
    }

    fn look(&mut self, key: u64, on_fast: OnFast<'_>, on_slow: &[(u32, Bytes, Bytes)]) {
        self.look_with(key, on_fast, on_slow, Limits::default(), Duration::ZERO);
    }

    /// `stalled`: on memory, since it began.
    fn look_with(
        &mut self,
        key: u64,
        on_fast: OnFast<'_>,
        on_slow: &[(u32, Bytes, Bytes)],
        limits: Limits,
        stalled: Duration,
    ) {
        let mut nodes: BTreeMap<NodeId, NodeUse> = BTreeMap::new();
        for (node, ages) in on_fast {
            let anon = ages.iter().map(|(_, bytes)| *bytes).sum();
            let ages = Some(AgeReading { ages: ages.to_vec(), walked: true });
            nodes.insert(NodeId(*node), NodeUse { anon, ages, ..NodeUse::default() });
        }
        for (node, anon, touched) in on_slow {
            let usage = NodeUse { anon: *anon, touched: Some(*touched), ..NodeUse::default() };
            nodes.insert(NodeId(*node), usage);
        }
        let stalls = StallTotals { memory: Some(stalled), io: None };
        let sample = CgroupSample { at: at(self.second), nodes, stalls, limits, ..CgroupSample::default() };
        self.host.observe(CgroupKey(key), sample);
    }

    fn plan(&mut self) -> Plan {
        self.host.plan(at(self.second))
    }
}

fn demoted(plan: &Plan, key: u64) -> Bytes {
    plan.of(CgroupKey(key)).expect("a sample was taken").demoted()
}

#[test]
fn page_cache_is_not_need() {
    let mut run = Run::new(Promoter::Kernel);
    run.add(1, Policy::default());
    for second in 0..3600 {
        run.second = second;
        // kswapd leaves what is free at its high watermark; all else is clean file memory.
        run.nodes(vec![fast(0, &[1], Bytes::mib(1200), gib(400)), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(Duration::ZERO, gib(100))])], &[]);
        assert_eq!(demoted(&run.plan(), 1), Bytes::ZERO, "second {second}");
    }
}

#[test]
fn only_a_short_node_takes() {
    let mut run = Run::new(Promoter::Agent);
    for key in [1, 2] {
        run.add(key, Policy::default());
    }
    let old = [(mins(3), gib(20))];
    run.nodes(vec![
        fast(0, &[2, 3], gib(1), Bytes::ZERO),
        fast(1, &[3, 2], gib(200), Bytes::ZERO),
        slow(2, &[0, 1], gib(400)),
        slow(3, &[1, 0], gib(400)),
    ]);
    run.look(1, &[(0, &old)], &[]);
    run.look(2, &[(1, &old)], &[]);
    let plan = run.plan();
    let gives = &plan.of(CgroupKey(1)).unwrap().demote[0];
    assert_eq!((gives.from, gives.to[0], gives.reason), (NodeId(0), NodeId(2), DemoteReason::Headroom));
    assert_eq!(demoted(&plan, 2), Bytes::ZERO);
    assert!(plan.node(NodeId(0)).unwrap().room.is_zero() && !plan.node(NodeId(1)).unwrap().room.is_zero());
}

#[test]
fn the_coldest_gives_whoever_has_it() {
    let mut run = Run::new(Promoter::Agent);
    for key in [1, 2] {
        run.add(key, Policy::default());
    }
    run.second = 200;
    run.nodes(vec![fast(0, &[1], gib(1), Bytes::ZERO), slow(1, &[0], gib(400))]);
    run.look(1, &[(0, &[(Duration::ZERO, gib(100))])], &[]);
    run.look(2, &[(0, &[(mins(3), gib(100))])], &[]);
    let plan = run.plan();
    assert_eq!(demoted(&plan, 1), Bytes::ZERO);
    assert!(!demoted(&plan, 2).is_zero());
}

#[test]
fn what_does_not_move_is_bound_and_others_give() {
    let mut run = Run::new(Promoter::Agent);
    let sizes = [gib(200), gib(50), gib(40)];
    for key in 0..3 {
        run.add(key, Policy::default());
    }
    let mut moved_of: BTreeMap<u64, Bytes> = BTreeMap::new();
    let (mut free, mut rounds) = (gib(1), 0);
    while rounds < 200 {
        run.second += 1;
        rounds += 1;
        run.nodes(vec![fast(0, &[1], free, Bytes::ZERO), slow(1, &[0], gib(400))]);
        for (key, size) in (0..).zip(sizes) {
            let gone = moved_of.get(&key).copied().unwrap_or_default();
            run.look(key, &[(0, &[(mins(2) + Duration::from_secs(run.second), size - gone)])], &[]);
        }
        let plan = run.plan();
        if plan.node(NodeId(0)).unwrap().shortfall.is_zero() {
            break;
        }
        for cgroup in &plan.cgroups {
            for order in &cgroup.demote {
                let moved = if cgroup.key.0 == 0 { Bytes::ZERO } else { order.bytes };
                free += moved;
                *moved_of.entry(cgroup.key.0).or_default() += moved;
                let (from, to) = (order.from, Some(order.to[0]));
                let (asked, least_age) = (order.bytes, order.least_age);
                let moved = Moved { from, to, asked, moved, stayed: Stayed::Unknown, least_age };
                run.host.demoted(cgroup.key, &moved, Some(order.reason), at(run.second));
            }
        }
    }
    // Two neighbours at 200 MiB a second each take 25 rounds for 10 GiB; the pinned one costs a few more.
    assert!(rounds < 40, "{rounds} rounds");
}

#[test]
fn after_is_a_promise_that_only_the_low_watermark_breaks() {
    let check = |free, seconds: u64, warm_s, gives: bool| {
        let mut run = Run::new(Promoter::Agent);
        run.add(1, Policy::default());
        for second in 0..=seconds {
            run.second = second;
            run.nodes(vec![fast(0, &[1], free, Bytes::ZERO), slow(1, &[0], gib(400))]);
        }
        run.look(1, &[(0, &[(Duration::from_secs(warm_s), gib(100))])], &[]);
        let gave = demoted(&run.plan(), 1);
        assert_eq!(!gave.is_zero(), gives, "{free} free, {seconds} s, age {warm_s} s");
    };
    check(gib(1), 60, 119, false);
    check(gib(1), 60, 120, true);
    check(Bytes::mib(500), 0, 119, false);
    check(Bytes::mib(500), 3, 110, true);
    check(Bytes::mib(500), 60, 59, false);
    check(Bytes::mib(500), 60, 61, true);
}

#[test]
fn ceiling_is_asked_for() {
    let check = |floor, ceiling, hot, moves| {
        let mut run = Run::new(Promoter::Agent);
        let mut policy = Policy::default();
        policy.dram.floor = floor;
        policy.dram.ceiling = ceiling;
        run.add(1, policy);
        run.second = 1000;
        run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(mins(60), Bytes::mib(100)), (Duration::ZERO, hot)])], &[]);
        assert_eq!(demoted(&run.plan(), 1), moves);
    };
    let bytes = |mib| Some(Share::Bytes(Bytes::mib(mib)));
    check(None, None, Bytes::mib(100), Bytes::mib(100));
    check(bytes(150), None, Bytes::mib(100), Bytes::mib(50));
    check(None, bytes(50), Bytes::mib(100), Bytes::mib(150));
    let half = Some(Share::OfFootprint(Ratio::of_parts(1, 4)));
    check(bytes(150), half, Bytes::mib(100), Bytes::mib(50));
}

#[test]
fn kernel_promotion_stops_where_all_who_have_memory_down_are_at_their_ceilings() {
    let mib = Bytes::mib;
    let mut run = Run::new(Promoter::Kernel);
    run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
    let add = |run: &mut Run, key, ceiling: Option<u64>, mode, rate| {
        let mut policy = Policy { mode, ..Policy::default() };
        policy.dram.ceiling = ceiling.map(|ceiling| Share::Bytes(mib(ceiling)));
        policy.promote.max_rate = ByteRate::mib_per_s(rate);
        run.add(key, policy);
    };
    add(&mut run, 1, Some(64), Mode::Enforce, 1);
    let promotion = |run: &mut Run| run.plan().kernel_promotion;
    // Nothing of it is down.
    run.look(1, &[(0, &[(Duration::ZERO, mib(60))])], &[]);
    assert_eq!(promotion(&mut run), ByteRate::mib_per_s(1));
    run.look(1, &[(0, &[(Duration::ZERO, mib(40))])], &[(1, mib(100), mib(100))]);
    assert_eq!(promotion(&mut run), ByteRate::mib_per_s(1));
    run.look(1, &[(0, &[(Duration::ZERO, mib(64))])], &[(1, mib(100), mib(100))]);
    assert_eq!(promotion(&mut run), ByteRate(0));
    // Who is only observed, or has nothing down, lets nothing come up.
    add(&mut run, 2, None, Mode::Observe, 10);
    add(&mut run, 3, None, Mode::Enforce, 100);
    run.look(2, &[(0, &[])], &[(1, mib(100), mib(100))]);
    run.look(3, &[(0, &[(Duration::ZERO, mib(64))])], &[]);
    assert_eq!(promotion(&mut run), ByteRate(0));
    run.look(3, &[(0, &[(Duration::ZERO, mib(64))])], &[(1, mib(1), mib(1))]);
    assert_eq!(promotion(&mut run), ByteRate::mib_per_s(100));
}

#[test]
fn kernel_promotion_stops_where_nobody_can_make_room() {
    let check = |free, idle, stops| {
        let mut run = Run::new(Promoter::Kernel);
        run.add(1, Policy::default());
        run.second = 1000;
        run.nodes(vec![fast(0, &[1], free, Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(idle, gib(100))])], &[(1, gib(10), gib(10))]);
        assert_eq!(run.plan().kernel_promotion == ByteRate(0), stops, "{free} free, all idle for {idle:?}");
    };
    check(gib(1), Duration::ZERO, true);
    check(gib(1), mins(3), false);
    check(gib(14), Duration::ZERO, false);
}

#[test]
fn only_who_holds_more_than_its_share_gives_below_its_own_age() {
    let check = |weight, idle, gives| {
        // Nothing sinks for being cold alone.
        let mut run = Run::new(Promoter::None);
        // Each minute of a day wanted 608 s.
        let wanted = (0..=37).map(|rung| if rung == 37 { 1024 * 1440 } else { 0 }).collect();
        let learned =
            Learned { version: Learned::VERSION, wanted, working_set: gib(200).0, watched_seconds: 86_400 };
        run.host.add(CgroupKey(1), Policy::default(), Some(&learned), at(0));
        run.add(1, Policy::default());
        let mut other = Policy::default();
        other.dram.weight = weight;
        run.add(2, other);
        run.second = 1000;
        run.nodes(vec![fast(0, &[1], gib(1), Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(idle, gib(200))])], &[]);
        run.look(2, &[(0, &[(Duration::ZERO, gib(300))])], &[]);
        assert_eq!(
            !demoted(&run.plan(), 1).is_zero(),
            gives,
            "weight {weight} of the other, idle for {idle:?}"
        );
    };
    check(100, mins(5), false);
    check(100, mins(11), true);
    check(400, mins(5), true);
}

#[test]
fn who_holds_more_than_its_share_of_a_tight_node_promotes_more_slowly() {
    let rate = |held: u64| {
        let mut run = Run::new(Promoter::Kernel);
        for key in [1, 2] {
            run.add(key, Policy::default());
        }
        // Of 512 GiB each has 256 for its share. There is headroom, and nothing above it.
        run.nodes(vec![fast(0, &[1], gib(14), Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(Duration::ZERO, gib(held))])], &[(1, gib(10), gib(10))]);
        run.look(2, &[(0, &[(Duration::ZERO, gib(498 - held))])], &[]);
        run.plan().kernel_promotion.0
    };
    let whole = rate(200);
    assert_eq!(whole, Policy::default().promote.max_rate.0);
    assert!(rate(300) < whole && rate(400) < rate(300), "{whole} {} {}", rate(300), rate(400));
    assert_eq!(rate(490), whole / 16);
}

#[test]
fn what_the_kernel_protects_is_not_taken_for_others() {
    let check = |limits: Limits, gives| {
        // Nothing sinks for being cold alone.
        let mut run = Run::new(Promoter::None);
        run.add(1, Policy::default());
        run.second = 1000;
        // 9 GiB are missing to the line of headroom.
        run.nodes(vec![fast(0, &[1], gib(1), Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look_with(1, &[(0, &[(mins(3), Bytes::mib(150))])], &[], limits, Duration::ZERO);
        assert_eq!(demoted(&run.plan(), 1), gives, "{limits:?}");
    };
    let none = Limits::default();
    check(none, Bytes::mib(150));
    check(Limits { low: Some(Bytes::mib(100)), ..none }, Bytes::mib(50));
    check(Limits { min: Some(Bytes::mib(100)), low: Some(Bytes::mib(20)), ..none }, Bytes::mib(50));
    check(Limits { low: Some(Bytes::mib(200)), ..none }, Bytes::ZERO);
}

#[test]
fn stalls_that_were_there_before_our_moves_hold_nothing_and_more_do() {
    // Of each ten seconds so much is stalled, before anything sinks and then.
    const LAST: u64 = 60;
    let held = |before: u64, then: u64| {
        let mut run = Run::new(Promoter::Agent);
        run.add(1, Policy::default());
        let mut stalled = Duration::ZERO;
        for look in 0..=LAST {
            run.second = look * 10;
            run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
            stalled += Duration::from_millis(if look < LAST { before } else { then });
            let age = Duration::from_secs(run.second);
            run.look_with(1, &[(0, &[(age, gib(1))])], &[], Limits::default(), stalled);
        }
        let plan = run.plan();
        matches!(plan.of(CgroupKey(1)).unwrap().limit, Some(Limit::MemoryPressure(_)))
    };
    assert!(!held(0, 0));
    assert!(!held(1000, 1000));
    assert!(held(0, 1000));
    assert!(held(1000, 3000));
}

#[test]
fn nobody_sinks_voluntarily_where_nobody_promotes() {
    let mut run = Run::new(Promoter::None);
    run.add(1, Policy::default());
    run.second = 1000;
    run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
    run.look(1, &[(0, &[(mins(60), gib(10))])], &[]);
    let plan = run.plan();
    let plan = plan.of(CgroupKey(1)).unwrap();
    assert_eq!((plan.demoted(), plan.limit), (Bytes::ZERO, Some(Limit::NoPromoter)));
}

#[test]
fn memory_of_a_node_that_goes_away_came_up_for_no_touch() {
    let mut run = Run::new(Promoter::Kernel);
    run.add(1, Policy::default());
    let both = || vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(100))];
    let alone = || vec![fast(0, &[], gib(100), Bytes::ZERO)];
    for (second, nodes, on_fast, on_slow) in [
        (0, both(), gib(1), gib(1)),
        (60, both(), gib(1), gib(1)),
        // What is counted lags behind what moved.
        (62, alone(), gib(1), gib(1)),
        (122, both(), gib(2), Bytes::ZERO),
    ] {
        run.second = second;
        run.nodes(nodes);
        run.look(1, &[(0, &[(Duration::ZERO, on_fast)])], &[(1, on_slow, Bytes::ZERO)]);
        let touched = run.plan().of(CgroupKey(1)).expect("sampled").touched_per_minute;
        assert_eq!(touched, Bytes::ZERO, "second {second}");
    }
}

#[test]
fn what_is_only_observed_says_so_first() {
    let said = |mode: Mode| {
        let mut run = Run::new(Promoter::Agent);
        run.add(1, Policy { mode, ..Policy::default() });
        run.second = 200;
        run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(mins(3), Bytes::mib(8)), (Duration::ZERO, gib(1))])], &[]);
        run.plan().of(CgroupKey(1)).unwrap().to_string()
    };
    assert_eq!(said(Mode::Observe), "would demote 8 MiB (observed): 8 MiB not accessed for 120s");
    assert_eq!(said(Mode::Enforce), "demote 8 MiB: 8 MiB not accessed for 120s");
}

/// In the same words whether it is carried out or not: nothing is on slow nodes here, but what is touched was cold.
#[test]
fn what_would_be_touched_is_what_was_touched_at_ages_that_count_as_cold() {
    let would_touch = |mode, floor, touched: Bytes| {
        let mut run = Run::new(Promoter::Agent);
        let mut policy = Policy { mode, ..Policy::default() };
        policy.dram.floor = floor;
        run.add(1, policy);
        let (cold, hot) = (Bytes::mib(100), Bytes::mib(400));
        let mut would = Bytes::ZERO;
        for minute in 0..=11 {
            run.second = minute * 60;
            let idle = Duration::from_secs(run.second);
            // The last minute touches some of what was cold until then.
            let back = if minute == 11 { touched } else { Bytes::ZERO };
            run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
            run.look(1, &[(0, &[(idle, cold - back), (Duration::ZERO, hot + back)])], &[]);
            would = run.plan().of(CgroupKey(1)).unwrap().would_touch;
            assert!(minute == 11 || would.is_zero(), "minute {minute}: {would}");
        }
        would
    };
    let bytes = |mib| Some(Share::Bytes(Bytes::mib(mib)));
    for mode in [Mode::Observe, Mode::Enforce] {
        assert_eq!(would_touch(mode, None, Bytes::ZERO), Bytes::ZERO);
        assert_eq!(would_touch(mode, None, Bytes::mib(40)), Bytes::mib(40));
        // What a floor keeps in DRAM is not touched elsewhere.
        assert_eq!(would_touch(mode, bytes(490), Bytes::mib(40)), Bytes::mib(10));
        assert_eq!(would_touch(mode, bytes(500), Bytes::mib(40)), Bytes::ZERO);
    }
}

#[test]
fn what_is_too_few_to_move_stays_and_is_said() {
    let mut run = Run::new(Promoter::Agent);
    run.add(1, Policy::default());
    let mut check = |least: Bytes, limit: Option<Limit>, free: Bytes| {
        run.second = 200;
        let allowed: NodeSet = (0..8_u32).collect();
        run.host.set_reach(CgroupKey(1), Reach { allowed, least, ..Reach::default() });
        run.nodes(vec![fast(0, &[1], gib(100), Bytes::ZERO), slow(1, &[0], gib(400))]);
        run.look(1, &[(0, &[(mins(3), Bytes::mib(8)), (Duration::ZERO, gib(1))])], &[]);
        let plan = run.plan();
        let plan = plan.of(CgroupKey(1)).unwrap();
        let moves = if limit.is_some() { Bytes::ZERO } else { Bytes::mib(8) };
        assert_eq!((plan.limit, plan.demoted(), plan.would_free), (limit, moves, free), "{least}");
    };
    check(Bytes::mib(9), Some(Limit::TooFew(Bytes::mib(8))), Bytes::ZERO);
    check(Bytes::mib(8), None, Bytes::mib(8));
}
