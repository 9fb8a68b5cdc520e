//! `cargo xtask bench misses`: the counter of misses against a known number of accesses.

use anyhow::{Result, ensure};
use misses::line::Counts;
use thermocline_tests::bench::told::Told;
use thermocline_tests::scenario::{Kernel, Machine};

use super::counter::{CacheArgs, Counter, bench};
use crate::machines::MachineArgs;
use crate::out;
use crate::vm::Guests;

/// Of the misses that there must be, how many there may be more or less: others use the cache, too.
const TOLERATED: f64 = 0.02;

/// Where to count.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

pub(super) fn run(args: &Args) -> Result<bool> {
    count(args.machine.or(Kernel::V6_12), args.cache)
}

pub(super) fn smoke() -> Result<bool> {
    count(MachineArgs::usual().or(Kernel::V6_12), CacheArgs::DEFAULT)
}

fn count(machine: Machine, cache: CacheArgs) -> Result<bool> {
    let counted = bench("counted")?;
    let guests = Guests::prepare(&[machine.kernel], counted.agent, false)?;
    let guest = guests.guest(machine, Some(counted), false, false)?;
    let found = Counter::build(cache)?.run(&guests, counted, guest, |_| {})?;
    ensure!(found.outcome.pass(), "{}", found.outcome.summary());
    let line = found.lines.last();
    let mut all_right = line.is_some();
    out!("cache of {}; loads and stores exactly, misses within {TOLERATED}", cache.describe());
    out!("{:34} {:>9} {:>9} {:>9} {:>9}", "", "loads", "stores", "fast", "slow");
    let mut slots = 0;
    for told in &found.told {
        let Told::Expected { slot, counts, about } = told else { continue };
        let seen = line.and_then(|line| line.slots.get(*slot)).copied().unwrap_or_default();
        let right = agrees(seen, *counts);
        slots += 1;
        all_right &= right;
        for (name, counts) in
            [(about.as_str(), counts), (if right { "  counted" } else { "  counted: WRONG" }, &seen)]
        {
            out!("{name:34} {:9} {:9} {:9} {:9}", counts.loads, counts.stores, counts.fast, counts.slow);
        }
    }
    Ok(all_right && slots > 0)
}

fn agrees(seen: Counts, expected: Counts) -> bool {
    let near = |seen: u64, expected: u64| seen.abs_diff(expected) as f64 <= expected as f64 * TOLERATED;
    seen.loads == expected.loads
        && seen.stores == expected.stores
        && near(seen.fast, expected.fast)
        && near(seen.slow, expected.slow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_agree_exactly_and_misses_nearly() {
        let expected = Counts { loads: 100, stores: 0, fast: 100, slow: 0 };
        assert!(agrees(Counts { fast: 99, ..expected }, expected));
        assert!(!agrees(Counts { fast: 97, ..expected }, expected));
        assert!(!agrees(Counts { loads: 101, ..expected }, expected));
        assert!(!agrees(Counts { slow: 1, ..expected }, expected));
    }
}
