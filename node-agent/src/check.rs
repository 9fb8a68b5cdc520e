//! `check`: what a configuration would do, in plain words, so that a person sees whether it is what they meant.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use host::roots::Roots;
use tiering::{DramPolicy, MemoryHighPolicy, Mode, Policy, Share};

use crate::args::CheckArgs;
use crate::config::{Config, KernelDemotion, PolicyEntry};
use crate::exit::{Failure, printed};
use crate::host_settings;
use api::WireDuration;

/// A dash in the name of a unit, as systemd writes it.
const SYSTEMD_DASH: &str = r"\x2d";

/// Reads the configuration and prints what it does. `cgroup_root` shows what its globs match now, if it is there, and `roots`
/// what `run` would set for the whole host.
pub fn check(args: &CheckArgs, cgroup_root: &Path, roots: Roots) -> Result<(), Failure> {
    let file = &args.file;
    let config = if args.kubernetes { Config::load_node_settings(Some(file))? } else { Config::load(file)? };
    let sets = host_settings::told(roots, cgroup_root, &config, args.kubernetes);
    let report = if args.kubernetes {
        node_report(&config, file, &sets)
    } else {
        report(&config, file, cgroups(cgroup_root).as_deref(), &sets)
    };
    printed(io::stdout().lock().write_all(report.as_bytes()))
}

/// The paths of all cgroups below the mount; `None` where there is no cgroup v2.
fn cgroups(root: &Path) -> Option<Vec<String>> {
    if !root.join("cgroup.controllers").exists() {
        return None;
    }
    let mut paths = Vec::new();
    let mut pending: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        // A cgroup that goes away meanwhile is none.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            if let Some(below) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                paths.push(format!("/{below}"));
            }
            pending.push(path);
        }
    }
    Some(paths)
}

/// What the configuration of `file` does; `cgroups` are the paths there are now, for what its globs match, and `sets` what is set
/// for the whole host.
#[must_use]
pub fn report(config: &Config, file: &Path, cgroups: Option<&[String]>, sets: &[String]) -> String {
    let mut out = Report(String::new());
    let count = match config.policies.len() {
        1 => "1 policy".to_owned(),
        n => format!("{n} policies"),
    };
    out.line(format_args!("{} is valid: {count}.", file.display()));
    settings(&mut out, config, sets);
    let mut warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    for entry in &config.policies {
        let matched = cgroups.map(|cgroups| {
            let first =
                |path: &&String| config.policy_for(path).is_some_and(|policy| policy.name == entry.name);
            cgroups.iter().filter(first).count()
        });
        if matched == Some(0) {
            let any = |matches: &dyn Fn(&str) -> bool| {
                cgroups.is_some_and(|cgroups| cgroups.iter().any(|path| matches(path)))
            };
            warnings.push(if any(&|path| entry.matches(path)) {
                format!("policy {}: all its cgroups go to policies above it", entry.name)
            } else if any(&|path| path.contains(SYSTEMD_DASH) && entry.matches(&path.replace(SYSTEMD_DASH, "-"))) {
                format!(
                    "policy {}: no cgroup of this host matches now. In double quotes {SYSTEMD_DASH} is a dash: write the glob without \
                     quotes or in single ones",
                    entry.name
                )
            } else {
                format!("policy {}: no cgroup of this host matches now", entry.name)
            });
        }
        policy(&mut out, entry, matched);
    }
    if !warnings.is_empty() {
        out.line(format_args!(""));
    }
    for warning in warnings {
        out.line(format_args!("warning: {warning}"));
    }
    out.0
}

/// What the settings of a cluster's node do.
#[must_use]
pub fn node_report(config: &Config, file: &Path, sets: &[String]) -> String {
    let mut out = Report(String::new());
    out.line(format_args!(
        "{} is valid for a node of a cluster, whose policies are assigned to it.",
        file.display()
    ));
    settings(&mut out, config, sets);
    out.0
}

fn settings(out: &mut Report, config: &Config, sets: &[String]) {
    out.line(format_args!(""));
    out.field("looks every", format_args!("{} while something is to be done", WireDuration(config.interval)));
    match config.listen {
        Some(address) => out.field("serves", format_args!("metrics and health at http://{address}")),
        None => out.field("serves", format_args!("nothing: no metrics, no health")),
    }
    out.field("remembers", format_args!("what to put back in {}", config.state_file.display()));
    out.field(
        "the kernel",
        format_args!(
            "may demote {}",
            match config.kernel_demotion {
                KernelDemotion::WhileActing => "while the agent does, for milliseconds at a time",
                KernelDemotion::Always => "as long as the agent runs",
            }
        ),
    );
    for (i, setting) in sets.iter().enumerate() {
        let name = if i == 0 { "sets" } else { "" };
        out.field(name, format_args!("for the whole host: {setting}"));
    }
    if config.tiers.is_empty() {
        out.field("tiers", format_args!("as the kernel says"));
    } else {
        let tiers: Vec<String> = config
            .tiers
            .iter()
            .map(|tier| {
                let nodes: Vec<String> = tier.nodes.iter().map(|node| node.0.to_string()).collect();
                format!("{} (node {})", tier.name, nodes.join(", "))
            })
            .collect();
        out.field("tiers", format_args!("{}", tiers.join(", then ")));
    }
}

