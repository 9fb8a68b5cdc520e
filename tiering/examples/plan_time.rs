//! How long one plan takes: 1000 and 5000 cgroups on 8 fast and 8 slow nodes, with and without a shortage everywhere.
//!
//! `cargo run --release -p tiering --example plan_time`. Times are the least of several plans; the bar is 5 ms for 5000 cgroups.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant as Clock};

use tiering::law::{
    AgeReading, CgroupKey, CgroupSample, Host, HostSample, NodeSample, NodeUse, Promoter, Reach, Settings,
    Speed,
};
use tiering::{Bytes, Instant, NodeId, NodeSet, Policy, StallTotals};

const SOCKETS: u32 = 8;

fn node(id: u32, free: Bytes) -> NodeSample {
    let is_fast = id < SOCKETS;
    let others = if is_fast { SOCKETS..2 * SOCKETS } else { 0..SOCKETS };
    let mut targets: Vec<NodeId> = others.map(NodeId).collect();
    targets.rotate_left((id % SOCKETS) as usize);
    NodeSample {
        node: NodeId(id),
        speed: if is_fast { Speed::Fast } else { Speed::Slow },
        total: Bytes::mib(256 << 10),
        free,
        pcp: Bytes::ZERO,
        min: Bytes::mib(200),
        low: Bytes::mib(300),
        high: Bytes::mib(600),
        reclaimable_file: Bytes::ZERO,
        targets,
    }
}

/// A cgroup with memory on `spread` sockets, five classes of age on each, as after some walks.
fn sample(key: u64, spread: u32, at: Instant) -> CgroupSample {
    let mut nodes = BTreeMap::new();
    for i in 0..spread {
        let socket = (u32::try_from(key).unwrap_or(0) + i) % SOCKETS;
        let ages = [3000, 600, 130, 60, 0]
            .map(|age| (Duration::from_secs(age + key % 50), Bytes::mib(20 + key % 30)));
        let anon = ages.iter().map(|(_, bytes)| *bytes).sum();
        let ages = Some(AgeReading { ages: ages.to_vec(), walked: true });
        nodes.insert(NodeId(socket), NodeUse { anon, ages, ..NodeUse::default() });
        let usage =
            NodeUse { anon: Bytes::mib(50), touched: Some(Bytes::mib(key % 3)), ..NodeUse::default() };
        nodes.insert(NodeId(socket + SOCKETS), usage);
    }
    let stalls = StallTotals { memory: Some(Duration::ZERO), io: None };
    CgroupSample { at, nodes, current: Bytes::mib(400), stalls, ..CgroupSample::default() }
}

fn measure(cgroups: u64, spread: u32, free: Bytes) -> Duration {
    let settings = Settings { promoter: Promoter::Agent, ..Settings::default() };
    let mut host = Host::new(settings);
    let start = Instant::default();
    let allowed: NodeSet = (0..2 * SOCKETS).collect();
    let nodes = |at| HostSample { at, nodes: (0..2 * SOCKETS).map(|id| node(id, free)).collect() };
    host.observe_nodes(nodes(start));
    for key in 0..cgroups {
        host.add(CgroupKey(key), Policy::default(), None, start);
        host.set_reach(CgroupKey(key), Reach { allowed: allowed.clone(), ..Reach::default() });
    }
    let mut now = start;
    for round in 1..=3 {
        now = Instant(Duration::from_secs(round * 60));
        host.observe_nodes(nodes(now));
        for key in 0..cgroups {
            host.observe(CgroupKey(key), sample(key, spread, now));
        }
    }
    let mut least = Duration::MAX;
    for _ in 0..9 {
        let began = Clock::now();
        let plan = std::hint::black_box(host.plan(now));
        least = least.min(began.elapsed());
        assert_eq!(plan.cgroups.len() as u64, cgroups);
    }
    least
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<34} {:>10} {:>10} {:>6}", "16 nodes", "1000", "5000", "ratio")?;
    for (name, spread, free) in [
        ("2 sockets each, nothing short", 2, Bytes::mib(64 << 10)),
        ("2 sockets each, all nodes short", 2, Bytes::mib(1 << 10)),
        ("all sockets each, nothing short", 8, Bytes::mib(64 << 10)),
        ("all sockets each, all nodes short", 8, Bytes::mib(1 << 10)),
    ] {
        let (few, many) = (measure(1000, spread, free), measure(5000, spread, free));
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        let millis = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
        writeln!(out, "{name:<34} {:>10} {:>10} {ratio:>6.1}", millis(few), millis(many))?;
    }
    Ok(())
}
