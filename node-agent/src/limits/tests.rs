use std::path::Path;

use host::cgroup::{CgroupPath, CgroupRoot};
use host::probe::{Feature, ProbeReport, ProbeRow};
use host::reclaim::ReclaimSyntax;
use tiering::{EngineChoice, Policy};

use super::*;
use crate::engine::fixture::{cgroup, ground, write};

const MIB: u64 = 1 << 20;

/// A cgroup of plain files with these values, managed with `memoryHigh: Fixed`.
fn managed(dir: &Path, high: &str, current_mib: u64, fixed_mib: u64) -> (CgroupRoot, State, Managed) {
    let pod = dir.join("pod");
    std::fs::create_dir_all(&pod).unwrap();
    std::fs::write(pod.join("memory.high"), high).unwrap();
    std::fs::write(pod.join("memory.current"), (current_mib * MIB).to_string()).unwrap();
    std::fs::write(pod.join("cgroup.procs"), "").unwrap();
    let root = CgroupRoot::open_unchecked(dir).unwrap();
    let state = State::open(&dir.join("state"), "boot").unwrap();
    let policy = Policy { memory_high: MemoryHighPolicy::Fixed(Bytes::mib(fixed_mib)), ..Policy::default() };
    let cgroup = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
    let managed = Managed::new(cgroup, "fixed", policy, Duration::ZERO, Instant::default());
    (root, state, managed)
}

/// One step: what the file holds then, whether it is on record, and how soon the next step is due.
fn check(high: &str, current_mib: u64, fixed_mib: u64, then: &str, recorded: bool, progress: Progress) {
    let dir = tempfile::tempdir().unwrap();
    let (root, mut state, mut managed) = managed(dir.path(), high, current_mib, fixed_mib);
    let (found, _) = step_memory_high(
        &root,
        &mut state,
        &mut managed,
        None,
        &Roots::new("proc".into(), "sys".into(), "debug".into()),
    )
    .unwrap();
    let what = format!("{high} stood, {current_mib} MiB used, {fixed_mib} wanted");
    assert_eq!(found, progress, "{what}");
    assert_eq!(std::fs::read_to_string(dir.path().join("pod/memory.high")).unwrap(), then, "{what}");
    let record = state.file(managed.cgroup.id(), ControlFile::MemoryHigh);
    assert_eq!(record.map(|record| record.original.as_str()), recorded.then_some(high), "{what}");
}

#[test]
fn usage_below_the_wish_is_limited_at_once() {
    check("max", 100, 128, &(128 * MIB).to_string(), true, Progress::Settled);
}

#[test]
fn usage_above_the_wish_is_never_limited_below_itself() {
    check("max", 300, 128, &(316 * MIB).to_string(), true, Progress::Waiting);
}

#[test]
fn a_lower_limit_of_another_is_not_touched() {
    let lower = (96 * MIB).to_string();
    check(&lower, 40, 128, &lower, false, Progress::Settled);
    check(&lower, 90, 128, &lower, false, Progress::Settled);
}

#[test]
fn a_higher_limit_of_another_is_lowered_and_remembered() {
    check("1073741824", 900, 128, &((900 + 28) * MIB + 131_072).to_string(), true, Progress::Waiting);
}

#[test]
fn a_limit_that_waits_for_usage_to_fall_is_raised_as_usage_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (root, mut state, mut managed) = managed(dir.path(), "max", 300, 128);
    let file = |name| dir.path().join("pod").join(name);
    let mut values = Vec::new();
    for current_mib in [300, 304, 310, 320, 420, 419] {
        std::fs::write(file("memory.current"), (current_mib * MIB).to_string()).unwrap();
        let (progress, _) = step_memory_high(
            &root,
            &mut state,
            &mut managed,
            None,
            &Roots::new("proc".into(), "sys".into(), "debug".into()),
        )
        .unwrap();
        assert_eq!(progress, Progress::Waiting, "{current_mib} MiB used");
        values.push(std::fs::read_to_string(file("memory.high")).unwrap().parse::<u64>().unwrap() / MIB);
    }
    // Raised only where less than half of the slack of 16 MiB is left.
    assert_eq!(values, [316, 316, 326, 336, 436, 436]);
}

#[test]
fn what_another_moved_up_is_told_from_what_was_allocated_or_freed() {
    type Mib = (u64, u64);
    let by_node =
        |(fast, slow): Mib| BTreeMap::from([(NodeId(0), Bytes::mib(fast)), (NodeId(1), Bytes::mib(slow))]);
    let check = |before: Mib, now: Mib, came: u64| {
        let fast = NodeSet::from_iter([NodeId(0)]);
        let arrived = arrived(&by_node(before), &by_node(now), &fast);
        assert_eq!(arrived, Bytes::mib(came), "{before:?} MiB on fast and slow before, {now:?} now");
    };
    check((10, 50), (40, 20), 30);
    check((10, 50), (40, 50), 0);
    check((10, 50), (10, 20), 0);
    check((10, 50), (15, 20), 5);
    check((40, 20), (10, 50), 0);
}

