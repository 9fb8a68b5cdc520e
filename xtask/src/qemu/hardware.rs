//! What the emulator is told of a machine: its nodes, and what the firmware says of them.

use thermocline_tests::machine::{DRAM, Kind, Node, NodeKind};

/// Where devices' memory may be plugged in: enough for any guest here.
const MAX_MEMORY: &str = "8G";

/// A host bridge for CXL with a window for its memory.
const CXL_WINDOW: &str = ",cxl=on,cxl-fmw.0.targets.0=bridge,cxl-fmw.0.size=4G";

/// The host bridge, its one port, and what is plugged in there. Regions are of devices with a serial number.
const CXL_DEVICES: [&str; 3] = [
    "pxb-cxl,bus_nr=12,bus=pcie.0,id=bridge",
    "cxl-rp,port=0,bus=bridge,id=root-port,chassis=0,slot=2",
    "cxl-type3,bus=root-port,memdev=cxl,lsa=labels,sn=1",
];

/// QEMU's arguments for a kind of machine.
pub(super) fn arguments(kind: &Kind) -> Vec<String> {
    let tells = kind.nodes.iter().any(|node| node.latency.is_some());
    let nvdimms = kind.nodes.iter().filter(|node| node.kind == NodeKind::Kmem).count();
    let cxl = kind.nodes.iter().find(|node| node.kind == NodeKind::Cxl);
    let is_device = |node: &Node| matches!(node.kind, NodeKind::Kmem | NodeKind::Cxl);
    let plain = || kind.nodes.iter().enumerate().filter(move |(_, node)| !is_device(node));
    // Of what the kernel finds by itself firmware has no node.
    let known = || kind.nodes.iter().enumerate().filter(|(_, node)| node.kind != NodeKind::Cxl);
    let mut arguments = Vec::new();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);

    let features = [("hmat", tells), ("nvdimm", nvdimms > 0)];
    let features = features.iter().filter(|(_, on)| *on).map(|(name, _)| format!(",{name}=on"));
    let window = if cxl.is_some() { CXL_WINDOW } else { "" };
    add("-machine", format!("q35{}{window}", features.collect::<String>()));
    let memory = size(plain().map(|(_, node)| node.bytes).sum());
    let slots = if nvdimms > 0 || cxl.is_some() {
        format!(",slots={},maxmem={MAX_MEMORY}", 2 * nvdimms.max(1))
    } else {
        String::new()
    };
    add("-m", format!("{memory}{slots}"));
    for (id, node) in plain() {
        add("-object", format!("memory-backend-ram,id=m{id},size={}", size(node.bytes)));
    }
    let mut cpu = 0;
    for (id, node) in known() {
        add("-numa", format!("node,nodeid={id}{}", of_node(kind, id, node, tells, &mut cpu)));
    }
    for (from, node) in known() {
        for (to, _) in known().skip(from + 1) {
            add("-numa", format!("dist,src={from},dst={to},val={}", node.distances[to]));
        }
    }
    if tells {
        for (id, node) in plain() {
            let (latency, bandwidth) = node.latency.zip(node.bandwidth).unwrap_or(DRAM);
            let of = format!("hmat-lb,initiator={},target={id},hierarchy=memory", kind.initiator(id));
            add("-numa", format!("{of},data-type=access-latency,latency={latency}"));
            add("-numa", format!("{of},data-type=access-bandwidth,bandwidth={bandwidth}G"));
        }
    }
    for (id, node) in kind.nodes.iter().enumerate().filter(|(_, node)| node.kind == NodeKind::Kmem) {
        // The first is named as if it were the only one.
        let name = if nvdimms == 1 { "nv".to_owned() } else { format!("nv{id}") };
        add("-object", format!("memory-backend-ram,id={name},size={}", size(node.bytes)));
        add("-device", format!("nvdimm,memdev={name},node={id}"));
    }
    if let Some(node) = cxl {
        for (id, bytes) in [("cxl", node.bytes), ("labels", 1 << 20)] {
            add("-object", format!("memory-backend-ram,id={id},size={}", size(bytes)));
        }
        for device in CXL_DEVICES {
            add("-device", device.to_owned());
        }
    }
    arguments
}

/// The CPU's model.
pub(super) fn cpu(kind: &Kind) -> &'static str {
    // To a guest of a hypervisor the kernel allows no mapping of CXL memory: it could not empty the caches for it.
    if kind.has(NodeKind::Cxl) { "max,-hypervisor" } else { "max" }
}

/// Words of the kernel's command line without which it does not get on with the emulator's devices.
pub(super) fn kernel_words(kind: &Kind) -> &'static [&'static str] {
    // The kernel wants an interrupt for each of the device's logs of events, which this emulator does not give; where there are none at all it
    // does without.
    if kind.has(NodeKind::Cxl) { &["pci=nomsi"] } else { &[] }
}

/// What a node is made of: its memory, and its CPUs or whose it is.
fn of_node(kind: &Kind, id: usize, node: &Node, tells: bool, cpu: &mut usize) -> String {
    let memory = if node.kind == NodeKind::Kmem { String::new() } else { format!(",memdev=m{id}") };
    let first = *cpu;
    *cpu += node.cpus;
    let of = match node.cpus {
        0 if tells => format!(",initiator={}", kind.initiator(id)),
        0 => String::new(),
        1 => format!(",cpus={first}"),
        _ => format!(",cpus={first}-{}", *cpu - 1),
    };
    memory + &of
}

/// As the emulator writes sizes.
fn size(bytes: u64) -> String {
    let mib = bytes >> 20;
    if mib.is_multiple_of(1024) { format!("{}G", mib / 1024) } else { format!("{mib}M") }
}

#[cfg(test)]
mod tests;