struct Report(String);

impl Report {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.line(format_args!("  {name:<12} {value}"));
    }
}

fn policy(out: &mut Report, entry: &PolicyEntry, matched: Option<usize>) {
    let policy = &entry.policy;
    out.line(format_args!(""));
    out.line(format_args!(
        "Policy {} {}",
        entry.name,
        match policy.mode {
            Mode::Enforce => "acts (Enforce).",
            Mode::Observe => "only looks (Observe): what follows is decided and reported, not done.",
        }
    ));
    let exclude = if entry.exclude.is_empty() {
        String::new()
    } else {
        format!(" but not {}", entry.exclude.join(", "))
    };
    let now = match matched {
        None => String::new(),
        Some(1) => " (1 cgroup now)".to_owned(),
        Some(n) => format!(" ({n} cgroups now)"),
    };
    out.field("for", format_args!("{}{exclude}{now}", entry.cgroups.join(", ")));
    if policy.tiers.is_empty() {
        out.field("tiers", format_args!("all; cpuset.mems is left alone"));
    } else {
        let tiers: Vec<String> = policy.tiers.iter().map(ToString::to_string).collect();
        out.field("tiers", format_args!("only {}, by cpuset.mems", tiers.join(" and ")));
    }
    out.field("DRAM", format_args!("{}", dram(&policy.dram)));
    demote(out, policy);
    if policy.promote.enabled {
        out.field(
            "promotes",
            format_args!(
                "what is touched on slow memory, at most {} where the agent moves it",
                policy.promote.max_rate
            ),
        );
    } else {
        out.field("promotes", format_args!("nothing"));
    }
    match policy.memory_high {
        MemoryHighPolicy::None => out.field("memory.high", format_args!("left alone")),
        MemoryHighPolicy::Pressure { target, floor } => out.field(
            "memory.high",
            format_args!("as low as {target} of the time stalled on memory allows, at least {floor}"),
        ),
        MemoryHighPolicy::Fixed(value) => {
            out.field(
                "memory.high",
                format_args!("{value} on all tiers together, never below what is in use"),
            );
        }
        MemoryHighPolicy::Formula { factor, request, limit } => {
            let value = tiering::memory_high::formula(request, limit, factor, 4096);
            out.field(
                "memory.high",
                format_args!(
                    "{value} on all tiers together ({factor} of the way from request {request} to limit {limit}), never \
                     below what is in use"
                ),
            );
        }
    }
    let io = policy.pressure.io.map_or_else(String::new, |io| format!(" or {io} on I/O"));
    out.field(
        "backs off",
        format_args!("while its tasks stall more than {} of the time on memory{io}", policy.pressure.memory),
    );
}

fn dram(dram: &DramPolicy) -> String {
    let share = |share: Share| match share {
        Share::Bytes(bytes) => bytes.to_string(),
        Share::OfFootprint(ratio) => format!("{ratio} of its anonymous memory"),
    };
    let floor = match dram.floor {
        Some(floor) if floor != Share::Bytes(tiering::Bytes::ZERO) => format!("at least {}", share(floor)),
        _ => "no floor".to_owned(),
    };
    let ceiling =
        dram.ceiling.map_or("no ceiling".to_owned(), |ceiling| format!("at most {}", share(ceiling)));
    format!("{floor}, {ceiling}; weight {} where it is short", dram.weight)
}

fn demote(out: &mut Report, policy: &Policy) {
    let demote = &policy.demote;
    out.field(
        "demotes",
        format_args!(
            "anonymous memory not accessed for {}, at most {}",
            WireDuration(demote.after),
            demote.max_rate
        ),
    );
    out.field(
        "",
        format_args!("(up to {} for memory that keeps coming back)", WireDuration(demote.after_max)),
    );
    out.field(
        "holds",
        format_args!(
            "while more than {} of its working set a minute is touched on slow memory",
            demote.slow_touch_rate
        ),
    );
}

#[cfg(test)]
mod tests;
