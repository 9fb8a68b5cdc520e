//! `cargo xtask test`: everything that must hold before a change goes in.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use thermocline_tests::scenario::{
    Kernel, LEFT_OUT, LeftOut, Machine, SCENARIOS, Scenario, in_short_run, left_out,
};
use xtask_front::quiet;

use crate::vm::{GUESTS_AT_A_TIME, Guests, Outcome, render};
use crate::{bench, cluster, codegen, fuzz, guest_image, interrupt, kube, out, say, simulate, tools, vm};

/// How long each fuzz target runs: enough to trip over what a change just broke. Longer is `cargo xtask fuzz`.
const FUZZ_SECONDS: u32 = 8;

/// What to leave out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of the guests only the smoke test on one kernel
    #[arg(long)]
    quick: bool,
    /// Every scenario on every kind of guest: an hour or more
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Only steps whose name contains this, or one of these: fmt, clippy, unit, cluster, manifests, codegen, fuzz, bench, beside, "smoke 6.12 hmat", crash,drift
    #[arg(long, default_value = "")]
    filter: String,
    /// Show every number also of what passed
    #[arg(long)]
    verbose: bool,
}

impl Args {
    /// How long it takes, on two cores that do nothing else.
    fn duration(&self) -> &'static str {
        match (self.full, self.quick, self.filter.is_empty()) {
            (true, ..) => "this takes an hour or more",
            (_, true, _) => {
                "this takes about 15 minutes, and as long again the first time, for it builds everything"
            }
            (_, _, true) => {
                "this takes up to 50 minutes, and 15 more the first time, for it builds everything"
            }
            (_, _, false) => "the first time, all that is tested is built: 15 minutes",
        }
    }
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, pass: bool) {
        if pass { self.passed += 1 } else { self.failed += 1 }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
    }
}

/// What came of the tests on API servers.
#[derive(Default)]
struct OnServers {
    count: Count,
    /// What could not be run here.
    left_out: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let wanted = |name: &str| args.filter.split(',').any(|filter| name.contains(filter));
    say!("{}", args.duration());
    let mut count = Count::default();
    for (name, arguments) in [
        ("fmt", &["fmt", "--all", "--check"][..]),
        ("fmt fuzz", &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]),
        ("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ] {
        if wanted(name) {
            say!("cargo {}", arguments.join(" "));
            let progress = quiet::talks();
            let status = cargo(arguments).status().context("cargo")?;
            drop(progress);
            out!("{} {name}", word(status.success()));
            count.add(status.success());
        }
    }
    if wanted("unit") {
        // The tests that want them say NOT RUN themselves.
        if let Err(error) = tools::ensure(&[&tools::TMUX, &tools::DPKG_DEB]) {
            out!("NOT RUN: the live picture in a terminal, the contents of the .deb: {error:#}");
        }
        let without = ["--workspace", "--exclude", "manifest-tests", "--exclude", "cluster-tests"];
        count += tests("unit tests", &without, |line| out!("{line}"))?;
    }
    // The tests on API servers wait most of the time: what keeps the CPUs busy goes on beside them.
    let on_servers = wanted("cluster").then(|| std::thread::spawn(cluster_tests));
    count += beside_servers(args, wanted)?;
    let on_servers = match on_servers {
        Some(thread) => thread.join().map_err(|_| anyhow!("the thread of the API servers panicked"))??,
        None => OnServers::default(),
    };
    count += on_servers.count;
    if let Some(what) = on_servers.left_out {
        out!("NOT RUN: {what}");
    }
    out!("{} passed, {} failed", count.passed, count.failed);
    // A filter that matches nothing must not look green.
    Ok(count.failed == 0 && count.passed > 0)
}

/// What needs no API server.
fn beside_servers(args: &Args, wanted: impl Fn(&str) -> bool) -> Result<Count> {
    let mut count = Count::default();
    if wanted("fuzz") {
        let (passed, failed) = fuzz::run_all(FUZZ_SECONDS)?;
        count += Count { passed, failed };
    }
    // The servers' tests are built meanwhile: these two want their tools and their build directory.
    if wanted("codegen") {
        count.add(codegen::check()?);
    }
    if wanted("manifests") {
        kube::ensure_tools()?;
        count += tests("manifests", &["--workspace", "--test", "manifests"], |line| out!("{line}"))?;
    }
    let jobs: Vec<(&'static Scenario, Machine)> = SCENARIOS
        .iter()
        .flat_map(|scenario| Machine::all().map(move |machine| (scenario, machine)))
        .filter(|(scenario, machine)| {
            scenario.runs_on(*machine) && wanted(&format!("{} {machine}", scenario.name))
        })
        .filter(|(scenario, machine)| left_out(scenario.name, *machine).is_none())
        .filter(|(scenario, machine)| args.full || in_short_run(scenario.name, *machine))
        .filter(|(scenario, machine)| {
            !args.quick || (scenario.name == "smoke" && machine.to_string() == "6.12 hmat")
        })
        .collect();
    if !jobs.is_empty() {
        count += guests(&jobs, args.verbose)?;
    }
    if wanted("bench") && !args.quick {
        count.add(timed("bench misses", bench::smoke));
    }
    if wanted("beside") && !args.quick {
        count.add(timed("simulated host beside a guest", simulate::beside));
    }
    Ok(count)
}

/// A step that says itself what it found.
fn timed(name: &str, step: impl FnOnce() -> Result<bool>) -> bool {
    let start = Instant::now();
    let pass = step().unwrap_or_else(|error| {
        out!("{error:#}");
        false
    });
    out!("{} {name}, {:.1} s", word(pass), start.elapsed().as_secs_f64());
    pass
}

fn word(pass: bool) -> &'static str {
    if pass { "ok    " } else { "FAILED" }
}

