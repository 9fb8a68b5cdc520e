use litemap::LiteMap;
use serde_json::json;

use super::*;
use crate::kubernetes::assignment::PodIdentity;
use crate::snapshot::{ClusterView, DecisionView, DriftView, FeatureView, TierView};

const MIB: u64 = 1 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn assignment(spec: &serde_json::Value) -> Assignment {
    let policy = json!({ "name": "batch", "spec": spec });
    assigned(&json!([{ "uid": "a", "namespace": "shop", "name": "web", "policy": policy }]))
}

fn assigned(pods: &serde_json::Value) -> Assignment {
    let object = json!({ "metadata": { "generation": 5 }, "spec": crate::fixture::node_tiering_spec(pods) });
    Assignment::read(&object, &Assignment::default())
}

fn view() -> CgroupView {
    CgroupView {
        path: "/kubepods/poda".to_owned(),
        pod: Some(PodIdentity {
            uid: "a".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            container: None,
        }),
        mode: "Enforce",
        anon_bytes_by_tier: LiteMap::from_iter([
            ("dram".to_owned(), 300 * MIB),
            ("slow".to_owned(), 100 * MIB),
        ]),
        cold_bytes: 40 * MIB + 17,
        ..CgroupView::default()
    }
}

fn tier(name: &str, rank: u8) -> TierView {
    TierView {
        name: name.to_owned(),
        rank,
        nodes: vec![u32::from(rank)],
        capacity_bytes: 1024 * MIB,
        free_bytes: 512 * MIB,
        kernel_demotes: true,
    }
}

fn snapshot(views: impl IntoIterator<Item = CgroupView>) -> Snapshot {
    let broken = FeatureView { available: false, message: "not built in".to_owned() };
    let works = FeatureView { available: true, message: "seen".to_owned() };
    Snapshot {
        rounds: 1,
        engine: "lru-gen",
        promoter: crate::promoter::Promoter::Kernel,
        tiers: vec![tier("dram", 0), tier("slow", 1)],
        kernel_release: "7.2.13".to_owned(),
        kernel_features: [("damon".to_owned(), broken), ("lru-gen".to_owned(), works)].into(),
        cgroups: views.into_iter().map(|view| (view.path.clone(), Arc::new(view))).collect(),
        cluster: Some(ClusterView { generation: Some(5), api_server_up: true, ..ClusterView::default() }),
        ..Snapshot::default()
    }
}

fn status(
    snapshot: &Snapshot,
    assignment: &Assignment,
    now: i64,
    before: &NodeTieringStatus,
) -> NodeTieringStatus {
    Facts { assignment, snapshot, outage: None, now: at(now) }.status(before)
}

/// A condition in short: status, reason, message.
fn shown(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    format!("{} {} {}", found.status, found.reason, found.message).trim_end().to_owned()
}

#[test]
fn a_status_tells_of_the_node_and_of_no_pod_that_is_as_it_should_be() {
    let none = NodeTieringStatus::default();
    let told = status(&snapshot([view()]), &assignment(&json!({})), 100, &none);
    assert_eq!((told.engine.as_deref(), told.promotion.as_deref()), (Some("lru-gen"), Some("kernel")));
    let kernel = told.kernel.unwrap();
    assert_eq!((kernel.release.as_str(), kernel.features), ("7.2.13", vec!["lru-gen".to_owned()]));
    let lacking = KernelFeature { name: "damon".to_owned(), message: "not built in".to_owned() };
    assert_eq!(kernel.lacking, [lacking]);
    let tiers: Vec<_> = told.tiers.iter().map(|tier| (tier.nodes.as_str(), tier.capacity)).collect();
    assert_eq!(tiers, [("0", Quantity(Bytes::mib(1024))), ("1", Quantity(Bytes::mib(1024)))]);
    assert_eq!(told.memory.as_deref(), Some("dram 1 GiB, slow 1 GiB"));
    assert_eq!(shown(&told.conditions, "Ready"), "True Running what the cluster assigns is carried out");
    assert_eq!(shown(&told.conditions, "TiersAvailable"), "True Found dram, slow");
    assert_eq!((told.conditions.len(), told.pods, told.more_pods), (2, vec![], None));
}

#[test]
fn no_number_that_changes_by_itself_makes_another_status() {
    let any = assignment(&json!({}));
    let first = status(&snapshot([view()]), &any, 100, &NodeTieringStatus::default());
    let mut other = view();
    other.anon_bytes_by_tier.insert("slow".to_owned(), 150 * MIB);
    other.cold_bytes = 7;
    let mut full = snapshot([other]);
    full.tiers[0].free_bytes = 0;
    full.rounds = 9999;
    full.cluster.as_mut().unwrap().generation = Some(77);
    assert_eq!(status(&full, &any, 500, &first), first);
}

