//! `memory.high` follows memory pressure: down while nobody stalls, up at once when somebody does.

use std::time::Duration;

use anyhow::Result;

use super::agent_config;
use crate::guest::{Cgroup, Guest, Pace, Reader};
use crate::report::Verdict;
use crate::scenario::Scenario;
use crate::workload::now_ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "pressure",
    about: "memoryHigh.mode Pressure: the limit takes idle page cache bit by bit, is raised within seconds when tasks stall, never below its floor, and put back",
    applies: |_| true,
    agent: true,
    guest_timeout: Duration::from_mins(20),
    run,
};

const MIB: u64 = 1 << 20;
const DEVICE_MIB: u32 = 256;
const FLOOR: u64 = 200 * MIB;
/// Long enough for a percent each six seconds to come to the floor.
const CALM: Duration = Duration::from_mins(6);

fn run(guest: &mut Guest) -> Result<Verdict> {
    let device = guest.zram(DEVICE_MIB, false)?;
    let pod = guest.cgroup("/pods/pressed")?;
    let workload = guest.spawn_workload(&pod, "--region hot:32M")?;
    // Holds the device, so that the cache stays when it has been read once.
    let idle = Reader::spawn(
        &pod,
        &device,
        DEVICE_MIB,
        Pace { portion: DEVICE_MIB, pause: Duration::from_hours(1) },
    )?;
    guest.expect_within(Duration::from_secs(30), "the device is cached", || {
        pod.stat("memory.stat", "file").is_ok_and(|file| file >= u64::from(DEVICE_MIB) * MIB * 9 / 10)
    })?;
    let before: u64 = pod.read("memory.current")?.parse()?;
    let spec = format!("memoryHigh: {{ mode: Pressure, floor: {FLOOR} }}");
    let agent = guest.spawn_agent(&agent_config("/pods/*", &spec), &["--log-level=debug"])?;

    let (mut least, began, mut reached) = (u64::MAX, now_ms(), None);
    while now_ms() - began < u64::try_from(CALM.as_millis())? && reached.is_none() {
        guest.sleep(Duration::from_secs(2));
        let Some(high) = high(&pod)? else { continue };
        least = least.min(high);
        reached = (high == FLOOR).then(|| now_ms() - began);
    }
    guest.say(format_args!("{} MiB were charged; the floor was reached after {reached:?} ms", before / MIB));
    let charged: u64 = pod.read("memory.current")?.parse()?;
    guest.check("calm: the floor is reached", format!("{reached:?} ms"), "within 6 min", reached.is_some());
    guest.at_most(
        "calm: still charged, MiB",
        charged as f64 / MIB as f64,
        (FLOOR + 4 * MIB) as f64 / MIB as f64,
    );
    guest.at_least("calm: least memory.high, MiB", least as f64 / MIB as f64, (FLOOR / MIB) as f64);

    // The whole device is in use now, and more than the limit lets stay.
    let busy =
        Reader::spawn(&pod, &device, DEVICE_MIB, Pace { portion: 64, pause: Duration::from_millis(100) })?;
    let raised = guest.expect_within(Duration::from_secs(20), "memory.high is raised", || {
        high(&pod).is_ok_and(|high| high.is_some_and(|high| high >= FLOOR + FLOOR / 20))
    });
    let took = raised.as_ref().map_or_else(ToString::to_string, |took| format!("{took:?}"));
    guest.check("busy: raised by a twentieth", took, "within 20 s", raised.is_ok());
    let log = agent.log()?;
    let stalls = log.lines().filter(|line| line.contains("\"stalls\"")).count();
    guest.at_least("busy: stalls that the kernel told of", stalls as f64, 1.0);
    drop((idle, busy, workload));
    log.lines().filter(|line| line.contains("memory.high")).take(20).for_each(|line| guest.say(line));
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    guest.equal("memory.high after SIGTERM", pod.read("memory.high")?, &"max".to_owned());
    Ok(guest.verdict())
}

fn high(pod: &Cgroup) -> Result<Option<u64>> {
    let text = pod.read("memory.high")?;
    Ok(if text == "max" { None } else { Some(text.parse()?) })
}
