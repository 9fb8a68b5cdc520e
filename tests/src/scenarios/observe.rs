//! Observing decides as enforcing would, and writes nothing; on a host with one memory node it is all there is.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::touched::{Watch, changes, settings, writable_files};
use super::{BALANCING, agent_config};
use crate::guest::{Cgroup, Guest, Use, offline_node, online_all, read, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::RegionLedger;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "observe",
    about: "observe, as a mode and as a command, decides as enforce does, names what that frees, and writes no cgroup file and no setting",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(10),
    run,
};

const AFTER: Duration = Duration::from_secs(10);
const MIB: f64 = 1024.0 * 1024.0;

fn run(guest: &mut Guest) -> Result<Verdict> {
    let pod = guest.cgroup("/pods/a")?;
    guest.cgroup("/agent")?;
    // A setting that no agent would choose shows a change at once.
    write_file(BALANCING, "1")?;
    let mut workload = guest.spawn_workload(&pod, "--region hot:32M --region cold:96M")?;
    let files = writable_files()?;
    let before = settings()?;
    let watch = Watch::new()?;

    let observed = first_demotion(guest, &pod, "Observe")?;
    let command = |arguments: &[&str]| -> Result<Output> {
        let output =
            Command::new("/bin/thermocline-agent").args(arguments).output().context("thermocline-agent")?;
        guest.say(format_args!("{}: {}", arguments.join(" "), output.status));
        Ok(output)
    };
    let once = ["observe", "/pods/*", "--once", "--interval", "6s", "--after", "10s"];
    // Without tiers that this kernel knows and generations that are on, nothing tells ages unasked.
    let engine: &[&str] = if guest.machine().has_lower_tier() { &[] } else { &["--engine", "pages"] };
    let table = command(&once)?;
    let json = command(&[&once[..], engine, &["--output", "json"]].concat())?;
    let written = watch.written()?;
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    guest.say(&text);
    let snapshot: serde_json::Value = serde_json::from_slice(&json.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&json.stderr)))?;
    guest.check(
        "observe --once succeeds",
        table.status,
        "exit status: 0",
        table.status.success() && json.status.success(),
    );
    guest.check("its table names the cgroup", text.contains("/pods/a"), "true", text.contains("/pods/a"));
    guest.at_least("bytes whose age its JSON tells, MiB", bytes_of_ages(&snapshot, "/pods/a") / MIB, 120.0);

    guest.check("writes to files of cgroups", written.join(", "), "none", written.is_empty());
    let changed = changes(&files, &writable_files()?);
    guest.check("changed files of cgroups", changed.join(", "), "none", changed.is_empty());
    let changed = changes(&before, &settings()?);
    guest.check("changed settings", changed.join(", "), "none", changed.is_empty());
    guest.equal("bytes on the slow node", workload.ledger()?.sum(|_| true, |r| r.slow_bytes), &0);
    pod.write("memory.high", "max")?;
    let seen = watch.written()?;
    guest.check("the watch sees a write", seen.join(", "), "one", seen.len() == 1);

    let enforced = first_demotion(guest, &pod, "Enforce")?;
    let first = |words: &str| words.split(' ').next().unwrap_or_default().to_owned();
    guest.equal("first word of what is observed", first(&observed.said), &"would".to_owned());
    guest.equal("first word of what is enforced", first(&enforced.said), &"demote".to_owned());
    let reason = |words: &str| words.split(" MiB ").last().unwrap_or_default().to_owned();
    guest.equal(
        "reason of the first decision, as enforced",
        reason(&observed.words),
        &reason(&enforced.words),
    );
    let apart = (observed.cold - enforced.cold).abs() / enforced.cold;
    guest.at_most("cold bytes of that decision, apart from the enforced", apart, 0.02);
    let cold = |r: &RegionLedger| r.kind == "cold";
    guest.at_least(
        "then it is carried out: MiB that sank",
        workload.ledger()?.sum(cold, |r| r.slow_bytes) as f64 / MIB,
        90.0,
    );
    drop(workload);
    report(guest)?;
    what_would_be_freed_is_freed(guest)?;

    if guest.machine().has_kmem() {
        one_node(guest)?;
    }
    Ok(guest.verdict())
}

