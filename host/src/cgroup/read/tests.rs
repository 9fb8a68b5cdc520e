use super::*;
use crate::cgroup::{CgroupPath, CgroupRoot};
use crate::parse::Stall;

/// A cgroup with one file, or none.
fn cgroup(file: Option<(&str, &[u8])>) -> (tempfile::TempDir, Cgroup) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("c")).unwrap();
    if let Some((name, content)) = file {
        std::fs::write(dir.path().join("c").join(name), content).unwrap();
    }
    let path = CgroupPath::new("/c").unwrap();
    let cgroup = CgroupRoot::open_unchecked(dir.path()).unwrap().cgroup(&path).unwrap();
    (dir, cgroup)
}

/// Reads `good` as `value`; nothing where there is no file; a place in the file where it is garbage; and gone
/// where the cgroup is.
fn check<T: PartialEq + std::fmt::Debug>(
    file: &str,
    read: impl Fn(&Cgroup) -> Result<Option<T>>,
    good: &[(&str, T)],
    garbage: &[(&str, usize)],
) {
    for (text, value) in good {
        let (_dir, cgroup) = cgroup(Some((file, text.as_bytes())));
        assert_eq!(read(&cgroup).unwrap().as_ref(), Some(value), "{file}: {text:?}");
    }
    for (text, at) in garbage {
        let (dir, cgroup) = cgroup(Some((file, text.as_bytes())));
        match read(&cgroup).unwrap_err() {
            Error::Malformed { path, line, .. } => {
                assert_eq!((path, line), (dir.path().join("c").join(file), *at), "{text:?}");
            }
            other => panic!("{file}: {text:?}: {other}"),
        }
    }
    let (dir, cgroup) = cgroup(None);
    assert_eq!(read(&cgroup).unwrap(), None);
    std::fs::remove_dir(dir.path().join("c")).unwrap();
    assert!(read(&cgroup).unwrap_err().is_gone(), "{file}");
}

#[test]
fn sizes_are_one_number() {
    let garbage = [("", 1), ("max\n", 1), ("-1\n", 1), ("1 2\n", 1)];
    check("memory.current", Cgroup::read_memory_current, &[("4096\n", 4096), ("0\n", 0)], &garbage);
    check("memory.swap.current", Cgroup::read_memory_swap_current, &[("0\n", 0)], &garbage);
}

#[test]
fn limits_are_one_number_or_max() {
    type Read = fn(&Cgroup) -> Result<Option<Limit>>;
    let readers: [(&str, Read); 5] = [
        ("memory.high", Cgroup::read_memory_high),
        ("memory.max", Cgroup::read_memory_max),
        ("memory.low", Cgroup::read_memory_low),
        ("memory.min", Cgroup::read_memory_min),
        ("memory.swap.max", Cgroup::read_memory_swap_max),
    ];
    for (file, read) in readers {
        let good = [("max\n", Limit::Max), ("0\n", Limit::Bytes(0)), ("4096\n", Limit::Bytes(4096))];
        check(file, read, &good, &[("", 1), ("none\n", 1)]);
    }
}

#[test]
fn memory_stat_has_the_keys_that_the_kernel_has() {
    let old = MemoryStat { anon: Some(8192), pglazyfree: Some(3), ..MemoryStat::default() };
    let new = MemoryStat {
        pgdemote_direct: Some(2),
        pgdemote_proactive: Some(5),
        pswpin: Some(1),
        ..MemoryStat::default()
    };
    assert_eq!((old.pgdemote(), new.pgdemote()), (None, Some(7)));
    let good = [
        ("anon 8192\nof_the_future 7\npglazyfree 3\n", old),
        ("pgdemote_direct 2\npgdemote_proactive 5\npswpin 1\n", new),
        ("", MemoryStat::default()),
    ];
    check("memory.stat", Cgroup::read_memory_stat, &good, &[("anon 8192\nfile\n", 2), ("\n", 1)]);
}

#[test]
fn memory_numa_stat_is_by_node() {
    let good = NumaStat { anon: [(0, 10), (1, 20)].into(), ..NumaStat::default() };
    check(
        "memory.numa_stat",
        Cgroup::read_memory_numa_stat,
        &[("anon N0=10 N1=20\nof_the_future N0=1\n", good), ("", NumaStat::default())],
        &[("anon N0=1\nfile 5\n", 2), ("anon\n", 1)],
    );
}

