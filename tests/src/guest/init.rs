//! The first process of a guest: prepares the machine, runs the scenario in a child, reports, powers off.

use std::ffi::CStr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use super::{
    Guest, LRU_GEN_ENABLED, busybox, cgroup, console, cxl, kmem, memory_tiers, process, read, write_file,
};
use crate::machine::{Kind, NodeKind, node_list};
use crate::report::{Line, Verdict};
use crate::scenario::{Machine, Scenario};
use crate::workload::now_ms;

/// What the host asks for on the kernel's command line.
struct Order {
    machine: Machine,
    /// `None`: a shell.
    scenario: Option<&'static Scenario>,
}

/// Runs as process 1, or as the scenario that process 1 started.
pub fn main() {
    if std::process::id() != 1 {
        std::process::exit(i32::from(scenario().is_err()));
    }
    if let Err(error) = init() {
        give_up(&format!("{error:#}"));
    }
    power_off();
}

fn init() -> Result<()> {
    mount_all()?;
    process::spare_from_oom(1)?;
    busybox(&["--install", "-s", "/bin"])?;
    busybox(&["ifconfig", "lo", "up"])?;
    cgroup::enable_controllers(Path::new(cgroup::ROOT))?;
    let order = order()?;
    if order.machine.kind.has(NodeKind::Kmem) {
        kmem::bring_up().context("NVDIMM")?;
    }
    if order.machine.kind.has(NodeKind::Cxl) {
        cxl::bring_up().context("CXL device")?;
    }
    if let Some(on) = order.machine.kind.boot.lru_gen {
        write_file(LRU_GEN_ENABLED, if on { "y" } else { "n" })?;
    }
    let nodes = read("/sys/devices/system/node/has_memory")?;
    let expected = node_list(&order.machine.kind.all_nodes());
    ensure!(
        nodes.trim() == expected,
        "nodes {expected} were expected to have memory, this guest has {}",
        nodes.trim()
    );
    let release = read("/proc/sys/kernel/osrelease")?;
    console(&format!("linux {}: memory tiers {:?}", release.trim(), memory_tiers()?));

    let Some(scenario) = order.scenario else { return shell() };
    let limit = scenario.guest_timeout;
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        give_up(&format!("hung: not done after {limit:?} of guest time"));
        power_off();
    });
    let child = Command::new("/proc/self/exe").spawn().context("start the scenario")?;
    // Process 1 also takes leave of orphans.
    loop {
        if let Some((pid, status)) = wait(WaitOptions::empty())?
            && pid.as_raw_nonzero().get().unsigned_abs() == child.id()
        {
            if status.exit_status().is_none() {
                give_up("the scenario panicked or was killed");
            }
            return Ok(());
        }
    }
}

/// The child's part: it says its own verdict, also on errors.
fn scenario() -> Result<()> {
    let order = order()?;
    let scenario = order.scenario.context("no scenario")?;
    let mut guest = Guest::new(order.machine);
    let verdict = match (scenario.run)(&mut guest) {
        Ok(verdict) => verdict,
        Err(error) => Verdict { pass: false, error: Some(format!("{error:#}")), ..guest.verdict() },
    };
    console(&Line::Verdict(verdict).render());
    Ok(())
}

fn give_up(error: &str) {
    let guest_ms = now_ms();
    let verdict = Verdict { pass: false, checks: 0, error: Some(error.to_owned()), guest_ms, boot_ms: 0 };
    console(&Line::Verdict(verdict).render());
}

fn shell() -> Result<()> {
    console("a shell; the agent and the workload are in /bin. `exit` powers off.");
    let status =
        Command::new("/bin/busybox").args(["setsid", "-c", "/bin/sh", "-l"]).env("PATH", "/bin").status()?;
    console(&format!("shell ended with {status}"));
    Ok(())
}

fn order() -> Result<Order> {
    let scenario = kernel_argument("thermocline.scenario")?
        .map(|name| Scenario::find(&name).with_context(|| format!("no scenario is named {name}")))
        .transpose()?;
    Ok(Order { machine: machine()?, scenario })
}

/// The machine that this guest is, as the host says.
pub(super) fn machine() -> Result<Machine> {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    if let Some(machine) = MACHINE.get() {
        return Ok(*machine);
    }
    let told = |key: &str| kernel_argument(key)?.with_context(|| format!("{key} is not on the command line"));
    let kind = Kind::parse(&told("thermocline.name")?, &told("thermocline.machine")?)?;
    let kernel = told("thermocline.kernel")?.parse().map_err(anyhow::Error::msg)?;
    // One for the life of the process, which is that of the guest.
    Ok(*MACHINE.get_or_init(|| Machine { kernel, kind: Box::leak(Box::new(kind)) }))
}

/// A `key=value` of the kernel's command line, by which the host asks.
pub fn kernel_argument(key: &str) -> Result<Option<String>> {
    let cmdline = read("/proc/cmdline")?;
    let value = cmdline.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    Ok(value.map(str::to_owned))
}

fn mount_all() -> Result<()> {
    let mounts: [(&CStr, &str); 7] = [
        (c"proc", "/proc"),
        (c"sysfs", "/sys"),
        (c"devtmpfs", "/dev"),
        (c"tmpfs", "/run"),
        (c"tmpfs", "/tmp"),
        (c"debugfs", "/sys/kernel/debug"),
        (c"cgroup2", cgroup::ROOT),
    ];
    for (kind, target) in mounts {
        if !Path::new(target).exists() {
            std::fs::create_dir_all(target)?;
        }
        mount(c"none", target, kind, MountFlags::empty(), None).with_context(|| format!("mount {target}"))?;
    }
    Ok(())
}

fn power_off() -> ! {
    // What was said must reach the host first.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    std::thread::sleep(Duration::from_millis(50));
    let _ = reboot(RebootCommand::PowerOff);
    // Not reached; ending process 1 panics the kernel, which also ends the guest.
    std::process::exit(1)
}
