use serde_json::json;

use super::*;
use crate::kubernetes::assignment::PodIdentity;
use crate::snapshot::{ClusterView, DecisionView, DriftView, FeatureView, TierView};

const MIB: u64 = 1 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn assignment(spec: &serde_json::Value) -> Assignment {
    let policy = json!({ "name": "batch", "generation": 1, "spec": spec });
    let pod = json!({
        "uid": "a", "namespace": "shop", "name": "web", "qosClass": "Burstable", "policy": policy
    });
    let object = json!({ "metadata": { "generation": 5 }, "spec": { "pods": [pod] } });
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
        anon_bytes_by_tier: [("dram".to_owned(), 300 * MIB), ("slow".to_owned(), 100 * MIB)].into(),
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
        cgroups: views.into_iter().map(|view| (view.path.clone(), view)).collect(),
        cluster: Some(ClusterView { generation: Some(5), api_server_up: true, ..ClusterView::default() }),
        ..Snapshot::default()
    }
}

fn status(
    snapshot: &Snapshot,
    assignment: &Assignment,
    now: i64,
    with_usage: bool,
    before: &NodeTieringStatus,
) -> NodeTieringStatus {
    Facts { assignment, snapshot, outage: None, with_usage, now: at(now) }.status(before)
}

/// A condition in short: status, reason, message.
fn shown(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    format!("{} {} {}", found.status, found.reason, found.message).trim_end().to_owned()
}

#[test]
fn a_status_tells_of_the_node_and_of_each_pod() {
    let none = NodeTieringStatus::default();
    let told = status(&snapshot([view()]), &assignment(&json!({})), 100, true, &none);
    assert_eq!(told.observed_generation, Some(5));
    assert_eq!((told.engine.as_deref(), told.promotion.as_deref()), (Some("lru-gen"), Some("kernel")));
    let kernel = told.kernel.unwrap();
    let features: Vec<_> = kernel
        .features
        .iter()
        .map(|found| (found.name.as_str(), found.available, found.message.as_str()))
        .collect();
    assert_eq!(kernel.release, "7.2.13");
    assert_eq!(features, [("damon", false, "not built in"), ("lru-gen", true, "")]);
    let quantity = |mib| Quantity(Bytes::mib(mib));
    let tiers: Vec<_> =
        told.tiers.iter().map(|tier| (tier.nodes.as_str(), tier.capacity, tier.used)).collect();
    assert_eq!(
        tiers,
        [("0", quantity(1024), Some(quantity(512))), ("1", quantity(1024), Some(quantity(512)))]
    );
    assert_eq!(shown(&told.conditions, "Ready"), "True Running what the cluster assigns is carried out");
    assert_eq!(shown(&told.conditions, "TiersAvailable"), "True Found dram, slow");
    let pod = &told.pods[0];
    assert_eq!((pod.uid.as_str(), pod.namespace.as_str(), pod.name.as_str()), ("a", "shop", "web"));
    let usage = PodUsage { dram: quantity(300), slow: quantity(100), cold: quantity(40) };
    assert_eq!(pod.usage, Some(usage));
    assert_eq!(shown(&pod.conditions, "Enforcing"), "True Enforced by engine lru-gen");
    assert_eq!(told.usage_time, Some(Time(at(100))));
}

#[test]
fn what_does_not_change_is_told_the_same_and_times_are_those_of_changes() {
    let (none, assigned) = (NodeTieringStatus::default(), assignment(&json!({})));
    let first = status(&snapshot([view()]), &assigned, 100, true, &none);
    assert_eq!(status(&snapshot([view()]), &assigned, 200, false, &first), first);
    assert_eq!(status(&snapshot([view()]), &assigned, 200, true, &first), first, "the same usage again");

    let mut moved = view();
    moved.anon_bytes_by_tier.insert("slow".to_owned(), 150 * MIB);
    assert_eq!(status(&snapshot([moved.clone()]), &assigned, 200, false, &first), first);
    let second = status(&snapshot([moved]), &assigned, 400, true, &first);
    assert_eq!(second.usage_time, Some(Time(at(400))));
    assert_eq!(second.pods[0].conditions, first.pods[0].conditions);

    let observed = CgroupView { mode: "Observe", ..view() };
    let third = status(&snapshot([observed]), &assigned, 500, false, &second);
    assert_eq!(third.pods[0].conditions[0].last_transition_time, Time(at(500)));
    let pinned = CgroupView { pinned: true, ..view() };
    let fourth = status(&snapshot([pinned]), &assigned, 600, false, &third);
    assert_eq!(fourth.pods[0].conditions[0].reason, "MemoryPinned");
    assert_eq!(fourth.pods[0].conditions[0].last_transition_time, Time(at(500)), "False all the time");
}

