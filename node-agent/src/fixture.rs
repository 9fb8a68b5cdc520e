//! Fixed pictures for tests of what is rendered.

use std::collections::BTreeMap;
use std::sync::Arc;

use litemap::LiteMap;

use crate::kubernetes::assignment::PodIdentity;
use crate::promoter::Promoter;
use crate::snapshot::{
    CgroupView, ClusterView, Condition, ConfigView, DecisionView, DriftView, FeatureView, Snapshot, TierView,
    Totals,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A tier of `capacity` with `free` in it, in MiB.
pub(crate) fn tier(name: &str, rank: u8, capacity: u64, free: u64) -> TierView {
    TierView {
        name: name.to_owned(),
        rank,
        nodes: vec![u32::from(rank)],
        capacity_bytes: capacity * MIB,
        free_bytes: free * MIB,
        kernel_demotes: true,
    }
}

/// A cgroup with memory by tier and ages, in MiB.
pub(crate) fn cgroup(path: &str, tiers: &[(&str, u64)], ages: &[(f64, u64)], text: &str) -> CgroupView {
    let action = if text.starts_with("demote") { "demote" } else { "hold" };
    let cold = ages.iter().filter(|(age, _)| *age >= 120.0).map(|(_, mib)| mib * MIB).sum();
    CgroupView {
        path: path.to_owned(),
        policy: "default".to_owned(),
        mode: "Enforce",
        anon_bytes_by_tier: tiers.iter().map(|(name, mib)| ((*name).to_owned(), mib * MIB)).collect(),
        current_bytes: tiers.iter().map(|(_, mib)| mib * MIB).sum(),
        ages: ages.iter().map(|(age, mib)| (*age, mib * MIB)).collect(),
        effective_age_seconds: 120.0,
        cold_bytes: cold,
        would_free_bytes: cold,
        working_set_seconds: 60.0,
        working_set_bytes: ages.iter().filter(|(age, _)| *age < 60.0).map(|(_, mib)| mib * MIB).sum(),
        floor_bytes: 64 * MIB,
        decision: DecisionView { text: text.to_owned(), action, ..DecisionView::default() },
        ..CgroupView::default()
    }
}

/// A node of these tiers and cgroups after some rounds.
pub(crate) fn node(tiers: Vec<TierView>, cgroups: Vec<CgroupView>) -> Snapshot {
    let mut snapshot = Snapshot {
        rounds: 42,
        last_round_unix_seconds: 1_800_000_000.0,
        last_round_seconds: 0.012,
        round_durations: telemetry::Durations::default(),
        command: "run",
        engine: "lru-gen",
        promoter: Promoter::Kernel,
        tiers,
        cgroups: cgroups.into_iter().map(|cgroup| (cgroup.path.clone(), Arc::new(cgroup))).collect(),
        config: ConfigView {
            path: "/etc/thermocline/agent.yaml".to_owned(),
            loads: 1,
            ..ConfigView::default()
        },
        ..Snapshot::default()
    };
    snapshot.savings = crate::savings::sums(&snapshot, tiering::Bytes::MAX);
    snapshot
}

/// `text` without its ANSI colours.
pub(crate) fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |plain, piece| plain + piece.split_once('m').map_or("", |(_, rest)| rest))
}

/// All memory is touched all the time.
pub(crate) fn hot_only() -> Snapshot {
    node(
        vec![tier("dram", 0, 2048, 1024), tier("pmem", 1, 2048, 2040)],
        vec![cgroup("pods/web", &[("dram", 512), ("pmem", 0)], &[(0.0, 512)], "hold: nothing is cold")],
    )
}

/// Some cgroups with hot, cold and sunk memory.
pub(crate) fn mixed() -> Snapshot {
    let mut snapshot = node(
        vec![tier("dram", 0, 2048, 700), tier("pmem", 1, 4096, 3300)],
        vec![
            cgroup(
                "pods/batch",
                &[("dram", 300), ("pmem", 600)],
                &[(900.0, 100), (240.0, 80), (45.0, 20), (0.0, 100)],
                "demote 180 MiB: 180 MiB not accessed for 120s",
            ),
            cgroup(
                "pods/cache",
                &[("dram", 64), ("pmem", 200)],
                &[(600.0, 64)],
                "hold: the floor is reached",
            ),
            cgroup(
                "pods/web",
                &[("dram", 512), ("pmem", 3)],
                &[(60.0, 12), (0.0, 500)],
                "hold: nothing is cold",
            ),
        ],
    );
    snapshot.totals.demoted_bytes =
        BTreeMap::from([(("lru-gen", "cold"), 803 * MIB), (("lru-gen", "ceiling"), 21 * MIB)]);
    snapshot.totals.promoted_bytes = BTreeMap::from([(Promoter::Kernel, 21 * MIB)]);
    snapshot.totals.comebacks = 2;
    snapshot
}

