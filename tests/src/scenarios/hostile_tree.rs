//! Cgroups as a user with a part of the tree may make them: deep, many, oddly named, frozen, without end.

use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde_json::Value;

use super::agent_config;
use crate::guest::{Cgroup, Guest, SLOW, numa_stat, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-tree",
    about: "paths past PATH_MAX, names no terminal should see, threaded and frozen cgroups, no watches left, mkdir storms: no exit, and others are served in time",
    applies: |machine| machine.has_lower_tier(),
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

const MIB: u64 = 1 << 20;
const STORM: Duration = Duration::from_mins(1);
/// See docs/decisions/cpu-scaling.md.
const SLOWDOWN: f64 = 12.0;

/// Ended when dropped.
struct Storm(Child);

impl Drop for Storm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    let pod = guest.cgroup("/pods/good")?;
    let _workload = guest.spawn_workload(&pod, "--region hot:8M --region cold:64M")?;
    let hostile = guest.cgroup("/pods/hostile")?;
    grow_deep(&hostile, 20)?;
    for name in ["a b\\", "tab\t", "\u{1b}[31m", "{\"json\"}", "-"] {
        guest.cgroup(&format!("/pods/hostile/{name}"))?;
    }
    // Below one that has controllers of domains on, there are no threaded ones.
    let threads = guest.cgroup("/pods/hostile/threads")?.dir().join("threaded");
    std::fs::create_dir(&threads).context("threaded")?;
    write_file(threads.join("cgroup.type"), "threaded")?;
    for i in 0..500 {
        guest.cgroup(&format!("/pods/hostile/many-{i}"))?;
    }
    let frozen = guest.cgroup("/pods/frozen")?;
    let _frozen = guest.spawn_workload(&frozen, "--region cold:16M")?;
    frozen.write("cgroup.freeze", 1)?;
    // Fewer than there are cgroups.
    write_file("/proc/sys/fs/inotify/max_user_watches", "100")?;

    let config = agent_config("/pods/*", "demote: { after: 4s, slowTouchRate: 100% }");
    let mut agent = guest.spawn_agent(&config, &[])?;
    let storm = "while true; do mkdir x y z; rmdir x y z; done";
    let storm = Command::new("/bin/busybox").args(["sh", "-c", storm]).current_dir(hostile.dir()).spawn();
    let storm = Storm(storm.context("storm")?);
    let sank = guest.expect_within(Duration::from_mins(2), "what is cold sinks", || {
        numa_stat(&pod, "anon").is_ok_and(|anon| anon[SLOW] >= 58 * MIB)
    });
    let took = sank.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check("another pod's cold memory sinks meanwhile", took, "within 2 min", sank.is_ok());
    grow_deep(&hostile, 18)?;
    let (before, rss) = (agent.cpu()?, agent.rss()?);
    guest.sleep(STORM);
    let cpu = agent.cpu()?.saturating_sub(before).as_secs_f64() / STORM.as_secs_f64();
    guest.at_most("CPU in the storm, % of a native core", cpu * 100.0 / SLOWDOWN, 4.0);
    guest.at_most("RSS gained in the storm, MiB", agent.rss()?.saturating_sub(rss) as f64 / MIB as f64, 4.0);
    guest.check("it runs", agent.is_running()?, "true", agent.is_running()?);
    let health = guest.http_get(9440, "/healthz").unwrap_or_else(|error| error.to_string());
    guest.check("its health", health.trim(), "ok", health.starts_with("ok"));
    let state: Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let conditions = state["conditions"].to_string();
    guest.check(
        "what can't be watched is counted",
        &conditions,
        "TreeWatched",
        conditions.contains("TreeWatched"),
    );
    drop(storm);
    let log = agent.log()?;
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    guest.equal("errors in its log", errors, &0);
    guest.at_most("lines in its log", log.lines().count() as f64, 300.0);
    guest.say(log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
    frozen.write("cgroup.freeze", 0)?;
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status", status, "exit status: 0", status.success());
    Ok(guest.verdict())
}

/// Nests so many cgroups of long names. Their path can't be named at the end, so it goes from directory to directory.
fn grow_deep(cgroup: &Cgroup, depth: usize) -> Result<()> {
    let name = format!("{depth:x<250}");
    let mut at = std::fs::File::open(cgroup.dir())?;
    for _ in 0..depth {
        mkdirat(&at, name.as_str(), Mode::RWXU)?;
        at = openat(&at, name.as_str(), OFlags::DIRECTORY, Mode::empty())?.into();
    }
    Ok(())
}
