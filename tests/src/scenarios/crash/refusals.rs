//! State files that are not what they should be, and a second agent.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

use super::{CONFIG, Pods, Values, leftovers, restore};
use crate::guest::{Guest, read};
use crate::scenarios::STATE;

const READ_ONLY: &str = "/run/read-only";
const AGAIN: &str = "/pods/again";
const AGAIN_CONFIG: &str = r#"
listen: off
interval: 100ms
stateFile: /run/thermocline/state
policies:
  - name: again
    cgroups: ["/pods/again"]
    spec: { memoryHigh: { mode: Fixed, value: 64Mi } }
"#;

pub(super) fn run(guest: &mut Guest, pods: &Pods, originals: &Values) -> Result<()> {
    let machine = guest.machine();
    let agent = guest.spawn_agent(CONFIG, &[])?;
    guest.expect_within(Duration::from_secs(20), "all is set", || {
        pods.values().is_ok_and(|now| now.high != originals.high && now.cold != originals.cold)
    })?;
    let second = run_agent(CONFIG)?;
    exit_code(guest, "a second agent", &second, 8, "another agent is running");
    let (status, said) = restore()?;
    guest.check(
        "restore beside an agent, exit code",
        format_args!("{status}"),
        "exit status: 8",
        status.code() == Some(8),
    );
    guest.say(said);
    agent.kill()?;
    let crashed = pods.values()?;
    let whole = read(STATE)?;

    for (what, text) in
        [("truncated", &whole[..whole.len() / 2]), ("garbage", "\u{0}\u{1}not json"), ("empty", "")]
    {
        std::fs::write(STATE, text)?;
        let started = run_agent(CONFIG)?;
        exit_code(guest, &format!("a {what} state file"), &started, 7, "put them back");
        let (status, _) = restore()?;
        guest.check(
            format_args!("restore from a {what} state file"),
            status,
            "exit status: 7",
            status.code() == Some(7),
        );
        guest.check(format_args!("{what} state file"), "kept", "kept", read(STATE)? == text);
        guest.check(
            format_args!("values after a {what} state file"),
            "untouched",
            "untouched",
            pods.values()? == crashed,
        );
    }

    let boot_id = read("/proc/sys/kernel/random/boot_id")?;
    std::fs::write(STATE, whole.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000"))?;
    let (status, said) = restore()?;
    let ignored = status.success() && said.contains("nothing to put back") && pods.values()? == crashed;
    guest.check("state file of an earlier boot", said.trim(), "nothing to put back", ignored);

    std::fs::write(STATE, &whole)?;
    let (status, said) = restore()?;
    let left = leftovers(machine, originals, pods)?;
    guest.check(
        "the whole state file again",
        format_args!("{status}, {left:?} left"),
        "exit status: 0, [] left",
        status.success() && left.is_empty(),
    );
    guest.say(said);

    read_only(guest, pods)?;
    again(guest)
}

/// Nothing is written where nothing could be put back.
fn read_only(guest: &mut Guest, pods: &Pods) -> Result<()> {
    std::fs::create_dir_all(READ_ONLY)?;
    mount(c"none", READ_ONLY, c"tmpfs", MountFlags::RDONLY, None).context("a read-only directory")?;
    let before = pods.values()?;
    let started = run_agent(&CONFIG.replace("/run/thermocline/state", "/run/read-only/state"))?;
    exit_code(guest, "a state file that can't be written", &started, 7, "/run/read-only/state");
    guest.check("values without a state file", "untouched", "untouched", pods.values()? == before);
    Ok(())
}

/// A cgroup of the same name is another cgroup.
fn again(guest: &mut Guest) -> Result<()> {
    let cgroup = guest.cgroup(AGAIN)?;
    let agent = guest.spawn_agent(AGAIN_CONFIG, &[])?;
    guest.expect_within(Duration::from_secs(20), "a limit is set", || {
        cgroup.read("memory.high").is_ok_and(|high| high != "max")
    })?;
    let ours = cgroup.read("memory.high")?;
    agent.kill()?;
    cgroup.remove()?;
    let cgroup = guest.cgroup(AGAIN)?;
    // The very value of ours: only the cgroup's identity tells that it is not.
    cgroup.write("memory.high", &ours)?;
    let (status, said) = restore()?;
    guest.say(said);
    guest.check("restore after the cgroup is gone", status, "exit status: 0", status.success());
    guest.equal("memory.high of its successor", cgroup.read("memory.high")?, &ours);
    guest.check("state file", read(STATE)?, "no records", !read(STATE)?.contains("memory.high"));
    cgroup.remove()
}

/// An agent that is to end by itself.
fn run_agent(config: &str) -> Result<Output> {
    let path = Path::new("/run/refused.yaml");
    std::fs::write(path, config)?;
    Command::new("/bin/thermocline-agent")
        .arg("run")
        .arg("--config")
        .arg(path)
        .output()
        .context("thermocline-agent")
}

fn exit_code(guest: &mut Guest, what: &str, output: &Output, code: i32, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    guest.say(format_args!("{what}: {}", said.trim()));
    let pass = output.status.code() == Some(code) && said.contains(says);
    guest.check(
        format_args!("{what}: exit code and message"),
        output.status,
        format_args!("exit status: {code}, {says:?}"),
        pass,
    );
}
