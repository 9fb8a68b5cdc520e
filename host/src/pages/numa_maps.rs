//! Where each mapping's pages are: `/proc/PID/numa_maps`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::proc;

/// Pages by node of each mapping that has any, by the mapping's first address. The kernel walks the page tables for it.
///
/// Counts are of base pages, huge pages included, except for hugetlb mappings, which count whole ones.
pub fn read_numa_maps(proc: &Path, pid: i32) -> Result<BTreeMap<u64, BTreeMap<u32, u64>>> {
    let (path, text) = proc::read(proc, pid, "numa_maps")?;
    numa_maps(&text, &path)
}

/// The text of `numa_maps`: `7f00000000 default anon=3 dirty=3 N0=1 N1=2 kernelpagesize_kB=4`.
pub fn numa_maps(text: &str, path: &Path) -> Result<BTreeMap<u64, BTreeMap<u32, u64>>> {
    let mut maps = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let malformed = || Error::malformed(path, index + 1, line);
        let mut words = line.split(' ');
        let start = words.next().and_then(|word| u64::from_str_radix(word, 16).ok()).ok_or_else(malformed)?;
        let mut nodes = BTreeMap::new();
        for word in words {
            // A file's name may look like anything; only N<number>=<number> is a node's count.
            let count = word.strip_prefix('N').and_then(|rest| rest.split_once('='));
            if let Some((node, pages)) =
                count.and_then(|(node, pages)| Some((node.parse().ok()?, pages.parse().ok()?)))
            {
                nodes.insert(node, pages);
            }
        }
        if !nodes.is_empty() {
            maps.insert(start, nodes);
        }
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_node_are_read_and_the_rest_is_passed_over() {
        let text = "55d0a000 default file=/bin/N1=x mapped=4 N0=4 kernelpagesize_kB=4\n\
                    7f0000000000 bind:1 anon=512 dirty=512 active=0 N0=12 N1=500 kernelpagesize_kB=4\n\
                    7ffc00000000 default\n";
        let maps = numa_maps(text, Path::new("numa_maps")).unwrap();
        assert_eq!(maps.len(), 2);
        assert_eq!(maps[&0x7f00_0000_0000], BTreeMap::from([(0, 12), (1, 500)]));
    }

    #[test]
    fn a_file_name_may_be_any_bytes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("7")).unwrap();
        let text = b"7f00 default file=/tmp/\xff\xfe mapped=1 N0=1\n8000 default anon=2 N1=2\n";
        std::fs::write(dir.path().join("7/numa_maps"), text).unwrap();
        let maps = read_numa_maps(dir.path(), 7).unwrap();
        assert_eq!(
            maps,
            BTreeMap::from([(0x7f00, BTreeMap::from([(0, 1)])), (0x8000, BTreeMap::from([(1, 2)]))])
        );
    }

    #[test]
    fn a_line_without_an_address_is_an_error_with_its_number() {
        let error = numa_maps("7f00 default\nxyz default N0=1\n", Path::new("numa_maps")).unwrap_err();
        assert_eq!(error.to_string(), "numa_maps:2: unexpected content \"xyz default N0=1\"");
    }
}
