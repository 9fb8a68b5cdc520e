//! Kinds of machines that exist, and their neighbours: what is DRAM, what takes cold pages in which order, what is left out.

use std::vec;

use super::*;

#[track_caller]
fn check_all(facts: &[NodeFacts], tiers: &str, steps: &str, out: &str) -> TierMap {
    let map = check(facts, tiers, steps);
    assert_eq!(left_out(&map), out, "left out");
    map
}

/// A row of distances: 10 to itself, `others` to all else.
fn row(id: usize, nodes: usize, others: u32) -> Vec<u32> {
    (0..nodes).map(|other| if other == id { 10 } else { others }).collect()
}

/// A GPU's memory as its driver puts it online.
fn gpu(id: u32, distances: &[u32]) -> NodeFacts {
    node(id, distances).movable()
}

fn gh200() -> Vec<NodeFacts> {
    let instance = |id: u32| node(id, &[80, 255]).without_memory();
    let mut nodes = vec![dram(0, &[10, 80, 80]), gpu(1, &[80, 10, 255])];
    nodes.extend((2..9).map(instance));
    nodes
}

#[test]
fn memory_of_a_gpu_is_left_out_unless_it_is_named() {
    let map = check_all(&gh200(), "dram 0", "", "1");
    assert!(!map.has_lower_tier() && !map.nodes().contains(NodeId(1)));
    let why = map.left_out().values().next().unwrap();
    assert!(why.contains("memory of a device, such as a GPU"), "{why}");

    let named = configured(&gh200(), &[(TierName::Dram, &[0]), (TierName::Slow, &[1])]).unwrap();
    assert_eq!((shown(&named).as_str(), targets(&named).as_str()), ("dram 0 | slow 1", "0>1"));
}

#[test]
fn gpus_of_two_sockets_are_left_out() {
    let ids = [0, 8, 250, 251, 252, 253, 254, 255];
    let distances = |from: u32| -> BTreeMap<NodeId, u32> {
        ids.iter()
            .map(|to| {
                (
                    NodeId(*to),
                    if *to == from {
                        10
                    } else if from < 9 && *to < 9 {
                        40
                    } else {
                        80
                    },
                )
            })
            .collect()
    };
    let facts: Vec<_> = ids
        .iter()
        .map(|id| {
            let fresh = if *id < 9 { dram(*id, &[]) } else { gpu(*id, &[]) };
            NodeFacts { distances: distances(*id), ..fresh }
        })
        .collect();
    check_all(&facts, "dram 0,8", "", "250 251 252 253 254 255");
}

#[test]
fn memory_of_a_gpu_is_no_target_on_a_host_with_cxl_either() {
    let cxl = kmem(2, Device::Cxl, &[20, 80, 10]).movable();
    let facts = [dram(0, &[10, 80, 20]), gpu(1, &[80, 10]), cxl];
    let map = check_all(&facts, "dram 0 | cxl 2", "0>2", "1");
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel, "the kernel has the GPU beside DRAM");

    // A kernel that knows by HMAT how slow it is would fill it, so its demotion is not used.
    let [dram, gpu, cxl] = facts;
    let slower = gpu.hmat(400, 400_000).kernel_tier(30);
    let map = check_all(&[dram.hmat(110, 500_000), slower, cxl], "dram 0 | cxl 2", "0>2", "1");
    check_agent_only(
        &map,
        "the kernel would also demote node 0 to node 1 (memory_tier30), which is not below DRAM here: it looks like \
         memory of a device, such as a GPU: far from all CPUs, put online as movable, and no dax device",
    );
}

