use std::fs;

use super::super::{AccessPattern, Action, Weights};
use super::*;
use crate::fixture::tree;

const KDAMOND: &str = "sys/kernel/mm/damon/admin/kdamonds/0";

/// A host whose kernel has made the directories of one kdamond with one region and one scheme of three filters, as 6.12 has
/// them and with those files of 7.2 that `more` names below the scheme.
fn kernel(more: &[&str]) -> (tempfile::TempDir, Tree) {
    let context = format!("{KDAMOND}/contexts/0");
    let scheme = format!("{context}/schemes/0");
    let mut files: Vec<String> =
        ["state", "pid", "contexts/nr_contexts"].map(|f| format!("{KDAMOND}/{f}")).into();
    files.extend(
        [
            "operations",
            "monitoring_attrs/intervals/sample_us",
            "monitoring_attrs/intervals/aggr_us",
            "monitoring_attrs/intervals/update_us",
            "monitoring_attrs/nr_regions/min",
            "monitoring_attrs/nr_regions/max",
            "targets/nr_targets",
            "targets/0/regions/nr_regions",
            "targets/0/regions/0/start",
            "targets/0/regions/0/end",
            "schemes/nr_schemes",
        ]
        .map(|f| format!("{context}/{f}")),
    );
    let bounds = ["sz", "nr_accesses", "age"]
        .into_iter()
        .flat_map(|of| ["min", "max"].map(|end| format!("{scheme}/access_pattern/{of}/{end}")));
    files.extend(bounds);
    let filters = (0..3)
        .flat_map(|n| ["type", "matching", "memcg_path"].map(|file| format!("{scheme}/filters/{n}/{file}")));
    files.extend(filters);
    files.extend(
        [
            "action",
            "target_nid",
            "apply_interval_us",
            "filters/nr_filters",
            "quotas/bytes",
            "quotas/ms",
            "quotas/reset_interval_ms",
            "quotas/weights/sz_permil",
            "quotas/weights/nr_accesses_permil",
            "quotas/weights/age_permil",
            "quotas/goals/nr_goals",
        ]
        .iter()
        .chain(more)
        .map(|f| format!("{scheme}/{f}")),
    );
    let files: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "")).collect();
    let (dir, roots) = tree(&files);
    let tree = Tree::first(&roots.sys);
    (dir, tree)
}

fn kdamond() -> Kdamond {
    Kdamond {
        intervals: Intervals {
            sample: Duration::from_millis(50),
            aggregation: Duration::from_millis(500),
            update: Duration::from_secs(7),
        },
        nr_regions: 10..=1000,
        regions: std::iter::once(0x1_0000_0000..0x1_8000_0000).collect(),
        schemes: vec![Scheme {
            action: Action::MigrateHot(0),
            pattern: AccessPattern::accessed(1),
            apply_interval: Duration::ZERO,
            quota: Quota {
                bytes: 200 << 20,
                time: Duration::ZERO,
                reset: Duration::from_secs(1),
                weights: Weights { size: 0, accesses: 900, age: 100 },
                goals: Vec::new(),
                failed: (1, 1000),
            },
            filters: vec![
                Filter::only(Match::Memcg("/pod/a".to_owned())),
                Filter::only(Match::Anon),
                Filter::not(Match::Young),
            ],
        }],
    }
}

fn check(dir: &tempfile::TempDir, file: &str, content: &str) {
    let path = dir.path().join(KDAMOND).join(file);
    assert_eq!(fs::read_to_string(&path).unwrap(), content, "{file}");
}

#[test]
fn a_kdamond_is_written_whole() {
    let (dir, mut tree) = kernel(&[]);
    tree.write(&kdamond()).unwrap();
    check(&dir, "contexts/nr_contexts", "1");
    check(&dir, "contexts/0/operations", "paddr");
    check(&dir, "contexts/0/monitoring_attrs/intervals/aggr_us", "500000");
    check(&dir, "contexts/0/monitoring_attrs/nr_regions/max", "1000");
    check(&dir, "contexts/0/targets/0/regions/0/end", "6442450944");
    let scheme = |file: &str| format!("contexts/0/schemes/0/{file}");
    for (file, content) in [
        ("action", "migrate_hot"),
        ("target_nid", "0"),
        ("access_pattern/nr_accesses/min", "1"),
        ("access_pattern/nr_accesses/max", "4294967295"),
        ("access_pattern/sz/max", "18446744073709551615"),
        ("quotas/bytes", "209715200"),
        ("quotas/reset_interval_ms", "1000"),
        ("quotas/weights/nr_accesses_permil", "900"),
        ("filters/nr_filters", "3"),
        ("filters/0/type", "memcg"),
        ("filters/0/matching", "N"),
        ("filters/0/memcg_path", "/pod/a"),
        ("filters/2/type", "young"),
        ("filters/2/matching", "Y"),
    ] {
        check(&dir, &scheme(file), content);
    }
}

