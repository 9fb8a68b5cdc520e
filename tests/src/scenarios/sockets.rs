//! Two sockets, each with DRAM and a slow node: each is for itself.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Cgroup, Guest, anon_by_node, node_memory, vmstat, write_file};
use crate::report::Verdict;
use crate::scenario::{Kernel, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sockets",
    about: "cold memory sinks to its own socket's slow node, to the other where that is full; only the short socket's pods give for it",
    // In virtual time 6.1 has one CPU.
    applies: |machine| machine.kernel > Kernel::V6_1,
    agent: true,
    guest_timeout: Duration::from_mins(12),
    run,
};

const MIB: u64 = 1 << 20;
const COLD_MIB: u64 = 64;
/// So much below its low watermark a node is short whatever comes and goes.
const BELOW: u64 = 16 * MIB;
/// By socket.
const SLOW: [usize; 2] = [2, 3];
const CONFIG: &str = "stateFile: /run/thermocline/state
policies:
  - { name: quick, cgroups: [\"/pods/quick*\"], spec: { demote: { after: 20s } } }
  - { name: usual, cgroups: [\"/pods/usual*\"], spec: {} }
";

fn run(guest: &mut Guest) -> Result<Verdict> {
    let agent = guest.spawn_agent(CONFIG, &[])?;
    let regions = format!("--region cold:{COLD_MIB}M --region hot:8M");
    let quick = [0, 1].map(|socket| on_socket(guest, &format!("/pods/quick{socket}"), socket));
    let [left, right] = quick;
    let (left, right) = (left?, right?);
    let workloads = [guest.spawn_workload(&left, &regions)?, guest.spawn_workload(&right, &regions)?];
    let sunk =
        |pod: &Cgroup| anon_by_node(pod).map(|anon| SLOW.map(|node| anon.get(&node).copied().unwrap_or(0)));
    let sinks = |pod: &Cgroup| sunk(pod).is_ok_and(|[near, far]| (near + far) * 100 >= COLD_MIB * MIB * 98);
    let took = guest.expect_within(Duration::from_mins(3), "the cold memory of both sinks", || {
        sinks(&left) && sinks(&right)
    });
    for (socket, pod) in [&left, &right].into_iter().enumerate() {
        let on = sunk(pod)?;
        guest.say(format_args!("socket {socket}: {:?}", anon_by_node(pod)?));
        let all = (on[0] + on[1]) as f64;
        guest.at_least(format!("sunk from socket {socket}, MiB"), all / MIB as f64, 0.98 * COLD_MIB as f64);
        guest.at_least(
            format!("of it, on its own slow node, socket {socket}"),
            on[socket] as f64 / all.max(1.0),
            0.98,
        );
    }
    if let Err(error) = took {
        guest.say(format_args!("{error}\n{}", agent.log()?));
    }
    drop(workloads);

    near_full(guest, &sunk)?;
    one_short(guest, &sunk)?;
    guest.equal("processes killed for lack of memory", vmstat("oom_kill")?, &0);
    guest.say(format_args!("agent CPU {:?}", agent.cpu()?));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

/// A cgroup whose processes run on one socket, and so get their memory there.
fn on_socket(guest: &Guest, path: &str, socket: usize) -> Result<Cgroup> {
    let pod = guest.cgroup(path)?;
    pod.write("cpuset.cpus", socket)?;
    Ok(pod)
}

type Sunk<'a> = &'a dyn Fn(&Cgroup) -> Result<[u64; 2]>;

/// The near slow node is full: the far one takes what sinks.
fn near_full(guest: &mut Guest, sunk: Sunk<'_>) -> Result<()> {
    // It starts where it finds buffers for its pipes, and is moved.
    let group = guest.cgroup("/others/near")?;
    // The kernel gives what is above the low watermark away.
    let near = node_memory(SLOW[0])?;
    let taken = near.available().saturating_sub(near.low) / MIB;
    let hog = guest.spawn_workload(&group, &format!("--region mlock:{taken}M"))?;
    group.write("cpuset.mems", SLOW[0])?;
    let pod = on_socket(guest, "/pods/quick-near-full", 0)?;
    let workload = guest.spawn_workload(&pod, &format!("--region cold:{COLD_MIB}M --region hot:8M"))?;
    let took = guest.expect_within(Duration::from_mins(3), "it sinks to the far node", || {
        sunk(&pod).is_ok_and(|[near, far]| (near + far) * 100 >= COLD_MIB * MIB * 98)
    });
    guest.say(format_args!(
        "near node full: {:?}, {:?}",
        anon_by_node(&pod)?,
        took.as_ref().map(Duration::as_secs)
    ));
    let far = sunk(&pod)?[1];
    guest.at_least(
        "on the far slow node while the near one is full, MiB",
        far as f64 / MIB as f64,
        0.9 * COLD_MIB as f64,
    );
    drop((workload, hog));
    pod.remove()?;
    group.remove()
}

/// One socket is short, the other has plenty: only pods on the short one give.
fn one_short(guest: &mut Guest, sunk: Sunk<'_>) -> Result<()> {
    let pods = [on_socket(guest, "/pods/usual0", 0)?, on_socket(guest, "/pods/usual1", 1)?];
    let _workloads = [
        guest.spawn_workload(&pods[0], "--region cold:128M")?,
        guest.spawn_workload(&pods[1], "--region cold:128M")?,
    ];
    // Half of `after`: what is taken while less than the low watermark is left.
    guest.sleep(Duration::from_secs(65));
    // Between the watermarks there is room enough that nobody is killed; what is on processors' lists nobody else gets.
    write_file("/proc/sys/vm/watermark_scale_factor", "1000")?;
    write_file("/proc/sys/vm/percpu_pagelist_high_fraction", "100000")?;
    let group = guest.cgroup("/others/hog")?;
    group.write("cpuset.mems", 0)?;
    group.write("cpuset.cpus", 0)?;
    let memory = node_memory(0)?;
    let hog = (memory.available() + BELOW).saturating_sub(memory.low) / MIB;
    let hog = guest.spawn_workload(&group, &format!("--region mlock:{hog}M"))?;
    let memory = node_memory(0)?;
    ensure!(memory.available() < memory.low, "the node does not run short: {memory:?}");
    let found = guest.expect_within(Duration::from_secs(40), "the short socket's pod gives", || {
        sunk(&pods[0]).is_ok_and(|sunk| sunk != [0, 0])
    });
    guest.say(format_args!("short: {:?}, free {:?}", found.as_ref().map(Duration::as_secs), node_memory(0)?));
    let given = [sunk(&pods[0])?, sunk(&pods[1])?].map(|[near, far]| (near + far) as f64 / MIB as f64);
    found.context("nobody gave")?;
    guest.at_least("given by the pod on the short socket, MiB", given[0], 1.0);
    guest.at_most("given by the pod on the other, MiB", given[1], 0.0);
    drop(hog);
    for pod in pods {
        pod.remove()?;
    }
    Ok(())
}