fn check(assigned: &Assignment, snapshot: &Snapshot, says: &str) {
    let told = status(snapshot, assigned, 0, false, &NodeTieringStatus::default());
    let condition = shown(&told.pods[0].conditions, "Enforcing");
    assert!(condition.starts_with(says), "{condition}\n{says}");
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
fn enforcing_says_the_first_thing_that_a_person_should_know() {
    let any = assignment(&json!({}));
    let check = |snapshot: &Snapshot, says| check(&any, snapshot, says);
    check(&snapshot([]), "False NoCgroup");
    check(
        &snapshot([CgroupView { pinned: true, ..view() }]),
        "False MemoryPinned another writer, such as kubelet's",
    );
    let drift = DriftView {
        file: "memory.high",
        comm: Some("systemd".to_owned()),
        standing_down: true,
        ..DriftView::default()
    };
    let fought = CgroupView { drift: vec![drift.clone()], ..view() };
    check(&snapshot([fought]), "False StoodDown left memory.high to systemd, who kept changing it");
    let answered = DriftView { standing_down: false, ..drift };
    check(&snapshot([CgroupView { drift: vec![answered], ..view() }]), "True Enforced");
    check(&snapshot([CgroupView { mode: "Observe", ..view() }]), "False Observing");
    let flat = Snapshot { tiers: vec![tier("dram", 0)], ..snapshot([view()]) };
    check(&flat, "False NoTarget the node has no tier");
    check(&Snapshot { engine: "none", ..snapshot([view()]) }, "False Failed");
    check(&snapshot([failing("Refused")]), "False Failed said why");
    check(&snapshot([failing("ContainersApart")]), "False Failed said why");
    check(&snapshot([failing("Moving")]), "True Enforced");
    check(&snapshot([limited("no_target", 0.0)]), "False NoTarget its cgroup may use no slow node");
    check(&snapshot([limited("may_swap", 0.0)]), "False Holding it may swap");
}

#[test]
fn holding_is_told_when_it_lasts() {
    let any = assignment(&json!({}));
    for (limit, says) in [
        ("memory_pressure", "False Holding it stalls on memory"),
        ("io_pressure", "False Holding it stalls on I/O"),
        ("slow_touch", "False Holding it touches too much"),
        ("target_full", "False Holding the slow nodes have no room"),
        ("nothing_cold", "True Enforced"),
        ("floor", "True Enforced"),
    ] {
        check(&any, &snapshot([limited(limit, 59.0)]), "True Enforced");
        check(&any, &snapshot([limited(limit, 60.0)]), says);
    }
}

#[test]
fn a_policy_that_keeps_to_dram_is_enforced_without_a_target() {
    let on = |tiers| assignment(&json!({ "tiers": tiers }));
    check(&on(json!(["dram"])), &snapshot([limited("no_target", 90.0)]), "True Enforced");
    check(&on(json!([0])), &snapshot([limited("no_target", 90.0)]), "True Enforced");
    check(&on(json!(["dram", "slow"])), &snapshot([limited("no_target", 90.0)]), "False NoTarget");
}

#[test]
fn a_container_apart_is_named() {
    let mut container = CgroupView { pinned: true, path: "/kubepods/poda/c".to_owned(), ..view() };
    container.pod.as_mut().unwrap().container = Some("app".to_owned());
    check(
        &assignment(&json!({})),
        &snapshot([view(), container]),
        "False MemoryPinned container app: another",
    );
}

#[test]
fn an_engine_that_the_policy_did_not_ask_for_is_named() {
    let asking = assignment(&json!({ "demote": { "engine": "Pages" } }));
    check(&asking, &snapshot([view()]), "True Enforced by engine lru-gen: the policy asks for pages");
    let same = assignment(&json!({ "demote": { "engine": "LruGen" } }));
    check(&same, &snapshot([view()]), "True Enforced");
}

#[test]
fn what_is_not_understood_says_what_is_done_instead() {
    let known = assignment(&json!({}));
    let policy = json!({ "name": "batch", "generation": 2, "spec": { "swapOut": true } });
    let pod =
        json!({ "uid": "a", "namespace": "shop", "name": "web", "policy": policy, "qosClass": "Burstable" });
    let object = json!({ "metadata": { "generation": 5 }, "spec": { "pods": [pod] } });
    let kept = Assignment::read(&object, &known);
    let fresh = Assignment::read(&object, &Assignment::default());
    for (assigned, ending) in
        [(kept, "what was assigned before is carried out"), (fresh, "the pod is left alone")]
    {
        let told = status(&snapshot([view()]), &assigned, 0, false, &NodeTieringStatus::default());
        let condition = shown(&told.pods[0].conditions, "Enforcing");
        assert!(condition.starts_with("False NotUnderstood") && condition.ends_with(ending), "{condition}");
        assert!(condition.contains("unknown field `swapOut`"), "{condition}");
    }
}

#[test]
fn ready_tells_of_an_api_server_that_is_or_was_away() {
    let assigned = assignment(&json!({}));
    let mut away = snapshot([view()]);
    away.cluster.as_mut().unwrap().api_server_up = false;
    let told = |snapshot, outage| {
        let facts = Facts { assignment: &assigned, snapshot, outage, with_usage: false, now: at(900) };
        shown(&facts.status(&NodeTieringStatus::default()).conditions, "Ready")
    };
    assert!(told(&away, None).starts_with("False LastKnown"));
    let back = told(&snapshot([view()]), Some((at(60), at(120))));
    assert!(back.starts_with("True Running the API server was away from 1970-01-01T00:01:00Z to"), "{back}");
    let flat = Snapshot { tiers: vec![tier("dram", 0)], ..snapshot([]) };
    let told = status(&flat, &assigned, 0, false, &NodeTieringStatus::default());
    assert!(shown(&told.conditions, "TiersAvailable").starts_with("False NoSlowTier"));
}
