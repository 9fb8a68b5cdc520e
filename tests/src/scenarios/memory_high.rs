//! `memory.high` is stepped down once a peak is past, never throttles at our doing, and is put back.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::STATE;
use crate::guest::{AgentProcess, Cgroup, Guest, Workload};
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::now_ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "memory-high",
    about: "memory.high: never below the peak of ten minutes, then down to the policy's, no throttling while demoting and stepping, put back",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(25),
    run,
};

const MIB: u64 = 1 << 20;
/// 160 MiB of cold memory that is freed in steps, beside what stays.
const REGIONS: &str = "--region hot:32M --region cold:48M:name=stays --region cold:40M:name=a --region cold:24M:name=b \
                       --region cold:40M:name=c";
const FIXED_MIB: u64 = 128;
/// request + factor x (limit - request): 40 + 0.5 x (200 - 40).
const FORMULA_MIB: u64 = 120;
/// Set by somebody before us, below what the policy wants.
const LOWER_MIB: u64 = 96;
/// The same, above.
const HIGHER_MIB: u64 = 1024;
/// The peak of ten minutes counts, and a round is to come.
const PEAK: Duration = Duration::from_mins(11);
/// Share of the time in which a task may have waited for memory.
const STALL_BAR: f64 = 0.001;

fn config(policies: &[&str]) -> String {
    let demote = "demote: { after: 10s, maxRate: 50Mi }";
    let mut text = format!("stateFile: {STATE}\npolicies:\n");
    for name in policies {
        let (inputs, high) = match *name {
            "formula" => (
                "    inputs: { request: 40Mi, limit: 200Mi }\n",
                "memoryHigh: { mode: Formula, factor: 0.5 }".to_owned(),
            ),
            _ => ("", format!("memoryHigh: {{ mode: Fixed, value: {FIXED_MIB}Mi }}")),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  - name: {name}\n    cgroups: [\"/pods/{name}\"]\n{inputs}    spec: {{ {demote}, {high} }}"
        );
    }
    text
}

/// What a pod paid so far.
#[derive(Clone, Copy)]
struct Paid {
    ms: u64,
    high_events: u64,
    stalled_us: u64,
}

fn paid(pod: &Cgroup) -> Result<Paid> {
    let pressure = pod.read("memory.pressure")?;
    let some = pressure.lines().find(|line| line.starts_with("some")).context("memory.pressure")?;
    let total =
        some.rsplit("total=").next().and_then(|total| total.parse().ok()).context("memory.pressure total")?;
    Ok(Paid { ms: now_ms(), high_events: pod.stat("memory.events", "high")?, stalled_us: total })
}

/// Checks what one pod paid since.
fn check_paid(guest: &mut Guest, what: &str, pod: &Cgroup, before: Paid) -> Result<()> {
    let after = paid(pod)?;
    let name = pod.path().to_owned();
    guest.equal(
        format_args!("{name} {what}: memory.events high"),
        after.high_events - before.high_events,
        &0,
    );
    let share = (after.stalled_us - before.stalled_us) as f64 / 1000.0 / (after.ms - before.ms).max(1) as f64;
    let percent = share * 100.0;
    guest.check(
        format_args!("{name} {what}: time stalled on memory, %"),
        format_args!("{percent:.4}"),
        format_args!("<= {}", STALL_BAR * 100.0),
        share <= STALL_BAR,
    );
    Ok(())
}

fn high(pod: &Cgroup) -> Result<Option<u64>> {
    let text = pod.read("memory.high")?;
    if text == "max" { Ok(None) } else { Ok(Some(text.parse().context("memory.high")?)) }
}

/// Watches a pod's limit for a while: each new value must be above usage. Returns the least room seen.
fn watch(guest: &Guest, pods: &[&Cgroup], time: Duration) -> Result<i64> {
    let until = now_ms() + u64::try_from(time.as_millis())?;
    let mut least = i64::MAX;
    while now_ms() < until {
        for pod in pods {
            if let Some(high) = high(pod)? {
                let current: i64 = pod.read("memory.current")?.parse()?;
                least = least.min(i64::try_from(high)? - current);
            }
        }
        guest.sleep(Duration::from_millis(200));
    }
    Ok(least)
}

fn mib(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / MIB as f64))
}

struct Pod {
    cgroup: Cgroup,
    workload: Workload,
    /// What the policy wants in the end.
    want: u64,
    original: &'static str,
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    let mut pods = Vec::new();
    for (name, want) in [("fixed", FIXED_MIB), ("formula", FORMULA_MIB)] {
        let cgroup = guest.cgroup(&format!("/pods/{name}"))?;
        let workload = guest.spawn_workload(&cgroup, REGIONS)?;
        pods.push(Pod { cgroup, workload, want: want * MIB, original: "max" });
    }
    // Limits of somebody else: a lower one is left, a higher one comes back in the end.
    let lower = guest.cgroup("/pods/lower")?;
    let mut small = guest.spawn_workload(&lower, "--region hot:8M --region cold:16M")?;
    lower.write("memory.high", LOWER_MIB * MIB)?;
    let higher = guest.cgroup("/pods/higher")?;
    let _other = guest.spawn_workload(&higher, "--region hot:8M --region cold:16M")?;
    higher.write("memory.high", HIGHER_MIB * MIB)?;
    // Nobody limits this one.
    let control = guest.cgroup("/control")?;
    let mut unmanaged = guest.spawn_workload(&control, REGIONS)?;

