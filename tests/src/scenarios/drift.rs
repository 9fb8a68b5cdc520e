//! Another writer at our files: noticed, named, answered for some rounds, then left alone.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::BALANCING;
use crate::guest::{Cgroup, Guest, read, write_file};
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::now_ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "drift",
    about: "another writer is noticed within a second, named, and left alone after three bursts; one burst is no fight; what it set stays",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(15),
    run,
};

/// Rounds of a fight until the agent stands down.
const ROUNDS: u64 = 3;
/// Changes within this time are one.
const BURST: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;
const OURS: u64 = 128 * MIB;
const CONFIG: &str = r#"
stateFile: /run/thermocline/state
policies:
  - name: high
    cgroups: ["/pods/fought", "/pods/once", "/pods/same"]
    spec: { memoryHigh: { mode: Fixed, value: 128Mi } }
  - name: mems
    cgroups: ["/pods/bound", "/pods/moved"]
    spec: { tiers: [dram] }
"#;

/// A process of its own name and cgroup that writes files.
struct Fighter {
    child: Child,
    lines: ChildStdin,
}

impl Fighter {
    const NAME: &str = "fighter";
    const CGROUP: &str = "/fighters/one";

    fn start(guest: &Guest) -> Result<Self> {
        let program = format!("/run/{}", Self::NAME);
        std::fs::copy("/bin/busybox", &program).context("a shell of its own name")?;
        let mut child = Command::new(program)
            .arg0("busybox")
            .args(["sh", "-c", "while read file value; do echo $value > $file; done"])
            .stdin(Stdio::piped())
            .spawn()
            .context("fighter")?;
        guest.cgroup(Self::CGROUP)?.write("cgroup.procs", child.id())?;
        let lines = child.stdin.take().context("stdin")?;
        Ok(Self { child, lines })
    }

    fn write(&mut self, file: &str, value: impl std::fmt::Display) -> Result<()> {
        Ok(writeln!(self.lines, "{file} {value}")?)
    }

    fn write_to(&mut self, cgroup: &Cgroup, file: &str, value: impl std::fmt::Display) -> Result<()> {
        self.write(&cgroup.dir().join(file).display().to_string(), value)
    }
}

impl Drop for Fighter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    let [fought, once, same, bound, moved] =
        ["fought", "once", "same", "bound", "moved"].map(|name| guest.cgroup(&format!("/pods/{name}")));
    let (fought, once, same, bound, moved) = (fought?, once?, same?, bound?, moved?);
    let mut workload = guest.spawn_workload(&fought, "--region hot:4M")?;
    // Kernels boot with 0 where the slow node comes later, and 0 may be just what the agent wants.
    write_file(BALANCING, "1")?;
    let balancing = read(BALANCING)?;
    let mut fighter = Fighter::start(guest)?;
    let agent = guest.spawn_agent(CONFIG, &[])?;
    let ours = OURS.to_string();
    guest.expect_within(Duration::from_secs(20), "all is set", || {
        [&fought, &once, &same].iter().all(|cgroup| cgroup.read("memory.high").is_ok_and(|high| high == ours))
            && [&bound, &moved].iter().all(|cgroup| cgroup.read("cpuset.mems").is_ok_and(|mems| mems == "0"))
            && read(BALANCING).is_ok_and(|now| now != balancing)
    })?;

    fighter.write_to(&same, "memory.high", &ours)?;
    let answered = fight(guest, &mut fighter, &once, "memory.high", &ours, 1)?;
    guest.at_most("slowest answer to one change of memory.high, ms", answered, 1000.0);
    let answered = fight(guest, &mut fighter, &moved, "cpuset.mems", "0", 1)?;
    guest.at_most("slowest answer to one change of cpuset.mems, ms", answered, 1000.0);
    let answered = fight(guest, &mut fighter, &fought, "memory.high", &ours, ROUNDS)?;
    guest.at_most("slowest answer in a fight over memory.high, ms", answered, 1000.0);
    let answered = fight(guest, &mut fighter, &bound, "cpuset.mems", "0", ROUNDS)?;
    guest.at_most("slowest answer in a fight over cpuset.mems, ms", answered, 1000.0);
    // Long enough for an answer that must not come.
    guest.sleep(Duration::from_secs(10));
    let high = fought.read("memory.high")?;
    guest.equal("memory.high after the fight", high, &foreign("memory.high", ROUNDS));
    guest.equal("cpuset.mems after the fight", bound.read("cpuset.mems")?, &foreign("cpuset.mems", ROUNDS));

    named(guest, &fighter, [&fought, &bound, &once, &moved, &same])?;

    fighter.write(BALANCING, 3)?;
    guest.expect_within(Duration::from_secs(10), "the change of numa_balancing is told", || {
        debug_state(guest)
            .is_ok_and(|state| state["conditions"].to_string().contains("kernel.numa_balancing"))
    })?;
    guest.equal("kernel.numa_balancing that an admin set", read(BALANCING)?.trim(), &"3");

    let metrics = guest.http_get(9440, "/metrics")?;
    for line in metrics.lines().filter(|line| line.contains("drift") && !line.starts_with('#')) {
        guest.say(line);
    }
    let count = |metric: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.and_then(|count| count.parse::<f64>().ok()).unwrap_or(-1.0)
    };
    for (metric, bar) in [
        ("thermocline_drift_total{file=\"memory.high\"}", ROUNDS + 1),
        ("thermocline_drift_total{file=\"cpuset.mems\"}", ROUNDS + 1),
        ("thermocline_drift_total{file=\"kernel.numa_balancing\"}", 1),
        ("thermocline_cgroup_drift_total{cgroup=\"/pods/fought\",file=\"memory.high\"}", ROUNDS),
    ] {
        guest.equal(metric, count(metric), &(bar as f64));
    }

    let log = agent.log.clone();
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    guest.equal(
        "memory.high fought over, at the end",
        fought.read("memory.high")?,
        &foreign("memory.high", ROUNDS),
    );
    guest.equal(
        "cpuset.mems fought over, at the end",
        bound.read("cpuset.mems")?,
        &foreign("cpuset.mems", ROUNDS),
    );
    guest.equal(
        "memory.high changed once, at the end",
        once.read("memory.high")?,
        &foreign("memory.high", 1),
    );
    guest.equal(
        "cpuset.mems changed once, at the end",
        moved.read("cpuset.mems")?,
        &foreign("cpuset.mems", 1),
    );
    guest.equal("memory.high written as it was, at the end", same.read("memory.high")?, &"max".to_owned());
    guest.equal("kernel.numa_balancing at the end", read(BALANCING)?.trim(), &"3");
    let log = read(log)?;
    let told = log.lines().filter(|line| line.contains("another writer") || line.contains("standing down"));
    told.for_each(|line| guest.say(line));
    guest.equal("pages with wrong content", workload.verify()?.wrong, &0);
    Ok(guest.verdict())
}