#[test]
fn memory_of_a_gpu_is_left_out_whether_it_is_movable_or_not_and_wherever_the_kernel_shows_it() {
    for tier in [Some(4), None] {
        check_all(
            &[dram(0, &[10, 80]).kernel_tier(tier), node(1, &[80, 10]).kernel_tier(tier)],
            "dram 0",
            "",
            "1",
        );
        // Put online by a driver, at a distance that says nothing.
        check_all(
            &[dram(0, &[10, 20]).kernel_tier(tier), gpu(1, &[20, 10]).kernel_tier(tier)],
            "dram 0",
            "",
            "1",
        );
        check_all(&[dram(0, &[]).kernel_tier(tier), gpu(1, &[]).kernel_tier(tier)], "dram 0", "", "1");
    }
}

#[test]
fn nodes_may_be_left_out_by_name_but_not_cpus() {
    let facts = [dram(0, &[10, 21, 17, 28]), dram(1, &[21, 10, 28, 17]), pmem(2, &[]), pmem(3, &[])];
    let map = configured(&facts, &[(TierName::Dram, &[0, 1]), (TierName::Pmem, &[2])]).unwrap();
    assert_eq!((shown(&map).as_str(), left_out(&map).as_str()), ("dram 0,1 | pmem 2", "3"));
    assert_eq!(targets(&map), "0>2 1>2");
    check_agent_only(
        &map,
        "the kernel would also demote node 0 to node 3 (memory_tier22), which is not below DRAM here: the configured \
         tiers do not name it",
    );
    let without_cpus = configured(&facts, &[(TierName::Dram, &[0]), (TierName::Pmem, &[2, 3])]);
    assert_eq!(without_cpus, Err(TierError::CpusLeftOut([1].into_iter().collect())));
}

#[test]
fn dram_without_cpus_is_dram_where_the_kernel_has_it_there() {
    let cxl = kmem(2, Device::Cxl, &[20, 22, 10]).movable();
    let facts = [dram(0, &[10, 12, 20]), node(1, &[12, 10, 22]), cxl];
    let map = check_all(&facts, "dram 0,1 | cxl 2", "0>2 1>2", "");
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
    assert_eq!(map.fast_nodes().to_string(), "0,1");

    // As far as another socket, it is the kernel's word that counts.
    let [near, far, cxl] = facts;
    let far = NodeFacts { distances: [(NodeId(0), 32)].into(), ..far };
    check_all(&[near.clone(), far, cxl.clone()], "dram 0,1 | cxl 2", "0>2 1>2", "");
    // Of one socket, also where the kernel says nothing.
    let beside = node(1, &[12, 10, 22]);
    check_all(&[near.clone(), beside.clone()], "dram 0,1", "", "");
    check_all(&[near.kernel_tier(None), beside.kernel_tier(None)], "dram 0,1", "", "");
}

fn hbm(id: u32, distances: &[u32]) -> NodeFacts {
    kmem(id, Device::Dax, distances).movable().hmat(130, 800_000)
}

#[test]
fn high_bandwidth_memory_is_never_below_dram() {
    let socket = |id: u32, distances: &[u32]| dram(id, distances).hmat(110, 200_000);
    let sockets = [socket(0, &[10, 21, 13, 23]), socket(1, &[21, 10, 23, 13])];
    let [a, b] = sockets.clone();
    let facts = [a, b, hbm(2, &[13, 23, 10, 23]), hbm(3, &[23, 13, 23, 10])];
    let map = check_all(&facts, "hbm 2,3 | dram 0,1", "", "");
    assert!(!map.has_lower_tier());

    // With CXL below: the kernel has both in one tier, and would fill either.
    let [a, b, c, d] = facts.clone();
    let cxl = kmem(4, Device::Cxl, &[]).hmat(300, 60_000);
    let map = check_all(&[a, b, c, d, cxl], "hbm 2,3 | dram 0,1 | cxl 4", "0>4 1>4", "");
    check_agent_only(
        &map,
        "the kernel would also demote node 0 to node 2 (memory_tier22), which is not below DRAM here: HMAT says that \
         it is faster than DRAM (0.2 times as slow)",
    );

    // As fast as DRAM, it is no place for what is cold.
    let [a, b] = sockets.clone();
    let alike = kmem(2, Device::Dax, &[]).hmat(110, 200_000);
    check_all(&[a, b, alike], "dram 0,1,2", "", "");
    // Not where HMAT speaks of some nodes only: then it is the kernel's word.
    let [a, b] = sockets.map(|socket| NodeFacts { performance: None, ..socket });
    check_all(&[a, b, hbm(2, &[])], "dram 0,1 | slow 2", "0>2 1>2", "");
    // A newer kernel reads HMAT itself.
    let facts = facts.map(|node| if node.has_cpu { node } else { node.kernel_tier(1) });
    check_all(&facts, "hbm 2,3 | dram 0,1", "", "");
}

