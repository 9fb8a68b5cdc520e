//! Where programs have their memory. The kernel gives each program addresses of its own by chance, so an address tells whose it is; that
//! no two have the same is looked at.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use misses::ranges::Range;

use crate::guest::{Cgroup, read};

/// What lies nearer than this is one range: a heap grows, and mappings come and go between others.
const GAP: u64 = 64 << 20;
/// Addresses from here on are the kernel's.
const KERNEL: u64 = 1 << 63;

/// The ranges of the processes of these cgroups, each for its slot.
///
/// # Errors
/// Where programs of two share addresses, or one and another process.
pub(super) fn of(cgroups: &[(u8, &Cgroup)]) -> Result<Vec<Range>> {
    let mut ranges = Vec::new();
    let mut known = BTreeSet::new();
    for (slot, cgroup) in cgroups {
        let pids: Vec<u32> =
            cgroup.read("cgroup.procs")?.lines().filter_map(|pid| pid.parse().ok()).collect();
        // One that has ended since has none.
        let maps = pids.iter().filter_map(|pid| read(format!("/proc/{pid}/maps")).ok());
        ranges.extend(merged(maps.flat_map(|maps| mapped(&maps))).map(|(start, end)| Range {
            slot: *slot,
            start,
            end,
        }));
        known.extend(pids);
    }
    ranges.sort_by_key(|range| range.start);
    let all = read_others(&known)?;
    ensure!(
        are_apart(&ranges, &all),
        "two programs were given the same addresses, so nobody can say whose misses are whose: run it again"
    );
    Ok(ranges)
}

/// The mappings of all other processes.
fn read_others(known: &BTreeSet<u32>) -> Result<Vec<(u64, u64)>> {
    let mut mappings = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if !known.contains(&pid) {
            mappings.extend(mapped(&read(format!("/proc/{pid}/maps")).unwrap_or_default()));
        }
    }
    Ok(mappings)
}

/// Starts and ends by a text of `/proc/PID/maps`.
fn mapped(maps: &str) -> Vec<(u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let line = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some((number(start)?, number(end)?))
    };
    maps.lines().filter_map(line).filter(|(start, _)| *start < KERNEL).collect()
}

/// Those that are near each other as one.
fn merged(mappings: impl Iterator<Item = (u64, u64)>) -> impl Iterator<Item = (u64, u64)> {
    let mut mappings: Vec<_> = mappings.collect();
    mappings.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in mappings {
        match merged.last_mut() {
            Some(last) if start <= last.1 + GAP => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into_iter()
}

/// Whether ranges, by their start, overlap neither each other nor others' mappings.
fn are_apart(ranges: &[Range], others: &[(u64, u64)]) -> bool {
    let each_other = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let is_free =
        |(start, end): &(u64, u64)| ranges.iter().all(|range| *end <= range.start || range.end <= *start);
    each_other && others.iter().all(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0a00000-55d0c0a21000 r--p 00000000 00:02 1 /usr/bin/redis-server
55d0c1000000-55d0c1100000 rw-p 00000000 00:00 0 [heap]
7f1c00000000-7f1c00021000 rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

    #[test]
    fn mappings_of_a_program_become_a_few_ranges() {
        let found: Vec<_> = merged(mapped(MAPS).into_iter()).collect();
        assert_eq!(found, [(0x55d0_c0a0_0000, 0x55d0_c110_0000), (0x7f1c_0000_0000, 0x7f1c_0002_1000)]);
    }

    #[test]
    fn shared_addresses_are_seen() {
        let range = |slot, start, end| Range { slot, start, end };
        let two = [range(0, 10, 20), range(1, 20, 30)];
        assert!(are_apart(&two, &[(0, 10), (30, 40)]));
        assert!(!are_apart(&two, &[(29, 40)]));
        assert!(!are_apart(&[range(0, 10, 21), range(1, 20, 30)], &[]));
    }
}
