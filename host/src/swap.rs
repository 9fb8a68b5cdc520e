//! Swap: whether the host has any, and whether a cgroup may use it.

use std::path::Path;

use crate::cgroup::{Cgroup, CgroupRoot};
use crate::error::Result;
use crate::file;
use crate::parse::Limit;

/// Reads `swaps`: whether anything is swapped to. A kernel without swap has no such file.
pub fn read_has_swap(proc: &Path) -> Result<bool> {
    let swaps = file::read_if_there(&proc.join("swaps"))?;
    // A heading, then an area a line.
    Ok(swaps.is_some_and(|text| text.lines().skip(1).any(|line| !line.trim().is_empty())))
}

/// Whether the limits of a cgroup and of those above it let its memory be swapped out: none of their `memory.swap.max` is 0.
/// So it is where the kernel does not account swap.
pub fn read_may_swap(root: &CgroupRoot, cgroup: &Cgroup) -> Result<bool> {
    let none = |limit: Option<Limit>| limit == Some(Limit::Bytes(0));
    if none(cgroup.read_memory_swap_max()?) {
        return Ok(false);
    }
    let mut above = cgroup.path().parent();
    while let Some(path) = above {
        if none(root.cgroup(&path)?.read_memory_swap_max()?) {
            return Ok(false);
        }
        above = path.parent();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::CgroupPath;
    use crate::fixture::tree;

    #[test]
    fn a_host_has_swap_where_an_area_is_listed() {
        const HEADING: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let check = |swaps: &[(&str, &str)], has: bool| {
            let (dir, _) = tree(swaps);
            assert_eq!(read_has_swap(&dir.path().join("proc")).unwrap(), has, "{swaps:?}");
        };
        check(&[("proc/swaps", HEADING)], false);
        check(&[("proc/swaps", &format!("{HEADING}/dev/zram0  partition\t262140\t0\t-2\n"))], true);
        check(&[("proc/version", "")], false);
    }

    #[test]
    fn a_cgroup_may_swap_unless_it_or_one_above_may_not() {
        let check = |pods: &str, pod: Option<&str>, may: bool| {
            let mut files = vec![("pods/memory.swap.max", pods), ("pods/a/cgroup.procs", "")];
            files.extend(pod.map(|pod| ("pods/a/memory.swap.max", pod)));
            let (dir, _) = tree(&files);
            let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
            let cgroup = root.cgroup(&CgroupPath::new("/pods/a").unwrap()).unwrap();
            assert_eq!(read_may_swap(&root, &cgroup).unwrap(), may, "{pods:?} above, {pod:?}");
        };
        check("max\n", Some("max\n"), true);
        check("max\n", Some("4096\n"), true);
        check("max\n", Some("0\n"), false);
        check("0\n", Some("max\n"), false);
        check("0\n", None, false);
        check("max\n", None, true);
    }
}
