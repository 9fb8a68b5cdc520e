//! `cargo xtask bench apps`: programs of Debian under load, a pod each, beside the same run that nobody manages.

mod packages;
mod picture;
mod policy;
mod run;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use thermocline_tests::bench::{AFTER, APPS, App, BEFORE, POLICY, RUNS, SEED};
use thermocline_tests::scenario::{Kernel, Machine};

use super::counter::{CacheArgs, Counter, bench};
use super::measurement;
use crate::guest_image::extend;
use crate::machines::MachineArgs;
use crate::vm::{Guests, at_a_time};
use crate::{out, say};
use packages::Unpacked;
use policy::Policy;
use run::Run;
use table::Measured;

/// What to measure, and where.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only this application, or these (see below)
    #[arg(long, value_name = "NAME", value_parser = app)]
    app: Vec<&'static App>,
    /// Only this policy, or these
    #[arg(long, value_enum)]
    policy: Vec<Policy>,
    /// One shorter run with the default policy; the table is printed, no file is written
    #[arg(long)]
    quick: bool,
    /// Runs with each policy, and without one
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "quick", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    machine: MachineArgs,
    /// Which keys are asked for follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where table and picture go
    #[arg(long, value_name = "DIR", default_value = "docs/measurements")]
    out: PathBuf,
    #[command(flatten)]
    cache: CacheArgs,
}

const AFTER_HELP: &str = "\
With --quick it takes about seven minutes on two cores that do nothing else. Whole it is twelve guests of 14 minutes of their time, two at a
time: about 70 minutes by what a quick run took, less with --runs or --policy. It says all the time how far it is. What is missing is built or
downloaded first. Applications: redis, memcached, nginx. It fails where a bar is not held.";

/// Before and after the loads' keys move.
struct Length {
    before: Duration,
    after: Duration,
}

/// Longer than the age of the policy `latency`, ten minutes, by as long as it takes to sink.
const WHOLE: Length = Length { before: Duration::from_mins(12), after: Duration::from_mins(2) };
const QUICK: Length = Length { before: Duration::from_mins(4), after: Duration::from_mins(2) };

/// What is measured how.
struct Order {
    machine: Machine,
    apps: Vec<&'static App>,
    policies: Vec<Policy>,
    length: Length,
    runs: u32,
    seed: u64,
    cache: CacheArgs,
}

/// A guest to run: nobody manages it, or the agent by a policy.
#[derive(Clone, Copy)]
struct Job {
    policy: Option<Policy>,
    run: u32,
}

impl Job {
    fn name(self) -> String {
        format!("{}-{}", self.policy.map_or("unmanaged", Policy::name), self.run + 1)
    }
}

pub(super) fn run(args: &Args) -> Result<bool> {
    let all_apps = args.app.is_empty();
    let is_asked = |app: &&App| all_apps || args.app.iter().any(|asked| asked.name == app.name);
    let order = Order {
        machine: args.machine.or(Kernel::V6_12),
        apps: APPS.iter().filter(is_asked).collect(),
        policies: match (args.policy.is_empty(), args.quick) {
            (false, _) => args.policy.clone(),
            (true, true) => vec![Policy::Default],
            (true, false) => Policy::ALL.to_vec(),
        },
        length: if args.quick { QUICK } else { WHOLE },
        runs: if args.quick { 1 } else { args.runs },
        seed: args.seed,
        cache: args.cache,
    };
    let apps_bench = bench("apps")?;
    ensure!(apps_bench.runs_on(order.machine), "on {} there is nothing to sink to", order.machine);
    let guests = Guests::prepare(&[order.machine.kernel], apps_bench.agent, false)?;
    let unpacked = Unpacked::ensure(guests.cache())?;
    let measured = measure(&order, &guests, &unpacked)?;
    let title = format!("apps-{}-{}", order.machine.kernel, order.machine.kind.name);
    let conditions =
        conditions(args, &order, &title, &measured.unmanaged[0].kernel, &unpacked.versions(&order.apps)?)?;
    let (table, all_held) = table::markdown(&measured, &order.apps, all_apps, &conditions);
    out!("{table}");
    if !args.quick && all_apps && args.policy.is_empty() {
        measurement::write(&args.out, &title, &table, &picture::svg(&measured)?)?;
    }
    Ok(all_held && measured.all_ended())
}

