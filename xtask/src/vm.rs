//! `cargo xtask vm`: one scenario on one kernel, by name; also what `test` runs many of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use thermocline_tests::report::{Check, Line, Verdict};
use thermocline_tests::scenario::{Kernel, Machine, SCENARIOS, Scenario};

use crate::guest_image::Profile;
use crate::machines::MachineArgs;
use crate::{guest_image, kernels, out, qemu, say, tools};

/// What to run where.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scenario (see --list)
    scenario: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Run by the host's clock instead of virtual time
    #[arg(long)]
    realtime: bool,
    /// A shell in the guest, by the host's clock
    #[arg(long, conflicts_with = "scenario")]
    shell: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Show the kernel's messages, too
    #[arg(long)]
    verbose: bool,
    /// Download the newest kernel of the series again
    #[arg(long)]
    refresh: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let machine = args.machine.or(Kernel::V6_12);
    if args.shell {
        let guests = Guests::prepare(&[machine.kernel], true, args.refresh)?;
        let guest = guests.guest(machine, None, true, args.verbose)?;
        say!("booting a shell by the host's clock; `exit` or Ctrl-A X ends the guest");
        guest.run_on_terminal()?;
        return Ok(true);
    }
    let Some(name) = args.scenario.as_ref().filter(|_| !args.list) else {
        list();
        return Ok(true);
    };
    let scenario =
        Scenario::find(name).with_context(|| format!("no scenario is named {name}; see --list"))?;
    ensure!(scenario.runs_on(machine), "{name} says nothing on {machine}: {}", scenario.about);
    let guests = Guests::prepare(&[machine.kernel], scenario.agent, args.refresh)?;
    let guest = guests.guest(machine, Some(scenario), args.realtime, args.verbose)?;
    let outcome = guests.run(scenario, &guest, |line| out!("{line}"))?;
    out!("{}", outcome.summary());
    Ok(outcome.pass())
}

fn list() {
    for scenario in SCENARIOS {
        out!("{:16} {}", scenario.name, scenario.about);
        let machines: Vec<_> =
            Machine::all().filter(|&machine| scenario.runs_on(machine)).map(|m| m.to_string()).collect();
        out!("{:16} on {}", "", machines.join(", "));
    }
}

/// Kernels and images, ready to boot.
pub(crate) struct Guests {
    cache: PathBuf,
    qemu: qemu::Qemu,
    boot: BTreeMap<Kernel, (PathBuf, PathBuf)>,
}

impl Guests {
    /// Installs, downloads and builds what is missing for guests on these kernels.
    pub(crate) fn prepare(kernels: &[Kernel], with_agent: bool, refresh: bool) -> Result<Self> {
        Self::built(Profile::Guest, kernels, with_agent, refresh)
    }

    /// As [`Self::prepare`], for a demo.
    pub(crate) fn prepare_demo(kernel: Kernel) -> Result<Self> {
        Self::built(Profile::Demo, &[kernel], true, false)
    }

    fn built(profile: Profile, kernels: &[Kernel], with_agent: bool, refresh: bool) -> Result<Self> {
        tools::ensure(&[&tools::SETPRIV])?;
        let cache = guest_image::cache()?;
        let lock = guest_image::lock(&cache)?;
        let qemu = qemu::Qemu::ensure(&cache)?;
        let binaries = guest_image::build_binaries(profile, with_agent)?;
        let mut boot = BTreeMap::new();
        for &kernel in kernels {
            let unpacked = kernels::ensure(kernel, &cache, refresh)?;
            let initramfs = guest_image::initramfs(&unpacked, &binaries, with_agent, &cache)?;
            boot.insert(kernel, (unpacked.vmlinuz, initramfs));
        }
        drop(lock);
        Ok(Self { cache, qemu, boot })
    }

    /// Where kernels, images and logs are.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// A guest, not yet booted.
    pub(crate) fn guest(
        &self,
        machine: Machine,
        scenario: Option<&Scenario>,
        realtime: bool,
        kernel_messages: bool,
    ) -> Result<qemu::Guest> {
        let (vmlinuz, initramfs) = self.boot.get(&machine.kernel).context("kernel not prepared")?.clone();
        let scenario = scenario.map(|scenario| scenario.name.to_owned());
        let name = scenario.clone().unwrap_or_default();
        Ok(qemu::Guest {
            qemu: self.qemu.clone(),
            machine,
            vmlinuz,
            initramfs,
            scenario,
            name,
            realtime,
            kernel_messages,
            network: None,
            arguments: Vec::new(),
            plugin: None,
        })
    }

