//! Tiers and targets of real and odd topologies.

mod machines;
mod properties;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;
use crate::units::Bytes;

/// One node: `memory`, then what differs from it.
fn node(id: u32, distances: &[u32]) -> NodeFacts {
    NodeFacts {
        id: NodeId(id),
        has_cpu: false,
        memory: Bytes::mib(1024),
        kernel_tier: Some(4),
        performance: None,
        device: None,
        movable_only: false,
        distances: (0..).map(NodeId).zip(distances.iter().copied()).collect(),
    }
}

fn dram(id: u32, distances: &[u32]) -> NodeFacts {
    NodeFacts { has_cpu: true, ..node(id, distances) }
}

fn kmem(id: u32, device: Device, distances: &[u32]) -> NodeFacts {
    NodeFacts { device: Some(device), kernel_tier: Some(22), ..node(id, distances) }
}

fn pmem(id: u32, distances: &[u32]) -> NodeFacts {
    kmem(id, Device::Pmem, distances)
}

impl NodeFacts {
    fn kernel_tier(self, tier: impl Into<Option<u32>>) -> Self {
        Self { kernel_tier: tier.into(), ..self }
    }

    /// Read and write alike, in ns and MiB/s.
    fn hmat(self, latency: u32, bandwidth: u32) -> Self {
        let performance = Performance {
            read_latency_ns: Some(latency),
            write_latency_ns: Some(latency),
            read_bandwidth_mib: Some(bandwidth),
            write_bandwidth_mib: Some(bandwidth),
        };
        Self { performance: Some(performance), ..self }
    }

    fn movable(self) -> Self {
        Self { movable_only: true, ..self }
    }

    fn without_memory(self) -> Self {
        Self { memory: Bytes::ZERO, kernel_tier: None, ..self }
    }
}

/// "dram 0,1 | pmem 2,3".
fn shown(map: &TierMap) -> String {
    let tiers: Vec<_> = map.tiers().iter().map(|tier| format!("{} {}", tier.name, tier.nodes)).collect();
    tiers.join(" | ")
}

/// "0>2,3 1>3,2".
fn targets(map: &TierMap) -> String {
    let steps = map.nodes().iter().filter_map(|from| {
        let chain: Vec<_> = map.demotion_targets(from).iter().map(|to| to.0.to_string()).collect();
        (!chain.is_empty()).then(|| format!("{}>{}", from.0, chain.join(",")))
    });
    steps.collect::<Vec<_>>().join(" ")
}

