//! Every family of `/metrics`.

use std::collections::BTreeMap;

use telemetry::Process;
use telemetry::metrics::{Family, Group, Series, counter, gauge, histogram};

use super::Scrape;
use crate::snapshot::EventCounts;

/// What the labels mean.
pub(super) static LABELS: &[(&str, &str)] = &[
    (
        "kind",
        "objects: `pods`, `namespaces`, `tieringpolicies`, `nodes`, `nodetierings`; writes: `node_tiering`, `removal`, `node_label`, `policy_status`",
    ),
    ("namespace", "a namespace some of whose pods have a floor"),
    ("policy", "name of a `TieringPolicy`"),
    ("reason", "why a pod has no policy, as `/debug/explain` says it"),
    (
        "result",
        "`ok`, or what went wrong, as `forbidden`, `conflict`, `timeout`; of Events `posted`, `failed`, `dropped`",
    ),
    ("version", "version of the controller"),
];

/// All families, in the order of the reference.
pub(super) static GROUPS: &[Group<Scrape>] = &[
    Group { title: "What it knows", families: KNOWN },
    Group { title: "Floors", families: FLOORS },
    Group { title: "What it does", families: DONE },
    Group { title: "What goes wrong", families: WRONG },
    Group { title: "The controller's own process", families: &PROCESS },
];

static KNOWN: &[Family<Scrape>] = &[
    gauge("thermocline_controller_build_info", &["version"], "The version; always 1.", |_, series| {
        series.push(&[env!("CARGO_PKG_VERSION")], 1.0);
    }),
    gauge("thermocline_controller_leader", &[], "Whether this replica holds the lease.", |scrape, series| {
        series.push(&[], f64::from(u8::from(scrape.snapshot.leading)));
    }),
    gauge("thermocline_controller_objects", &["kind"], "Objects that are kept.", |scrape, series| {
        each(series, scrape.snapshot.objects.iter().map(|(kind, count)| (*kind, *count as f64)));
    }),
    gauge(
        "thermocline_controller_kinds_awaited",
        &[],
        "Kinds of objects of which not all have come yet; nothing is written before they have.",
        |scrape, series| series.push(&[], scrape.snapshot.awaited.len() as f64),
    ),
    gauge("thermocline_controller_assigned_pods", &["policy"], "Pods by policy.", |scrape, series| {
        each(series, scrape.snapshot.assigned.iter().map(|(name, pods)| (&**name, f64::from(*pods))));
    }),
    gauge(
        "thermocline_controller_unmanaged_pods",
        &["reason"],
        "Pods without a policy, by why.",
        |scrape, series| {
            each(series, scrape.snapshot.unmanaged.iter().map(|(why, pods)| (&**why, f64::from(*pods))));
        },
    ),
];

static FLOORS: &[Family<Scrape>] = &[
    gauge(
        "thermocline_controller_floor_bytes",
        &["namespace"],
        "Sum of the floors in DRAM of a namespace's pods, as they apply; a percentage counts of the memory limit.",
        |scrape, series| {
            let floors = scrape.snapshot.floors.iter();
            each(series, floors.map(|(name, floors)| (&**name, floors.granted as f64)));
        },
    ),
    gauge(
        "thermocline_controller_floor_quota_bytes",
        &["namespace"],
        "What they may sum to, where anything says so.",
        |scrape, series| {
            let floors = scrape.snapshot.floors.iter();
            each(series, floors.filter_map(|(name, floors)| Some((&**name, floors.quota? as f64))));
        },
    ),
];

