//! A world laid beside a real kernel: the same workload and policy in a guest, the real agent at work in it, and in the simulated host.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use simulator::moments::{Moment, moments};
use simulator::world::{BesideGuest, Heat, Kind, NodeKind, NodeSpec, PodSpec, Promotes, SetSpec, World};
use thermocline_tests::bench::told::{self, Told};
use thermocline_tests::bench::{ENGINE, EVERY, LASTS, POLICY, REGIONS};
use thermocline_tests::machine::kinds;
use thermocline_tests::scenario::{Machine, Scenario};

use crate::out;
use crate::vm::Guests;

/// From one moment to the next.
const MOMENT: Duration = Duration::from_secs(10);

const MIB: f64 = (1_u64 << 20) as f64;

/// A quantity that is compared.
struct Quantity {
    name: &'static str,
    unit: &'static str,
    of: fn(&Moment) -> f64,
    /// How far one may be from the other, at most and in the mean: see [`Beside::error`].
    most: f64,
    mean: f64,
}

/// One run beside the other.
pub(super) struct Beside {
    kernel: String,
    guest: Vec<Moment>,
    simulated: Vec<Moment>,
    /// Bytes of the managed pod.
    managed: u64,
    bounds: BesideGuest,
}

/// Runs a world in a guest and in the simulated host.
pub(super) fn run(name: &str, world: &World, machine: Machine) -> Result<bool> {
    let beside = Beside::of(world, machine).with_context(|| format!("{name} on {machine}"))?;
    out!("{}", beside.table(name));
    Ok(beside.holds())
}

impl Beside {
    fn of(world: &World, machine: Machine) -> Result<Self> {
        let bounds = world.beside_guest.context("besideGuest must say how far the guest may be from it")?;
        let (pod, words) = words(world)?;
        let scenario = Scenario::find("beside").context("the guest has no `beside`")?;
        ensure!(
            scenario.runs_on(machine),
            "the kernel sees no lower tier there, so the agent's engine is another"
        );
        let guests = Guests::prepare(&[machine.kernel], scenario.agent, false)?;
        let mut guest = guests.guest(machine, Some(scenario), false, false)?;
        guest.arguments = words;
        let mut beside = Self {
            kernel: String::new(),
            guest: Vec::new(),
            simulated: Vec::new(),
            managed: pod.memory.iter().map(|set| set.size.0.0).sum(),
            bounds,
        };
        let outcome = guests.run(scenario, &guest, |line| match Told::parse(line) {
            Some(Told::Began { kernel, .. }) => beside.kernel = kernel,
            Some(Told::Moment(moment)) => beside.guest.push(seen(&moment)),
            _ => {}
        })?;
        ensure!(outcome.pass(), "{}", outcome.summary());
        let moments_due = world.lasts.0.as_secs() / MOMENT.as_secs();
        ensure!(
            beside.guest.len() as u64 == moments_due,
            "{} of {moments_due} moments came from the guest",
            beside.guest.len()
        );
        let times: Vec<Duration> = (1..).map(|n| MOMENT * n).take(beside.guest.len()).collect();
        beside.simulated = moments(world, &times);
        Ok(beside)
    }

    fn quantities(&self) -> [Quantity; 3] {
        let BesideGuest { sunk, touched, age } = self.bounds;
        let managed = self.managed as f64 / MIB;
        let share = |ppm: u32| managed * f64::from(ppm) / 1e6;
        [
            Quantity {
                name: "sunk",
                unit: "MiB",
                of: |moment| moment.sunk as f64 / MIB,
                most: share(sunk.most.0.ppm()),
                mean: share(sunk.mean.0.ppm()),
            },
            Quantity {
                name: "touched",
                unit: "MiB/min",
                of: |moment| moment.touched as f64 / MIB,
                most: share(touched.most.0.ppm()),
                mean: share(touched.mean.0.ppm()),
            },
            Quantity {
                name: "age",
                unit: "s",
                of: |moment| moment.age.as_secs_f64(),
                most: age.most.0.as_secs_f64(),
                mean: age.mean.0.as_secs_f64(),
            },
        ]
    }