/// Three tiers.
pub(crate) fn three_tiers() -> Snapshot {
    node(
        vec![tier("dram", 0, 2048, 1500), tier("cxl", 1, 4096, 3896), tier("pmem", 2, 8192, 7168)],
        vec![cgroup(
            "system.slice/postgresql.service",
            &[("dram", 400), ("cxl", 200), ("pmem", 1000)],
            &[(130.0, 100), (30.0, 100), (0.0, 200)],
            "demote 100 MiB: 100 MiB not accessed for 120s (the rate cap is reached)",
        )],
    )
}

/// Something in every field.
pub(crate) fn full() -> Snapshot {
    let condition = Condition {
        kind: "Enforcing",
        status: false,
        reason: "ForeignWriter",
        message: "memory.high is written by kubelet".to_owned(),
    };
    let mut snapshot = mixed();
    let feature = |available| FeatureView { available, message: "seen".to_owned() };
    snapshot.kernel_features =
        BTreeMap::from([("lru_gen".to_owned(), feature(true)), ("damon".to_owned(), feature(false))]);
    snapshot.conditions = vec![condition.clone()];
    snapshot.config.refusals = 1;
    snapshot.config.error = Some("agent.yaml:3:5: unknown field".to_owned());
    snapshot.totals = Totals {
        failed_pages: BTreeMap::from([(("lru-gen", "busy"), 3)]),
        decisions: BTreeMap::from([
            (("Enforce", "demote", "cold"), 7),
            (("Observe", "hold", "nothing_cold"), 30),
        ]),
        write_errors: BTreeMap::from([(("memory.high", "EBUSY"), 1)]),
        drift: BTreeMap::from([("memory.high", 2)]),
        walks: 11,
        cgroups_found: 4,
        cgroups_gone: 1,
        ..snapshot.totals
    };
    snapshot.cluster = Some(ClusterView {
        node: "n1".to_owned(),
        generation: Some(5),
        assigned_pods: 3,
        api_server_up: true,
        last_contact_unix_seconds: Some(1_800_000_000.0),
        status_writes: 9,
        ..ClusterView::default()
    });
    if let Some(cgroup) = snapshot.cgroups.get_mut("pods/batch").and_then(Arc::get_mut) {
        cgroup.pod = Some(PodIdentity {
            uid: "u1".to_owned(),
            namespace: "jobs".to_owned(),
            pod: "batch".to_owned(),
            container: Some("main".to_owned()),
        });
        cgroup.memory_high_bytes = Some(GIB);
        cgroup.ceiling_bytes = Some(400 * MIB);
        cgroup.slow_touched_bytes_per_minute = 6 * MIB;
        cgroup.demoted_bytes = LiteMap::from_iter([("cold", 600 * MIB)]);
        cgroup.promoted_bytes = LiteMap::from_iter([(Promoter::Kernel, 21 * MIB)]);
        cgroup.reclaimed_bytes = 40 * MIB;
        cgroup.failed_pages = LiteMap::from_iter([("busy", 3)]);
        cgroup.comebacks = 2;
        cgroup.conditions = vec![condition];
        cgroup.drift =
            vec![DriftView { file: "memory.high", count: 2, standing_down: true, ..DriftView::default() }];
    }
    snapshot
}

/// The spec of a `NodeTiering` with these pods, whose policies are said in full where they are used.
pub(crate) fn node_tiering_spec(pods: &serde_json::Value) -> serde_json::Value {
    let (mut pods, mut policies) = (pods.clone(), serde_json::Map::new());
    let mut lift = |holder: &mut serde_json::Value| {
        if let Some(policy) = holder.get_mut("policy").filter(|policy| policy.is_object()) {
            let key = format!("p{}", policies.len());
            let said = std::mem::replace(policy, serde_json::Value::String(key.clone()));
            policies.insert(key, said);
        }
    };
    for pod in pods.as_array_mut().into_iter().flatten() {
        lift(pod);
        pod.get_mut("containers")
            .and_then(serde_json::Value::as_array_mut)
            .into_iter()
            .flatten()
            .for_each(&mut lift);
    }
    serde_json::json!({ "policies": policies, "pods": pods })
}