/// Each policy and nobody so many times, two guests at a time.
fn measure(order: &Order, guests: &Guests, unpacked: &Unpacked) -> Result<Measured> {
    let counter = Counter::build(order.cache)?;
    let dir = tempfile::TempDir::with_prefix_in("apps-", guests.cache())?;
    let plain = guests.guest(order.machine, None, false, false)?.initramfs;
    let initramfs = extend(&plain, &unpacked.files(&order.apps)?, dir.path())?;
    let policies: Vec<Option<Policy>> =
        std::iter::once(None).chain(order.policies.iter().copied().map(Some)).collect();
    let jobs: Vec<Job> = (0..order.runs)
        .flat_map(|run| policies.iter().map(move |policy| Job { policy: *policy, run }))
        .collect();
    let ended = Mutex::new(Vec::new());
    at_a_time(&jobs, |job| {
        let found = one(order, guests, &counter, &initramfs, *job)?;
        ended.lock().map_err(|_| anyhow!("a guest's thread panicked"))?.push((*job, found));
        Ok(())
    })?;
    let mut ended = ended.into_inner().map_err(|_| anyhow!("a guest's thread panicked"))?;
    ended.sort_by_key(|(job, _)| job.run);
    let mut of = |policy: Option<Policy>| -> Vec<Option<Run>> {
        ended.extract_if(.., |(job, _)| job.policy == policy).map(|(_, run)| run).collect()
    };
    let unmanaged: Option<Vec<Run>> = of(None).into_iter().collect();
    let unmanaged =
        unmanaged.context("a run that nobody manages failed, so there is nothing to compare with")?;
    Ok(Measured {
        unmanaged,
        managed: order.policies.iter().map(|policy| (*policy, of(Some(*policy)))).collect(),
    })
}

/// `None` where it did not come to its end; why has been said.
fn one(order: &Order, guests: &Guests, counter: &Counter, initramfs: &Path, job: Job) -> Result<Option<Run>> {
    let apps_bench = bench("apps")?;
    let began = Instant::now();
    let mut guest = guests.guest(order.machine, Some(apps_bench), false, false)?;
    guest.name = format!("apps-{}", job.name());
    initramfs.clone_into(&mut guest.initramfs);
    let names: Vec<&str> = order.apps.iter().map(|app| app.name).collect();
    guest.arguments = vec![
        format!("{RUNS}={}", names.join(",")),
        format!("{BEFORE}={}", order.length.before.as_secs()),
        format!("{AFTER}={}", order.length.after.as_secs()),
        // Whoever is compared is asked for the same.
        format!("{SEED}={}", order.seed + u64::from(job.run)),
    ];
    if let Some(policy) = job.policy {
        guest.arguments.push(format!("{POLICY}={}", policy.spec()?));
    }
    let found = counter.run(guests, apps_bench, guest, |line| say!("{:11} {line}", job.name()))?;
    let summary = found.outcome.summary();
    match Run::of(found) {
        Ok(run) => {
            say!("{} took {:.0} s", job.name(), began.elapsed().as_secs_f64());
            Ok(Some(run))
        }
        Err(error) => {
            out!("{}: {error:#}\n{summary}", job.name());
            Ok(None)
        }
    }
}

/// What somebody needs to know to make the table again, and to read it.
fn conditions(args: &Args, order: &Order, title: &str, kernel: &str, programs: &str) -> Result<String> {
    let Machine { kernel: series, kind } = order.machine;
    let mut command = format!("cargo xtask bench apps --kernel {series} --machine {}", kind.name);
    if args.quick {
        command.push_str(" --quick");
    } else {
        let _ = write!(command, " --runs {}", order.runs);
    }
    for app in &args.app {
        let _ = write!(command, " --app {}", app.name);
    }
    for policy in &args.policy {
        let _ = write!(command, " --policy {}", policy.name());
    }
    let minutes = |length: Duration| length.as_secs() / 60;
    Ok(format!(
        "# Under real applications\n\n`{command} --seed {}`: {} run(s) of each; {}; {programs} of Debian; cache of {}; 4 ns an instruction.\n\n\
         In a guest whose processor is emulated: no latency is measured. Accesses are counted behind a model of the last-level cache, and a \
         miss to the slow node is priced at so much more than one to DRAM; *slowdown* is that beside the time of the run, in which applications \
         mostly rest, and beside the CPU time that they themselves had, on a native core (guest time divided by 12). Each application is one \
         pod, all run in one guest; what is asked for moves after {} of {} minutes. Throughput and p99 are of one connection that waits for its \
         answers, in virtual time, beside the same run without an agent. Numbers are means, and least to most of the runs where they \
         differ.\n\n![saved and paid over time]({title}.svg)\n\n",
        order.seed,
        order.runs,
        measurement::versions(kernel)?,
        order.cache.describe(),
        minutes(order.length.before),
        minutes(order.length.before + order.length.after),
    ))
}

fn app(name: &str) -> Result<&'static App, String> {
    let names = || APPS.iter().map(|app| app.name).collect::<Vec<_>>().join(", ");
    App::find(name).ok_or_else(|| format!("applications are {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_application() {
        assert!(APPS.iter().all(|app| AFTER_HELP.contains(app.name)));
        assert!(app("redis").is_ok() && app("oracle").is_err());
    }
}
