//! Files of a cgroup.
#![no_main]

use host::cgroup::{CgroupEvents, MemoryEvents, MemoryStat, NumaStat};
use host::parse::{self, format_id_list};
use libfuzzer_sys::fuzz_target;
use thermocline_fuzz::parsed;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let text = text.as_ref();

    if let Some(number) = parsed(text, parse::number) {
        assert_eq!(parsed(&number.to_string(), parse::number), Some(number));
    }
    if let Some(limit) = parsed(text, parse::limit) {
        assert_eq!(parsed(&limit.to_string(), parse::limit), Some(limit));
    }
    if let Some(ids) = parsed(text, parse::id_list) {
        let shortest = format_id_list(&ids);
        assert_eq!(parsed(&shortest, parse::id_list), Some(ids), "{shortest}");
    }
    if let Some(pressure) = parsed(text, parse::pressure) {
        for stall in [pressure.some, pressure.full].into_iter().flatten() {
            assert!((0.0..=100.0).contains(&stall.avg10) && (0.0..=100.0).contains(&stall.avg60));
        }
    }
    if let Some(pids) = parsed(text, parse::pids) {
        assert_eq!(pids.len(), text.lines().count());
    }

    let mut lines = 0;
    if parsed(text, |text, path| parse::flat_keyed(text, path, |_, _| lines += 1)).is_some() {
        assert_eq!(lines, text.lines().count(), "no line is passed over in silence");
    }
    if let Some(stat) = parsed(text, MemoryStat::parse) {
        let _ = stat.pgdemote();
    }
    parsed(text, MemoryEvents::parse);
    parsed(text, CgroupEvents::parse);
    if let Some(stat) = parsed(text, NumaStat::parse) {
        for node in stat.anon.keys().copied().chain(0..2) {
            let anon = stat.anon.get(&node).copied().unwrap_or(0);
            assert!(stat.lazyfree_estimate(node) <= anon && anon <= stat.footprint(node));
        }
    }
});
