//! What holds of every plan, of any host.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tiering::law::{
    AgeReading, CgroupKey, CgroupPlan, CgroupSample, Host, HostSample, NodeSample, NodeUse, Plan, Promoter,
    Reach, Settings, Speed,
};
use tiering::{
    ByteRate, Bytes, DemoteReason, Instant, Mode, NodeId, NodeSet, Policy, Ratio, Share, StallTotals,
};

const FAST: [u32; 2] = [0, 1];
const SLOW: [u32; 2] = [2, 3];
const PAGE: Bytes = Bytes(4096);

/// Anonymous memory of one cgroup: by fast node ages and MiB, by slow node MiB and of them those touched.
#[derive(Clone, Debug)]
struct Pod {
    policy: Policy,
    fast: [Vec<(u64, u64)>; 2],
    slow: [(u64, u64); 2],
}

#[derive(Clone, Debug)]
struct World {
    /// Free and clean file memory of each node, MiB.
    nodes: [(u64, u64); 4],
    pods: Vec<Pod>,
    promoter: Promoter,
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        (0_u64..64 << 10).prop_map(|mib| Share::Bytes(Bytes::mib(mib))),
        (0_u64..=100).prop_map(|percent| Share::OfFootprint(Ratio::of_parts(percent.into(), 100))),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let after = 4_u64..600;
    let rate = 1_u64..4096;
    (
        after,
        rate,
        proptest::option::of(share()),
        proptest::option::of(share()),
        1_u32..500,
        any::<[bool; 2]>(),
    )
        .prop_map(|(after, rate, floor, ceiling, weight, [observe, promote])| {
            let mut policy = Policy::default();
            policy.demote.after = Duration::from_secs(after);
            policy.demote.after_max = policy.demote.after * 16;
            policy.demote.max_rate = ByteRate::mib_per_s(rate);
            policy.promote.enabled = promote;
            (policy.dram.floor, policy.dram.ceiling, policy.dram.weight) = (floor, ceiling, weight);
            policy.mode = if observe { Mode::Observe } else { Mode::Enforce };
            policy
        })
        .prop_filter_map("a floor above the ceiling", |policy| policy.validated().ok())
}

fn pod() -> impl Strategy<Value = Pod> {
    let ages = || proptest::collection::vec((0_u64..4000, 0_u64..32 << 10), 0..4);
    let slow = || (0_u64..32 << 10, 0_u64..4096);
    (policy(), [ages(), ages()], [slow(), slow()]).prop_map(|(policy, mut fast, slow)| {
        for ages in &mut fast {
            ages.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        }
        Pod { policy, fast, slow }
    })
}

fn world() -> impl Strategy<Value = World> {
    // Often short, and sometimes below the low watermark.
    let node = || prop_oneof![(0_u64..64 << 10, 0_u64..64 << 10), (0_u64..10 << 10, Just(0))];
    let promoter = prop_oneof![Just(Promoter::Agent), Just(Promoter::Kernel), Just(Promoter::None)];
    ([node(), node(), node(), node()], proptest::collection::vec(pod(), 1..6), promoter)
        .prop_map(|(nodes, pods, promoter)| World { nodes, pods, promoter })
}

fn node(id: u32, (free, file): (u64, u64)) -> NodeSample {
    let (speed, others) = if FAST.contains(&id) { (Speed::Fast, SLOW) } else { (Speed::Slow, FAST) };
    NodeSample {
        node: NodeId(id),
        speed,
        total: Bytes::mib(512 << 10),
        free: Bytes::mib(free),
        pcp: Bytes::ZERO,
        min: Bytes::mib(400),
        low: Bytes::mib(600),
        high: Bytes::mib(1200),
        reclaimable_file: Bytes::mib(file),
        targets: others.map(NodeId).to_vec(),
    }
}

fn sample(pod: &Pod, at: Instant) -> CgroupSample {
    let mut nodes = BTreeMap::new();
    for (id, ages) in FAST.into_iter().zip(&pod.fast) {
        let ages: Vec<_> =
            ages.iter().map(|(age, mib)| (Duration::from_secs(*age), Bytes::mib(*mib))).collect();
        let anon = ages.iter().map(|(_, bytes)| *bytes).sum();
        let ages = Some(AgeReading { ages, walked: true });
        nodes.insert(NodeId(id), NodeUse { anon, ages, ..NodeUse::default() });
    }
    for (id, (anon, touched)) in SLOW.into_iter().zip(pod.slow) {
        let touched = Some(Bytes::mib(touched.min(anon)));
        nodes.insert(NodeId(id), NodeUse { anon: Bytes::mib(anon), touched, ..NodeUse::default() });
    }
    let stalls = StallTotals { memory: Some(Duration::ZERO), io: None };
    CgroupSample { at, nodes, stalls, ..CgroupSample::default() }
}

