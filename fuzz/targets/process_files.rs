//! Files of a process.
#![no_main]

use host::cgroup::{CgroupPath, mount_point};
use host::pages::{maps, numa_maps};
use host::proc;
use libfuzzer_sys::fuzz_target;
use thermocline_fuzz::parsed;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let text = text.as_ref();

    for vma in parsed(text, |_, path| maps::smaps(data, path)).unwrap_or_default() {
        let locked = vma.flags.is_some_and(|flags| flags.is_locked() || flags.is_hugetlb());
        assert!(!(vma.may_hold_movable() && (locked || !vma.is_anon)));
    }
    for nodes in parsed(text, numa_maps::numa_maps).unwrap_or_default().values() {
        assert!(!nodes.is_empty());
    }
    parsed(text, proc::start_time);
    if let Some(path) = proc::proc_cgroup(text) {
        assert_eq!(CgroupPath::new(path.as_path()), Some(path.clone()));
        assert!(path.is_in(&CgroupPath::root()) && !path.to_string().contains("/../"));
    }
    let _ = mount_point(text);
});
