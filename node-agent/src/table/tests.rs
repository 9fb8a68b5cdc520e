// As expect-test writes them.
#![allow(clippy::needless_raw_string_hashes)]

use expect_test::{Expect, expect};

use super::*;
use crate::fixture;
use crate::snapshot::Snapshot;

fn shown(snapshot: &Snapshot) -> Shown {
    Shown::of(snapshot).unwrap()
}

fn check(snapshot: &Snapshot, width: usize, table: &Expect) {
    let text = observe_table(&shown(snapshot), width, false);
    assert!(text.lines().all(|line| line.chars().count() <= width), "wider than {width}:\n{text}");
    table.assert_eq(&text);
}

#[test]
fn hot_memory_is_solid() {
    check(
        &fixture::hot_only(),
        140,
        &expect![[r#"
            CGROUP           DRAM  PMEM   WSS 1m  COLD  WOULD FREE  AGE IN DRAM       DECISION
            pods/web      512 MiB     ·  512 MiB     ·           ·  ████████████████  hold: nothing is cold
            not accessed for  █ <30s  ▓ 30s-2m  ▒ 2m-10m  ░ >10m   engine lru-gen
            would free 0 B of 512 MiB (0 %)
        "#]],
    );
}

#[test]
fn colder_memory_fades() {
    check(
        &fixture::mixed(),
        140,
        &expect![[r#"
            CGROUP           DRAM     PMEM   WSS 1m     COLD  WOULD FREE  AGE IN DRAM       DECISION
            pods/batch    300 MiB  600 MiB  120 MiB  180 MiB     180 MiB  ██████▓▒▒▒▒░░░░░  demote 180 MiB: 180 MiB not accessed for 120s
            pods/cache     64 MiB  200 MiB        ·   64 MiB      64 MiB  ░░░░░░░░░░░░░░░░  hold: the floor is reached
            pods/web      512 MiB    3 MiB  500 MiB        ·           ·  ███████████████▓  hold: nothing is cold
            not accessed for  █ <30s  ▓ 30s-2m  ▒ 2m-10m  ░ >10m   engine lru-gen
            would free 244 MiB of 876 MiB (27 %); freed 803 MiB, of which 0 B a minute are touched
        "#]],
    );
}

#[test]
fn a_narrow_terminal_has_decisions_below() {
    check(
        &fixture::mixed(),
        90,
        &expect![[r#"
            CGROUP           DRAM     PMEM   WSS 1m     COLD  WOULD FREE  AGE IN DRAM
            pods/batch    300 MiB  600 MiB  120 MiB  180 MiB     180 MiB  ██████▓▒▒▒▒░░░░░
              demote 180 MiB: 180 MiB not accessed for 120s
            pods/cache     64 MiB  200 MiB        ·   64 MiB      64 MiB  ░░░░░░░░░░░░░░░░
              hold: the floor is reached
            pods/web      512 MiB    3 MiB  500 MiB        ·           ·  ███████████████▓
              hold: nothing is cold
            not accessed for  █ <30s  ▓ 30s-2m  ▒ 2m-10m  ░ >10m   engine lru-gen
            would free 244 MiB of 876 MiB (27 %); freed 803 MiB, of which 0 B a minute are touched
        "#]],
    );
}

#[test]
fn each_tier_has_its_column() {
    check(
        &fixture::three_tiers(),
        160,
        &expect![[r#"
            CGROUP                              DRAM      CXL      PMEM   WSS 1m     COLD  WOULD FREE  AGE IN DRAM       DECISION
            system.slice/postgresql.service  400 MiB  200 MiB  1000 MiB  300 MiB  100 MiB     100 MiB  ████████▓▓▓▓▒▒▒▒  demote 100 MiB: 100 MiB not accessed for 120s (the…
            not accessed for  █ <30s  ▓ 30s-2m  ▒ 2m-10m  ░ >10m   engine lru-gen
            would free 100 MiB of 400 MiB (25 %); freed 1.2 GiB, of which 0 B a minute are touched
        "#]],
    );
}

#[test]
fn a_long_path_is_cut_in_the_middle() {
    let path =
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6f1c.slice/cri-containerd-8e1a.scope";
    let cgroup = fixture::cgroup(path, &[("dram", 100)], &[], "hold: no age is known yet");
    let snapshot = fixture::node(vec![fixture::tier("dram", 0, 1024, 500)], vec![cgroup]);
    check(
        &snapshot,
        120,
        &expect![[r#"
            CGROUP                                           DRAM  WSS 1m  COLD  WOULD FREE  AGE IN DRAM
            kubepods.slice…ice/cri-containerd-8e1a.scope  100 MiB       ·     ·           ·  ·
              hold: no age is known yet
            not accessed for  █ <30s  ▓ 30s-2m  ▒ 2m-10m  ░ >10m   engine lru-gen
            would free 0 B of 100 MiB (0 %)
        "#]],
    );
}

/// As many services as an ordinary host has, in an ordinary terminal.
#[test]
fn the_greatest_is_first_and_each_name_is_told_from_the_others_at_80_columns() {
    const MIB: u64 = 1 << 20;
    let mut shown = shown(&fixture::mixed());
    let service = |i: u64| {
        let path = format!("/system.slice/a-service-of-this-host-{i:02}.service");
        let anon_bytes_by_tier = [("dram".to_owned(), 400 * MIB), ("pmem".to_owned(), 200 * MIB)].into();
        let decision = crate::shown::Decision {
            text: format!("would demote {i} MiB (observed): {i} MiB not accessed for 120s"),
            action: "demote".to_owned(),
            ..Default::default()
        };
        let mut cgroup = Cgroup {
            path: path.clone(),
            mode: "Observe".to_owned(),
            anon_bytes_by_tier,
            decision,
            ..Cgroup::default()
        };
        (cgroup.would_free_bytes, cgroup.cold_bytes) = (i * MIB, (100 + i) * MIB);
        (path, cgroup)
    };
    shown.cgroups = (0..34).map(service).collect();
    shown.savings = crate::savings::Sums::default();
    shown.savings.total = crate::savings::Savings {
        would_free_bytes: 561 * MIB,
        would_touch_bytes_per_minute: Some(12 * MIB),
        dram_bytes: 13_312 * MIB,
        ..Default::default()
    };
    let text = observe_table(&shown, 80, false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.contains("would free 561 MiB of 13 GiB (4 %), would touch 12 MiB a minute\n"), "{text}");
    assert!(lines[0].starts_with("/system.slice/… "), "{text}");
    assert!(
        lines[1].contains("33.service") && lines[2].starts_with("  would demote 33 MiB (observed)"),
        "{text}"
    );
    let mut names: Vec<&str> = lines
        .iter()
        .filter(|line| line.contains(".service"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 34, "{text}");
}

#[test]
fn nothing_matched_says_what_to_do() {
    let mut snapshot = fixture::node(vec![], vec![]);
    check(
        &snapshot,
        100,
        &expect![[r#"
            No cgroup of this host is named by the policies of /etc/thermocline/agent.yaml now.
            Look for what would: thermocline-agent observe '**' --once   (writes nothing)
        "#]],
    );
    snapshot.command = "observe";
    check(
        &snapshot,
        100,
        &expect![[r#"
        No cgroup with memory of its own matches.
        Name some: thermocline-agent observe 'system.slice/*'   (systemd-cgls lists them)
    "#]],
    );
}

#[test]
fn what_is_wrong_stands_below() {
    check(
        &fixture::full(),
        120,
        &expect![[r#"
            CGROUP              DRAM     PMEM   WSS 1m     COLD  WOULD FREE  AGE IN DRAM       DECISION
            jobs/batch/main  300 MiB  600 MiB  120 MiB  180 MiB     180 MiB  ██████▓▒▒▒▒░░░░░  demote 180 MiB: 180 MiB not accessed…
            pods/cache        64 MiB  200 MiB        ·   64 MiB      64 MiB  ░░░░░░░░░░░░░░░░  hold: the floor is reached
            pods/web         512 MiB    3 MiB  500 MiB        ·           ·  ███████████████▓  hold: nothing is cold
            not accessed for  █ <30s  ▓ 30s-2m  ▒ 2m-10m  ░ >10m   engine lru-gen
            would free 244 MiB of 876 MiB (27 %); freed 803 MiB, of which 0 B a minute are touched
             ! ForeignWriter: memory.high is written by kubelet
             ! the newest configuration is not in force: agent.yaml:3:5: unknown field
             ! jobs/batch/main: ForeignWriter: memory.high is written by kubelet
        "#]],
    );
}

#[test]
fn no_width_is_too_small_and_colours_change_nothing_but_colour() {
    for snapshot in [fixture::full(), fixture::three_tiers(), Snapshot::default()] {
        for width in 0..200 {
            let plain = observe_table(&shown(&snapshot), width, false);
            assert!(plain.lines().all(|line| line.chars().count() <= width), "{width}:\n{plain}");
        }
        let coloured = observe_table(&shown(&snapshot), 150, true);
        assert_eq!(fixture::without_colours(&coloured), observe_table(&shown(&snapshot), 150, false));
    }
}
