//! `cargo xtask kills N`: the scenario `crash` over and over, each time from another seed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};
use thermocline_tests::scenario::{KILLS_A_GUEST, Kernel, Machine, Scenario, TERMS_A_GUEST};

use crate::vm::{self, Guests};
use crate::{interrupt, out, say};

/// How often, and from where.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Times the agent is killed, over all machines together
    #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    kills: u64,
    /// Of the first guest; each further one has the next. What a seed did comes again with it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this machine, as the table names it: "6.12 hmat"
    #[arg(long)]
    machine: Option<String>,
}

/// What was found on one kind of machine.
#[derive(Default)]
struct Found {
    guests: u64,
    failed: Vec<u64>,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let crash = Scenario::find("crash").context("the scenario crash")?;
    let machines: Vec<Machine> = Machine::all()
        .filter(|machine| crash.runs_on(*machine))
        .filter(|machine| args.machine.as_ref().is_none_or(|wanted| machine.to_string() == *wanted))
        .collect();
    ensure!(!machines.is_empty(), "crash runs on no such machine; `cargo xtask vm --list` names them");
    let mut kernels: Vec<Kernel> = machines.iter().map(|machine| machine.kernel).collect();
    kernels.dedup();
    let guests = Guests::prepare(&kernels, crash.agent, false)?;
    let count = args.kills.div_ceil(KILLS_A_GUEST as u64);
    say!("{count} guests, {KILLS_A_GUEST} kills and {TERMS_A_GUEST} SIGTERMs in each; half a minute a guest");

    let seeds: Vec<u64> = (0..count).map(|number| args.seed.wrapping_add(number)).collect();
    let found: Mutex<BTreeMap<Machine, Found>> = Mutex::default();
    vm::at_a_time(&seeds, |&seed| {
        // By the seed alone, so that it can come again.
        let machine = machines[usize::try_from(seed % machines.len() as u64)?];
        let mut guest = guests.guest(machine, Some(crash), false, false)?;
        guest.arguments.push(format!("thermocline.seed={seed}"));
        let mut lines = Vec::new();
        let outcome = guests.run(crash, &guest, |line| lines.push(line.to_owned()))?;
        let mut found = found.lock().map_err(|_| anyhow!("another guest's thread panicked"))?;
        let of_machine = found.entry(machine).or_default();
        of_machine.guests += 1;
        if !outcome.pass() {
            of_machine.failed.push(seed);
            out!("{}", lines.join("\n"));
            out!("again: cargo xtask kills {KILLS_A_GUEST} --machine \"{machine}\" --seed {seed}");
        }
        let done: u64 = found.values().map(|found| found.guests).sum();
        out!("{done} of {count}: seed {seed}, {}", outcome.summary());
        Ok(())
    })?;
    interrupt::check()?;

    let found = found.into_inner().map_err(|_| anyhow!("a guest's thread panicked"))?;
    out!("\n{:22}{:>8}{:>8}  guests that something was wrong in, by seed", "", "kills", "SIGTERMs");
    for (machine, Found { guests, failed }) in &found {
        let failed: Vec<String> = failed.iter().map(u64::to_string).collect();
        let failed = if failed.is_empty() { "none".to_owned() } else { failed.join(", ") };
        let (kills, terms) = (guests * KILLS_A_GUEST as u64, guests * TERMS_A_GUEST as u64);
        out!("{:22}{kills:>8}{terms:>8}  {failed}", machine.to_string());
    }
    Ok(found.values().all(|found| found.failed.is_empty()))
}
