// As expect-test writes them.
#![allow(clippy::needless_raw_string_hashes)]

use expect_test::{Expect, expect};

use super::*;
use crate::fixture;
use crate::snapshot::Snapshot;

fn shown(snapshot: &Snapshot) -> Shown {
    Shown::of(snapshot).unwrap()
}

fn check(snapshot: &Snapshot, width: usize, height: usize, picture: &Expect) {
    let text = live_picture(&shown(snapshot), width, height, false);
    assert!(
        text.lines().count() <= height && text.lines().all(|line| line.chars().count() <= width),
        "{text}"
    );
    // The first line gives the picture's left edge.
    picture.assert_eq(&format!("{width} x {height}\n{text}"));
}

#[test]
fn hot_memory_stays_up() {
    check(
        &fixture::hot_only(),
        100,
        24,
        &expect![[r#"
            100 x 24
             ≈≈≈ thermocline   engine lru-gen, kernel promotes   round 42, 12 ms
                 would free 0 B of 512 MiB (0 %)   ↓ demoted 0 B   ↑ promoted 0 B   came back soon: 0
                 could not be moved: 0 pages
             dram   ██████████████████████████████······························  1 GiB used of 2 GiB
             pmem   ▒···························································  8 MiB used of 2 GiB

             pods/web                    ███████████████████████████████████████████████████████████ 512 MiB
                                         dram 512 MiB   pmem 0 B   touched within 1m: 512 MiB
                                         age  <30s 512 MiB
                                         · hold: nothing is cold

             █ dram  ▓ dram, cold  ▒ pmem
        "#]],
    );
}

#[test]
fn cold_memory_sinks() {
    check(
        &fixture::mixed(),
        100,
        30,
        &expect![[r#"
            100 x 30
             ≈≈≈ thermocline   engine lru-gen, kernel promotes   round 42, 12 ms
                 would free 244 MiB of 876 MiB (27 %)   freed 803 MiB, of which 0 B a minute are touched
                 ↓ demoted 824 MiB   ↑ promoted 21 MiB   came back soon: 2   could not be moved: 0 pages
             dram   ███████████████████████████████████████·····················  1.3 GiB used of 2 GiB
             pmem   ▒▒▒▒▒▒▒▒▒▒▒▒················································  796 MiB used of 4 GiB

             pods/batch                  ███████▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ 900 MiB
                                         dram 300 MiB (180 MiB cold, 2m+)   pmem 600 MiB   WSS 1m 120 MiB
                                         age  <30s 100 MiB  30s-2m 20 MiB  2m-10m 80 MiB  >10m 100 MiB
                                         → demote 180 MiB: 180 MiB not accessed for 120s

             pods/cache                  ▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒ 264 MiB
                                         dram 64 MiB (64 MiB cold, 2m+)   pmem 200 MiB   touched within 1m: 0 B
                                         age  >10m 64 MiB
                                         · hold: the floor is reached

             pods/web                    █████████████████████████████████▒ 515 MiB
                                         dram 512 MiB   pmem 3 MiB   touched within 1m: 500 MiB
                                         age  <30s 500 MiB  30s-2m 12 MiB
                                         · hold: nothing is cold

             █ dram  ▓ dram, cold  ▒ pmem
        "#]],
    );
}

#[test]
fn a_small_terminal_gets_bars_and_decisions() {
    check(
        &fixture::mixed(),
        80,
        13,
        &expect![[r#"
            80 x 13
             ≈≈≈ thermocline   engine lru-gen, kernel promotes   round 42, 12 ms
                 would free 244 MiB of 876 MiB (27 %)   ↓ demoted 824 MiB
             dram   █████████████████████████████···············  1.3 GiB used of 2 GiB
             pmem   ▒▒▒▒▒▒▒▒▒···································  796 MiB used of 4 GiB

             pods/batch                █████▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ 900 MiB
                                       → demote 180 MiB: 180 MiB not accessed for 120s
             pods/cache                ▓▓▒▒▒▒▒▒▒▒▒▒ 264 MiB
                                       · hold: the floor is reached
             pods/web                  ██████████████████████▒ 515 MiB
                                       · hold: nothing is cold
             █ dram  ▓ dram, cold  ▒ pmem
        "#]],
    );
}

#[test]
fn what_is_only_observed_has_no_arrow_and_says_so_first() {
    let mut shown = shown(&fixture::mixed());
    let batch = shown.cgroups.get_mut("pods/batch").unwrap();
    batch.mode = "Observe".to_owned();
    batch.decision.text = "would demote 180 MiB (observed): 180 MiB not accessed for 120s".to_owned();
    shown.savings.total.would_touch_bytes_per_minute = Some(12 << 20);
    for width in [80, 100] {
        let text = live_picture(&shown, width, 30, false);
        assert!(
            text.contains("would free 244 MiB of 876 MiB (27 %), would touch 12 MiB a minute\n"),
            "{text}"
        );
        assert!(text.contains("· would demote 180 MiB (observed)") && !text.contains('→'), "{text}");
    }
}

#[test]
fn a_tiny_terminal_gets_the_greatest_cgroups() {
    check(
        &fixture::mixed(),
        60,
        8,
        &expect![[r#"
            60 x 8
             ≈≈≈ thermocline   engine lru-gen, kernel promotes
                 would free 244 MiB of 876 MiB (27 %)
             dram   ████████████████········  1.3 GiB used of 2 GiB
             pmem   ▒▒▒▒▒···················  796 MiB used of 4 GiB

             pods/batch          ███▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ 900 MiB
             and 2 smaller ones
             █ dram  ▓ dram, cold  ▒ pmem
        "#]],
    );
}

#[test]
fn three_tiers_are_three_shades() {
    check(
        &fixture::three_tiers(),
        110,
        30,
        &expect![[r#"
            110 x 30
             ≈≈≈ thermocline   engine lru-gen, kernel promotes   round 42, 12 ms
                 would free 100 MiB of 400 MiB (25 %)   freed 1.2 GiB, of which 0 B a minute are touched   ↓ demoted 0 B
                 ↑ promoted 0 B   came back soon: 0   could not be moved: 0 pages
             dram   ████████████████············································  548 MiB used of 2 GiB
             cxl    ▒▒▒·························································  200 MiB used of 4 GiB
             pmem   ░░░░░░░░····················································  1 GiB used of 8 GiB

             system.s…postgresql.service ████████████▓▓▓▓▒▒▒▒▒▒▒▒░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ 1.6 GiB
                                         dram 400 MiB (100 MiB cold, 2m+)   cxl 200 MiB   pmem 1000 MiB
                                         age  <30s 200 MiB  30s-2m 100 MiB  2m-10m 100 MiB   touched within 1m: 300 MiB
                                         → demote 100 MiB: 100 MiB not accessed for 120s (the rate cap is reached)

             █ dram  ▓ dram, cold  ▒ cxl  ░ pmem
        "#]],
    );
}

#[test]
fn what_is_wrong_stands_below() {
    check(
        &fixture::full(),
        100,
        16,
        &expect![[r#"
            100 x 16
             ≈≈≈ thermocline   engine lru-gen, kernel promotes   round 42, 12 ms
                 would free 244 MiB of 876 MiB (27 %)   freed 803 MiB, of which 0 B a minute are touched
                 ↓ demoted 824 MiB   ↑ promoted 21 MiB   came back soon: 2   could not be moved: 3 pages
             dram   ███████████████████████████████████████·····················  1.3 GiB used of 2 GiB
             pmem   ▒▒▒▒▒▒▒▒▒▒▒▒················································  796 MiB used of 4 GiB

             jobs/batch/main             ███████▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ 900 MiB
                                         → demote 180 MiB: 180 MiB not accessed for 120s
             pods/cache                  ▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒ 264 MiB
                                         · hold: the floor is reached
             pods/web                    █████████████████████████████████▒ 515 MiB
                                         · hold: nothing is cold
             ! ForeignWriter: memory.high is written by kubelet
             ! the newest configuration is not in force: agent.yaml:3:5: unknown field
             ! jobs/batch/main: ForeignWriter: memory.high is written by kubelet
             █ dram  ▓ dram, cold  ▒ pmem
        "#]],
    );
}

#[test]
fn nothing_managed_says_what_to_do() {
    check(
        &fixture::node(vec![fixture::tier("dram", 0, 2048, 1024)], vec![]),
        100,
        24,
        &expect![[r#"
            100 x 24
             ≈≈≈ thermocline   engine lru-gen, kernel promotes   round 42, 12 ms
                 would free 0 B of 0 B   ↓ demoted 0 B   ↑ promoted 0 B   came back soon: 0
                 could not be moved: 0 pages
             dram   ██████████████████████████████······························  1 GiB used of 2 GiB

             No cgroup of this host is named by the policies of /etc/thermocline/agent.yaml now.
             Look for what would: thermocline-agent observe '**' --once   (writes nothing)

             █ dram  ▓ dram, cold
        "#]],
    );
}

#[test]
fn no_size_is_too_small_and_colours_change_nothing_but_colour() {
    for snapshot in [fixture::full(), fixture::three_tiers(), Snapshot::default()] {
        for (width, height) in (0..130).flat_map(|width| (0..30).map(move |height| (width, height))) {
            let plain = live_picture(&shown(&snapshot), width, height, false);
            assert!(plain.lines().count() <= height, "{width} x {height}:\n{plain}");
            assert!(plain.lines().all(|line| line.chars().count() <= width), "{width} x {height}:\n{plain}");
        }
        let coloured = live_picture(&shown(&snapshot), 100, 30, true);
        assert_eq!(fixture::without_colours(&coloured), live_picture(&shown(&snapshot), 100, 30, false));
    }
}