#[test]
fn what_a_newer_kernel_has_is_used() {
    let filters: Vec<String> = (0..3)
        .flat_map(|n| {
            ["type", "matching", "allow", "memcg_path"].map(|file| format!("ops_filters/{n}/{file}"))
        })
        .collect();
    let mut more: Vec<&str> = filters.iter().map(String::as_str).collect();
    more.extend(["ops_filters/nr_filters", "quotas/fail_charge_num", "quotas/fail_charge_denom"]);
    let (dir, mut tree) = kernel(&more);
    tree.write(&kdamond()).unwrap();
    let scheme = |file: &str| format!("contexts/0/schemes/0/{file}");
    check(&dir, &scheme("quotas/fail_charge_denom"), "1000");
    assert!(!tree.charges_tries());
    check(&dir, &scheme("ops_filters/0/memcg_path"), "/pod/a");
    check(&dir, &scheme("ops_filters/0/allow"), "N");
    check(&dir, &scheme("filters/nr_filters"), "");
}

#[test]
fn only_what_differs_is_written_again() {
    let (dir, mut tree) = kernel(&[]);
    tree.write(&kdamond()).unwrap();
    let quota = dir.path().join(KDAMOND).join("contexts/0/schemes/0/quotas/bytes");
    let action = dir.path().join(KDAMOND).join("contexts/0/schemes/0/action");
    for file in [&quota, &action] {
        fs::write(file, "").unwrap();
    }
    let mut changed = kdamond();
    changed.schemes[0].quota.bytes = 4096;
    tree.write(&changed).unwrap();
    assert_eq!(fs::read_to_string(&quota).unwrap(), "4096");
    assert_eq!(fs::read_to_string(&action).unwrap(), "");
    // The kernel makes new, empty directories where their number changes.
    changed.schemes.clear();
    tree.write(&changed).unwrap();
    tree.write(&kdamond()).unwrap();
    assert_eq!(fs::read_to_string(&action).unwrap(), "migrate_hot");
}

#[test]
fn the_state_is_what_the_file_says() {
    let (dir, tree) = kernel(&[]);
    let state = dir.path().join(KDAMOND).join("state");
    for (text, expected) in [("on\n", State::On), ("off\n", State::Off)] {
        fs::write(&state, text).unwrap();
        assert_eq!(tree.read_state().unwrap(), Some(expected));
    }
    fs::write(&state, "asleep\n").unwrap();
    assert!(matches!(tree.read_state(), Err(Error::Malformed { line: 1, .. })));
    fs::remove_file(&state).unwrap();
    assert_eq!(tree.read_state().unwrap(), None);
    tree.turn_off().unwrap();
}

#[test]
fn a_kdamond_that_does_not_run_has_no_process() {
    let (dir, tree) = kernel(&[]);
    let pid = dir.path().join(KDAMOND).join("pid");
    for (text, expected) in [("-1\n", None), ("77\n", Some(77))] {
        fs::write(&pid, text).unwrap();
        assert_eq!(tree.read_pid().unwrap(), expected);
    }
}

#[test]
fn stats_quotas_and_tried_regions_are_read() {
    let stats = ["nr_tried", "sz_tried", "nr_applied", "sz_applied", "qt_exceeds"];
    let files: Vec<String> = stats
        .iter()
        .map(|name| format!("stats/{name}"))
        .chain(["start", "end", "nr_accesses", "age"].map(|name| format!("tried_regions/0/{name}")))
        .chain(["quotas/effective_bytes".to_owned()])
        .collect();
    let (dir, mut tree) = kernel(&files.iter().map(String::as_str).collect::<Vec<_>>());
    for (index, file) in files.iter().enumerate() {
        let path = dir.path().join(KDAMOND).join("contexts/0/schemes/0").join(file);
        fs::write(path, format!("{}\n", index + 1)).unwrap();
    }
    tree.write(&kdamond()).unwrap();
    let expected = SchemeStats {
        nr_tried: 1,
        sz_tried: 2,
        nr_applied: 3,
        sz_applied: 4,
        sz_ops_filter_passed: None,
        qt_exceeds: 5,
    };
    assert_eq!(tree.read_stats().unwrap(), [expected]);
    assert_eq!(tree.read_effective_quotas().unwrap(), [10]);
    let regions = tree.read_tried_regions(0).unwrap();
    assert_eq!(regions, [TriedRegion { range: 6..7, accesses: 8, age: 9 }]);
}

#[test]
fn what_is_busy_is_tried_again_and_what_is_refused_is_not() {
    let mut tries = 0;
    let errno = |errno| Error::io(Path::new("/x"), "write", std::io::Error::from_raw_os_error(errno));
    let done = patiently(|| {
        tries += 1;
        if tries < 3 { Err(errno(libc::EBUSY)) } else { Ok(()) }
    });
    assert!(done.is_ok());
    let mut tries = 0;
    let refused: Result<()> = patiently(|| {
        tries += 1;
        Err(errno(libc::EINVAL))
    });
    assert!(refused.is_err());
    assert_eq!(tries, 1);
}