#[test]
fn a_second_tier_of_cxl_takes_what_the_first_has_no_room_for() {
    let cxl = |id, latency, tier, distances: &[u32]| {
        kmem(id, Device::Cxl, distances).hmat(latency, 64_000).kernel_tier(tier)
    };
    let sockets =
        [dram(0, &[10, 21, 14, 24]).hmat(110, 220_000), dram(1, &[21, 10, 24, 14]).hmat(110, 220_000)];
    let [a, b] = sockets.clone();
    let facts = [a, b, cxl(2, 250, 35, &[14, 24, 10, 26]), cxl(3, 270, 38, &[24, 14, 26, 10])];
    let map = check_all(&facts, "dram 0,1 | cxl 2 | cxl 3", "0>2,3 1>2,3", "");
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
    assert_eq!((map.promotion_target(NodeId(2)), map.promotion_target(NodeId(3))), (NodeId(0), NodeId(1)));

    // Three tiers below, the second of two nodes: each socket begins with its own.
    let [a, b] = sockets;
    let facts = [
        a,
        b,
        cxl(2, 250, 35, &[14, 24]),
        cxl(3, 270, 38, &[24, 14]),
        cxl(4, 270, 38, &[14, 24]),
        pmem(5, &[17, 28]).kernel_tier(60),
    ];
    check_all(&facts, "dram 0,1 | cxl 2 | cxl 3,4 | pmem 5", "0>2,4,3,5 1>2,3,4,5", "");
}

#[test]
fn the_far_slow_node_comes_after_the_near_one() {
    // Ordinary memory of which nothing is known: the kernel has all in one tier.
    let facts = [dram(0, &[10, 20, 40]), node(1, &[20, 10]), node(2, &[40, 20, 10])];
    check_all(&facts, "dram 0 | slow 1,2", "0>1,2", "");
}

#[test]
fn eight_sockets_have_each_its_own_slow_node_and_then_those_of_the_others() {
    let near = |id: usize, own: usize| {
        let mut distances = row(id, 16, 21);
        for (slow, distance) in distances.iter_mut().enumerate().skip(8) {
            *distance = if slow == own { 17 } else { 28 };
        }
        distances
    };
    let sockets = (0..8).map(|id| dram(u32::try_from(id).unwrap(), &near(id, id + 8)));
    let facts: Vec<_> = sockets.chain((8..16).map(|id| pmem(id, &[]))).collect();
    let map = TierMap::discover(&facts).unwrap();
    assert_eq!(shown(&map), "dram 0,1,2,3,4,5,6,7 | pmem 8,9,10,11,12,13,14,15");
    for id in 0..8 {
        let chain = map.demotion_targets(NodeId(id));
        assert_eq!((chain[0], chain.len()), (NodeId(id + 8), 8));
    }
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
}

#[test]
fn a_slow_node_that_is_offline_or_empty_is_in_no_tier() {
    let facts = [dram(0, &[10, 20, 20]), pmem(1, &[20, 10]).without_memory(), pmem(2, &[20, 20, 10])];
    check_all(&facts, "dram 0 | pmem 2", "0>2", "");
    check_all(&facts[..2], "dram 0", "", "");
}
