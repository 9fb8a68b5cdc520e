use std::path::Path;

use tiering::NodeId;

use super::*;
use crate::engine::fixture::{cgroup, ground, write};

/// An idle process with one mapping of 4 pages, 3 of them on node 0 and 1 on node 1.
fn process(dir: &Path, pid: i32) {
    let file = |name: &str| format!("proc/{pid}/{name}");
    let smaps = "10000-14000 rw-p 00000000 00:00 0 \nReferenced: 0 kB\nVmFlags: rd wr \n";
    write(
        dir,
        &[
            (&file("stat"), &format!("{pid} (sh) S {}100 0\n", "0 ".repeat(18))),
            (&file("smaps"), smaps),
            (&file("numa_maps"), "10000 default anon=4 N0=3 N1=1\n"),
            (&file("clear_refs"), ""),
            (&file("pagemap"), ""),
        ],
    );
}

/// The engine on a host whose one cgroup `/pod` has these processes.
fn engine(dir: &Path, pids: &[i32]) -> (PagesEngine, Ground, Cgroup) {
    let node = "sys/devices/system/node";
    let procs: Vec<String> = pids.iter().map(i32::to_string).collect();
    write(
        dir,
        &[
            ("proc/kpageflags", ""),
            ("cgroup/pod/cgroup.procs", &procs.join("\n")),
            ("sys/devices/system/memory/block_size_bytes", "8000000\n"),
            (&format!("{node}/online"), "0-1\n"),
            (&format!("{node}/has_cpu"), "0\n"),
            (&format!("{node}/has_memory"), "0-1\n"),
            (&format!("{node}/node0/memory0/state"), ""),
            (&format!("{node}/node1/memory1/state"), ""),
        ],
    );
    for pid in pids {
        process(dir, *pid);
    }
    let ground = ground(dir);
    let engine = PagesEngine {
        movable: MovablePages::open(&ground.roots.proc).unwrap(),
        node_pfns: read_node_pfns(&ground.roots.sys).unwrap(),
        pfns_read: Instant::default(),
        leaves: HashMap::new(),
        relocating: HashMap::new(),
    };
    (engine, ground, cgroup(dir, "/pod"))
}

/// One look at the cgroup, after so many seconds.
fn look(engine: &mut PagesEngine, ground: &Ground, pod: &Cgroup, budget: Duration, at: u64) -> Found {
    let looks = [Look { leaves: std::slice::from_ref(pod), walk: true }];
    let now = Instant(Duration::from_secs(at));
    engine.look(ground, &looks, budget, now).pop().unwrap().unwrap()
}

const TIME: Duration = Duration::from_mins(1);

#[test]
fn a_process_that_can_t_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, ground, pod) = engine(dir.path(), &[7, 8, 9]);
    assert_eq!(look(&mut engine, &ground, &pod, TIME, 0).unread.len(), 0);
    write(dir.path(), &[("proc/8/smaps", "nonsense\n")]);
    let found = look(&mut engine, &ground, &pod, TIME, 60);
    let age = Duration::from_mins(1);
    assert_eq!(found.ages[&NodeId(0)], [(age, Bytes(3 * page_size())); 2], "their ages go on");
    assert_eq!(found.unread.len(), 1);
    assert_eq!((found.walked, found.touched), (true, BTreeMap::from([(NodeId(1), Bytes::ZERO)])));
}

#[test]
fn memory_that_comes_online_is_known_within_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, ground, pod) = engine(dir.path(), &[]);
    let frame = 5 * 0x800_0000 / page_size();
    write(dir.path(), &[("sys/devices/system/node/node1/memory5/state", "")]);
    look(&mut engine, &ground, &pod, TIME, 59);
    assert_eq!(engine.node_pfns.node_of(frame), None);
    look(&mut engine, &ground, &pod, TIME, 60);
    assert_eq!(engine.node_pfns.node_of(frame), Some(1));
}

#[test]
fn no_walk_is_begun_when_the_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, ground, pod) = engine(dir.path(), &[7]);
    assert!(!look(&mut engine, &ground, &pod, Duration::ZERO, 0).walked);
    assert!(look(&mut engine, &ground, &pod, TIME, 0).walked);
    let found = look(&mut engine, &ground, &pod, Duration::ZERO, 60);
    assert_eq!(found.ages.len(), 1, "what is known is told");
}

#[test]
fn a_relocation_is_stuck_when_all_was_looked_at_and_nothing_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, ground, pod) = engine(dir.path(), &[7, 8]);
    let mut relocate = |budget, at| {
        let order = Order {
            cgroup: &pod,
            leaves: std::slice::from_ref(&pod),
            allowed: ground.tiers.nodes(),
            from: NodeId(0),
            to: &[NodeId(1)],
            bytes: Bytes::mib(1),
            age: Duration::ZERO,
            is_urgent: false,
            budget,
        };
        let now = Instant(Duration::from_secs(at));
        engine.relocate(&ground, order, now).unwrap().stuck
    };
    assert!(!relocate(Duration::ZERO, 0), "no time to look at anything");
    process(dir.path(), 9);
    assert!(relocate(TIME, 1), "no page of theirs is there");
}

#[test]
fn a_relocation_goes_on_where_it_was_unless_it_ended_or_is_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, ground, pod) = engine(dir.path(), &[7]);
    let leaves = std::slice::from_ref(&pod);
    let order = Order {
        cgroup: &pod,
        leaves,
        allowed: ground.tiers.nodes(),
        from: NodeId(0),
        to: &[NodeId(1)],
        bytes: Bytes::mib(1),
        age: Duration::ZERO,
        is_urgent: false,
        budget: Duration::ZERO,
    };
    let left = |engine: &mut PagesEngine, at| {
        let now = Instant(Duration::from_secs(at));
        engine.relocate(&ground, order, now).unwrap();
        engine.relocating[&pod.id()].left.len()
    };
    assert_eq!(left(&mut engine, 0), 1);
    write(dir.path(), &[("cgroup/pod/cgroup.procs", "7\n8\n")]);
    process(dir.path(), 8);
    assert_eq!(left(&mut engine, 30), 1, "goes on");
    assert_eq!(left(&mut engine, 90), 2, "long ago");
    write(dir.path(), &[("cgroup/pod/cgroup.procs", "7\n")]);
    engine.end_relocation(pod.id());
    assert_eq!(left(&mut engine, 91), 1, "ended");
}

#[test]
fn a_process_that_ended_is_not_the_next_of_its_pid() {
    let proc = tempfile::tempdir().unwrap();
    let dir = proc.path().join("7");
    let started = |ticks: u64| {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("stat"), format!("7 (sh) S {}{ticks} 0\n", "0 ".repeat(18))).unwrap();
    };
    started(100);
    let process = Process::of(proc.path(), 7).unwrap();
    assert!(process.lives(proc.path()));
    started(200);
    assert!(!process.lives(proc.path()), "the next");
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(!process.lives(proc.path()), "none");
}