static DONE: &[Family<Scrape>] = &[
    counter(
        "thermocline_controller_writes_total",
        &["kind", "result"],
        "Writes by what was written and how they ended.",
        |scrape, series| {
            for (kind, results) in &scrape.snapshot.tallies.writes {
                for (result, count) in results {
                    series.push(&[kind, result], *count as f64);
                }
            }
        },
    ),
    counter(
        "thermocline_controller_unneeded_writes_total",
        &[],
        "Nodes that were looked at and needed no write.",
        |scrape, series| series.push(&[], scrape.snapshot.tallies.unneeded as f64),
    ),
    histogram(
        "thermocline_controller_write_duration_seconds",
        &[],
        "How long writes of nodes took.",
        |scrape, series| series.push_durations(&[], &scrape.snapshot.tallies.write_durations),
    ),
    histogram(
        "thermocline_controller_event_to_write_seconds",
        &[],
        "From an event to the end of the write that it caused.",
        |scrape, series| series.push_durations(&[], &scrape.snapshot.tallies.event_to_write),
    ),
    gauge("thermocline_controller_nodes_waiting", &[], "Nodes that wait for a write.", |scrape, series| {
        series.push(&[], scrape.snapshot.nodes_waiting as f64);
    }),
    gauge(
        "thermocline_controller_oldest_waiting_seconds",
        &[],
        "How long the node has waited for a write that waits longest; 0 where none waits.",
        |scrape, series| series.push(&[], scrape.snapshot.oldest_waiting_seconds),
    ),
    counter(
        "thermocline_controller_events_total",
        &["result"],
        "Events by what became of them.",
        |scrape, series| {
            let EventCounts { posted, failed, dropped } = scrape.snapshot.events;
            let results = [("posted", posted), ("failed", failed), ("dropped", dropped)];
            each(series, results.into_iter().map(|(result, count)| (result, count as f64)));
        },
    ),
    gauge(
        "thermocline_controller_events_waiting",
        &[],
        "Events that wait to be posted.",
        |scrape, series| {
            series.push(&[], scrape.snapshot.events_waiting as f64);
        },
    ),
    counter(
        "thermocline_controller_lists_total",
        &["kind"],
        "Lists that began: the first, and one for each watch that could not go on where it was.",
        |scrape, series| counted(series, &scrape.snapshot.tallies.lists),
    ),
];

static WRONG: &[Family<Scrape>] = &[
    counter(
        "thermocline_controller_watch_failures_total",
        &["kind"],
        "Watches and lists that failed; they go on by themselves.",
        |scrape, series| counted(series, &scrape.snapshot.tallies.watch_failures),
    ),
    counter(
        "thermocline_controller_malformed_objects_total",
        &["kind"],
        "Objects that could not be read; what was known of them before holds.",
        |scrape, series| counted(series, &scrape.snapshot.tallies.malformed),
    ),
    gauge(
        "thermocline_controller_invalid_annotation_pods",
        &[],
        "Pods with annotations that do not apply; an Event on each says why.",
        |scrape, series| series.push(&[], f64::from(scrape.snapshot.invalid_pods)),
    ),
    gauge(
        "thermocline_controller_held_pods",
        &[],
        "Pods that keep what they had, or are observed, for want of a usable policy or of their namespace.",
        |scrape, series| series.push(&[], f64::from(scrape.snapshot.held_pods)),
    ),
    gauge(
        "thermocline_controller_cut_pods",
        &[],
        "Pods that are left alone for want of room in the object of their node, whose condition `AllAssigned` says whose.",
        |scrape, series| series.push(&[], f64::from(scrape.snapshot.cut_pods)),
    ),
    gauge(
        "thermocline_controller_floor_denied_pods",
        &["namespace"],
        "Pods whose floors do not apply, for the namespace's quota is used up; an Event on each says so.",
        |scrape, series| {
            let denied = scrape.snapshot.floors.iter().filter(|(_, floors)| floors.denied_pods > 0);
            each(series, denied.map(|(name, floors)| (&**name, floors.denied_pods as f64)));
        },
    ),
    gauge(
        "thermocline_controller_floors_overcommitted_nodes",
        &[],
        "Nodes whose pods' floors sum to more than their DRAM; their condition `FloorsFit` says by how much.",
        |scrape, series| series.push(&[], scrape.snapshot.overcommitted_nodes.len() as f64),
    ),
    gauge(
        "thermocline_controller_rejected_policies",
        &[],
        "Policies that are not accepted; their condition `Accepted` says why.",
        |scrape, series| series.push(&[], scrape.snapshot.rejected.len() as f64),
    ),
    gauge(
        "thermocline_controller_default_policy_unusable",
        &[],
        "Whether `--default-policy` names a policy that is missing or not accepted; the log says which.",
        |scrape, series| {
            series.push(&[], f64::from(u8::from(scrape.snapshot.default_problem.is_some())));
        },
    ),
];

static PROCESS: [Family<Scrape>; 4] = Process::families();

fn each<'a>(series: &mut Series, values: impl Iterator<Item = (&'a str, f64)>) {
    for (label, value) in values {
        series.push(&[label], value);
    }
}

fn counted(series: &mut Series, counts: &BTreeMap<&'static str, u64>) {
    each(series, counts.iter().map(|(label, count)| (*label, *count as f64)));
}
