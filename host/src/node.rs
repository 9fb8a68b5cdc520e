//! Memory nodes: `/sys/devices/system/node`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::{file, parse};

/// The node lists of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Nodes {
    /// Nodes that are online.
    pub online: BTreeSet<u32>,
    /// Nodes with processors.
    pub has_cpu: BTreeSet<u32>,
    /// Nodes with memory.
    pub has_memory: BTreeSet<u32>,
}

/// What a node holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // named after the kernel's keys
pub struct NodeMeminfo {
    pub mem_total: Option<u64>,
    pub mem_free: Option<u64>,
    pub anon_pages: Option<u64>,
    pub file_pages: Option<u64>,
    pub active_anon: Option<u64>,
    pub inactive_anon: Option<u64>,
    pub active_file: Option<u64>,
    pub inactive_file: Option<u64>,
    pub unevictable: Option<u64>,
    pub mlocked: Option<u64>,
    pub anon_huge_pages: Option<u64>,
    pub shmem: Option<u64>,
    pub dirty: Option<u64>,
    pub writeback: Option<u64>,
}

/// How a node performs for its best initiator, as firmware (HMAT, CDAT) says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NodePerformance {
    /// Nanoseconds.
    pub read_latency_ns: Option<u64>,
    /// Nanoseconds.
    pub write_latency_ns: Option<u64>,
    /// MiB per second.
    pub read_bandwidth_mib_s: Option<u64>,
    /// MiB per second.
    pub write_bandwidth_mib_s: Option<u64>,
}

/// Which initiators a node's performance is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessClass {
    /// The best initiator of any kind (`access0`).
    Any,
    /// The best initiator that has processors (`access1`).
    Cpu,
}

fn node_dir(sys: &Path, node: u32) -> PathBuf {
    sys.join(format!("devices/system/node/node{node}"))
}

/// Reads `devices/system/node/{online,has_cpu,has_memory}`.
pub fn read_nodes(sys: &Path) -> Result<Nodes> {
    let list = |name: &str| {
        let path = sys.join("devices/system/node").join(name);
        parse::id_list(&file::read(&path)?, &path)
    };
    Ok(Nodes { online: list("online")?, has_cpu: list("has_cpu")?, has_memory: list("has_memory")? })
}

/// Reads `devices/system/node/has_normal_memory`: nodes with memory that the kernel may use for itself. A node whose memory
/// is all in the zone Movable, as dax/kmem memory often is, is not among them.
pub fn read_nodes_with_kernel_memory(sys: &Path) -> Result<BTreeSet<u32>> {
    let path = sys.join("devices/system/node/has_normal_memory");
    parse::id_list(&file::read(&path)?, &path)
}

/// Reads `nodeN/distance`: pairs of node and distance from `node`, 10 being local. The kernel lists online nodes only
/// and does not name them, so `online` must be of the same moment.
pub fn read_node_distance(sys: &Path, node: u32, online: &BTreeSet<u32>) -> Result<Vec<(u32, u32)>> {
    let path = node_dir(sys, node).join("distance");
    node_distance(&file::read(&path)?, &path, online)
}

/// The text of `nodeN/distance`; see [`read_node_distance`].
pub fn node_distance(text: &str, path: &Path, online: &BTreeSet<u32>) -> Result<Vec<(u32, u32)>> {
    let malformed = || Error::malformed(path, 1, text.trim_end());
    let distances: Vec<u32> =
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
    if distances.len() != online.len() {
        return Err(malformed());
    }
    Ok(online.iter().copied().zip(distances).collect())
}

/// Reads `nodeN/meminfo`.
pub fn read_node_meminfo(sys: &Path, node: u32) -> Result<NodeMeminfo> {
    let path = node_dir(sys, node).join("meminfo");
    node_meminfo(&file::read(&path)?, &path)
}

