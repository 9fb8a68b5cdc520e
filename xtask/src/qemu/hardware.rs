//! What the emulator is told of a machine: its nodes, and what the firmware says of them.

use thermocline_tests::machine::{DRAM, Kind, Node, NodeKind};

/// Where devices' memory may be plugged in: enough for any guest here.
const MAX_MEMORY: &str = "8G";

/// QEMU's arguments for a kind of machine.
pub(super) fn arguments(kind: &Kind) -> Vec<String> {
    let tells = kind.nodes.iter().any(|node| node.latency.is_some());
    let nvdimms = kind.nodes.iter().filter(|node| node.kind == NodeKind::Kmem).count();
    let plain = || kind.nodes.iter().enumerate().filter(|(_, node)| node.kind != NodeKind::Kmem);
    let mut arguments = Vec::new();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);

    let features = [("hmat", tells), ("nvdimm", nvdimms > 0)];
    let features = features.iter().filter(|(_, on)| *on).map(|(name, _)| format!(",{name}=on"));
    add("-machine", format!("q35{}", features.collect::<String>()));
    let memory = size(plain().map(|(_, node)| node.bytes).sum());
    let slots =
        if nvdimms > 0 { format!(",slots={},maxmem={MAX_MEMORY}", 2 * nvdimms) } else { String::new() };
    add("-m", format!("{memory}{slots}"));
    for (id, node) in plain() {
        add("-object", format!("memory-backend-ram,id=m{id},size={}", size(node.bytes)));
    }
    let mut cpu = 0;
    for (id, node) in kind.nodes.iter().enumerate() {
        add("-numa", format!("node,nodeid={id}{}", of_node(kind, id, node, tells, &mut cpu)));
    }
    for (from, node) in kind.nodes.iter().enumerate() {
        for (to, distance) in node.distances.iter().enumerate().skip(from + 1) {
            add("-numa", format!("dist,src={from},dst={to},val={distance}"));
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
    arguments
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
