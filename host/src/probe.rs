//! What this host can do, found by trying and not by version.
//!
//! Nothing lasting is changed: a switch is tried by writing the value it has, a command by one the kernel has no work for.

mod tries;

use std::path::Path;

use serde::Serialize;

use crate::lru_gen::AnonSyntax;
use crate::reclaim::ReclaimSyntax;
use crate::roots::Roots;
use tries::Found;

/// Something a host may have or lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// The capabilities that all else needs.
    Capabilities,
    /// cgroup version 2.
    Cgroup2,
    /// The memory controller for the root's children.
    MemoryController,
    /// The cpuset controller for the root's children.
    CpusetController,
    /// Two tiers of memory, as the kernel sees them.
    Tiers,
    /// Demotion by the kernel.
    Demotion,
    /// Reading generations.
    LruGenRead,
    /// Aging and evicting generations.
    LruGenWrite,
    /// `memory.reclaim`.
    Reclaim,
    /// Moving pages of processes.
    MovePages,
    /// Page frame numbers in `pagemap`.
    PagemapPfns,
    /// `kpageflags`.
    Kpageflags,
    /// Forgetting which pages processes accessed.
    ClearRefs,
    /// Promotion by the kernel.
    NumaBalancing,
    /// Pressure stall information.
    Psi,
    /// Notices of writes that name the writer.
    Fanotify,
    /// DAMON, and nobody else holding it.
    Damon,
}

/// Whether a feature can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works.
    Available,
    /// This kernel or hardware lacks it, or it is switched off.
    Missing,
    /// It is there and refused to us.
    Denied,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeRow {
    /// What was tried.
    pub feature: Feature,
    /// What came of it.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What an operator can do about it, where something can be done.
    pub remedy: Option<String>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// One per [`Feature`], in its order.
    pub rows: Vec<ProbeRow>,
    /// How the generations file spells anonymous, where it can be written.
    pub lru_gen_syntax: Option<AnonSyntax>,
    /// What `memory.reclaim` takes, where it can be written.
    pub reclaim_syntax: Option<ReclaimSyntax>,
}

impl ProbeReport {
    /// The finding on a feature.
    #[must_use]
    pub fn row(&self, feature: Feature) -> Option<&ProbeRow> {
        self.rows.iter().find(|row| row.feature == feature)
    }

    /// Whether a feature can be used.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.row(feature).is_some_and(|row| row.state == State::Available)
    }

    /// Whether the engine `lru-gen` can work: generations can be read and commanded, and eviction demotes.
    #[must_use]
    pub fn lru_gen(&self) -> bool {
        [Feature::Tiers, Feature::LruGenRead, Feature::LruGenWrite, Feature::Demotion]
            .iter()
            .all(|f| self.has(*f))
    }

    /// Whether the engine `damon` can work.
    #[must_use]
    pub fn damon(&self) -> bool {
        self.has(Feature::Damon)
    }

    /// Whether the engine `reclaim` can work.
    #[must_use]
    pub fn reclaim(&self) -> bool {
        [Feature::Tiers, Feature::Reclaim, Feature::Demotion].iter().all(|f| self.has(*f))
    }

    /// Whether the engine `pages` can work: pages can be moved, and their age can be known.
    #[must_use]
    pub fn pages(&self) -> bool {
        self.page_moves() && self.has(Feature::ClearRefs)
    }

    /// Whether single pages can be found and moved, whatever says which.
    #[must_use]
    pub fn page_moves(&self) -> bool {
        [Feature::MovePages, Feature::PagemapPfns, Feature::Kpageflags].iter().all(|f| self.has(*f))
    }

    /// Whether the kernel can be told to promote.
    #[must_use]
    pub fn kernel_promotion(&self) -> bool {
        self.has(Feature::NumaBalancing)
    }
}

/// How far a probe may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// Everything, also `memory.reclaim` of one cgroup, which is asked to free nothing.
    All,
    /// Nothing that writes to a file of a cgroup: whoever watches these files would see it.
    NoCgroupWrite,
}

/// In the place of what would switch generations on: they do not help where the kernel demotes nowhere.
const WITHOUT_TIERS: &str = "nothing, before `tiers` is available: the engine lru-gen demotes only where the kernel sees two \
                             tiers; the engine pages needs no generations";