    /// How far the guest is from the simulated host: at most, where either may be a moment ahead, for what a walk finds a second
    /// later shows a moment later; and in the mean, at the same moments.
    fn error(&self, of: fn(&Moment) -> f64) -> (f64, f64) {
        let simulated: Vec<f64> = self.simulated.iter().map(of).collect();
        let (mut most, mut sum) = (0.0_f64, 0.0);
        for (at, guest) in self.guest.iter().map(of).enumerate() {
            let near = &simulated[at.saturating_sub(1)..simulated.len().min(at + 2)];
            let (least, greatest) = near.iter().fold((f64::MAX, f64::MIN), |(least, greatest), value| {
                (least.min(*value), greatest.max(*value))
            });
            most = most.max(least - guest).max(guest - greatest);
            sum += (guest - simulated[at]).abs();
        }
        (most, sum / simulated.len().max(1) as f64)
    }

    fn holds(&self) -> bool {
        self.quantities().iter().all(|quantity| {
            let (most, mean) = self.error(quantity.of);
            most <= quantity.most && mean <= quantity.mean
        })
    }

    fn table(&self, name: &str) -> String {
        let quantities = self.quantities();
        let mut text = format!("{name} on Linux {} and simulated\n\n| s |", self.kernel);
        for Quantity { name, unit, .. } in &quantities {
            let _ = write!(text, " {name}, {unit}: guest | simulated |");
        }
        let _ = writeln!(text, "\n|--:|{}", "--:|--:|".repeat(quantities.len()));
        for (guest, simulated) in self.guest.iter().zip(&self.simulated) {
            let _ = write!(text, "| {} |", simulated.at.as_secs());
            for Quantity { of, .. } in &quantities {
                let _ = write!(text, " {:.0} | {:.0} |", of(guest), of(simulated));
            }
            text.push('\n');
        }
        for quantity in &quantities {
            let (most, mean) = self.error(quantity.of);
            let state = if most <= quantity.most && mean <= quantity.mean { "ok  " } else { "FAIL" };
            let _ = write!(
                text,
                "\n{state} {}: at most {most:.1} {unit} apart (bound {:.1}), {mean:.1} in the mean (bound {:.1})",
                quantity.name,
                quantity.most,
                quantity.mean,
                unit = quantity.unit
            );
        }
        text
    }
}

fn seen(told: &told::Moment) -> Moment {
    Moment {
        at: Duration::from_millis(told.at_ms),
        sunk: told.sunk,
        touched: told.touched,
        age: Duration::from_secs_f64(told.age),
    }
}

/// The managed pod, and the guest's words for what it is to run.
fn words(world: &World) -> Result<(&PodSpec, Vec<String>)> {
    let mut nodes = world.host.nodes.iter();
    let bytes = kinds()[0].nodes[0].bytes;
    let as_guests_have =
        |kind, id| move |node: &NodeSpec| node.kind == kind && node.id == id && node.size.0.0 == bytes;
    ensure!(
        nodes.next().is_some_and(as_guests_have(NodeKind::Fast, 0))
            && nodes.next().is_some_and(as_guests_have(NodeKind::Slow, 1))
            && nodes.next().is_none(),
        "host.nodes must be as guests have them: 0, fast, and 1, slow, of {}Mi each",
        bytes >> 20
    );
    let pods: Vec<&PodSpec> = world.pods.iter().filter(|pod| pod.managed).collect();
    let [pod] = pods[..] else { bail!("pods must have one that is managed: the guest has no more") };
    let regions: Vec<String> = pod
        .memory
        .iter()
        .map(|set| region(set).with_context(|| format!("set {}", set.name)))
        .collect::<Result<_>>()?;
    // The engine beside whom the same promotes.
    let engine = match world.agent.promotes {
        Promotes::Kernel => "LruGen",
        Promotes::Agent => "Pages",
    };
    let words = [
        (ENGINE, engine.to_owned()),
        (REGIONS, regions.join(",")),
        (POLICY, serde_json::to_string(&pod.policy)?),
        (LASTS, world.lasts.0.as_secs().to_string()),
        (EVERY, MOMENT.as_secs().to_string()),
    ];
    Ok((pod, words.into_iter().map(|(word, value)| format!("{word}={value}")).collect()))
}