    let all = config(&["fixed", "formula", "lower", "higher"]);
    let before: Vec<Paid> = pods.iter().map(|pod| paid(&pod.cgroup)).collect::<Result<_>>()?;
    let control_before = paid(&control)?;
    let agent = guest.spawn_agent(&all, &[])?;
    let outcome = steps(guest, &agent, &mut pods, &mut unmanaged, &lower, &higher);
    if outcome.is_err() {
        guest.say(agent.log()?);
    }
    outcome?;
    for (pod, before) in pods.iter().zip(before) {
        check_paid(guest, "in all", &pod.cgroup, before)?;
    }
    let after = paid(&control)?;
    guest.say(format_args!(
        "/control: stalled {} us of {} ms, memory.events high {}",
        after.stalled_us - control_before.stalled_us,
        after.ms - control_before.ms,
        after.high_events
    ));
    guest.equal("pages with wrong content", small.verify()?.wrong, &0);

    // Put back on removal of the policy, and when the agent ends.
    agent.write_config(&config(&["formula", "lower", "higher"]))?;
    guest.sleep(Duration::from_secs(3));
    guest.equal(
        "memory.high after its policy was removed",
        pods[0].cgroup.read("memory.high")?,
        &"max".to_owned(),
    );
    guest.say(agent.log()?);
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    for pod in &pods {
        let name = pod.cgroup.path().to_owned();
        guest.equal(
            format_args!("{name}: memory.high after SIGTERM"),
            pod.cgroup.read("memory.high")?,
            &pod.original.to_owned(),
        );
    }
    let back = higher.read("memory.high")?;
    guest.equal("a higher limit after SIGTERM", back, &(HIGHER_MIB * MIB).to_string());
    Ok(guest.verdict())
}

fn steps(
    guest: &mut Guest,
    agent: &AgentProcess,
    pods: &mut [Pod],
    unmanaged: &mut Workload,
    lower: &Cgroup,
    higher: &Cgroup,
) -> Result<()> {
    // While it demotes: usage stays, the limit stands above it.
    let begun: Vec<Paid> = pods.iter().map(|pod| paid(&pod.cgroup)).collect::<Result<_>>()?;
    let cgroups: Vec<Cgroup> = pods.iter().map(|pod| pod.cgroup.clone()).collect();
    let watched: Vec<&Cgroup> = cgroups.iter().collect();
    let room = watch(guest, &watched, Duration::from_secs(40))?;
    guest.at_least("while demoting: least room below memory.high, MiB", room as f64 / MIB as f64, 4.0);
    for (pod, begun) in pods.iter_mut().zip(begun) {
        let sunk = pod.workload.ledger()?.sum(|r| r.kind == "cold", |r| r.slow_bytes) / MIB;
        guest.at_least(format_args!("{}: cold MiB that sank", pod.cgroup.path()), sunk as f64, 148.0);
        check_paid(guest, "while demoting", &pod.cgroup, begun)?;
    }
    guest.equal("a lower limit", lower.read("memory.high")?, &(LOWER_MIB * MIB).to_string());
    guest.equal(
        "a higher limit, stepped at once",
        higher.read("memory.high")?,
        &(FIXED_MIB * MIB).to_string(),
    );

    // What it frees it may take again: the limit stays above the peak of the last minutes, or the next rise would be throttled.
    for region in ["a", "b", "c"] {
        let begun: Vec<Paid> = pods.iter().map(|pod| paid(&pod.cgroup)).collect::<Result<_>>()?;
        let before: Vec<Option<u64>> = pods.iter().map(|pod| high(&pod.cgroup)).collect::<Result<_>>()?;
        for pod in pods.iter_mut() {
            pod.workload.free(region)?;
        }
        unmanaged.free(region)?;
        let room = watch(guest, &watched, Duration::from_secs(15))?;
        guest.at_least(
            format_args!("freed {region}: least room below memory.high, MiB"),
            room as f64 / MIB as f64,
            4.0,
        );
        for ((pod, begun), before) in pods.iter().zip(begun).zip(before) {
            let name = pod.cgroup.path().to_owned();
            let high = high(&pod.cgroup)?;
            guest.check(
                format_args!("freed {region}: {name} memory.high stays"),
                mib(high),
                format_args!("= {}", mib(before)),
                high == before,
            );
            check_paid(guest, &format!("freed {region}"), &pod.cgroup, begun)?;
        }
    }
    for pod in pods.iter() {
        let name = pod.cgroup.path().to_owned();
        let there = guest.expect_within(PEAK, "memory.high is what the policy says", || {
            pod.cgroup.read("memory.high").is_ok_and(|high| high == pod.want.to_string())
        });
        let took = there.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
        guest.check(
            format_args!("{name}: memory.high is {} once the peak is past", mib(Some(pod.want))),
            took,
            format_args!("within {PEAK:?}"),
            there.is_ok(),
        );
    }
    let sets = |cgroup: &str| -> Result<usize> {
        let ours = |line: &&str| line.contains("memory.high set") && line.contains(&format!("\"{cgroup}\""));
        Ok(agent.log()?.lines().filter(ours).count())
    };
    for pod in pods.iter() {
        let path = pod.cgroup.path().to_owned();
        guest.at_most(format_args!("{path}: writes of memory.high"), sets(&path)? as f64, 6.0);
    }
    guest.equal("writes of memory.high where a lower limit stands", sets("/pods/lower")?, &0);
    Ok(())
}