#[test]
fn times_are_those_of_changes() {
    let any = assignment(&json!({}));
    let pinned = snapshot([CgroupView { pinned: true, ..view() }]);
    let first = status(&pinned, &any, 100, &NodeTieringStatus::default());
    assert_eq!((first.pods[0].reason.as_str(), &first.pods[0].since), ("MemoryPinned", &Time(at(100))));
    assert_eq!(status(&pinned, &any, 200, &first), first);
    let failed = status(&snapshot([failing("Refused")]), &any, 300, &first);
    assert_eq!((failed.pods[0].reason.as_str(), &failed.pods[0].since), ("Failed", &Time(at(300))));
    assert_eq!(failed.conditions, first.conditions);
}

/// `None` where nothing is to be said of the pod.
fn check(assigned: &Assignment, snapshot: &Snapshot, says: Option<&str>) {
    let told = status(snapshot, assigned, 0, &NodeTieringStatus::default());
    let pod = told.pods.first().map(|pod| format!("{} {}", pod.reason, pod.message));
    assert!(pod.as_deref().unwrap_or("nothing").starts_with(says.unwrap_or("nothing")), "{pod:?}\n{says:?}");
}

fn limited(limit: &'static str, limit_seconds: f64) -> CgroupView {
    let decision = DecisionView { limit: Some(limit), limit_seconds, ..DecisionView::default() };
    CgroupView { decision, ..view() }
}

fn failing(reason: &'static str) -> CgroupView {
    let condition = crate::snapshot::Condition {
        kind: "TiersAllowed",
        status: false,
        reason,
        message: "said why".to_owned(),
    };
    CgroupView { conditions: vec![condition], ..view() }
}

#[test]
fn of_a_pod_the_first_thing_is_told_that_a_person_should_know() {
    let any = assignment(&json!({}));
    let check = |snapshot: &Snapshot, says| check(&any, snapshot, says);
    check(&snapshot([]), None);
    check(
        &snapshot([CgroupView { pinned: true, ..view() }]),
        Some("MemoryPinned another writer, such as kubelet's"),
    );
    let drift = DriftView {
        file: "memory.high",
        comm: Some("systemd".to_owned()),
        standing_down: true,
        ..DriftView::default()
    };
    let fought = CgroupView { drift: vec![drift.clone()], ..view() };
    check(&snapshot([fought]), Some("StoodDown left memory.high to systemd, who kept changing it"));
    let answered = DriftView { standing_down: false, ..drift };
    check(&snapshot([CgroupView { drift: vec![answered], ..view() }]), None);
    check(&snapshot([CgroupView { mode: "Observe", ..view() }]), None);
    check(&snapshot([failing("Refused")]), Some("Failed said why"));
    check(&snapshot([failing("ContainersApart")]), Some("Failed said why"));
    check(&snapshot([failing("Moving")]), None);
    check(&snapshot([limited("no_target", 0.0)]), Some("NoTarget its cgroup may use no slow node"));
    check(&snapshot([limited("may_swap", 0.0)]), Some("MaySwap it may swap"));
    for passing in ["memory_pressure", "io_pressure", "slow_touch", "target_full", "nothing_cold", "floor"] {
        check(&snapshot([limited(passing, 600.0)]), None);
    }
}

#[test]
fn what_is_the_whole_nodes_is_told_of_the_node() {
    let any = assignment(&json!({}));
    let flat = Snapshot { tiers: vec![tier("dram", 0)], ..snapshot([view()]) };
    check(&any, &flat, None);
    let told = status(&flat, &any, 0, &NodeTieringStatus::default());
    assert!(shown(&told.conditions, "TiersAvailable").starts_with("False NoSlowTier"));
    let idle = Snapshot { engine: "none", ..snapshot([view()]) };
    check(&any, &idle, None);
    let told = status(&idle, &any, 0, &NodeTieringStatus::default());
    assert!(shown(&told.conditions, "EngineAvailable").starts_with("False Failed no engine works here"));
    let cut = |namespace: &str, pods| api::Cut { namespace: namespace.to_owned(), pods };
    let some = Assignment { cut: vec![cut("big", 40), cut("other", 2)], ..any };
    let told = status(&snapshot([view()]), &some, 0, &NodeTieringStatus::default());
    let condition = shown(&told.conditions, "AllAssigned");
    assert!(condition.starts_with("False Cut of namespace big and 1 others"), "{condition}");
}

#[test]
fn a_policy_that_keeps_to_dram_needs_no_target() {
    let on = |tiers| assignment(&json!({ "tiers": tiers }));
    check(&on(json!(["dram"])), &snapshot([limited("no_target", 90.0)]), None);
    check(&on(json!([0])), &snapshot([limited("no_target", 90.0)]), None);
    check(&on(json!(["dram", "slow"])), &snapshot([limited("no_target", 90.0)]), Some("NoTarget"));
}

#[test]
fn a_container_apart_is_named() {
    let mut container = CgroupView { pinned: true, path: "/kubepods/poda/c".to_owned(), ..view() };
    container.pod.as_mut().unwrap().container = Some("app".to_owned());
    check(
        &assignment(&json!({})),
        &snapshot([view(), container]),
        Some("MemoryPinned container app: another"),
    );
}

