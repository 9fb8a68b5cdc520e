//! How each feature is tried, and what helps where it is missing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::State;
use crate::cgroup::controller_absence;
use crate::error::Error;
use crate::lru_gen::{AnonSyntax, lru_gen_path, probe_anon_syntax, read_lru_gen_enabled};
use crate::node::read_nodes_with_kernel_memory;
use crate::pages::kpageflags::Kpageflags;
use crate::pages::move_pages::{PageStatus, move_pages, query};
use crate::pages::pagemap::Pagemap;
use crate::reclaim::{ReclaimSyntax, probe_reclaim_syntax};
use crate::roots::Roots;
use crate::swap::read_has_swap;
use crate::tiers::read_tier_facts;
use crate::{demotion, file, numa_balancing, sys};

/// What a try found, before it is a row.
pub(super) struct Found {
    pub(super) state: State,
    pub(super) detail: String,
    pub(super) remedy: Option<String>,
}

fn available(detail: impl Into<String>) -> Found {
    Found { state: State::Available, detail: detail.into(), remedy: None }
}

pub(super) fn missing(detail: impl Into<String>, remedy: impl Into<Option<&'static str>>) -> Found {
    Found { state: State::Missing, detail: detail.into(), remedy: remedy.into().map(str::to_owned) }
}

fn denied(detail: impl Into<String>, remedy: impl Into<Option<&'static str>>) -> Found {
    Found { state: State::Denied, detail: detail.into(), remedy: remedy.into().map(str::to_owned) }
}

/// An error as a finding.
fn failed(error: &Error, remedy: impl Into<Option<&'static str>>) -> Found {
    if error.is_gone() { missing(said(error), remedy) } else { denied(said(error), remedy) }
}

/// What an error says of a file that is looked for, and not of one that was there before.
fn said(error: &Error) -> String {
    match error {
        Error::Gone { path } => format!("there is no {}", path.display()),
        error => error.to_string(),
    }
}

const AS_ROOT: &str =
    "run as root on the host, with CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_DAC_OVERRIDE";
const IN_HOSTS_NAMESPACE: &str = "in a container, with hostPID, CAP_SYS_ADMIN, and setns in the seccomp profile: the host's cgroup namespace";
const MOUNT_DEBUGFS: &str =
    "mount -t debugfs none /sys/kernel/debug; in a container, mount the host's directory read-write";
const ENABLE_LRU_GEN: &str = "echo y > /sys/kernel/mm/lru_gen/enabled";

/// By its number in capability.h.
const CAP_DAC_OVERRIDE: u32 = 1;

/// The effective capabilities of this process, a bit each.
fn held_capabilities(roots: &Roots) -> Result<Option<u64>, Error> {
    let text = file::read(&roots.proc.join("self/status"))?;
    let held = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(held.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()))
}