/// The plans of a few looks, each with the host before it.
fn plans(world: &World) -> Vec<(Host, Plan)> {
    let mut host = Host::new(Settings { promoter: world.promoter, ..Settings::default() });
    let allowed: NodeSet = (0..4_u32).collect();
    let keys = || (0_u64..).map(CgroupKey);
    for (key, pod) in keys().zip(&world.pods) {
        host.add(key, pod.policy.clone(), None, Instant::default());
        host.set_reach(key, Reach { allowed: allowed.clone(), ..Reach::default() });
    }
    let mut plans = Vec::new();
    for round in 0..4 {
        let now = Instant(Duration::from_secs(1000 + round * 150));
        let nodes = (0_u32..).zip(world.nodes).map(|(id, memory)| node(id, memory)).collect();
        host.observe_nodes(HostSample { at: now, nodes });
        for (key, pod) in keys().zip(&world.pods) {
            host.observe(key, sample(pod, now));
        }
        let before = host.clone();
        plans.push((before, host.plan(now)));
    }
    plans
}

fn on_fast(pod: &Pod) -> Bytes {
    Bytes::mib(pod.fast.iter().flatten().map(|(_, mib)| mib).sum())
}

proptest! {
    #[test]
    fn floor_is_never_crossed(world in world()) {
        for (_, plan) in plans(&world) {
            for (pod, cgroup) in world.pods.iter().zip(&plan.cgroups) {
                let demoted = cgroup.demoted();
                prop_assert!(demoted.is_zero() || on_fast(pod) - demoted >= cgroup.floor, "{pod:?}: {cgroup}");
            }
        }
    }

    #[test]
    fn nobody_gives_what_is_younger_than_allowed(world in world()) {
        for (_, plan) in plans(&world) {
            for (pod, cgroup) in world.pods.iter().zip(&plan.cgroups) {
                for order in &cgroup.demote {
                    let least = match order.reason {
                        DemoteReason::Cold => cgroup.effective_age,
                        DemoteReason::Headroom if pod.policy.dram.ceiling.is_none() => pod.policy.demote.after / 2,
                        // A ceiling takes what is coldest, whatever its age, and others may need it as well.
                        DemoteReason::Headroom | DemoteReason::Ceiling => Duration::ZERO,
                    };
                    prop_assert!(order.least_age >= least, "{pod:?}: {order:?}");
                }
            }
        }
    }

    #[test]
    fn after_is_a_promise(world in world()) {
        for (_, plan) in plans(&world) {
            let urgent = |id| plan.node(id).is_some_and(|node| node.urgent);
            for (pod, cgroup) in world.pods.iter().zip(&plan.cgroups) {
                for order in cgroup.demote.iter().filter(|order| order.reason == DemoteReason::Headroom) {
                    prop_assert!(
                        urgent(order.from)
                            || pod.policy.dram.ceiling.is_some()
                            || order.least_age >= pod.policy.demote.after,
                        "{pod:?}: {order:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_planned_fits_the_rates(world in world()) {
        for (mut host, plan) in plans(&world) {
            for cgroup in &plan.cgroups {
                let (down, up) = host.rates(cgroup.key, plan.at);
                prop_assert!(cgroup.demoted() <= down + PAGE, "{cgroup}: {down}");
                prop_assert!(cgroup.promoted() <= up + PAGE, "{cgroup}: {up}");
            }
        }
    }

    #[test]
    fn what_is_planned_fits_the_room(world in world()) {
        for (_, plan) in plans(&world) {
            let room = |ids: [u32; 2]| -> Bytes {
                ids.iter().filter_map(|id| plan.node(NodeId(*id))).map(|node| node.room).sum()
            };
            let acts = || plan.cgroups.iter().filter(|cgroup| cgroup.mode == Mode::Enforce);
            let down: Bytes = acts().map(CgroupPlan::demoted).sum();
            prop_assert!(down <= room(SLOW), "{down}");
            for id in FAST.map(NodeId) {
                let up: Bytes = acts()
                    .flat_map(|cgroup| &cgroup.promote)
                    .filter(|order| order.to == id)
                    .map(|order| order.bytes)
                    .sum();
                prop_assert!(up <= plan.node(id).map_or(Bytes::ZERO, |node| node.room), "{up} to {id:?}");
            }
        }
    }

    #[test]
    fn what_is_short_has_no_room(world in world()) {
        for (_, plan) in plans(&world) {
            for node in plan.nodes.iter().filter(|node| !node.shortfall.is_zero()) {
                prop_assert!(node.room.is_zero(), "{node:?}");
            }
        }
    }

    #[test]
    fn observe_decides_the_same(mut world in world()) {
        // Nothing is short.
        world.nodes = [(64 << 10, 64 << 10); 4];
        let with = |mode| {
            let mut world = world.clone();
            world.pods.truncate(1);
            world.pods[0].policy.mode = mode;
            plans(&world).into_iter().map(|(_, plan)| (plan.cgroups[0].demote.clone(), plan.cgroups[0].limit))
                .next()
        };
        prop_assert_eq!(with(Mode::Observe), with(Mode::Enforce));
    }

    #[test]
    fn nothing_is_said_that_is_not_done(world in world()) {
        for (_, plan) in plans(&world) {
            for cgroup in &plan.cgroups {
                prop_assert!(world.promoter == Promoter::Agent || cgroup.promote.is_empty(), "{cgroup}");
                if world.promoter == Promoter::None {
                    let voluntary = cgroup.demote.iter().any(|order| order.reason == DemoteReason::Cold);
                    prop_assert!(!voluntary, "{cgroup}");
                }
            }
        }
    }
}