/// What the two agents recorded, the second of which enforced.
fn report(guest: &mut Guest) -> Result<()> {
    let report = |guest: &mut Guest, form: &str| -> Result<String> {
        let arguments = ["report", "--price", "dram=4,slow=1", "--output", form];
        let output = Command::new("/bin/thermocline-agent").args(arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        guest.check(format!("report as {form}"), output.status, "exit status: 0", output.status.success());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
    };
    let table = report(guest, "table")?;
    guest.say(table);
    let json = report(guest, "json")?;
    let told: serde_json::Value = serde_json::from_str(&json).context(json)?;
    guest.at_least("samples of two agents", told["count"].as_f64().unwrap_or(0.0), 2.0);
    let last = &told["samples"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
    let held = |field: &str| last["cgroups"][0][field].as_f64().unwrap_or(0.0) / MIB;
    guest.at_least("MiB on slow memory in the last of them", held("slow"), 90.0);
    guest.at_least("MiB in DRAM in the last of them", held("dram"), 32.0);
    let html = report(guest, "html")?;
    let pictures = html.matches("<svg").count();
    guest.equal("pictures of the page", pictures, &2);
    for form in ["csv", "markdown"] {
        let text = report(guest, form)?;
        guest.check(
            format!("{form} names the cgroup"),
            text.contains("/pods/a"),
            "true",
            text.contains("/pods/a"),
        );
    }
    Ok(())
}

/// What an agent says after two minutes of observing that its policy would free, beside what is freed once it is enforced.
fn what_would_be_freed_is_freed(guest: &mut Guest) -> Result<()> {
    let pod = guest.cgroup("/pods/saving")?;
    let mut workload = guest.spawn_workload(&pod, "--region hot:32M --region cold:96M")?;
    let spec = |mode: &str| {
        agent_config(pod.path(), &format!("mode: {mode}, demote: {{ after: {}s }}", AFTER.as_secs()))
    };
    let agent = guest.spawn_agent(&spec("Observe"), &[])?;
    guest.sleep(Duration::from_mins(2));
    let told: serde_json::Value = serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?;
    let of_cgroup = told["cgroups"][pod.path()]["would_free_bytes"].as_f64().context("no saving")?;
    let total = told["savings"]["total"]["would_free_bytes"].as_f64().context("no total")?;
    guest.check("would free: the total of one cgroup", total, of_cgroup, (total - of_cgroup).abs() < 1.0);
    let sunk = workload.ledger()?.sum(|_| true, |r| r.slow_bytes);
    guest.equal("bytes on the slow node while observed", sunk, &0);
    agent.write_config(&spec("Enforce"))?;
    guest.sleep(Duration::from_mins(1));
    let freed = workload.ledger()?.sum(|_| true, |r| r.slow_bytes) as f64;
    guest.say(format_args!("would free {:.1} MiB, freed {:.1} MiB", of_cgroup / MIB, freed / MIB));
    guest.at_most(
        "what is freed, apart from what would be",
        (freed - of_cgroup).abs() / freed.max(1.0),
        0.10,
    );
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    Ok(())
}

/// A host whose one memory node is the CPUs' own.
fn one_node(guest: &mut Guest) -> Result<()> {
    let blocks = offline_node(1)?;
    guest.say(format_args!(
        "{blocks} blocks offline, has_memory {}",
        read("/sys/devices/system/node/has_memory")?.trim()
    ));
    let pod = guest.cgroup("/pods/b")?;
    let workload = guest.spawn_workload(&pod, "--region hot:16M --region cold:32M")?;
    let observe = ["observe", "/pods/*", "--once", "--interval", "2s", "--output", "json"];
    let output = Command::new("/bin/thermocline-agent").args(observe).output()?;
    guest.check("one node: observe", output.status, "exit status: 0", output.status.success());
    let snapshot: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&output.stderr)))?;
    let current = snapshot["cgroups"]["/pods/b"]["current_bytes"].as_f64().unwrap_or(0.0);
    guest.at_least("one node: bytes that observe finds, MiB", current / MIB, 48.0);
    guest.say(format_args!(
        "one node: engine {}, ages {}",
        snapshot["engine"], snapshot["cgroups"]["/pods/b"]["ages"]
    ));
    guest.at_least(
        "one node: bytes whose age it tells, MiB",
        bytes_of_ages(&snapshot, "/pods/b") / MIB,
        44.0,
    );
    // Every cgroup of the host, as without arguments: the root has no row.
    let output = Command::new("/bin/thermocline-agent")
        .args(["observe", "/**", "--once", "--interval", "2s", "--output", "json"])
        .output()?;
    let snapshot: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&output.stderr)))?;
    let paths: Vec<_> = snapshot["cgroups"].as_object().into_iter().flatten().map(|(path, _)| path).collect();
    let has = |path: &str| paths.iter().any(|known| *known == path);
    guest.check(
        "one node: observe of all cgroups has /pods/b and not the root",
        format!("{paths:?}"),
        "with /pods/b, without /",
        has("/pods/b") && !has("/"),
    );

    drop(workload);
    online_all(Use::Movable)
}

fn bytes_of_ages(snapshot: &serde_json::Value, cgroup: &str) -> f64 {
    let ages = snapshot["cgroups"][cgroup]["ages"].as_array().into_iter().flatten();
    ages.filter_map(|age| age[1].as_f64()).sum()
}

struct Demotion {
    /// As it was logged.
    said: String,
    /// As if it were enforced.
    words: String,
    /// MiB.
    cold: f64,
}

/// Runs an agent until it decides to demote, and two rounds more. It begins with the default age, as a pod does that gets a
/// policy later on; it must not wait for that.
fn first_demotion(guest: &mut Guest, pod: &Cgroup, mode: &str) -> Result<Demotion> {
    let agent = guest.spawn_agent(&agent_config(pod.path(), "mode: Observe"), &[])?;
    guest.sleep(Duration::from_secs(5));
    let spec = format!("mode: {mode}, demote: {{ after: {}s }}", AFTER.as_secs());
    agent.write_config(&agent_config(pod.path(), &spec))?;
    let mut first = None;
    guest.expect_within(Duration::from_mins(1), "a decision to demote", || {
        first = agent.log().ok().as_deref().and_then(first_decision);
        first.is_some()
    })?;
    guest.sleep(Duration::from_secs(15));
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check(format!("{mode}: exit status after SIGTERM"), status, "exit status: 0", status.success());
    first.context("no decision")
}

/// The first decision to demote in a log: `demote 32 MiB: 96 MiB not accessed for 10s`, or what would be.
fn first_decision(log: &str) -> Option<Demotion> {
    let messages = log.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(line["message"].as_str()?.to_owned())
    });
    let as_enforced = |said: &str| said.replacen("would demote", "demote", 1).replacen(" (observed)", "", 1);
    let (said, words) = messages
        .map(|said| {
            let words = as_enforced(&said);
            (said, words)
        })
        .find(|(_, words)| words.starts_with("demote "))?;
    let cold = words.split(": ").nth(1)?.split(" MiB").next()?.parse().ok()?;
    Some(Demotion { said, words, cold })
}