/// What `/debug/state` says of the writer.
fn named(
    guest: &mut Guest,
    fighter: &Fighter,
    [fought, bound, once, moved, same]: [&Cgroup; 5],
) -> Result<()> {
    let state = debug_state(guest)?;
    for (cgroup, file, rounds) in [
        (fought, "memory.high", ROUNDS),
        (bound, "cpuset.mems", ROUNDS),
        (once, "memory.high", 1),
        (moved, "cpuset.mems", 1),
    ] {
        let view = &state["cgroups"][cgroup.path()];
        let drift = view["drift"].as_array().and_then(|all| all.iter().find(|drift| drift["file"] == file));
        let drift = drift.with_context(|| format!("{} has no drift of {file}", cgroup.path()))?;
        guest.say(format_args!("{} {drift}", cgroup.path()));
        let named = drift["pid"] == fighter.child.id()
            && drift["comm"] == Fighter::NAME
            && drift["cgroup"] == Fighter::CGROUP;
        let who = format!("{} {} {}", drift["pid"], drift["comm"], drift["cgroup"]);
        let bar = format!("{} {} {}", fighter.child.id(), Fighter::NAME, Fighter::CGROUP);
        guest.check(format_args!("writer of {}/{file}", cgroup.path()), who, bar, named);
        guest.equal(
            format_args!("changes of {}/{file}", cgroup.path()),
            &drift["count"],
            &&Value::from(rounds),
        );
        let down = view["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["type"] == "StandingDown"));
        guest.equal(format_args!("standing down from {}/{file}", cgroup.path()), down, &(rounds == ROUNDS));
    }
    let same_view = &state["cgroups"][same.path()]["drift"];
    guest.check("drift by the very same value", same_view, "[]", same_view == &Value::Array(Vec::new()));
    Ok(())
}

/// What the fighter writes in a round.
fn foreign(file: &str, round: u64) -> String {
    if file == "memory.high" { ((200 + round) * MIB).to_string() } else { "0-1".to_owned() }
}

/// So many foreign values, each after ours stands again; how long the slowest answer took, milliseconds. The answer is our
/// value again, or after the last round of a fight the word that we stand down.
fn fight(
    guest: &Guest,
    fighter: &mut Fighter,
    cgroup: &Cgroup,
    file: &str,
    ours: &str,
    rounds: u64,
) -> Result<f64> {
    let mut slowest = 0;
    for round in 1..=rounds {
        if round > 1 {
            guest.sleep(BURST + Duration::from_secs(1));
        }
        let theirs = foreign(file, round);
        let written = now_ms();
        fighter.write_to(cgroup, file, &theirs)?;
        loop {
            let now = cgroup.read(file)?;
            let answered = if round == ROUNDS {
                debug_state(guest)?["cgroups"][cgroup.path()]["drift"]
                    .to_string()
                    .contains("\"standing_down\":true")
            } else {
                now == ours && drifts(guest, cgroup)? >= round
            };
            let passed = now_ms() - written;
            if answered || passed > 10_000 {
                slowest = slowest.max(passed);
                break;
            }
            guest.sleep(Duration::from_millis(20));
        }
    }
    Ok(slowest as f64)
}

fn drifts(guest: &Guest, cgroup: &Cgroup) -> Result<u64> {
    let drift = &debug_state(guest)?["cgroups"][cgroup.path()]["drift"][0]["count"];
    Ok(drift.as_u64().unwrap_or(0))
}

fn debug_state(guest: &Guest) -> Result<Value> {
    Ok(serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?)
}