pub(super) fn capabilities(roots: &Roots) -> Found {
    const NEEDED: [(u32, &str); 3] =
        [(2, "CAP_DAC_READ_SEARCH"), (19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN")];
    let held = match held_capabilities(roots) {
        Ok(Some(held)) => held,
        Ok(None) => return missing("no CapEff in /proc/self/status", None),
        Err(error) => return failed(&error, None),
    };
    let lacking: Vec<_> =
        NEEDED.iter().filter(|(bit, _)| held >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        available(format!("{held:#x}"))
    } else {
        denied(format!("without {}", lacking.join(", ")), AS_ROOT)
    }
}

pub(super) fn cgroup2(root: &Path) -> Found {
    // Only cgroup version 2 has this file in its root.
    match file::read(&root.join("cgroup.controllers")) {
        Ok(text) => available(format!("{}: {}", root.display(), text.trim_end())),
        Err(error) => failed(
            &error,
            "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

pub(super) fn controller(roots: &Roots, root: &Path, name: &'static str) -> Found {
    let has = |file: &str| {
        file::read(&root.join(file)).map(|text| text.split_whitespace().any(|controller| controller == name))
    };
    match (has("cgroup.controllers"), has("cgroup.subtree_control")) {
        (_, Ok(true)) => available("in cgroup.subtree_control"),
        (Ok(true), Ok(false)) => Found {
            state: State::Missing,
            detail: "not in cgroup.subtree_control".to_owned(),
            remedy: Some(format!("echo +{name} > {}/cgroup.subtree_control", root.display())),
        },
        (Ok(false), _) => {
            let absence = controller_absence(&roots.proc, name);
            Found { state: State::Missing, detail: absence.finding(name), remedy: Some(absence.remedy(name)) }
        }
        (Err(error), _) | (_, Err(error)) => failed(&error, None),
    }
}

pub(super) fn tiers(roots: &Roots) -> Found {
    let facts = match read_tier_facts(&roots.sys) {
        Ok(facts) => facts,
        Err(error) => return failed(&error, None),
    };
    let kernel = match read_nodes_with_kernel_memory(&roots.sys) {
        Ok(nodes) => nodes,
        Err(error) => return failed(&error, None),
    };
    let seen = facts
        .nodes
        .iter()
        .filter(|node| node.has_memory)
        .map(|node| {
            let cpu = if node.has_cpu { " with processors" } else { "" };
            let movable = if kernel.contains(&node.id) { "" } else { " of movable memory" };
            match node.memory_tier {
                Some(tier) => format!("node {}{cpu}{movable} in memory_tier{tier}", node.id),
                None => format!("node {}{cpu}{movable} in no tier", node.id),
            }
        })
        .collect::<Vec<_>>()
        .join(", ");
    let slow_node = facts.nodes.iter().any(|node| node.has_memory && !node.has_cpu);
    let mut numbers: Vec<_> =
        facts.nodes.iter().filter(|node| node.has_memory).filter_map(|node| node.memory_tier).collect();
    numbers.sort_unstable();
    numbers.dedup();
    match (numbers.len(), slow_node) {
        (2.., _) => available(seen),
        (_, true) => missing(
            format!("{seen}: the kernel sees one tier and demotes nowhere"),
            "give firmware an HMAT (kernel 6.12 or later), or put slow memory online through dax and kmem; the engine \
             pages, where it is asked for by name, works without. Memory of a GPU is left alone",
        ),
        (_, false) => missing(format!("{seen}: no slow memory"), "put PMEM or CXL memory online as a node"),
    }
}

pub(super) fn demotion(roots: &Roots) -> Found {
    match demotion::read_demotion_enabled(&roots.sys) {
        Ok(None) => {
            missing("no kernel/mm/numa/demotion_enabled", "a kernel with CONFIG_MIGRATION and CONFIG_NUMA")
        }
        Ok(Some(enabled)) => match demotion::write_demotion_enabled(&roots.sys, enabled) {
            Ok(()) => available(format!("demotion_enabled is {enabled} and can be written")),
            Err(error) => failed(&error, "mount /sys read-write and run as root"),
        },
        Err(error) => failed(&error, None),
    }
}

pub(super) fn lru_gen_read(roots: &Roots) -> Found {
    match read_lru_gen_enabled(&roots.sys) {
        Ok(Some(enabled)) if enabled.is_on() => {}
        Ok(Some(_)) => return missing("switched off", ENABLE_LRU_GEN),
        Ok(None) => return missing("no kernel/mm/lru_gen", "a kernel with CONFIG_LRU_GEN"),
        Err(error) => return failed(&error, None),
    }
    match File::open(lru_gen_path(&roots.debugfs)) {
        Ok(_) => available("lru_gen can be read"),
        Err(error) => debugfs_error(roots, error),
    }
}

pub(super) fn lru_gen_write(roots: &Roots) -> (Found, Option<AnonSyntax>) {
    let path = lru_gen_path(&roots.debugfs);
    if let Err(error) = OpenOptions::new().write(true).open(&path) {
        return (debugfs_error(roots, error), None);
    }
    match probe_anon_syntax(&roots.debugfs) {
        Ok(Some(syntax)) => {
            let found = match syntax {
                AnonSyntax::Max => available("takes commands; swappiness max is strictly anonymous"),
                AnonSyntax::TwoHundred => available("takes commands; swappiness 200 is anonymous first"),
            };
            (found, Some(syntax))
        }
        Ok(None) => (missing("takes no command for the root cgroup", IN_HOSTS_NAMESPACE), None),
        Err(error) => (failed(&error, AS_ROOT), None),
    }
}

fn debugfs_error(roots: &Roots, error: io::Error) -> Found {
    let path = lru_gen_path(&roots.debugfs);
    let locked = file::read(&roots.sys.join("kernel/security/lockdown"))
        .is_ok_and(|text| text.contains("[integrity]") || text.contains("[confidentiality]"));
    let mounted = fs::read_dir(&roots.debugfs).is_ok_and(|mut entries| entries.next().is_some());
    let error = Error::io(&path, "open", error);
    if error.is_gone() {
        let remedy = if mounted { "a kernel with CONFIG_LRU_GEN" } else { MOUNT_DEBUGFS };
        missing(said(&error), remedy)
    } else if locked {
        denied(
            format!("{error}; the kernel is locked down"),
            "leave it so, as it is part of Secure Boot: the engine reclaim needs no debugfs, nor does DAMON where the \
             kernel has it",
        )
    } else {
        denied(error.to_string(), AS_ROOT)
    }
}

/// The root cgroup has no `memory.reclaim`; a child of it has.
pub(super) fn reclaim(root: &Path, proc: &Path) -> (Found, Option<ReclaimSyntax>) {
    const OLDER: &str = "a kernel of 5.19 or later";
    let dirs = match fs::read_dir(root) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()),
        Err(error) => return (failed(&Error::io(root, "list", error), None), None),
    };
    let Some(child) = dirs.filter(|dir| dir.join("memory.current").exists()).min() else {
        return (missing("no cgroup with a memory controller to try", "start one, then probe again"), None);
    };
    let probed = File::open(&child)
        .map_err(|source| Error::io(&child, "open", source))
        .and_then(|dir| probe_reclaim_syntax(dir.as_fd()));
    match probed {
        Ok(Some(syntax)) => {
            let takes = match syntax {
                ReclaimSyntax::Max => "takes swappiness=max",
                ReclaimSyntax::Number => "takes swappiness=0 to 200",
                ReclaimSyntax::BytesOnly => "takes bytes only",
            };
            // It takes from slow nodes, too, and what it takes there is swapped out.
            match read_has_swap(proc) {
                Ok(false) => (available(takes), Some(syntax)),
                _ => (
                    available(format!(
                        "{takes}; used for cgroups with memory.swap.max 0 only, as this host has swap"
                    )),
                    Some(syntax),
                ),
            }
        }
        Ok(None) => (missing("no memory.reclaim", OLDER), None),
        Err(error) => (failed(&error, AS_ROOT), None),
    }
}

/// Moves a page of this process to the node that it is on.
pub(super) fn own_pages() -> Found {
    let page = Box::new(1_u64);
    let address = std::ptr::from_ref(page.as_ref()).addr() as u64 / sys::page_size() * sys::page_size();
    // By pid and not as 0, which skips the permission check.
    let Ok(pid) = i32::try_from(std::process::id()) else { return missing("no pid", None) };
    let moved = query(pid, &[address]).and_then(|status| match status[..] {
        [PageStatus::Node(node)] => move_pages(pid, &[address], node).map(|_| node),
        _ => Ok(0),
    });
    match moved {
        Ok(node) => available(format!("a page of this process, on node {node}")),
        Err(error) => {
            denied(error.to_string(), "allow the move_pages system call (seccomp), and run as root")
        }
    }
}

pub(super) fn pagemap_pfns(roots: &Roots) -> Found {
    let page = Box::new(1_u64);
    let address = std::ptr::from_ref(page.as_ref()).addr() as u64;
    let mut entries = Vec::new();
    let read =
        Pagemap::open_self(&roots.proc).and_then(|mut map| map.read(address..address + 1, &mut entries));
    match (read, entries.first()) {
        (Err(error), _) => failed(&error, "mount the host's /proc"),
        (Ok(()), Some(entry)) if entry.pfn().is_some() => available("frame numbers are shown"),
        (Ok(()), _) => denied("frame numbers are hidden", AS_ROOT),
    }
}

pub(super) fn kpageflags(roots: &Roots) -> Found {
    let mut flags = std::collections::HashMap::new();
    match Kpageflags::open(&roots.proc).and_then(|mut file| file.read(&mut vec![0], &mut flags)) {
        Ok(()) => available("can be read"),
        Err(error) => failed(&error, AS_ROOT),
    }
}

pub(super) fn numa_balancing(roots: &Roots) -> Found {
    let mode = match numa_balancing::read_numa_balancing(&roots.proc) {
        Ok(Some(mode)) => mode,
        Ok(None) => return missing("no kernel.numa_balancing", "a kernel with CONFIG_NUMA_BALANCING"),
        Err(error) => return failed(&error, None),
    };
    // The limit came to the kernel with the mode.
    match numa_balancing::read_numa_balancing_promote_rate_limit(&roots.proc) {
        Ok(Some(_)) => {}
        Ok(None) => return missing("this kernel has no tiering mode", "a kernel of 6.1 or later"),
        Err(error) => return failed(&error, None),
    }
    match numa_balancing::write_numa_balancing(&roots.proc, mode) {
        Ok(()) => available(format!("kernel.numa_balancing is {} and can be written", mode.bits())),
        Err(error) => failed(&error, "mount /proc/sys read-write and run as root"),
    }
}

pub(super) fn psi(roots: &Roots) -> Found {
    match file::read(&roots.proc.join("pressure/memory")) {
        Ok(_) => available("pressure/memory can be read"),
        Err(error) => missing(said(&error), "boot with psi=1"),
    }
}

/// Opens the first process's file, and writes nothing. Those of other users' processes take a capability as well.
pub(super) fn clear_refs(roots: &Roots) -> Found {
    const REMEDY: &str =
        "run in the host's pid namespace (hostPID) and allow CAP_DAC_OVERRIDE; lru-gen needs neither";
    let path = roots.written_proc.join("1/clear_refs");
    if let Err(error) = OpenOptions::new().write(true).open(&path) {
        return failed(&Error::io(&path, "open", error), REMEDY);
    }
    match held_capabilities(roots) {
        Ok(Some(held)) if held >> CAP_DAC_OVERRIDE & 1 == 0 => denied("only of root's processes", REMEDY),
        _ => available("accesses of processes can be forgotten"),
    }
}

pub(super) fn fanotify() -> Found {
    match sys::fanotify_init() {
        Ok(_) => available("writers of files can be named"),
        Err(error) => {
            denied(error.to_string(), "CAP_SYS_ADMIN; without it drift is noticed but not attributed")
        }
    }
}

pub(super) fn damon(roots: &Roots) -> Found {
    let kdamonds = roots.sys.join("kernel/mm/damon/admin/kdamonds/nr_kdamonds");
    let running = match file::read_number_if_there(&kdamonds) {
        Ok(Some(running)) => running,
        Ok(None) => return missing("no kernel/mm/damon", "a kernel with CONFIG_DAMON_SYSFS"),
        Err(error) => return failed(&error, AS_ROOT),
    };
    for module in ["damon_stat", "damon_reclaim", "damon_lru_sort"] {
        let enabled = file::read(&roots.sys.join(format!("module/{module}/parameters/enabled")));
        if enabled.is_ok_and(|text| text.trim_end() == "Y") {
            return Found {
                state: State::Denied,
                detail: format!("{module} holds it"),
                remedy: Some(format!("echo N > /sys/module/{module}/parameters/enabled")),
            };
        }
    }
    available(format!("{running} kdamonds are set up"))
}