/// A set as the workload's argument.
fn region(set: &SetSpec) -> Result<String> {
    let Heat { every, from, until, .. } = set.touched;
    let told = Heat { every, from, until, ..Heat::default() };
    ensure!(told == set.touched, "the guest's workload knows every, from and until only");
    let plain = set.kind == Kind::Anonymous
        && set.grows.is_none()
        && set.up_to.is_none()
        && set.allocated.is_none()
        && set.freed.is_none();
    ensure!(plain, "the guest's workload has anonymous memory only, from its start to its end");
    let mut region = match every {
        Some(every) => format!("hot@{}ms", every.0.as_millis()),
        None => "cold".to_owned(),
    };
    let _ = write!(region, ":{}:name={}", set.size.0.0, set.name);
    for (option, time) in [("from", from), ("until", until)] {
        if let Some(time) = time {
            let _ = write!(region, ":{option}={}ms", time.0.as_millis());
        }
    }
    Ok(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(set: &str) -> World {
        let nodes =
            "host: { nodes: [{ id: 0, kind: fast, size: 1536Mi }, { id: 1, kind: slow, size: 1536Mi }] }";
        let pod = format!("pods: [{{ name: a, policy: {{ demote: {{ after: 20s }} }}, memory: [{set}] }}]");
        let same = "{ most: 10%, mean: 5% }";
        let bounds =
            format!("besideGuest: {{ sunk: {same}, touched: {same}, age: {{ most: 5s, mean: 1s }} }}");
        World::parse(&format!("about: x\nlasts: 1m\n{nodes}\n{pod}\n{bounds}\n")).unwrap()
    }

    #[test]
    fn a_world_becomes_the_guests_words() {
        let world =
            world("{ name: b, size: 4Mi, touched: { every: 30s, from: 3m } }, { name: c, size: 8Mi }");
        let (_, words) = words(&world).unwrap();
        assert_eq!(
            words,
            [
                "thermocline.engine=LruGen",
                "thermocline.regions=hot@30000ms:4194304:name=b:from=180000ms,cold:8388608:name=c",
                r#"thermocline.policy={"demote":{"after":"20s"}}"#,
                "thermocline.lasts=60",
                "thermocline.every=10",
            ]
        );
    }

    #[test]
    fn what_the_guest_can_not_do_is_refused() {
        for (set, says) in [
            ("{ name: b, size: 4Mi, touched: { perSecond: 1 } }", "every, from and until only"),
            ("{ name: b, size: 4Mi, kind: pinned }", "anonymous memory only"),
        ] {
            let error = format!("{:#}", words(&world(set)).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_moment_ahead_counts_in_the_mean_alone_and_more_fails() {
        let moments = |sunk: [u64; 5]| -> Vec<Moment> {
            sunk.iter().map(|mib| Moment { sunk: mib << 20, ..Moment::default() }).collect()
        };
        let beside = |guest, simulated| Beside {
            kernel: String::new(),
            guest: moments(guest),
            simulated: moments(simulated),
            managed: 1000 << 20,
            bounds: world("{ name: b, size: 4Mi }").beside_guest.unwrap(),
        };
        let sunk = |moment: &Moment| moment.sunk as f64 / MIB;
        let shifted = beside([0, 0, 100, 100, 100], [0, 100, 100, 100, 100]);
        assert_eq!(shifted.error(sunk), (0.0, 20.0));
        assert!(shifted.holds());
        let other = beside([0, 0, 0, 100, 700], [0, 100, 100, 100, 100]);
        assert!(other.error(sunk).0 > 599.0);
        assert!(!other.holds());
        let always = beside([0; 5], [60; 5]);
        assert_eq!(always.error(sunk), (60.0, 60.0));
        assert!(!always.holds(), "the mean is above its bound");
    }
}