/// "1 2": the nodes in no tier.
fn left_out(map: &TierMap) -> String {
    map.left_out().keys().map(|node| node.0.to_string()).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(facts: &[NodeFacts], tiers: &str, steps: &str) -> TierMap {
    let map = TierMap::discover(facts).unwrap();
    assert_eq!((shown(&map).as_str(), targets(&map).as_str()), (tiers, steps));
    map
}

#[track_caller]
fn check_agent_only(map: &TierMap, expected: &str) {
    match map.demotion_support() {
        DemotionSupport::AgentOnly { reason } => assert_eq!(reason, expected),
        DemotionSupport::Kernel => panic!("the kernel would demote here"),
    }
}

#[test]
fn each_socket_has_its_own_slow_node() {
    let map = check(
        &[
            dram(0, &[10, 21, 20, 28]),
            dram(1, &[21, 10, 28, 20]),
            pmem(2, &[20, 28, 10, 28]),
            pmem(3, &[28, 20, 28, 10]),
        ],
        "dram 0,1 | pmem 2,3",
        "0>2,3 1>3,2",
    );
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
    assert_eq!((map.fast_nodes().to_string(), map.slow_nodes().to_string()), ("0,1".into(), "2,3".into()));
    assert_eq!((map.promotion_target(NodeId(2)), map.promotion_target(NodeId(3))), (NodeId(0), NodeId(1)));
}

#[test]
fn slow_nodes_are_paired_by_distance_and_not_by_number() {
    let crossed = [
        dram(0, &[10, 21, 28, 17]),
        dram(1, &[21, 10, 17, 28]),
        pmem(2, &[28, 17, 10, 28]),
        pmem(3, &[17, 28, 28, 10]),
    ];
    check(&crossed, "dram 0,1 | pmem 2,3", "0>3,2 1>2,3");
}

#[test]
fn equal_distances_pair_nodes_by_number() {
    let check_all = |same: u32| {
        let row = |id: usize| (0..4).map(|other| if other == id { 10 } else { same }).collect::<Vec<_>>();
        let facts = [dram(0, &row(0)), dram(1, &row(1)), pmem(2, &row(2)), pmem(3, &row(3))];
        let map = check(&facts, "dram 0,1 | pmem 2,3", "0>2,3 1>3,2");
        assert_eq!(
            (map.promotion_target(NodeId(2)), map.promotion_target(NodeId(3))),
            (NodeId(0), NodeId(1))
        );
    };
    check_all(20);
    check_all(10);
    check_all(255);
}

#[test]
fn absent_distances_and_local_distances_between_nodes_are_the_farthest() {
    check(&[dram(0, &[]), dram(1, &[]), pmem(2, &[]), pmem(3, &[])], "dram 0,1 | pmem 2,3", "0>2,3 1>3,2");
    check(&[dram(0, &[10, 10, 200]), pmem(1, &[10, 10]), pmem(2, &[200])], "dram 0 | pmem 1,2", "0>2,1");
    // Only the slow node says how far it is.
    check(&[dram(0, &[]), pmem(1, &[40, 10]), pmem(2, &[17])], "dram 0 | pmem 1,2", "0>2,1");
}

#[test]
fn nodes_that_all_have_cpus_are_one_tier() {
    let fake = [
        dram(0, &[10, 10, 10, 10]),
        dram(1, &[10, 10, 10, 10]),
        dram(2, &[10, 10, 10, 10]),
        dram(3, &[10, 10, 10, 10]),
    ];
    let map = check(&fake, "dram 0,1,2,3", "");
    assert!(!map.has_lower_tier());
    // Nor does a kernel that tells sockets apart make one of them slow.
    let map = check(&[dram(0, &[10, 20]), dram(1, &[20, 10]).kernel_tier(5)], "dram 0,1", "");
    assert_eq!(map.promotion_target(NodeId(1)), NodeId(1));
}

#[test]
fn one_node_is_one_tier() {
    let map = check(&[dram(0, &[10])], "dram 0", "");
    assert!(!map.has_lower_tier());
    assert_eq!(map.resolve(TierRef::Name(TierName::Slow)), None);
    assert_eq!(map.demotion_target(NodeId(0)), None);
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
}

#[test]
fn one_dram_and_one_pmem_node() {
    let map = check(&[dram(0, &[10, 40]), pmem(1, &[40, 10])], "dram 0 | pmem 1", "0>1");
    assert!(map.has_lower_tier());
    assert_eq!(map.demotion_target(NodeId(1)), None);
    assert_eq!(map.tier_of(NodeId(1)).map(|tier| tier.rank), Some(1));
    assert_eq!(map.tier_of(NodeId(7)), None);
    assert_eq!(map.promotion_target(NodeId(7)), NodeId(0));
}

#[test]
fn memory_faster_than_dram_is_rank_0_and_fast() {
    let facts = [
        dram(0, &[10, 13, 28]).hmat(100, 100_000),
        kmem(1, Device::Hbm, &[13, 10, 30]).kernel_tier(1).hmat(120, 400_000),
        kmem(2, Device::Cxl, &[28, 30, 10]).hmat(250, 40_000).kernel_tier(28),
    ];
    let map = check(&facts, "hbm 1 | dram 0 | cxl 2", "0>2");
    assert_eq!(map.fast_nodes().to_string(), "0,1");
    assert_eq!(map.promotion_target(NodeId(2)), NodeId(0));
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
    let resolved = |tier: &str| map.resolve(tier.parse().unwrap()).map(|tier| tier.nodes.to_string());
    assert_eq!(resolved("dram").as_deref(), Some("0"));
    assert_eq!(resolved("slow").as_deref(), Some("2"));
    assert_eq!(resolved("cxl").as_deref(), Some("2"));
    assert_eq!(resolved("0").as_deref(), Some("1"));
    assert_eq!(resolved("3"), None);
    assert_eq!(resolved("pmem"), None);

    let [dram, hbm, cxl] = facts;
    let map = check(&[dram.clone(), hbm.clone()], "hbm 1 | dram 0", "");
    assert!(!map.has_lower_tier());
    assert_eq!(map.resolve(TierRef::Name(TierName::Slow)), None);

    // 6.1 knows nothing of it; with HMAT, and by what the device says alone.
    let map =
        check(&[dram.clone(), hbm.clone().kernel_tier(4), cxl.clone()], "hbm 1 | dram 0 | cxl 2", "0>2");
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
    let silent = NodeFacts { performance: None, ..hbm.kernel_tier(4) };
    check(&[dram, silent, cxl], "hbm 1 | dram 0 | cxl 2", "0>2");
}

#[test]
fn two_sockets_share_one_slow_node() {
    let map = check(
        &[dram(0, &[10, 21, 24]), dram(1, &[21, 10, 34]), kmem(2, Device::Cxl, &[24, 34, 10])],
        "dram 0,1 | cxl 2",
        "0>2 1>2",
    );
    assert_eq!(map.promotion_target(NodeId(2)), NodeId(0));
}

#[test]
fn sockets_that_must_share_take_the_near_slow_node_and_spread_over_equal_ones() {
    let check = |rows: [[u32; 6]; 4], steps: &str| {
        let [a, b, c, d] = rows;
        let facts = [dram(0, &a), dram(1, &b), dram(2, &c), dram(3, &d), pmem(4, &[]), pmem(5, &[])];
        check(&facts, "dram 0,1,2,3 | pmem 4,5", steps);
    };
    let near_4 = [10, 21, 21, 21, 17, 28];
    let near_5 = [10, 21, 21, 21, 28, 17];
    check([near_4, near_5, near_4, near_5], "0>4,5 1>5,4 2>4,5 3>5,4");
    check([near_4, near_4, near_4, near_5], "0>4,5 1>4,5 2>4,5 3>5,4");
    check([[20; 6]; 4], "0>4,5 1>5,4 2>4,5 3>5,4");
}

#[test]
fn one_socket_takes_the_nearer_of_two_slow_nodes() {
    let facts = [dram(0, &[10, 28, 17]), pmem(1, &[28, 10]), pmem(2, &[17, 28, 10])];
    let map = check(&facts, "dram 0 | pmem 1,2", "0>2,1");
    assert_eq!((map.promotion_target(NodeId(1)), map.promotion_target(NodeId(2))), (NodeId(0), NodeId(0)));
}

#[test]
fn hmat_splits_what_the_kernel_keeps_in_one_tier() {
    let facts = |latency, bandwidth| {
        [dram(0, &[10, 20]).hmat(100, 100_000), node(1, &[20, 10]).hmat(latency, bandwidth)]
    };
    let map = check(&facts(250, 40_000), "dram 0 | slow 1", "0>1");
    check_agent_only(
        &map,
        "the kernel has node 0 and node 1 in one tier (memory_tier4): HMAT says that it is 6.2 times as slow as DRAM",
    );
    // 640 / 576 = 1.111 is where the kernel's next tier begins.
    check(&facts(112, 100_000), "dram 0 | slow 1", "0>1");
    let alike = check(&facts(111, 100_000), "dram 0,1", "");
    assert!(!alike.has_lower_tier());
    assert_eq!(alike.fast_nodes().len(), 2);
}

#[test]
fn a_cpuless_node_of_unknown_speed_is_taken_to_be_slow() {
    let facts = [dram(0, &[10, 20]), node(1, &[20, 10])];
    let map = check(&facts, "dram 0 | slow 1", "0>1");
    let assumed =
        "it has no CPUs and nothing tells its speed (no HMAT, no dax device), so it is taken to be slow";
    check_agent_only(
        &map,
        &format!("the kernel has node 0 and node 1 in one tier (memory_tier4): {assumed}"),
    );

    let without_tiers = facts.map(|node| node.kernel_tier(None));
    let map = check(&without_tiers, "dram 0 | slow 1", "0>1");
    check_agent_only(&map, "the kernel shows no memory tier for node 0");
}

#[test]
fn dax_memory_is_below_dram_wherever_the_kernel_has_it() {
    let check_split = |device: Device, tiers: &str, why: &str| {
        let map = check(&[dram(0, &[10, 20]), kmem(1, device, &[20, 10]).kernel_tier(4)], tiers, "0>1");
        check_agent_only(
            &map,
            &format!("the kernel has node 0 and node 1 in one tier (memory_tier4): {why}"),
        );
    };
    check_split(Device::Dax, "dram 0 | slow 1", "it is dax memory");
    check_split(Device::Pmem, "dram 0 | pmem 1", "it is persistent memory");
    check_split(Device::Cxl, "dram 0 | cxl 1", "it is CXL memory");
    // Memory hot-plugged into a node that has CPUs leaves it DRAM.
    let mixed = NodeFacts { has_cpu: true, ..kmem(1, Device::Dax, &[20, 10]).kernel_tier(4) };
    check(&[dram(0, &[10, 20]), mixed], "dram 0,1", "");
}

#[test]
fn devices_that_the_kernel_has_in_one_tier_share_the_name_slow() {
    check(&[dram(0, &[]), pmem(1, &[]), kmem(2, Device::Cxl, &[])], "dram 0 | slow 1,2", "0>1,2");
}

#[test]
fn the_second_slow_tier_takes_what_the_first_has_no_room_for() {
    let facts = [dram(0, &[]), kmem(1, Device::Cxl, &[]).kernel_tier(9), pmem(2, &[])];
    let map = check(&facts, "dram 0 | cxl 1 | pmem 2", "0>1,2");
    assert_eq!(map.demotion_target(NodeId(1)), None, "what sank stays");
    assert_eq!(map.resolve(TierRef::Name(TierName::Slow)).map(|tier| tier.name), Some(TierName::Cxl));
    let map =
        configured(&facts, &[(TierName::Dram, &[0]), (TierName::Cxl, &[1]), (TierName::Pmem, &[2])]).unwrap();
    assert_eq!(targets(&map), "0>1,2");
}

#[test]
fn nodes_without_memory_are_in_no_tier() {
    let facts = [dram(0, &[10, 20, 20]), dram(1, &[20, 10, 20]).without_memory(), pmem(2, &[20, 17, 10])];
    let map = check(&facts, "dram 0 | pmem 2", "0>2");
    assert_eq!(map.nodes().to_string(), "0,2");
    assert_eq!(map.tier_of(NodeId(1)), None);
}

#[test]
fn hosts_without_dram_are_refused() {
    let check = |facts: &[NodeFacts], error: TierError| assert_eq!(TierMap::discover(facts), Err(error));
    check(&[], TierError::NoMemory);
    check(&[dram(0, &[]).without_memory()], TierError::NoMemory);
    check(&[dram(0, &[]).without_memory(), node(1, &[])], TierError::NoCpus([1].into_iter().collect()));
    check(&[dram(0, &[]), dram(0, &[])], TierError::FactsTwice(NodeId(0)));
}

fn configured(facts: &[NodeFacts], tiers: &[(TierName, &[u32])]) -> Result<TierMap, TierError> {
    let of =
        |&(name, nodes): &(TierName, &[u32])| TierOverride { name, nodes: nodes.iter().copied().collect() };
    TierMap::configured(facts, &tiers.iter().map(of).collect::<Vec<_>>())
}

#[test]
fn configured_tiers_override_what_the_host_says() {
    let facts = [dram(0, &[10, 20]), node(1, &[20, 10])];
    let map = configured(&facts, &[(TierName::Dram, &[0]), (TierName::Cxl, &[1])]).unwrap();
    assert_eq!((shown(&map).as_str(), targets(&map).as_str()), ("dram 0 | cxl 1", "0>1"));
    check_agent_only(&map, "the kernel has node 0 and node 1 in one tier (memory_tier4)");

    let one = configured(&facts, &[(TierName::Dram, &[0, 1])]).unwrap();
    assert!(!one.has_lower_tier());

    // A node with CPUs is fast, whatever it is called.
    let sockets = [dram(0, &[10, 20]), dram(1, &[20, 10])];
    let map = configured(&sockets, &[(TierName::Dram, &[0]), (TierName::Pmem, &[1])]).unwrap();
    assert_eq!((map.has_lower_tier(), targets(&map).as_str()), (false, ""));
}

#[test]
fn configured_tiers_that_the_kernel_crosses_are_for_the_agent_only() {
    let facts = [dram(0, &[]), kmem(1, Device::Cxl, &[]).kernel_tier(9), pmem(2, &[])];
    let map = configured(&facts, &[(TierName::Dram, &[0]), (TierName::Slow, &[1, 2])]).unwrap();
    assert_eq!(map.demotion_support(), &DemotionSupport::Kernel);
    let map =
        configured(&facts, &[(TierName::Dram, &[0]), (TierName::Pmem, &[2]), (TierName::Cxl, &[1])]).unwrap();
    check_agent_only(
        &map,
        "the kernel demotes node 0 to the nodes of memory_tier9 (1), not to those of the next tier (2)",
    );
    let map =
        configured(&facts, &[(TierName::Hbm, &[2]), (TierName::Dram, &[0]), (TierName::Slow, &[1])]).unwrap();
    check_agent_only(
        &map,
        "the kernel would also demote node 0 to node 2 (memory_tier22), which is not below DRAM here",
    );
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    use TierName::{Dram, Pmem, Slow};
    let facts = [dram(0, &[]), pmem(1, &[]), pmem(2, &[]).without_memory()];
    let check =
        |tiers: &[(TierName, &[u32])], error: TierError| assert_eq!(configured(&facts, tiers), Err(error));
    let set = |node: u32| [node].into_iter().collect::<NodeSet>();
    check(&[(Dram, &[0]), (Slow, &[1, 9])], TierError::NodeNotThere { tier: Slow, node: NodeId(9) });
    check(&[(Dram, &[0]), (Slow, &[1, 2])], TierError::NodeWithoutMemory { tier: Slow, node: NodeId(2) });
    let twice = TierError::NodeTwice { node: NodeId(1), first: Dram, second: Slow };
    check(&[(Dram, &[0, 1]), (Slow, &[1])], twice);
    check(&[(Slow, &[1])], TierError::CpusLeftOut(set(0)));
    check(&[], TierError::CpusLeftOut(set(0)));
    check(&[(Dram, &[0, 1]), (Slow, &[])], TierError::EmptyTier(Slow));
    check(&[(Pmem, &[0]), (Dram, &[1])], TierError::DramWithoutCpus(set(1)));
    check(&[(Slow, &[1]), (Dram, &[0])], TierError::SlowNotBelow(set(1)));

    let cpuless = [dram(0, &[]).without_memory(), pmem(1, &[])];
    assert_eq!(configured(&cpuless, &[(Slow, &[1])]), Err(TierError::NoCpus(set(1))));
}

#[test]
fn errors_tell_what_to_do() {
    let twice = TierError::NodeTwice { node: NodeId(1), first: TierName::Dram, second: TierName::Slow };
    assert_eq!(twice.to_string(), "node 1 is in two configured tiers, dram and slow; keep it in one");
    let left_out = TierError::CpusLeftOut([2, 3].into_iter().collect());
    assert_eq!(
        left_out.to_string(),
        "no configured tier has the memory of nodes 2,3, which have CPUs; put them into dram (nodes without CPUs may be left out)"
    );
}

#[test]
fn more_tiers_than_ranks_are_refused() {
    let tiers = |count: u32| {
        let slow = (1..count).map(|id| pmem(id, &[]).kernel_tier(22 + id));
        let facts: Vec<_> = core::iter::once(dram(0, &[])).chain(slow).collect();
        TierMap::discover(&facts).map(|map| map.tiers().len())
    };
    assert_eq!(tiers(256), Ok(256));
    assert_eq!(tiers(257), Err(TierError::TooManyTiers(257)));
}
