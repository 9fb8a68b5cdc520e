//! One file a scenario. A new one: `mod`, and a line in the table.

use std::time::Duration;

use crate::scenario::{Kernel, Machine, Scenario};
pub use crash::{KILLS as KILLS_A_GUEST, TERMS as TERMS_A_GUEST};

mod auto;
mod bounds;
mod churn;
mod crash;
mod cxl;
mod damon_stat;
mod demo;
mod drift;
mod engine_lost;
mod hostile_tree;
mod hot_shift;
mod hotplug;
mod kernel_demotion;
mod kubelet_layouts;
mod lazyfree_phases;
mod memory_high;
mod never_moves;
mod no_target;
#[cfg(feature = "cluster")]
mod node;
mod observe;
mod one_tier;
mod page_cache;
mod placement;
mod pressure;
mod promotion;
mod reclaim_ahead;
mod revisits;
mod second_fast_node;
mod smoke;
mod sockets;
mod thousand;
mod tiers;
mod touched;
mod victim_and_hogs;

/// Every scenario, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    smoke::SCENARIO,
    demo::SCENARIO,
    placement::SCENARIO,
    revisits::SCENARIO,
    hot_shift::SCENARIO,
    thousand::SCENARIO,
    churn::SCENARIO,
    tiers::SCENARIO,
    crash::SCENARIO,
    drift::SCENARIO,
    memory_high::SCENARIO,
    reclaim_ahead::SCENARIO,
    pressure::SCENARIO,
    kernel_demotion::SCENARIO,
    never_moves::SCENARIO,
    lazyfree_phases::SCENARIO,
    page_cache::SCENARIO,
    observe::SCENARIO,
    no_target::SCENARIO,
    engine_lost::SCENARIO,
    bounds::SCENARIO,
    kubelet_layouts::SCENARIO,
    sockets::SCENARIO,
    second_fast_node::SCENARIO,
    hotplug::SCENARIO,
    hostile_tree::SCENARIO,
    auto::SCENARIO,
    cxl::SCENARIO,
    promotion::SCENARIO,
    damon_stat::SCENARIO,
    victim_and_hogs::SCENARIO,
    one_tier::SCENARIO,
];

/// What machines a scenario is written for.
pub(crate) enum Written {
    /// Any with memory that is fast enough for the emulator.
    Anywhere,
    /// A CXL device, which is not.
    Cxl,
    /// The machine of that name.
    For(&'static str),
    /// One fast node, 0, and one slow node, 1, on a kernel that boots as it is shipped.
    Plain,
}

impl Written {
    /// What the scenario of that name is written for.
    pub(crate) fn of(scenario: &str) -> Self {
        match scenario {
            "placement" | "never-moves" | "bounds" | "crash" | "auto" | "one-tier" => Self::Anywhere,
            "cxl" => Self::Cxl,
            "sockets" => Self::For("sockets"),
            "second-fast-node" => Self::For("sockets-kmem"),
            _ => Self::Plain,
        }
    }
}

/// The one that needs a cluster beside its guest: `cargo xtask node`.
pub const NODE: Scenario = Scenario {
    name: "node",
    about: "on a real Kubernetes node, annotations move pods' cold memory and bound their footprint",
    applies: |machine| machine.kernel > Kernel::V6_1,
    agent: true,
    guest_timeout: Duration::from_mins(45),
    #[cfg(feature = "cluster")]
    run: node::run,
    #[cfg(not(feature = "cluster"))]
    run: |_| anyhow::bail!("built without the feature `cluster`"),
};

/// Where each runs in `cargo xtask test`, which has to end while one waits; `--full` runs it wherever it applies. Each kernel
/// series has its turn, with either kind of slow node, and so have the most telling of the other machines.
const SHORT: &[(&str, &[&str])] = &[
    ("smoke", &["6.1 kmem", "6.12 hmat", "7.2 hmat"]),
    ("demo", &["7.2 hmat"]),
    (
        "placement",
        &["6.1 hmat", "6.1 kmem", "6.12 hmat", "6.12 kmem", "7.2 hmat", "7.2 kmem", "7.2 near-slow-full"],
    ),
    ("revisits", &["6.1 kmem", "7.2 hmat"]),
    ("hot-shift", &["6.1 hmat", "7.2 hmat"]),
    ("thousand", &["7.2 hmat"]),
    ("churn", &["7.2 hmat"]),
    ("tiers", &["6.1 hmat", "6.12 kmem", "7.2 kmem"]),
    ("crash", &["6.1 kmem", "6.12 hmat", "7.2 kmem"]),
    ("drift", &["6.1 kmem", "7.2 kmem"]),
    ("memory-high", &["6.12 hmat", "7.2 kmem"]),
    ("reclaim-ahead", &["6.1 hmat", "7.2 kmem"]),
    ("pressure", &["6.12 kmem"]),
    ("kernel-demotion", &["7.2 hmat"]),
    ("never-moves", &["6.1 hmat", "6.12 hmat", "7.2 kmem", "7.2 secure-boot"]),
    ("lazyfree-phases", &["6.12 hmat"]),
    ("page-cache", &["7.2 hmat"]),
    ("observe", &["6.1 hmat", "6.12 kmem"]),
    ("no-target", &["6.12 hmat", "7.2 kmem"]),
    ("engine-lost", &["6.12 hmat"]),
    ("bounds", &["6.1 kmem", "6.12 hmat"]),
    ("sockets", &["7.2 sockets"]),
    ("second-fast-node", &["6.1 sockets-kmem"]),
    ("kubelet-layouts", &["6.12 kmem", "7.2 hmat"]),
    ("hotplug", &["7.2 kmem"]),
    ("hostile-tree", &["7.2 hmat"]),
    ("cxl", &["7.2 cxl-type3"]),
    ("promotion", &["7.2 hmat"]),
    ("damon-stat", &["7.2 kmem"]),
    ("victim-and-hogs", &["7.2 hmat"]),
    ("one-tier", &["7.2 one-tier"]),
];

/// Pairs that are known to fail because the agent is wrong there, and why: not run by `cargo xtask test`, whose table says so.
/// `cargo xtask vm` runs them.
pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        scenario: "auto",
        machine: "6.12 rhel-like",
        why: "`reclaim` takes what the kernel holds inactive, which is hot memory in part: 5 MiB of 48 touched every second sank and stayed down",
    },
    LeftOut {
        scenario: "auto",
        machine: "7.2 secure-boot",
        why: "`reclaim` offers what the kernel holds inactive; nobody can age generations there, so that is nothing: 0 of 224 MiB sank",
    },
];