#[test]
fn lazyfree_memory_is_anonymous_but_on_no_anonymous_list() {
    // (anon, active, inactive, shmem, swapcached, unevictable) and the estimate, in pages.
    for (stat, estimate) in [
        ((282, 243, 0, 0, 0, 0), 39),
        ((100, 40, 60, 0, 0, 0), 0),
        // Shared and swap-cached pages are on the lists and are not anonymous.
        ((100, 50, 60, 20, 10, 0), 20),
        // Locked pages are on no anonymous list either.
        ((100, 40, 30, 0, 0, 30), 0),
        // Counters that trail never make it negative.
        ((100, 90, 60, 0, 0, 0), 0),
        ((100, 0, 0, 10, 0, 200), 0),
    ] {
        let on = |pages: u64| ByNode::from([(1, pages)]);
        let (anon, active, inactive, shmem, swapcached, unevictable) = stat;
        let stat = NumaStat {
            anon: on(anon),
            active_anon: on(active),
            inactive_anon: on(inactive),
            shmem: on(shmem),
            swapcached: on(swapcached),
            unevictable: on(unevictable),
            ..NumaStat::default()
        };
        assert_eq!(stat.lazyfree_estimate(1), estimate, "{stat:?}");
        assert_eq!(stat.lazyfree_estimate(0), 0);
        assert_eq!(stat.footprint(1), anon);
    }
}

#[test]
fn events_are_counted_by_kind() {
    let events = MemoryEvents { high: Some(2), oom_kill: Some(1), ..MemoryEvents::default() };
    let good = [("high 2\noom_kill 1\nsock_throttled 9\n", events)];
    check("memory.events", Cgroup::read_memory_events, &good, &[("high\n", 1)]);
    check("memory.events.local", Cgroup::read_memory_events_local, &good, &[("high 1\nlow x\n", 2)]);

    let events = CgroupEvents { populated: Some(true), frozen: Some(false) };
    check("cgroup.events", Cgroup::read_cgroup_events, &[("populated 1\nfrozen 0\n", events)], &[("x\n", 1)]);
}

#[test]
fn pressure_is_read_for_memory_and_io() {
    let some = Some(Stall { avg10: 0.5, avg60: 0.25, total_us: 9 });
    let good = [("some avg10=0.50 avg60=0.25 avg300=0.00 total=9\n", Pressure { some, full: None })];
    check("memory.pressure", Cgroup::read_memory_pressure, &good, &[("some avg10=x total=1\n", 1)]);
    check("io.pressure", Cgroup::read_io_pressure, &good, &[("some total=1\nfull\n", 2)]);
}

#[test]
fn nodes_are_a_list_and_no_nodes_inherit() {
    let good = [("\n", BTreeSet::new()), ("0-1\n", [0, 1].into()), ("1\n", [1].into())];
    check("cpuset.mems", Cgroup::read_cpuset_mems, &good, &[("0-\n", 1)]);
    check("cpuset.mems.effective", Cgroup::read_cpuset_mems_effective, &good, &[("a\n", 1)]);
}

#[test]
fn controllers_are_words() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let good = [("cpuset memory\n", words(&["cpuset", "memory"])), ("\n", words(&[]))];
    check("cgroup.controllers", Cgroup::read_cgroup_controllers, &good, &[]);
    check("cgroup.subtree_control", Cgroup::read_cgroup_subtree_control, &good, &[]);
}

#[test]
fn processes_are_listed_however_many() {
    let procs =
        |cgroup: &Cgroup| cgroup.read_cgroup_procs().map(|procs| (!procs.is_empty()).then_some(procs));
    let many: Vec<i32> = (1..20_000).collect();
    let text = many.iter().map(i32::to_string).collect::<Vec<_>>().join("\n") + "\n";
    check("cgroup.procs", procs, &[("0\n7\n", vec![0, 7]), (&text, many)], &[("1\nx\n", 2)]);
}

#[test]
fn what_is_no_text_is_malformed_where_it_begins() {
    let (_dir, cgroup) = cgroup(Some(("memory.stat", b"anon 1\nfile \xff\n")));
    assert!(matches!(cgroup.read_memory_stat(), Err(Error::Malformed { line: 2, .. })));
}

#[test]
fn a_refused_read_keeps_its_errno() {
    let (dir, cgroup) = cgroup(None);
    std::fs::create_dir(dir.path().join("c/memory.stat")).unwrap();
    assert_eq!(cgroup.read_memory_stat().unwrap_err().errno(), Some(libc::EISDIR));
}