#[test]
fn floors_that_dram_has_no_room_for_are_a_condition() {
    let floors = |overcommitted| {
        let assignment = Assignment { overcommitted, ..assignment(&json!({})) };
        let snapshot = snapshot([view()]);
        let facts =
            Facts { assignment: &assignment, snapshot: &snapshot, outage: None, now: Timestamp::UNIX_EPOCH };
        let conditions = facts.status(&NodeTieringStatus::default()).conditions;
        conditions.into_iter().find(|condition| condition.type_ == types::FLOORS_FIT)
    };
    assert_eq!(floors(None), None);
    let by = json!({ "floors": "1025Mi", "dram": "1Gi" });
    let told = floors(Some(serde_json::from_value(by).unwrap())).unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", reasons::OVERCOMMITTED));
    assert!(
        told.message.starts_with("floors of the pods sum to 1025Mi, and DRAM is 1Gi"),
        "{}",
        told.message
    );
}

#[test]
fn what_is_not_understood_says_what_is_done_instead() {
    let known = assignment(&json!({}));
    let policy = json!({ "name": "batch", "mustUnderstand": ["swapOut"], "spec": { "swapOut": true } });
    let pods = json!([{ "uid": "a", "namespace": "shop", "name": "web", "policy": policy }]);
    let object = json!({ "metadata": { "generation": 5 }, "spec": crate::fixture::node_tiering_spec(&pods) });
    let kept = Assignment::read(&object, &known);
    let fresh = Assignment::read(&object, &Assignment::default());
    for (assigned, ending) in
        [(kept, "what was assigned before is carried out"), (fresh, "the pod is left alone")]
    {
        let told = status(&snapshot([view()]), &assigned, 0, &NodeTieringStatus::default());
        let PodStatus { reason, message, .. } = &told.pods[0];
        assert!(reason == "NotUnderstood" && message.starts_with(ending), "{message}");
        assert!(message.contains("the field swapOut must be understood"), "{message}");
    }
}

#[test]
fn ready_tells_of_an_api_server_that_is_or_was_away_and_of_a_controller_that_is_gone() {
    let assigned = assignment(&json!({}));
    let mut away = snapshot([view()]);
    away.cluster.as_mut().unwrap().api_server_up = false;
    let told = |assignment: &Assignment, snapshot: &Snapshot, outage| {
        let facts = Facts { assignment, snapshot, outage, now: at(900) };
        shown(&facts.status(&NodeTieringStatus::default()).conditions, "Ready")
    };
    assert!(told(&assigned, &away, None).starts_with("False LastKnown"));
    let there = snapshot([view()]);
    let back = told(&assigned, &there, Some((at(60), at(120))));
    assert!(back.starts_with("True Running the API server was away from 1970-01-01T00:01:00Z to"), "{back}");
    assert!(told(&assigned.observing(), &there, None).starts_with("False Stale"));
}

#[test]
fn a_status_is_bounded_and_shared_by_namespaces() {
    let pods = |bad: usize| -> (Snapshot, Assignment) {
        let namespace = |n: usize| if n < 100 { "attacker" } else { "shop" };
        let uid = |n: usize| format!("8e8b2f0e-7d3c-4c55-9d0e-{n:012}");
        let name = |n: usize| format!("checkout-6d4b75cb6d-{n:05}");
        let policy = json!({ "name": "batch", "spec": {} });
        let pods: Vec<_> = (0..110)
            .map(|n| json!({ "uid": uid(n), "namespace": namespace(n), "name": name(n), "policy": policy }))
            .collect();
        let views = (0..110).map(|n| {
            let mut found = view();
            found.path = format!("/kubepods/pod{n}");
            found.pinned = n >= 110 - bad;
            let identity = found.pod.as_mut().unwrap();
            (identity.uid, identity.namespace, identity.pod) = (uid(n), namespace(n).to_owned(), name(n));
            found
        });
        let mut snapshot = snapshot(views);
        let long = |available| FeatureView { available, message: "a long way to say why not ".repeat(8) };
        snapshot.kernel_features = (0..12).map(|n| (format!("a_feature_{n}"), long(n % 2 == 0))).collect();
        (snapshot, assigned(&json!(pods)))
    };
    for (bad, shop) in [(0, 0), (5, 2), (110, 2)] {
        let (snapshot, assigned) = pods(bad);
        let told = status(&snapshot, &assigned, 0, &NodeTieringStatus::default());
        let size = serde_json::to_string(&told).unwrap().len();
        println!("110 pods, {bad} not as they should be: {size} bytes, {} told", told.pods.len());
        assert!(size <= MOST_STATUS_BYTES, "{size}");
        assert_eq!(told.pods.len() + told.more_pods.unwrap_or_default() as usize, bad);
        assert!(told.pods.iter().filter(|pod| pod.namespace == "shop").count() >= shop, "{:?}", told.pods);
    }
}
