//! `cargo xtask bench peers`: Thermocline beside what else moves memory between tiers.

mod picture;
mod rows;
mod run;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use thermocline_tests::bench::{AFTER, BEFORE, CONTENDER, CONTENDERS, Contender, THP};
use thermocline_tests::scenario::{Kernel, Machine};

use super::counter::{CacheArgs, Counter, bench};
use super::measurement;
use crate::machines::MachineArgs;
use crate::vm::Guests;
use crate::{out, say};
use run::Run;

/// Whom to compare, and where.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only this contender, or these (see below)
    #[arg(long, value_name = "NAME", value_parser = contender)]
    contender: Vec<&'static Contender>,
    /// One run of a shorter workload; the table is printed, no file is written
    #[arg(long)]
    quick: bool,
    /// Runs of each contender
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "quick", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    machine: MachineArgs,
    /// Hot and cold memory in huge pages
    #[arg(long)]
    thp: bool,
    /// Of the shuffled order
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where table and picture go
    #[arg(long, value_name = "DIR", default_value = "docs/measurements")]
    out: PathBuf,
    #[command(flatten)]
    cache: CacheArgs,
}

const AFTER_HELP: &str = "\
It takes 2 to 3 minutes a run and contender on two cores, so about an hour with all of them three times, and about ten minutes with --quick;
what is missing is built or downloaded first. Contenders: thermocline, nobody (nothing moves: what the others' costs are beside), kernel,
numa-balancing, tmo, tmo-tuned, lru-gen-loop.";

/// Seconds before and after the hot set shifts.
struct Length {
    before: Duration,
    after: Duration,
}

const WHOLE: Length = Length { before: Duration::from_mins(6), after: Duration::from_mins(5) };
const QUICK: Length = Length { before: Duration::from_mins(4), after: Duration::from_mins(3) };

pub(super) fn run(args: &Args) -> Result<bool> {
    let machine = args.machine.or(Kernel::V6_12);
    let everybody: Vec<&Contender> = CONTENDERS.iter().collect();
    let contenders = if args.contender.is_empty() { everybody } else { args.contender.clone() };
    let (length, runs) = if args.quick { (QUICK, 1) } else { (WHOLE, args.runs) };
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let measured =
        measure(&Order { machine, thp: args.thp, length, cache: args.cache, runs, seed }, &contenders)?;
    let all_ended =
        measured.iter().map(|(_, runs)| runs.len()).sum::<usize>() == contenders.len() * runs as usize;
    let whole = measured.iter().filter(|(_, runs)| !runs.is_empty());
    let whole: Vec<_> = whole.map(|(contender, runs)| (*contender, runs.as_slice())).collect();
    ensure!(!whole.is_empty(), "no run came to its end");
    let title =
        format!("peers-{}-{}{}", machine.kernel, machine.kind.name, if args.thp { "-thp" } else { "" });
    let table =
        table::markdown(&whole, &format!("{title}.svg"), &conditions(args, machine, seed, runs, whole[0].1)?);
    out!("{table}");
    if !args.quick {
        measurement::write(&args.out, &title, &table, &picture::svg(&whole)?)?;
    }
    Ok(all_ended)
}

/// What is measured how.
struct Order {
    machine: Machine,
    thp: bool,
    length: Length,
    cache: CacheArgs,
    runs: u32,
    seed: u64,
}

type Measured = Vec<(&'static Contender, Vec<Run>)>;

/// Each contender so many times, in shuffled order.
fn measure(order: &Order, contenders: &[&'static Contender]) -> Result<Measured> {
    let peers = bench("peers")?;
    let machine = order.machine;
    ensure!(peers.runs_on(machine), "on {machine} the kernel sees no lower tier, so no peer can demote");
    let guests = Guests::prepare(&[machine.kernel], peers.agent, false)?;
    let counter = Counter::build(order.cache)?;
    let mut jobs: Vec<usize> = (0..order.runs).flat_map(|_| 0..contenders.len()).collect();
    fastrand::Rng::with_seed(order.seed).shuffle(&mut jobs);
    let mut measured: Measured = contenders.iter().map(|contender| (*contender, Vec::new())).collect();
    for (at, job) in jobs.iter().enumerate() {
        let contender = contenders[*job];
        let began = Instant::now();
        let mut guest = guests.guest(machine, Some(peers), false, false)?;
        guest.arguments = vec![
            format!("{CONTENDER}={}", contender.name),
            format!("{BEFORE}={}", order.length.before.as_secs()),
            format!("{AFTER}={}", order.length.after.as_secs()),
            format!("{THP}={}", if order.thp { "yes" } else { "no" }),
        ];
        let found = counter.run(&guests, peers, guest, |_| {})?;
        let summary = found.outcome.summary();
        match Run::of(found) {
            Ok(run) => {
                say!(
                    "{} of {}: {} in {:.0} s",
                    at + 1,
                    jobs.len(),
                    contender.name,
                    began.elapsed().as_secs_f64()
                );
                measured[*job].1.push(run);
            }
            Err(error) => out!("{}: {error:#}\n{summary}", contender.name),
        }
    }
    Ok(measured)
}

/// What somebody needs to know to make the table again.
fn conditions(args: &Args, machine: Machine, seed: u64, runs: u32, example: &[Run]) -> Result<String> {
    let kernel = example.first().map_or("", |run| run.kernel.as_str());
    let mut command =
        format!("cargo xtask bench peers --kernel {} --machine {}", machine.kernel, machine.kind.name);
    if args.thp {
        command.push_str(" --thp");
    }
    if args.quick {
        command.push_str(" --quick");
    }
    Ok(format!(
        "`{command} --seed {seed}`: {runs} run(s) of each, order shuffled; {}; cache of {}; 4 ns an instruction.",
        measurement::versions(kernel)?,
        args.cache.describe()
    ))
}

fn contender(name: &str) -> Result<&'static Contender, String> {
    let names = || CONTENDERS.iter().map(|contender| contender.name).collect::<Vec<_>>().join(", ");
    Contender::find(name).ok_or_else(|| format!("contenders are {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_contender() {
        let words = AFTER_HELP.replace('\n', " ");
        for contender in CONTENDERS {
            assert!(words.contains(contender.name), "{}", contender.name);
        }
        assert!(contender("nobody").is_ok() && contender("somebody").is_err());
    }
}