/// The cgroup `/pod` with 64 MiB on node 0 that may use both nodes, its policy that it uses the slow one alone, and an engine
/// that moves down.
fn retiered(dir: &Path) -> (CgroupRoot, Ground, State, Managed, Engine) {
    write(
        dir,
        &[
            ("cgroup/pod/cgroup.procs", ""),
            ("cgroup/pod/cpuset.mems", "0-1\n"),
            ("cgroup/pod/cpuset.mems.effective", "0-1\n"),
            (
                "cgroup/pod/memory.numa_stat",
                "anon N0=67108864 N1=0\nfile N0=0 N1=0\ninactive_anon N0=67108864 N1=0\n",
            ),
            ("cgroup/pod/memory.reclaim", ""),
            ("sys/kernel/mm/numa/demotion_enabled", "true\n"),
            ("sys/devices/system/node/has_normal_memory", "0-1\n"),
            ("sys/devices/system/node/node0/meminfo", MEMINFO),
            ("sys/devices/system/node/node1/meminfo", MEMINFO),
            ("proc/zoneinfo", ZONES),
        ],
    );
    let ground = ground(dir);
    let available = |feature| ProbeRow {
        feature,
        state: host::probe::State::Available,
        detail: String::new(),
        remedy: None,
    };
    let probe = ProbeReport {
        rows: [Feature::Tiers, Feature::Reclaim, Feature::Demotion].map(available).into(),
        lru_gen_syntax: None,
        reclaim_syntax: Some(ReclaimSyntax::Max),
    };
    let engine = Engine::choose(EngineChoice::Reclaim, &probe, &ground).unwrap();
    let root = CgroupRoot::open_unchecked(dir.join("cgroup")).unwrap();
    let state = State::open(&dir.join("state"), "boot").unwrap();
    let policy = Policy { tiers: vec![TierRef::Rank(1)], ..Policy::default() };
    let managed = Managed::new(cgroup(dir, "/pod"), "slow", policy, Duration::ZERO, Instant::default());
    (root, ground, state, managed, engine)
}

const ZONES: &str = "Node 0, zone Normal\n  pages free 131072\nNode 1, zone Normal\n  pages free 131072\n";
const MEMINFO: &str = "Node 0 MemTotal: 1048576 kB\nNode 0 MemFree: 524288 kB\n";

#[test]
fn the_first_step_of_a_change_of_tiers_moves_before_any_sample() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ground, mut state, mut managed, mut engine) = retiered(dir.path());
    let mut law = law::Host::new(law::Settings::default());
    law.add(managed.key(), managed.policy.clone(), None, Instant::default());
    let mut node = NodeMemory::default();
    node.read(&ground, Instant::default()).unwrap();
    law.observe_nodes(node.sample(&ground, Instant::default()));
    let movers =
        Movers { engine: Some(&mut engine), pages: None, law: &mut law, budget: Duration::from_secs(1) };
    let step =
        step_tiers(&root, &ground, &node, &mut state, &mut managed, movers, Instant::default()).unwrap();
    assert!(matches!(step, (Progress::Stepping, Some(Relocated::Down("reclaim", _)), _)), "{step:?}");
    assert_eq!(managed.allowed, *ground.tiers.nodes(), "what the engine may move between");
    assert_eq!(std::fs::read_to_string(dir.path().join("cgroup/pod/cpuset.mems")).unwrap(), "0-1\n");
}

#[test]
fn a_change_of_tiers_waits_until_the_memory_of_the_nodes_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ground, mut state, mut managed, mut engine) = retiered(dir.path());
    let mut law = law::Host::new(law::Settings::default());
    law.add(managed.key(), managed.policy.clone(), None, Instant::default());
    let id = managed.cgroup.id();
    state.will_write_file(id, managed.cgroup.path(), ControlFile::CpusetMems, "", "0-1").unwrap();
    let movers =
        Movers { engine: Some(&mut engine), pages: None, law: &mut law, budget: Duration::from_secs(1) };
    let node = NodeMemory::default();
    let step =
        step_tiers(&root, &ground, &node, &mut state, &mut managed, movers, Instant::default()).unwrap();
    assert!(matches!(step, (Progress::Waiting, None, _)), "{step:?}");
    assert!(state.file(id, ControlFile::CpusetMems).is_some(), "what an agent before set stays");
    assert_eq!(std::fs::read_to_string(dir.path().join("cgroup/pod/cpuset.mems")).unwrap(), "0-1\n");
}