    /// Boots the guest, runs the scenario to its end, keeps the console in a log.
    ///
    /// # Errors
    /// Only when this task was interrupted or cannot write its log; a guest that fails is an outcome.
    pub(crate) fn run(
        &self,
        scenario: &'static Scenario,
        guest: &qemu::Guest,
        mut show: impl FnMut(&str),
    ) -> Result<Outcome> {
        let log_path = qemu::log_path(&self.cache, &guest.name, guest.machine);
        std::fs::create_dir_all(log_path.parent().context("log directory")?)?;
        let mut log = std::fs::File::create(&log_path).with_context(|| log_path.display().to_string())?;
        let start = Instant::now();
        let (mut checks, mut verdict) = (Vec::new(), None);
        let ended = guest.run(qemu::wall_limit(scenario.guest_timeout), |line| {
            // A log that cannot be written shows in the console's own lines.
            let _ = writeln!(log, "{line}");
            match Line::parse(line) {
                Some(Line::Result(check)) => {
                    show(&render(&check));
                    checks.push(check);
                }
                Some(Line::Verdict(found)) => verdict = Some(found),
                None => show(line),
            }
        });
        crate::interrupt::check()?;
        Ok(Outcome {
            name: format!("{} {}", scenario.name, guest.machine),
            wall: start.elapsed(),
            checks,
            verdict,
            error: ended.err().map(|error| format!("{error:#}")),
            log: log_path,
        })
    }
}

/// Guests at a time. Each keeps one CPU busy.
pub(crate) const GUESTS_AT_A_TIME: usize = 2;

/// Does something with each, [`GUESTS_AT_A_TIME`] at a time, and no more of them after an error.
pub(crate) fn at_a_time<T: Sync>(jobs: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let in_turn = || -> Result<()> {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(job) {
                next.store(jobs.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..GUESTS_AT_A_TIME).map(|_| scope.spawn(in_turn)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow!("a guest's thread panicked")))
        })
    })
}

/// How a scenario ended on one kind of guest.
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) wall: Duration,
    pub(crate) checks: Vec<Check>,
    verdict: Option<Verdict>,
    error: Option<String>,
    log: PathBuf,
}

impl Outcome {
    /// Passed only when the guest said so and every check agrees.
    pub(crate) fn pass(&self) -> bool {
        self.error.is_none()
            && self.checks.iter().all(|check| check.pass)
            && self
                .verdict
                .as_ref()
                .is_some_and(|verdict| verdict.pass && verdict.checks == self.checks.len())
    }

    /// One line: what, how, how long; with the reason where it failed.
    pub(crate) fn summary(&self) -> String {
        let word = if self.pass() { "ok    " } else { "FAILED" };
        let mut line = format!("{word} {:28} {:5.1} s wall", self.name, self.wall.as_secs_f64());
        if let Some(verdict) = &self.verdict {
            let seconds = |millis: u64| millis as f64 / 1000.0;
            let _ = write!(
                line,
                ", {:6.1} s guest (boot {:.1} s), {} checks",
                seconds(verdict.guest_ms),
                seconds(verdict.boot_ms),
                self.checks.len()
            );
        }
        if !self.pass() {
            let failed = self.checks.iter().filter(|check| !check.pass).count();
            let verdict_error = self.verdict.as_ref().and_then(|verdict| verdict.error.clone());
            let reason =
                verdict_error.or_else(|| self.error.clone()).unwrap_or_else(|| match &self.verdict {
                    None => "the guest ended without a verdict (kernel panic?)".to_owned(),
                    Some(verdict) if verdict.checks != self.checks.len() => {
                        "checks were lost on the console".to_owned()
                    }
                    Some(_) => format!("{failed} checks failed"),
                });
            let _ = write!(line, "\n       {reason}\n       console: {}", self.log.display());
        }
        line
    }
}

/// A check for people.
pub(crate) fn render(check: &Check) -> String {
    let word = if check.pass { "ok    " } else { "FAILED" };
    format!("  {word} {}: {} ({})", check.name, check.value, check.bar)
}