/// Tries what it may. Fails at nothing: what cannot be tried is a row that says so.
#[must_use]
pub fn run(roots: &Roots, cgroup_root: &Path, tries: Tries) -> ProbeReport {
    let (lru_gen_write, lru_gen_syntax) = tries::lru_gen_write(roots);
    let (reclaim, reclaim_syntax) = match tries {
        Tries::All => tries::reclaim(cgroup_root, &roots.proc),
        Tries::NoCgroupWrite => {
            let remedy = "`thermocline-agent probe` tries it";
            (tries::missing("not tried: that takes a write to a file of a cgroup", remedy), None)
        }
    };
    let tiers = tries::tiers(roots);
    let mut lru_gen_read = tries::lru_gen_read(roots);
    let mut lru_gen_write = lru_gen_write;
    if tiers.state != State::Available {
        for found in [&mut lru_gen_read, &mut lru_gen_write] {
            found.remedy = found.remedy.take().map(|_| WITHOUT_TIERS.to_owned());
        }
    }
    let rows = [
        (Feature::Capabilities, tries::capabilities(roots)),
        (Feature::Cgroup2, tries::cgroup2(cgroup_root)),
        (Feature::MemoryController, tries::controller(roots, cgroup_root, "memory")),
        (Feature::CpusetController, tries::controller(roots, cgroup_root, "cpuset")),
        (Feature::Tiers, tiers),
        (Feature::Demotion, tries::demotion(roots)),
        (Feature::LruGenRead, lru_gen_read),
        (Feature::LruGenWrite, lru_gen_write),
        (Feature::Reclaim, reclaim),
        (Feature::MovePages, tries::own_pages()),
        (Feature::PagemapPfns, tries::pagemap_pfns(roots)),
        (Feature::Kpageflags, tries::kpageflags(roots)),
        (Feature::ClearRefs, tries::clear_refs(roots)),
        (Feature::NumaBalancing, tries::numa_balancing(roots)),
        (Feature::Psi, tries::psi(roots)),
        (Feature::Fanotify, tries::fanotify()),
        (Feature::Damon, tries::damon(roots)),
    ]
    .into_iter()
    .map(|(feature, Found { state, detail, remedy })| ProbeRow { feature, state, detail, remedy })
    .collect();
    ProbeReport { rows, lru_gen_syntax, reclaim_syntax }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::demotion;
    use crate::fixture::tree;

    fn check(files: &[(&str, &str)], feature: Feature, state: State, says: &str) {
        let (dir, roots) = tree(files);
        let report = run(&roots, &dir.path().join("cgroup"), Tries::All);
        let row = report.row(feature).unwrap();
        assert_eq!(row.state, state, "{row:?}");
        let text = format!("{} {}", row.detail, row.remedy.as_deref().unwrap_or_default());
        assert!(text.contains(says), "{row:?}");
    }

    #[test]
    fn a_report_has_one_row_per_feature_even_of_a_host_with_nothing() {
        let (dir, roots) = tree(&[]);
        let report = run(&roots, dir.path(), Tries::All);
        assert_eq!(report.rows.len(), 17);
        assert!(!report.lru_gen() && !report.damon() && !report.reclaim() && !report.pages());
    }

    /// A host whose kernel sees two tiers, and `files`.
    fn with_tiers<'a>(files: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let tiers = [
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/has_memory", "0-1\n"),
            ("sys/devices/system/node/has_cpu", "0\n"),
            ("sys/devices/system/node/has_normal_memory", "0\n"),
            ("sys/devices/system/node/node0/distance", "10 20\n"),
            ("sys/devices/system/node/node1/distance", "20 10\n"),
            ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:        1018912 kB\n"),
            ("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:        1031180 kB\n"),
            ("sys/devices/virtual/memory_tiering/memory_tier4/nodelist", "0\n"),
            ("sys/devices/virtual/memory_tiering/memory_tier22/nodelist", "1\n"),
        ];
        tiers.iter().chain(files).copied().collect()
    }

    #[test]
    fn generations_are_not_advised_where_the_kernel_demotes_nowhere() {
        let off = ("sys/kernel/mm/lru_gen/enabled", "0x0000\n");
        let one_tier: Vec<_> =
            with_tiers(&[off]).into_iter().filter(|(file, _)| !file.contains("memory_tier22")).collect();
        check(&one_tier, Feature::LruGenRead, State::Missing, "the engine pages needs no generations");
    }

    #[test]
    fn every_obstacle_names_its_remedy() {
        let enabled = ("sys/kernel/mm/lru_gen/enabled", "0x0007\n");
        check(&with_tiers(&[enabled]), Feature::LruGenRead, State::Missing, "mount -t debugfs");
        check(
            &with_tiers(&[("sys/kernel/mm/lru_gen/enabled", "0x0000\n")]),
            Feature::LruGenRead,
            State::Missing,
            "echo y > /sys/kernel/mm/lru_gen/enabled",
        );
        check(&[enabled, ("debug/lru_gen", "")], Feature::LruGenRead, State::Available, "");
        check(
            &[
                ("cgroup/cgroup.controllers", "cpuset\n"),
                ("cgroup/cgroup.subtree_control", "cpuset\n"),
                ("proc/cmdline", "cgroup_disable=memory\n"),
            ],
            Feature::MemoryController,
            State::Missing,
            "boot without cgroup_disable=memory",
        );
        check(
            &[
                ("cgroup/cgroup.controllers", "cpuset memory\n"),
                ("cgroup/cgroup.subtree_control", "memory\n"),
            ],
            Feature::CpusetController,
            State::Missing,
            "echo +cpuset > ",
        );
        check(
            &[
                ("sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds", "0\n"),
                ("sys/module/damon_stat/parameters/enabled", "Y\n"),
            ],
            Feature::Damon,
            State::Denied,
            "echo N > /sys/module/damon_stat/parameters/enabled",
        );
        check(
            &[("proc/self/status", "CapEff:\t0000000000280000\n")],
            Feature::Capabilities,
            State::Denied,
            "without CAP_DAC_READ_SEARCH",
        );
        check(&[("proc/1/clear_refs", "")], Feature::ClearRefs, State::Available, "");
        check(
            &[("proc/1/clear_refs", ""), ("proc/self/status", "CapEff:\t0000000000280004\n")],
            Feature::ClearRefs,
            State::Denied,
            "only of root's processes",
        );
        check(&[], Feature::ClearRefs, State::Missing, "run in the host's pid namespace");
        check(&[], Feature::Cgroup2, State::Missing, "there is no ");
        check(&[], Feature::Psi, State::Missing, "there is no ");
    }

    #[test]
    fn tiers_say_where_the_kernel_has_no_memory_for_itself() {
        let node = "sys/devices/system/node";
        let tiers = "sys/devices/virtual/memory_tiering";
        check(
            &[
                (&format!("{node}/online"), "0-1\n"),
                (&format!("{node}/has_cpu"), "0\n"),
                (&format!("{node}/has_memory"), "0-1\n"),
                (&format!("{node}/has_normal_memory"), "0\n"),
                (&format!("{node}/node0/meminfo"), "Node 0 MemTotal:        1018912 kB\n"),
                (&format!("{node}/node1/meminfo"), "Node 1 MemTotal:        1031180 kB\n"),
                (&format!("{node}/node0/distance"), "10 20\n"),
                (&format!("{node}/node1/distance"), "20 10\n"),
                (&format!("{tiers}/memory_tier4/nodelist"), "0\n"),
                (&format!("{tiers}/memory_tier22/nodelist"), "1\n"),
            ],
            Feature::Tiers,
            State::Available,
            "node 0 with processors in memory_tier4, node 1 of movable memory in memory_tier22",
        );
    }

    #[test]
    fn switches_keep_their_values() {
        let (dir, roots) = tree(&[
            ("sys/kernel/mm/numa/demotion_enabled", "1"),
            ("proc/sys/kernel/numa_balancing", "1\n"),
            ("proc/sys/kernel/numa_balancing_promote_rate_limit_MBps", "65536\n"),
        ]);
        let report = run(&roots, dir.path(), Tries::All);
        assert!(report.has(Feature::Demotion) && report.kernel_promotion());
        assert!(fs::read_to_string(roots.proc.join("sys/kernel/numa_balancing")).unwrap().starts_with('1'));
        assert_eq!(demotion::read_demotion_enabled(&roots.sys).unwrap(), Some(true));
    }
}
