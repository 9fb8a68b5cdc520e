//! What a machine's file says, read and checked.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::unit::{Bandwidth, Latency, Size};
use super::{DRAM, Kind, Node};
use crate::scenario::Kernel;

/// How a host comes by a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeKind {
    /// Memory of which firmware says nothing. Without CPUs the kernel takes it for as fast as what has some.
    Dram,
    /// Memory that firmware (HMAT) calls slower, like a CXL expander that firmware has set up.
    Hmat,
    /// An NVDIMM handed to the kernel as system memory by dax/kmem.
    Kmem,
    /// A CXL type-3 device that firmware has not set up: the kernel's drivers do, and dax/kmem makes it system memory. The last node, and the
    /// only one of its kind.
    Cxl,
    /// Memory that firmware (HMAT) calls faster than DRAM.
    Hbm,
}

/// What a kernel boots with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Boot {
    /// Whether pressure is measured (`psi=`). Default: it is.
    #[serde(default)]
    pub psi: Option<bool>,
    /// What is closed to root (`lockdown=`). Default: nothing.
    #[serde(default)]
    pub lockdown: Option<Lockdown>,
    /// Whether NUMA balancing is on (`numa_balancing=`). Default: as the kernel has it.
    #[serde(default)]
    pub numa_balancing: Option<bool>,
    /// Whether the multi-generational LRU is on. No word of the command line is for it: the guest's first process sets it. Default: as the kernel has it.
    #[serde(default)]
    pub lru_gen: Option<bool>,
    /// Who gets huge pages (`transparent_hugepage=`). Default: as the kernel has it.
    #[serde(default)]
    pub thp: Option<Thp>,
}

/// How far a kernel is locked down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Lockdown {
    /// What would let root change the kernel, as with Secure Boot.
    Integrity,
    /// Also what would let root read it.
    Confidentiality,
}

/// Who gets transparent huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Thp {
    /// Everybody.
    Always,
    /// Who asks for them.
    Madvise,
    /// Nobody.
    Never,
}

impl Boot {
    /// Words of the kernel's command line.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        let psi = Some(if self.psi.unwrap_or(true) { "psi=1" } else { "psi=0" });
        let lockdown = self.lockdown.map(|lockdown| match lockdown {
            Lockdown::Integrity => "lockdown=integrity",
            Lockdown::Confidentiality => "lockdown=confidentiality",
        });
        let balancing =
            self.numa_balancing.map(|on| if on { "numa_balancing=enable" } else { "numa_balancing=disable" });
        let thp = self.thp.map(|thp| match thp {
            Thp::Always => "transparent_hugepage=always",
            Thp::Madvise => "transparent_hugepage=madvise",
            Thp::Never => "transparent_hugepage=never",
        });
        [psi, lockdown, balancing, thp].into_iter().flatten().collect()
    }
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// Line and column, from 1; none for what is not there.
    pub place: Option<(u64, u64)>,
    /// In words.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for FileError {}