/// The text of `nodeN/meminfo`; `path` is for errors.
pub fn node_meminfo(text: &str, path: &Path) -> Result<NodeMeminfo> {
    let mut info = NodeMeminfo::default();
    for (index, line) in text.lines().enumerate() {
        let pair = line
            .strip_prefix("Node ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(_, rest)| rest.split_once(':'));
        let Some((key, value)) = pair else { return Err(Error::malformed(path, index + 1, line)) };
        let field = match key {
            "MemTotal" => &mut info.mem_total,
            "MemFree" => &mut info.mem_free,
            "AnonPages" => &mut info.anon_pages,
            "FilePages" => &mut info.file_pages,
            "Active(anon)" => &mut info.active_anon,
            "Inactive(anon)" => &mut info.inactive_anon,
            "Active(file)" => &mut info.active_file,
            "Inactive(file)" => &mut info.inactive_file,
            "Unevictable" => &mut info.unevictable,
            "Mlocked" => &mut info.mlocked,
            "AnonHugePages" => &mut info.anon_huge_pages,
            "Shmem" => &mut info.shmem,
            "Dirty" => &mut info.dirty,
            "Writeback" => &mut info.writeback,
            _ => continue,
        };
        let kib = value.trim().strip_suffix(" kB").and_then(|kib| kib.trim().parse::<u64>().ok());
        *field = Some(
            kib.and_then(|kib| kib.checked_mul(1024))
                .ok_or_else(|| Error::malformed(path, index + 1, line))?,
        );
    }
    Ok(info)
}

/// Reads `nodeN/access{0,1}/initiators/{read,write}_{latency,bandwidth}`; `None` where firmware says nothing.
pub fn read_node_performance(sys: &Path, node: u32, class: AccessClass) -> Result<Option<NodePerformance>> {
    let class = match class {
        AccessClass::Any => "access0",
        AccessClass::Cpu => "access1",
    };
    let dir = node_dir(sys, node).join(class).join("initiators");
    // Zero is how the kernel shows a value that firmware left out.
    let value = |name| Ok(file::read_number_if_there(&dir.join(name))?.filter(|value| *value > 0));
    let performance = NodePerformance {
        read_latency_ns: value("read_latency")?,
        write_latency_ns: value("write_latency")?,
        read_bandwidth_mib_s: value("read_bandwidth")?,
        write_bandwidth_mib_s: value("write_bandwidth")?,
    };
    Ok(Some(performance).filter(|performance| *performance != NodePerformance::default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn a_host_with_a_slow_node_reads_as_firmware_describes_it() {
        let node = "sys/devices/system/node";
        let (dir, _) = tree(&[
            (&format!("{node}/online"), "0-1\n"),
            (&format!("{node}/has_cpu"), "0\n"),
            (&format!("{node}/has_memory"), "0-1\n"),
            (&format!("{node}/has_normal_memory"), "0\n"),
            (&format!("{node}/node1/distance"), "40 10\n"),
            (
                &format!("{node}/node1/meminfo"),
                "Node 1 MemTotal:        1047128 kB\nNode 1 MemFree:         1040012 kB\nNode 1 AnonPages:             12 kB\nNode 1 HugePages_Total:     0\n",
            ),
            (&format!("{node}/node1/access0/initiators/read_latency"), "350\n"),
            (&format!("{node}/node1/access0/initiators/write_latency"), "0\n"),
            (&format!("{node}/node1/access0/initiators/read_bandwidth"), "20480\n"),
        ]);
        let sys = dir.path().join("sys");
        let nodes = read_nodes(&sys).unwrap();
        assert_eq!(nodes.has_memory.difference(&nodes.has_cpu).copied().collect::<Vec<_>>(), [1]);
        assert_eq!(read_nodes_with_kernel_memory(&sys).unwrap(), [0].into());
        assert_eq!(read_node_distance(&sys, 1, &nodes.online).unwrap(), [(0, 40), (1, 10)]);
        let info = read_node_meminfo(&sys, 1).unwrap();
        assert_eq!(
            (info.mem_total, info.anon_pages, info.shmem),
            (Some(1_047_128 << 10), Some(12 << 10), None)
        );
        let performance = read_node_performance(&sys, 1, AccessClass::Any).unwrap().unwrap();
        assert_eq!((performance.read_latency_ns, performance.write_latency_ns), (Some(350), None));
        assert_eq!(read_node_performance(&sys, 1, AccessClass::Cpu).unwrap(), None);
    }

    #[test]
    fn a_distance_row_that_does_not_fit_the_online_nodes_is_refused() {
        let (dir, _) = tree(&[("devices/system/node/node0/distance", "10 20\n")]);
        assert!(read_node_distance(dir.path(), 0, &[0].into()).is_err());
        assert!(read_node_distance(dir.path(), 1, &[0].into()).unwrap_err().is_gone());
    }
}
