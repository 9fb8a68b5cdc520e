//! Every family of `/metrics`.

use telemetry::Process;
use telemetry::metrics::{Family, Group, Series, counter, gauge, histogram};

use super::Scrape;
use crate::snapshot::{CgroupView, ClusterView};

/// Labels that say which cgroup, and under Kubernetes whose.
fn who(cgroup: &CgroupView) -> [&str; 4] {
    let pod = cgroup.pod.as_ref();
    [
        &cgroup.path,
        pod.map_or("", |pod| &pod.namespace),
        pod.map_or("", |pod| &pod.pod),
        pod.and_then(|pod| pod.container.as_deref()).unwrap_or_default(),
    ]
}

/// Those, and more.
fn with<'a, const N: usize>(cgroup: &'a CgroupView, more: [&'a str; N]) -> Vec<&'a str> {
    who(cgroup).into_iter().chain(more).collect()
}

/// One series for each managed cgroup that has a value.
fn per_cgroup(scrape: &Scrape, series: &mut Series, value: impl Fn(&CgroupView) -> Option<u64>) {
    for cgroup in scrape.snapshot.cgroups.values() {
        if let Some(value) = value(cgroup) {
            series.push(&who(cgroup), value as f64);
        }
    }
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// What the labels mean; each has few values, but those of a cgroup and its pod and policy, which are as many as are managed.
pub(super) static LABELS: &[(&str, &str)] = &[
    ("action", "`demote`, `promote`, `both`, `hold`"),
    ("cgroup", "path of a managed cgroup below the cgroup mount"),
    ("container", "under Kubernetes, a container that is managed apart from its pod"),
    ("engine", "`lru-gen`, `pages`, `reclaim`, `none`"),
    ("errno", "name of the error, as `EBUSY`"),
    ("feature", "name of a kernel feature, as `thermocline-agent probe` prints it"),
    ("file", "a file of a cgroup or of the kernel, as `memory.high`"),
    ("mode", "`Observe`, `Enforce`"),
    ("namespace", "under Kubernetes, the pod's"),
    ("pod", "under Kubernetes, its name"),
    ("policy", "name of a policy of the configuration, or of a `TieringPolicy`"),
    ("outcome", "`written`, `failed`"),
    ("promoter", "`damon`, `kernel`, `pages`, `none`"),
    ("rank", "0 is the fastest tier"),
    (
        "reason",
        "why: of a demotion `cold`, `ceiling`, `headroom`, `tiers`; of a decision that or what held it, as \
         `nothing_cold`, `floor`, `rate_cap`, `target_full`, `slow_touch`; of a condition its reason",
    ),
    ("revision", "revision the agent was built from, or `unknown`"),
    ("tier", "`dram`, `pmem`, `cxl`, `hbm`, `slow`"),
    ("type", "type of a condition, as `Enforcing`"),
    ("version", "version of the agent"),
];

/// All families, in the order of the reference.
pub(super) static GROUPS: &[Group<Scrape>] = &[
    Group { title: "Agent", families: AGENT },
    Group { title: "Node", families: NODE },
    Group { title: "Cgroups", families: CGROUPS },
    Group { title: "Cluster", families: CLUSTER },
    Group { title: "The agent's own process", families: &PROCESS },
];

static AGENT: &[Family<Scrape>] = &[
    gauge(
        "thermocline_build_info",
        &["version", "revision"],
        "What the agent was built from; always 1.",
        |_, series| {
            let revision = option_env!("THERMOCLINE_REVISION").unwrap_or("unknown");
            series.push(&[env!("CARGO_PKG_VERSION"), revision], 1.0);
        },
    ),
    gauge(
        "thermocline_engine_info",
        &["engine", "promoter"],
        "The engine in use and who promotes; always 1.",
        |scrape, series| series.push(&[scrape.snapshot.engine, scrape.snapshot.promoter.as_str()], 1.0),
    ),
    counter("thermocline_rounds_total", &[], "Rounds of the loop.", |scrape, series| {
        series.push(&[], scrape.snapshot.rounds as f64);
    }),
    gauge("thermocline_last_round_timestamp_seconds", &[], "When the last round ended.", |scrape, series| {
        series.push(&[], scrape.snapshot.last_round_unix_seconds);
    }),
    histogram("thermocline_round_duration_seconds", &[], "What rounds took.", |scrape, series| {
        series.push_durations(&[], &scrape.snapshot.round_durations);
    }),
    counter(
        "thermocline_config_loads_total",
        &[],
        "Configurations that came into force.",
        |scrape, series| series.push(&[], scrape.snapshot.config.loads as f64),
    ),
    counter(
        "thermocline_config_refusals_total",
        &[],
        "Configurations that were refused; the one before stayed in force.",
        |scrape, series| series.push(&[], scrape.snapshot.config.refusals as f64),
    ),
    gauge(
        "thermocline_config_last_load_successful",
        &[],
        "Whether the newest configuration is in force.",
        |scrape, series| series.push(&[], flag(scrape.snapshot.config.error.is_none())),
    ),
    counter(
        "thermocline_decisions_total",
        &["mode", "action", "reason"],
        "Decisions by what they do and why; with `mode=\"Observe\"` what they would do.",
        |scrape, series| {
            for ((mode, action, reason), count) in &scrape.snapshot.totals.decisions {
                series.push(&[mode, action, reason], *count as f64);
            }
        },
    ),
    counter(
        "thermocline_write_errors_total",
        &["file", "errno"],
        "Writes that the kernel refused.",
        |scrape, series| {
            for ((file, errno), count) in &scrape.snapshot.totals.write_errors {
                series.push(&[file, errno], *count as f64);
            }
        },
    ),
    counter(
        "thermocline_drift_total",
        &["file"],
        "Times another writer changed a file of a managed cgroup that the agent had written.",
        |scrape, series| {
            for (file, count) in &scrape.snapshot.totals.drift {
                series.push(&[file], *count as f64);
            }
        },
    ),
];

static NODE: &[Family<Scrape>] = &[
    gauge(
        "thermocline_tier_capacity_bytes",
        &["tier", "rank"],
        "Memory of the tier's nodes.",
        |scrape, series| {
            for tier in &scrape.snapshot.tiers {
                series.push(&[&tier.name, &tier.rank.to_string()], tier.capacity_bytes as f64);
            }
        },
    ),
    gauge(
        "thermocline_tier_free_bytes",
        &["tier", "rank"],
        "Free memory of the tier's nodes.",
        |scrape, series| {
            for tier in &scrape.snapshot.tiers {
                series.push(&[&tier.name, &tier.rank.to_string()], tier.free_bytes as f64);
            }
        },
    ),
    gauge(
        "thermocline_kernel_feature",
        &["feature"],
        "Whether this kernel and these mounts allow the feature.",
        |scrape, series| {
            for (feature, works) in &scrape.snapshot.kernel_features {
                series.push(&[feature], flag(works.available));
            }
        },
    ),
    gauge(
        "thermocline_condition",
        &["type", "reason"],
        "Whether a condition of the node holds; `/debug/state` has its message.",
        |scrape, series| {
            for condition in &scrape.snapshot.conditions {
                series.push(&[condition.kind, condition.reason], flag(condition.status));
            }
        },
    ),
    gauge(
        "thermocline_would_free_bytes",
        &[],
        "What all policies together could move off fast nodes now; no more than slow nodes have room for.",
        |scrape, series| series.push(&[], scrape.snapshot.savings.total.would_free_bytes as f64),
    ),
    gauge(
        "thermocline_policy_would_free_bytes",
        &["policy"],
        "The same by policy, each by itself.",
        |scrape, series| {
            for (policy, savings) in &scrape.snapshot.savings.by_policy {
                series.push(&[policy], savings.would_free_bytes as f64);
            }
        },
    ),
    gauge(
        "thermocline_policy_freed_bytes",
        &["policy"],
        "Anonymous memory on slower tiers of what the policy enforces: freed already.",
        |scrape, series| {
            for (policy, savings) in &scrape.snapshot.savings.by_policy {
                series.push(&[policy], savings.freed_bytes as f64);
            }
        },
    ),
    gauge("thermocline_managed_cgroups", &[], "Cgroups with a policy.", |scrape, series| {
        series.push(&[], scrape.snapshot.cgroups.len() as f64);
    }),
    counter("thermocline_cgroups_found_total", &[], "Cgroups that got a policy.", |scrape, series| {
        series.push(&[], scrape.snapshot.totals.cgroups_found as f64);
    }),
    counter(
        "thermocline_cgroups_gone_total",
        &[],
        "Managed cgroups that went away or lost their policy.",
        |scrape, series| series.push(&[], scrape.snapshot.totals.cgroups_gone as f64),
    ),
    counter(
        "thermocline_demoted_bytes_total",
        &["engine", "reason"],
        "Bytes demoted, verified by the kernel's per-node counters.",
        |scrape, series| {
            for ((engine, reason), bytes) in &scrape.snapshot.totals.demoted_bytes {
                series.push(&[engine, reason], *bytes as f64);
            }
        },
    ),
    counter(
        "thermocline_promoted_bytes_total",
        &["promoter"],
        "Bytes promoted, by who did it.",
        |scrape, series| {
            for (promoter, bytes) in &scrape.snapshot.totals.promoted_bytes {
                series.push(&[promoter.as_str()], *bytes as f64);
            }
        },
    ),
    counter(
        "thermocline_damon_cpu_seconds_total",
        &[],
        "CPU time of the kernel's thread that finds and promotes hot memory for the agent, which is not among the agent's own.",
        |scrape, series| series.push(&[], scrape.snapshot.totals.damon_cpu_seconds),
    ),
    counter(
        "thermocline_failed_pages_total",
        &["engine", "reason"],
        "Pages whose move failed and which stayed where they were.",
        |scrape, series| {
            for ((engine, reason), pages) in &scrape.snapshot.totals.failed_pages {
                series.push(&[engine, reason], *pages as f64);
            }
        },
    ),
    counter(
        "thermocline_comebacks_total",
        &[],
        "Times memory came back soon after it was demoted, which lengthens the cgroup's effective age.",
        |scrape, series| series.push(&[], scrape.snapshot.totals.comebacks as f64),
    ),
    counter(
        "thermocline_walks_total",
        &[],
        "Walks of page tables to learn ages; each clears accessed bits.",
        |scrape, series| series.push(&[], scrape.snapshot.totals.walks as f64),
    ),
];

static CGROUPS: &[Family<Scrape>] = &[
    gauge(
        "thermocline_cgroup_info",
        &["cgroup", "namespace", "pod", "container", "policy", "mode"],
        "The policy of a managed cgroup; always 1.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                series.push(&with(cgroup, [&cgroup.policy, cgroup.mode]), 1.0);
            }
        },
    ),
    gauge(
        "thermocline_cgroup_anon_bytes",
        &["cgroup", "namespace", "pod", "container", "policy", "tier"],
        "Anonymous memory of the cgroup on the tier.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for (tier, bytes) in &cgroup.anon_bytes_by_tier {
                    series.push(&with(cgroup, [&cgroup.policy, tier]), *bytes as f64);
                }
            }
        },
    ),
    gauge(
        "thermocline_cgroup_memory_current_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "`memory.current`.",
        |scrape, series| {
            per_cgroup(scrape, series, |cgroup| Some(cgroup.current_bytes));
        },
    ),
    gauge(
        "thermocline_cgroup_memory_high_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "`memory.high` as the agent wrote it; absent where it wrote none.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| cgroup.memory_high_bytes),
    ),
    gauge(
        "thermocline_cgroup_dram_floor_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "Least DRAM the policy leaves it.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| Some(cgroup.floor_bytes)),
    ),
    gauge(
        "thermocline_cgroup_dram_ceiling_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "Most DRAM the policy lets it have; absent without a ceiling.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| cgroup.ceiling_bytes),
    ),
    gauge(
        "thermocline_cgroup_cold_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "Anonymous memory on fast nodes that is at least as old as the effective age.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| Some(cgroup.cold_bytes)),
    ),
    gauge(
        "thermocline_cgroup_would_free_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "Cold memory that the policy could move off fast nodes now: without its floor, what can't move, and what slow nodes \
         have no room for. The saving, also of what is only observed.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| Some(cgroup.would_free_bytes)),
    ),
    gauge(
        "thermocline_cgroup_would_touch_bytes_per_second",
        &["cgroup", "namespace", "pod", "container"],
        "What would be accessed on slow nodes if all that is cold were there, as far as the floor allows: modelled by what is accessed \
         at such ages wherever it is. What the saving costs, also of what is only observed.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                series.push(&who(cgroup), cgroup.would_touch_bytes_per_minute as f64 / 60.0);
            }
        },
    ),
    gauge(
        "thermocline_cgroup_working_set_bytes",
        &["cgroup", "namespace", "pod", "container"],
        "Anonymous memory accessed within the last minute, or within the effective age if that is less.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| Some(cgroup.working_set_bytes)),
    ),
    gauge(
        "thermocline_cgroup_effective_age_seconds",
        &["cgroup", "namespace", "pod", "container"],
        "The age from which memory of the cgroup counts as cold now.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                series.push(&who(cgroup), cgroup.effective_age_seconds);
            }
        },
    ),
    gauge(
        "thermocline_cgroup_slow_touched_bytes_per_second",
        &["cgroup", "namespace", "pod", "container"],
        "Memory accessed on slow nodes: what tiering costs the cgroup.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                series.push(&who(cgroup), cgroup.slow_touched_bytes_per_minute as f64 / 60.0);
            }
        },
    ),
    counter(
        "thermocline_cgroup_demoted_bytes_total",
        &["cgroup", "namespace", "pod", "container", "reason"],
        "Bytes demoted since the cgroup was found.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for (reason, bytes) in &cgroup.demoted_bytes {
                    series.push(&with(cgroup, [reason]), *bytes as f64);
                }
            }
        },
    ),
    counter(
        "thermocline_cgroup_promoted_bytes_total",
        &["cgroup", "namespace", "pod", "container", "promoter"],
        "Bytes promoted since the cgroup was found, by who did it.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for (promoter, bytes) in &cgroup.promoted_bytes {
                    series.push(&with(cgroup, [promoter.as_str()]), *bytes as f64);
                }
            }
        },
    ),
    counter(
        "thermocline_cgroup_failed_pages_total",
        &["cgroup", "namespace", "pod", "container", "reason"],
        "Pages whose move failed since the cgroup was found.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for (reason, pages) in &cgroup.failed_pages {
                    series.push(&with(cgroup, [reason]), *pages as f64);
                }
            }
        },
    ),
    counter(
        "thermocline_cgroup_reclaimed_bytes_total",
        &["cgroup", "namespace", "pod", "container"],
        "Bytes reclaimed ahead of the cgroup's limits since it was found.",
        |scrape, series| {
            per_cgroup(scrape, series, |cgroup| {
                (cgroup.reclaimed_bytes > 0).then_some(cgroup.reclaimed_bytes)
            });
        },
    ),
    counter(
        "thermocline_cgroup_comebacks_total",
        &["cgroup", "namespace", "pod", "container"],
        "Times its memory came back soon after it was demoted.",
        |scrape, series| per_cgroup(scrape, series, |cgroup| Some(cgroup.comebacks)),
    ),
    gauge(
        "thermocline_cgroup_condition",
        &["cgroup", "namespace", "pod", "container", "type", "reason"],
        "Whether a condition of the cgroup holds; `/debug/state` has its message.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for condition in &cgroup.conditions {
                    series.push(&with(cgroup, [condition.kind, condition.reason]), flag(condition.status));
                }
            }
        },
    ),
    counter(
        "thermocline_cgroup_drift_total",
        &["cgroup", "namespace", "pod", "container", "file"],
        "Times another writer changed the file after the agent wrote it.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for drift in &cgroup.drift {
                    series.push(&with(cgroup, [drift.file]), drift.count as f64);
                }
            }
        },
    ),
    gauge(
        "thermocline_cgroup_standing_down",
        &["cgroup", "namespace", "pod", "container", "file"],
        "Whether the agent leaves the file to its other writer.",
        |scrape, series| {
            for cgroup in scrape.snapshot.cgroups.values() {
                for drift in &cgroup.drift {
                    series.push(&with(cgroup, [drift.file]), flag(drift.standing_down));
                }
            }
        },
    ),
];