/// A scenario that is not run on a machine where it would say something.
#[derive(Debug)]
pub struct LeftOut {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The machine, as it is shown.
    pub machine: &'static str,
    /// What goes wrong.
    pub why: &'static str,
}

/// Whether, and why, a scenario is left out on a machine.
#[must_use]
pub fn left_out(scenario: &str, machine: Machine) -> Option<&'static LeftOut> {
    let machine = machine.to_string();
    LEFT_OUT.iter().find(|left| left.scenario == scenario && left.machine == machine)
}

/// Whether a scenario runs on a machine in `cargo xtask test`.
#[must_use]
pub fn in_short_run(scenario: &str, machine: Machine) -> bool {
    let machine = machine.to_string();
    SHORT.iter().any(|(name, machines)| *name == scenario && machines.contains(&machine.as_str()))
}

/// Where agents keep original values.
const STATE: &str = "/run/thermocline/state";
/// Settings of the kernel that an agent may change: whether reclaim demotes, and whether hot pages are promoted.
pub(crate) const DEMOTION: &str = "/sys/kernel/mm/numa/demotion_enabled";
pub(crate) const BALANCING: &str = "/proc/sys/kernel/numa_balancing";
/// How many kdamonds are set up, and whether the kernel's own holds DAMON.
const NR_KDAMONDS: &str = "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds";
const DAMON_STAT: &str = "/sys/module/damon_stat/parameters/enabled";
/// Whether generations are kept, and what a walk clears.
const LRU_GEN: &str = "/sys/kernel/mm/lru_gen/enabled";

/// A configuration with one policy for the cgroups of one glob. `spec` is in YAML's flow style, without the braces.
pub(crate) fn agent_config(glob: &str, spec: &str) -> String {
    format!(
        "stateFile: {STATE}\npolicies:\n  - name: managed\n    cgroups: [\"{glob}\"]\n    spec: {{ {spec} }}\n"
    )
}

/// The same on a node with this engine.
pub(crate) fn config_with_engine(engine: &str, glob: &str, spec: &str) -> String {
    format!("engine: {engine}\n{}", agent_config(glob, spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_its_turn_and_only_where_it_applies() {
        for scenario in SCENARIOS {
            let there = Machine::all().filter(|machine| in_short_run(scenario.name, *machine));
            let there: Vec<Machine> = there.collect();
            let applies = |machine: &Machine| scenario.runs_on(*machine);
            let waits =
                Machine::all().filter(applies).all(|machine| left_out(scenario.name, machine).is_some());
            assert!(!there.is_empty() || waits, "{}", scenario.name);
            assert!(there.iter().all(|machine| scenario.runs_on(*machine)), "{}", scenario.name);
        }
        for left in LEFT_OUT {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == left.scenario).unwrap();
            let machine = Machine::all().find(|machine| machine.to_string() == left.machine).unwrap();
            assert!(scenario.runs_on(machine) && !in_short_run(scenario.name, machine), "{left:?}");
        }
        let listed: usize = SHORT.iter().map(|(_, machines)| machines.len()).sum();
        let run = SCENARIOS.iter().flat_map(|s| Machine::all().map(move |m| (s.name, m)));
        assert_eq!(run.filter(|(name, machine)| in_short_run(name, *machine)).count(), listed);
    }
}
