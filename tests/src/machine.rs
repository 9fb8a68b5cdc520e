//! Machines that guests are: memory nodes, CPUs and what the kernel boots with, each a small file.
//!
//! A file says what firmware and command line of such a host say, and names what it is after:
//!
//! ```yaml
//! about: Two sockets and one expander, which is attached to the first.
//! kernels: ["6.12"]                # series it is tested on; default: all
//! nodes:                           # ids count from 0
//!   - { id: 0, kind: dram, size: 1Gi, cpus: 1, distances: [10, 21, 17] }
//!   - { id: 1, kind: dram, size: 1Gi, cpus: 1, distances: [21, 10, 28] }
//!   - { id: 2, kind: hmat, size: 1536Mi, latency: 250ns, bandwidth: 40Gi, distances: [17, 28, 10] }
//! boot:                            # default: as the kernel has it, with PSI
//!   { psi: false, lockdown: integrity, numaBalancing: false, lruGen: false, thp: madvise }
//! ```
//!
//! The files of the project are in `tests/machines/`, and guest and host hold them all. One of a user's is told to the guest whole, on the
//! kernel's command line.

mod file;
mod unit;

use std::sync::LazyLock;

pub use file::{Boot, FileError, Lockdown, NodeKind, Thp};

use crate::scenario::Kernel;

/// What kind of machine a guest is, but for its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// On the command line and in the matrix: the file's name.
    pub name: String,
    /// What it is after, in a sentence.
    pub about: String,
    /// Kernel series that it is tested on, oldest first; at least one.
    pub kernels: Vec<Kernel>,
    /// Memory nodes by their number; at least one has CPUs.
    pub nodes: Vec<Node>,
    /// What its kernel boots with.
    pub boot: Boot,
    /// The file in one line without spaces, as the guest is told it.
    pub told: String,
}

/// A memory node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// How the host comes by it.
    pub kind: NodeKind,
    /// Bytes. Of an NVDIMM or a CXL device a part is lost to whole memory blocks.
    pub bytes: u64,
    /// CPUs; numbered through over all nodes.
    pub cpus: usize,
    /// As the firmware tells, nanoseconds.
    pub latency: Option<u64>,
    /// As the firmware tells, GiB a second.
    pub bandwidth: Option<u64>,
    /// The SLIT's row: distances to all nodes, its own among them.
    pub distances: Vec<u8>,
}

/// Latency in nanoseconds and bandwidth in GiB a second that firmware tells of DRAM, where it tells anything.
pub const DRAM: (u64, u64) = (100, 100);

/// The project's machines.
const FILES: &[(&str, &str)] = &[
    ("hmat", include_str!("../machines/hmat.yaml")),
    ("kmem", include_str!("../machines/kmem.yaml")),
    ("sockets", include_str!("../machines/sockets.yaml")),
    ("rhel-like", include_str!("../machines/rhel-like.yaml")),
    ("secure-boot", include_str!("../machines/secure-boot.yaml")),
    ("talos-like", include_str!("../machines/talos-like.yaml")),
    ("near-slow-full", include_str!("../machines/near-slow-full.yaml")),
    ("sockets-kmem", include_str!("../machines/sockets-kmem.yaml")),
    ("two-sockets-cxl", include_str!("../machines/two-sockets-cxl.yaml")),
    ("four-nodes", include_str!("../machines/four-nodes.yaml")),
    ("hbm-flat", include_str!("../machines/hbm-flat.yaml")),
    ("cxl-type3", include_str!("../machines/cxl-type3.yaml")),
    ("one-tier", include_str!("../machines/one-tier.yaml")),
];

/// The project's machines, in the order in which they are shown.
#[must_use]
pub fn kinds() -> &'static [Kind] {
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
        // A test reads each of them.
        FILES.iter().filter_map(|(name, text)| Kind::parse(name, text).ok()).collect()
    });
    &KINDS
}

impl Kind {
    /// The project's machine of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        kinds().iter().find(|kind| kind.name == name)
    }

    /// Reads a machine's file.
    ///
    /// # Errors
    /// With the place in the file.
    pub fn parse(name: &str, text: &str) -> Result<Self, FileError> {
        file::parse(name, text)
    }

    /// Nodes that processes' memory comes from at first: those with CPUs, and faster ones.
    #[must_use]
    pub fn fast_nodes(&self) -> Vec<usize> {
        self.nodes_where(|node| !node.is_slow())
    }

    /// Nodes that memory may be demoted to.
    #[must_use]
    pub fn slow_nodes(&self) -> Vec<usize> {
        self.nodes_where(Node::is_slow)
    }

    /// Every node.
    #[must_use]
    pub fn all_nodes(&self) -> Vec<usize> {
        self.nodes_where(|_| true)
    }

    /// Nodes of DRAM with CPUs.
    #[must_use]
    pub fn dram_nodes(&self) -> Vec<usize> {
        self.nodes_where(|node| node.cpus > 0)
    }

    fn nodes_where(&self, which: impl Fn(&Node) -> bool) -> Vec<usize> {
        self.nodes.iter().enumerate().filter(|(_, node)| which(node)).map(|(id, _)| id).collect()
    }

    /// Whether it has a node of that kind.
    #[must_use]
    pub fn has(&self, kind: NodeKind) -> bool {
        self.nodes.iter().any(|node| node.kind == kind)
    }

    /// CPUs of all nodes.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.nodes.iter().map(|node| node.cpus).sum()
    }

    /// Whether it is one fast node, one slow node, and a kernel that boots as it is shipped: what most scenarios are written for.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain_nodes = matches!(self.nodes.as_slice(), [fast, slow] if fast.cpus > 0 && slow.is_slow());
        plain_nodes && !self.has(NodeKind::Cxl) && self.boot == Boot::default()
    }

    /// The node with CPUs that a node is nearest to: itself where it has some.
    #[must_use]
    pub fn initiator(&self, node: usize) -> usize {
        let with_cpus = self.nodes_where(|node| node.cpus > 0);
        let distance = |from: &usize| self.nodes[node].distances[*from];
        with_cpus.into_iter().min_by_key(distance).unwrap_or_default()
    }
}

/// Node numbers as kernel files have them: `0-2,4`.
#[must_use]
pub fn node_list(nodes: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &node in nodes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == node => *last = node,
            _ => ranges.push((node, node)),
        }
    }
    let range = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

impl Node {
    /// Whether memory sinks to it: it has no CPUs and is not faster than those that have.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.cpus == 0 && self.kind != NodeKind::Hbm
    }
}

#[cfg(test)]
mod tests;