/// Absent where the agent is no cluster's.
static CLUSTER: &[Family<Scrape>] = &[
    gauge(
        "thermocline_api_server_up",
        &[],
        "Whether the API server would tell of a change; while it would not, what was last assigned is carried out.",
        |scrape, series| of_cluster(scrape, series, |cluster| Some(flag(cluster.api_server_up))),
    ),
    gauge(
        "thermocline_api_server_last_contact_timestamp_seconds",
        &[],
        "When the API server last answered the watch; absent before the first time. A watch lasts one minute.",
        |scrape, series| of_cluster(scrape, series, |cluster| cluster.last_contact_unix_seconds),
    ),
    gauge("thermocline_assigned_pods", &[], "Pods that are assigned to this node.", |scrape, series| {
        of_cluster(scrape, series, |cluster| Some(cluster.assigned_pods as f64));
    }),
    gauge(
        "thermocline_assigned_pods_not_understood",
        &[],
        "Pods whose newest assignment this version of the agent does not understand.",
        |scrape, series| of_cluster(scrape, series, |cluster| Some(cluster.pods_not_understood as f64)),
    ),
    gauge(
        "thermocline_assignment_generation",
        &[],
        "Generation of the `NodeTiering` that is carried out; absent where there is none.",
        |scrape, series| {
            of_cluster(scrape, series, |cluster| cluster.generation.map(|generation| generation as f64));
        },
    ),
    counter(
        "thermocline_status_writes_total",
        &["outcome"],
        "Writes of the status of the node's `NodeTiering`.",
        |scrape, series| {
            if let Some(cluster) = &scrape.snapshot.cluster {
                series.push(&["written"], cluster.status_writes as f64);
                series.push(&["failed"], cluster.status_failures as f64);
            }
        },
    ),
];

fn of_cluster(scrape: &Scrape, series: &mut Series, value: impl Fn(&ClusterView) -> Option<f64>) {
    if let Some(value) = scrape.snapshot.cluster.as_ref().and_then(value) {
        series.push(&[], value);
    }
}

static PROCESS: [Family<Scrape>; 4] = Process::families();