fn cargo(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(guest_image::root());
    command
}

/// Counts each test of `cargo test`, whose lines are shown as they come.
fn tests(name: &str, packages: &[impl AsRef<str>], mut show: impl FnMut(String)) -> Result<Count> {
    let packages: Vec<_> = packages.iter().map(AsRef::as_ref).collect();
    say!("cargo test {}", packages.join(" "));
    let start = Instant::now();
    let mut child = cargo(&["test", "--no-fail-fast"])
        .args(&packages)
        .args(["--", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo")?;
    let mut count = Count::default();
    for line in BufReader::new(child.stdout.take().context("stdout")?).lines() {
        let line = line?;
        let number = |word: &str| -> Option<usize> {
            line.split(word).next()?.trim_end().rsplit(' ').next()?.parse().ok()
        };
        if line.starts_with("test result: ") {
            count.passed += number(" passed").unwrap_or(0);
            count.failed += number(" failed").unwrap_or(0);
        } else if !line.trim().is_empty() {
            show(line);
        }
    }
    let ended_well = child.wait()?.success();
    if !ended_well && count.failed == 0 {
        // It did not compile, or a test binary crashed.
        count.failed = 1;
    }
    show(format!(
        "{} {name}: {} passed, {} failed, {:.1} s",
        word(count.failed == 0),
        count.passed,
        count.failed,
        start.elapsed().as_secs_f64()
    ));
    Ok(count)
}

/// Makes sure of the servers and runs the tests on them; prints their lines in the end, for others run meanwhile.
fn cluster_tests() -> Result<OnServers> {
    let made = match kube::ensure() {
        Ok(made) => made,
        Err(error) => {
            out!("FAILED cluster: {error:#}");
            return Ok(OnServers { count: Count { passed: 0, failed: 1 }, left_out: None });
        }
    };
    let on_servers = cluster::tests(&made)?;
    let mut lines = Vec::new();
    let count = tests("cluster", &on_servers.arguments, |line| lines.push(line))?;
    out!("{}", lines.join("\n"));
    Ok(OnServers { count, left_out: on_servers.left_out })
}

/// Runs the scenarios, two at a time, and prints each as it ends, then the matrix.
fn guests(jobs: &[(&'static Scenario, Machine)], verbose: bool) -> Result<Count> {
    let kernels: BTreeSet<Kernel> = jobs.iter().map(|(_, machine)| machine.kernel).collect();
    let kernels: Vec<_> = kernels.into_iter().collect();
    let with_agent = jobs.iter().any(|(scenario, _)| scenario.agent);
    let guests = Guests::prepare(&kernels, with_agent, false)?;
    say!("{} scenarios in guests, {GUESTS_AT_A_TIME} at a time", jobs.len());
    let start = Instant::now();
    let done = Mutex::new(BTreeMap::new());
    vm::at_a_time(jobs, |&(scenario, machine)| {
        let guest = guests.guest(machine, Some(scenario), false, false)?;
        let outcome = guests.run(scenario, &guest, |_| {})?;
        let mut done = done.lock().map_err(|_| anyhow!("another guest's thread panicked"))?;
        show(&outcome, verbose);
        done.insert((scenario.name, machine), outcome);
        Ok(())
    })?;
    interrupt::check()?;
    let done = done.into_inner().map_err(|_| anyhow!("a guest's thread panicked"))?;
    matrix(&done);
    out!("{} scenarios took {:.1} s of wall time", jobs.len(), start.elapsed().as_secs_f64());
    let mut count = Count::default();
    for outcome in done.values() {
        count.add(outcome.pass());
    }
    Ok(count)
}

fn show(outcome: &Outcome, verbose: bool) {
    out!("{}", outcome.summary());
    for check in
        outcome.checks.iter().filter(|check| verbose || !outcome.pass() || !check.bar.starts_with("= "))
    {
        out!("{}", render(check));
    }
}

/// Scenarios down, machines across, wall seconds in between: the plain machines, then the others.
fn matrix(done: &BTreeMap<(&str, Machine), Outcome>) {
    let machines: BTreeSet<Machine> = done.keys().map(|(_, machine)| *machine).collect();
    let (plain, others): (Vec<_>, Vec<_>) = machines.into_iter().partition(|machine| machine.kind.is_plain());
    for machines in [plain, others] {
        for line in table(done, &machines) {
            out!("{line}");
        }
    }
    for LeftOut { scenario, machine, why } in LEFT_OUT {
        out!("LEFT OUT, it would fail: {scenario} on {machine}: {why}");
    }
    out!("");
}

fn table(done: &BTreeMap<(&str, Machine), Outcome>, machines: &[Machine]) -> Vec<String> {
    let width = machines.iter().map(|machine| machine.to_string().len() + 2).max().unwrap_or(0).max(14);
    let header: Vec<_> = machines.iter().map(|machine| format!("{:>width$}", machine.to_string())).collect();
    let mut lines = vec![String::new(), format!("{:20}{}", "", header.concat())];
    for scenario in SCENARIOS {
        if !machines.iter().any(|machine| done.contains_key(&(scenario.name, *machine))) {
            continue;
        }
        let cells: Vec<_> = machines
            .iter()
            .map(|machine| match done.get(&(scenario.name, *machine)) {
                None if left_out(scenario.name, *machine).is_some() => "LEFT OUT".to_owned(),
                None => "-".to_owned(),
                Some(outcome) => {
                    format!("{:>6} {:5.1} s", word(outcome.pass()).trim(), outcome.wall.as_secs_f64())
                }
            })
            .map(|cell| format!("{cell:>width$}"))
            .collect();
        lines.push(format!("{:20}{}", scenario.name, cells.concat()));
    }
    if machines.is_empty() { Vec::new() } else { lines }
}
