//! What an engine needs goes away while it works: the agent notices, says so, and goes on with another.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{BALANCING, config_with_engine};
use crate::guest::{Cgroup, Guest, SLOW, numa_stat, read, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "engine-lost",
    about: "debugfs is unmounted under the engine lru-gen: pages takes over within minutes; a policy that names an engine gets it",
    applies: |machine| machine.has_lower_tier(),
    agent: true,
    guest_timeout: Duration::from_mins(10),
    run,
};

const MIB: u64 = 1 << 20;
const AFTER: Duration = Duration::from_secs(10);
const DEBUGFS: &str = "/sys/kernel/debug";
/// The agent tries anew what the host allows a minute after it tried last.
const NOTICED_WITHIN: Duration = Duration::from_mins(2);

fn run(guest: &mut Guest) -> Result<Verdict> {
    write_file("/sys/kernel/mm/lru_gen/enabled", "y")?;
    write_file(BALANCING, "1")?;
    let [first, second, third] =
        ["first", "second", "third"].map(|name| guest.cgroup(&format!("/pods/{name}")));
    let (first, second, third) = (first?, second?, third?);
    let agent = guest.spawn_agent(&config("Auto"), &[])?;

    let _first = guest.spawn_workload(&first, "--region cold:64M")?;
    sinks(guest, &first, Duration::from_mins(1))?;
    guest.equal("engine at first", engine(guest)?, &"lru-gen".to_owned());
    guest.equal("kernel.numa_balancing beside it", read(BALANCING)?.trim(), &"2");

    unmount(DEBUGFS, UnmountFlags::DETACH).context("unmount debugfs")?;
    let noticed = guest.expect_within(NOTICED_WITHIN, "another engine takes over", || {
        engine(guest).is_ok_and(|engine| engine == "reclaim")
    });
    if noticed.is_err() {
        guest.say(agent.log()?);
    }
    guest.at_most("until another engine took over, s", noticed?.as_secs_f64(), NOTICED_WITHIN.as_secs_f64());
    // Never chosen by itself.
    agent.write_config(&config("Pages"))?;
    guest.expect_within(Duration::from_secs(10), "the engine that is asked for", || {
        engine(guest).is_ok_and(|engine| engine == "pages")
    })?;
    let _second = guest.spawn_workload(&second, "--region cold:64M")?;
    sinks(guest, &second, Duration::from_mins(1))?;
    guest.equal("kernel.numa_balancing beside that", read(BALANCING)?.trim(), &"0");
    let failed = agent.log()?.lines().filter(|line| line.contains("an engine's step failed")).count();
    guest.check("the failure is told", failed, "> 0", failed > 0);

    mount(c"none", DEBUGFS, c"debugfs", MountFlags::empty(), None).context("mount debugfs")?;
    agent.write_config(&config("LruGen"))?;
    guest.expect_within(Duration::from_secs(10), "the engine that the policy names", || {
        engine(guest).is_ok_and(|engine| engine == "lru-gen")
    })?;
    let _third = guest.spawn_workload(&third, "--region cold:64M")?;
    sinks(guest, &third, Duration::from_mins(1))?;

    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    guest.equal("kernel.numa_balancing at the end", read(BALANCING)?.trim(), &"1");
    Ok(guest.verdict())
}

fn config(engine: &str) -> String {
    config_with_engine(engine, "/pods/*", &format!("demote: {{ after: {}s }}", AFTER.as_secs()))
}

fn engine(guest: &Guest) -> Result<String> {
    let state: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    Ok(state["engine"].as_str().unwrap_or("none").to_owned())
}

fn sinks(guest: &mut Guest, pod: &Cgroup, within: Duration) -> Result<()> {
    let sunk = guest.expect_within(within, "what is cold sinks", || {
        numa_stat(pod, "anon").is_ok_and(|anon| anon[SLOW] >= 60 * MIB)
    });
    let took = sunk.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check(format!("{} sinks", pod.path()), took, format!("within {within:?}"), sunk.is_ok());
    sunk.map(drop)
}