impl FileError {
    fn at(location: Location, message: impl Into<String>) -> Self {
        let place = (location.line() > 0).then(|| (location.line(), location.column()));
        Self { place, message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default)]
    kernels: Vec<Spanned<String>>,
    nodes: Vec<Spanned<FileNode>>,
    #[serde(default)]
    boot: Boot,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileNode {
    id: usize,
    kind: NodeKind,
    size: Size,
    #[serde(default)]
    cpus: usize,
    #[serde(default)]
    latency: Option<Latency>,
    #[serde(default)]
    bandwidth: Option<Bandwidth>,
    #[serde(default)]
    distances: Option<Vec<u8>>,
}

/// A node's distance to itself, and to another of which nothing is said.
const OWN: u8 = 10;
const OTHER: u8 = 20;

pub(super) fn parse(name: &str, text: &str) -> Result<Kind, FileError> {
    let read = |error: serde_saphyr::Error| {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        FileError::at(location, error.without_snippet().to_string())
    };
    let file: File = serde_saphyr::from_str(text).map_err(read)?;
    let nodes = nodes(&file.nodes)?;
    let kernels = kernels(&file.kernels)?;
    let told = told(serde_saphyr::from_str(text).map_err(read)?);
    Ok(Kind { name: name.to_owned(), about: file.about, kernels, nodes, boot: file.boot, told })
}

/// The file in one line, without the words for people: no other value has a space.
fn told(mut file: serde_json::Value) -> String {
    file["about"] = "-".into();
    file.to_string()
}

fn kernels(words: &[Spanned<String>]) -> Result<Vec<Kernel>, FileError> {
    let kernels = words.iter().map(|word| {
        word.value.parse().map_err(|expected: String| {
            FileError::at(word.referenced, format!("`{}` is no kernel series: {expected}", word.value))
        })
    });
    let kernels: BTreeSet<Kernel> = kernels.collect::<Result<_, _>>()?;
    Ok(if kernels.is_empty() { Kernel::ALL.to_vec() } else { kernels.into_iter().collect() })
}

fn nodes(nodes: &[Spanned<FileNode>]) -> Result<Vec<Node>, FileError> {
    for (expected, node) in nodes.iter().enumerate() {
        let wrong = |message: String| Err(FileError::at(node.referenced, message));
        let FileNode { id, kind, cpus, .. } = node.value;
        if id != expected {
            return wrong(format!("node {id} is where node {expected} should be: ids count from 0"));
        }
        if kind != NodeKind::Dram && cpus > 0 {
            return wrong(format!("node {id} has CPUs: only nodes of kind dram may"));
        }
        let (latency, bandwidth) = (node.value.latency, node.value.bandwidth);
        match (kind, latency.zip(bandwidth)) {
            (NodeKind::Hmat | NodeKind::Hbm, None) => {
                return wrong(format!("node {id} needs latency and bandwidth: firmware tells of both"));
            }
            (NodeKind::Dram | NodeKind::Kmem | NodeKind::Cxl, _)
                if latency.is_some() || bandwidth.is_some() =>
            {
                return wrong(format!(
                    "node {id} has a latency or bandwidth: firmware tells of them for kind hmat and hbm alone"
                ));
            }
            (NodeKind::Hbm, Some((_, Bandwidth(bandwidth)))) if bandwidth <= DRAM.1 => {
                return wrong(format!("node {id} is not faster than DRAM, which has {}Gi", DRAM.1));
            }
            (NodeKind::Hmat, Some((Latency(latency), _))) if latency <= DRAM.0 => {
                return wrong(format!("node {id} is not slower than DRAM, which has {}ns", DRAM.0));
            }
            _ => {}
        }
        if kind == NodeKind::Cxl && expected + 1 < nodes.len() {
            return wrong(format!(
                "node {id} is of kind cxl and not the last: the kernel numbers it after all others"
            ));
        }
        distances(nodes, node)?;
    }
    if nodes.iter().all(|node| node.value.cpus == 0) {
        let place = nodes.first().map_or(Location::UNKNOWN, |node| node.referenced);
        return Err(FileError::at(place, "no node has CPUs"));
    }
    let made = nodes.iter().map(|node| {
        let node = &node.value;
        let otherwise = || (0..nodes.len()).map(|to| if to == node.id { OWN } else { OTHER }).collect();
        Node {
            kind: node.kind,
            bytes: node.size.0,
            cpus: node.cpus,
            latency: node.latency.map(|latency| latency.0),
            bandwidth: node.bandwidth.map(|bandwidth| bandwidth.0),
            distances: node.distances.clone().unwrap_or_else(otherwise),
        }
    });
    Ok(made.collect())
}

/// The SLIT's rows: all or none, one entry a node, the same both ways.
fn distances(nodes: &[Spanned<FileNode>], node: &Spanned<FileNode>) -> Result<(), FileError> {
    let wrong = |message: String| Err(FileError::at(node.referenced, message));
    let id = node.value.id;
    let Some(row) = &node.value.distances else {
        return match nodes.iter().find(|other| other.value.distances.is_some()) {
            Some(other) => {
                wrong(format!("node {id} has no distances, node {} has: all or none", other.value.id))
            }
            None => Ok(()),
        };
    };
    if row.len() != nodes.len() {
        return wrong(format!("node {id} has {} distances, there are {} nodes", row.len(), nodes.len()));
    }
    for (to, distance) in row.iter().enumerate() {
        if to == id && *distance != OWN {
            return wrong(format!("node {id} has the distance {distance} to itself, which is {OWN}"));
        }
        if to != id && *distance <= OWN {
            return wrong(format!(
                "node {id} has the distance {distance} to node {to}: it is more than {OWN}"
            ));
        }
        let back = nodes.get(to).and_then(|other| other.value.distances.as_ref()?.get(id));
        if back.is_some_and(|back| back != distance) {
            return wrong(format!(
                "from node {id} to {to} it is {distance}, back it is {}",
                back.unwrap_or(&0)
            ));
        }
    }
    Ok(())
}
