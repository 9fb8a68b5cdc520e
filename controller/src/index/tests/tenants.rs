//! What tenants can and can't do to each other: who may have a policy, who can't leave one, and how much DRAM they keep.

use expect_test::{Expect, expect};

use super::*;

const POD: &str = "thermocline.io/policy";
const CONTAINER: &str = "container.thermocline.io/main";
const FLOOR: &str = "thermocline.io/dram-floor";
const QUOTA: &str = "thermocline.io/dram-floor-quota";

/// A platform's policies: `platform` is enforced on namespace `a`, `gold` is for `b` alone, `floors` lets pods say their floor.
fn cluster() -> Index {
    let mut index = index(Some("by-default"));
    index.apply_node(&node("n1"));
    let of = |namespace: &str| json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    index.apply_policy(&policy("by-default", 1, json!({})));
    index.apply_policy(&policy("other", 1, json!({})));
    index.apply_policy(&policy(
        "gold",
        1,
        json!({ "allowedNamespaces": of("b"), "dram": { "floor": "50%" } }),
    ));
    index.apply_policy(&policy("floors", 1, json!({ "allowOverrides": ["floor"] })));
    let platform = json!({
        "enforced": true, "selector": { "namespaces": of("a"), "pods": { "matchExpressions": [
            { "key": "app", "operator": "NotIn", "values": ["free"] },
        ] } },
        "allowOverrides": ["after"], "overrideBounds": { "after": { "max": "5m" } },
    });
    index.apply_policy(&policy("platform", 1, platform));
    index.take_changes();
    index
}

fn check(key: &str, annotations: &[(&str, &str)], namespace_says: Value, expected: Expect) {
    let mut index = cluster();
    let (of, _) = key.split_once('/').unwrap();
    index.apply_namespace(&namespace(of, namespace_says));
    index.apply_pod(&pod(key, "n1", annotations));
    index.take_changes();
    expected.assert_eq(&explain(&index));
}

#[test]
fn a_policy_that_is_enforced_can_not_be_left() {
    check(
        "a/web",
        &[(POD, "none"), (CONTAINER, "other")],
        json!({ POD: "none" }),
        expect![[r"
            a/web: platform (enforced)
              annotation thermocline.io/policy: TieringPolicy `platform` is enforced here: nothing else can be named, and nobody can opt out
              annotation container.thermocline.io/main: TieringPolicy `platform` is enforced here: nothing else can be named, and nobody can opt out
        "]],
    );
    check(
        "a/web",
        &[(POD, "platform")],
        json!({}),
        expect![[r"
            a/web: platform (enforced)
        "]],
    );
    check(
        "a/free",
        &[(POD, "other")],
        json!({}),
        expect![[r"
            a/free: other (annotation of the pod)
        "]],
    );
    // What is critical to whoever wrote it is not so to the platform.
    let mut index = cluster();
    let mut critical = json!({
        "metadata": { "namespace": "a", "name": "web", "uid": "u" },
        "spec": { "nodeName": "n1", "priorityClassName": "system-node-critical", "containers": [] },
    });
    index.apply_pod(&serde_json::from_value(critical.take()).unwrap());
    assert_eq!(explain(&index), "a/web: platform (enforced)\n");
}

#[test]
fn an_enforced_policy_is_overridden_within_its_bounds() {
    let after = |annotation: &str| {
        let mut index = cluster();
        index.apply_pod(&pod("a/web", "n1", &[("thermocline.io/demote-after", annotation)]));
        let found = index.explain("a", "web").unwrap();
        (found.policy.unwrap().spec.demote.after.map(|after| after.to_string()), found.problems.len())
    };
    assert_eq!(after("5m"), (Some("5m".to_owned()), 0));
    assert_eq!(after("6m"), (None, 1));
}

#[test]
fn a_policy_is_for_the_namespaces_that_it_allows() {
    check(
        "b/web",
        &[(POD, "gold")],
        json!({}),
        expect![[r"
            b/web: gold (annotation of the pod)
        "]],
    );
    check(
        "a/free",
        &[(POD, "gold"), (CONTAINER, "gold")],
        json!({}),
        expect![[r"
            a/free: - (annotation of the pod names gold, which is not for pods of this namespace: it is observed), main: - (annotation of the container names gold, which is not for pods of this namespace: it is observed)
              annotation thermocline.io/policy: TieringPolicy `gold` is not for pods of this namespace (allowedNamespaces): without another they are only observed
              annotation container.thermocline.io/main: TieringPolicy `gold` is not for pods of this namespace (allowedNamespaces): without another they are only observed
        "]],
    );
    check(
        "a/free",
        &[],
        json!({ POD: "gold" }),
        expect![[r"
            a/free: - (annotation of the namespace names gold, which is not for pods of this namespace: it is observed)
        "]],
    );
}

#[test]
fn whom_a_policy_is_taken_from_keeps_nothing_of_it() {
    let mut index = cluster();
    index.apply_pod(&pod("b/web", "n1", &[(POD, "gold")]));
    let assigned = index.assignment("n1", &()).unwrap();
    let floor = |spec: &NodeTieringSpec| {
        let policy = spec.policy(spec.pods[0].policy.as_ref()).unwrap();
        (policy.spec.mode, policy.spec.dram.floor.map(|floor| floor.to_string()))
    };
    assert_eq!(floor(&assigned), (None, Some("50%".to_owned())));
    let nobody = json!({ "matchLabels": { "kubernetes.io/metadata.name": "c" } });
    index.apply_policy(&policy(
        "gold",
        2,
        json!({ "allowedNamespaces": nobody, "dram": { "floor": "50%" } }),
    ));
    assert_eq!(changed(&mut index), "nodes n1; invalid b/web; policies gold");
    assert_eq!(floor(&index.assignment("n1", &()).unwrap()), (Some(api::ModeSpec::Observe), None));
    assert_eq!(index.held(), 0);
}

#[test]
fn neither_selectors_nor_the_default_reach_where_a_policy_is_not_allowed() {
    let mut index = cluster();
    let to_b = json!({ "matchLabels": { "kubernetes.io/metadata.name": "b" } });
    index.apply_policy(&policy("by-default", 2, json!({ "allowedNamespaces": to_b })));
    index.apply_policy(&policy("selecting", 1, json!({ "allowedNamespaces": to_b, "selector": {} })));
    index.apply_pod(&pod("a/free", "n1", &[]));
    index.apply_pod(&pod("b/web", "n1", &[]));
    index.take_changes();
    expect![[r"
        a/free: - (no policy applies)
        b/web: selecting (selector of the policy)
    "]]
    .assert_eq(&explain(&index));
}

/// A pod of namespace `b` with a floor, made at this second.
fn with_floor(index: &mut Index, name: &str, floor: &str, second: u8) {
    let mut pod = pod(&format!("b/{name}"), "n1", &[(POD, "floors"), (FLOOR, floor)]);
    let time = format!("2026-01-01T00:00:{second:02}Z");
    pod.metadata.creation_timestamp = Some(serde_json::from_value(json!(time)).unwrap());
    index.apply_pod(&pod);
}

/// Pods by the floor that they are assigned.
fn floors(index: &Index) -> String {
    let spec = index.assignment("n1", &()).unwrap();
    let floor = |pod: &api::PodAssignment| {
        let policy = spec.policy(pod.policy.as_ref()).unwrap();
        let floor = policy.spec.dram.floor.map_or("-".to_owned(), |floor| floor.to_string());
        format!("{} {floor}", pod.name)
    };
    spec.pods.iter().map(floor).collect::<Vec<_>>().join(", ")
}

#[test]
fn floors_of_a_namespace_sum_to_its_quota_at_most_and_the_oldest_come_first() {
    let mut index = cluster();
    index.apply_namespace(&namespace("b", json!({ QUOTA: "1Gi" })));
    with_floor(&mut index, "z-old", "512Mi", 1);
    with_floor(&mut index, "m", "512Mi", 2);
    index.take_changes();
    assert_eq!(floors(&index), "m 512Mi, z-old 512Mi");
    // A newer one takes nothing away, though it comes first by name.
    with_floor(&mut index, "a-new", "1Mi", 3);
    let denied = index.take_changes().denied;
    assert_eq!(denied, BTreeSet::from([("b".into(), "a-new".into())]));
    assert_eq!(floors(&index), "a-new -, m 512Mi, z-old 512Mi");
    let explained = index.explain("b", "a-new").unwrap();
    assert_eq!(explained.policy.unwrap().spec.dram.floor, None);
    assert!(
        explained.problems[0].contains("floors of namespace b may sum to 1Gi"),
        "{:?}",
        explained.problems
    );
    let used = |index: &Index| {
        index.floors().map(|(_, used)| (used.granted >> 20, used.denied_pods)).collect::<Vec<_>>()
    };
    assert_eq!(used(&index), [(1024, 1)]);
    assert_eq!(index.namespaces_without_floors_of("floors"), ["b".into()]);
    let problems = index.assignment("n1", &()).unwrap().problems;
    assert!(problems[0].message.starts_with("its floor of 1Mi in DRAM does not apply"), "{problems:?}");

    // What is given back is there for who waited, and its node is written.
    index.delete_pod("b", "m");
    let changes = index.take_changes();
    assert!(changes.denied.is_empty() && changes.nodes.contains("n1"));
    assert_eq!(floors(&index), "a-new 1Mi, z-old 512Mi");
    // Less is allowed: who is beyond it has none; nothing is said of the namespace twice.
    index.apply_namespace(&namespace("b", json!({ QUOTA: "100Mi" })));
    let changes = index.take_changes();
    assert_eq!(changes.denied, BTreeSet::from([("b".into(), "z-old".into())]));
    assert_eq!(floors(&index), "a-new 1Mi, z-old -");
    index.apply_namespace(&namespace("b", json!({})));
    index.take_changes();
    assert_eq!(floors(&index), "a-new 1Mi, z-old 512Mi");
    assert_eq!(used(&index), [(513, 0)]);
}

#[test]
fn a_floor_counts_as_the_most_that_it_can_be_and_only_where_it_is_enforced() {
    let mut index = cluster().with_floor_quota(Some(Bytes::mib(3 << 10)));
    let used = |index: &mut Index| {
        index.take_changes();
        index.floors().map(|(_, used)| used.granted >> 20).sum::<u64>()
    };
    // Of what the node can allocate, 4 GiB, for it has no limit.
    index.apply_pod(&pod("b/share", "n1", &[(POD, "gold")]));
    assert_eq!(used(&mut index), 2048);
    index.apply_pod(&pod("b/share", "n1", &[(POD, "floors"), (FLOOR, "8Gi")]));
    assert_eq!(used(&mut index), 0, "4 GiB are beyond the quota");
    let limited: objects::Pod = serde_json::from_value(json!({
        "metadata": { "namespace": "b", "name": "share", "uid": "u", "annotations": { POD: "floors", FLOOR: "8Gi" } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "main", "resources": { "limits": { "memory": "256Mi" } } }] },
    }))
    .unwrap();
    index.apply_pod(&limited);
    assert_eq!(used(&mut index), 256);
    index.apply_policy(&policy("floors", 2, json!({ "allowOverrides": ["floor"], "mode": "Observe" })));
    assert_eq!(used(&mut index), 0);
}

#[test]
fn floors_that_a_node_has_no_dram_for_are_warned_of_once() {
    let mut index = cluster();
    with_floor(&mut index, "one", "512Mi", 1);
    with_floor(&mut index, "two", "513Mi", 2);
    index.apply_dram("n1", Some(Bytes::mib(1025)));
    let changes = index.take_changes();
    assert!(changes.overcommitted.is_empty());
    assert_eq!(index.assignment("n1", &()).unwrap().overcommitted, None);
    index.apply_dram("n1", Some(Bytes::mib(1024)));
    let changes = index.take_changes();
    assert!(changes.overcommitted.contains("n1") && changes.nodes.contains("n1"));
    let by = index.assignment("n1", &()).unwrap().overcommitted.unwrap();
    assert_eq!((by.floors.to_string(), by.dram.to_string()), ("1025Mi".to_owned(), "1Gi".to_owned()));
    with_floor(&mut index, "three", "1Mi", 3);
    assert!(index.take_changes().overcommitted.is_empty(), "once");
    index.delete_pod("b", "two");
    index.take_changes();
    assert_eq!(index.overcommitted().count(), 0);
    assert_eq!(index.assignment("n1", &()).unwrap().overcommitted, None);
}

#[test]
fn before_its_namespace_is_known_a_pod_has_nothing_new() {
    let mut index = cluster();
    index.apply_pod(&pod("late/web", "n1", &[(POD, "gold")]));
    index.take_changes();
    assert_eq!(explain(&index), "late/web: - (its namespace is not known yet: it keeps what it had)\n");
    assert!(index.assignment("n1", &()).unwrap().pods.is_empty());
}

#[test]
fn what_only_annotations_changed_is_kept_apart() {
    let mut index = cluster();
    index.apply_pod(&pod("b/web", "n1", &[(POD, "other")]));
    let changes = index.take_changes();
    assert!(changes.nodes.contains("n1") && changes.annotated.is_empty(), "a new pod does not wait");
    index.apply_pod(&pod("b/web", "n1", &[(POD, "by-default")]));
    let changes = index.take_changes();
    assert_eq!(changes.annotated, BTreeMap::from([(("b".into(), "web".into()), "n1".into())]));
    assert!(changes.nodes.is_empty());
    index.apply_pod(&pod("b/web", "n1", &[(POD, "by-default"), ("thermocline.io/mode", "Observe")]));
    index.apply_pod(&pod("b/other", "n1", &[(POD, "other")]));
    let changes = index.take_changes();
    assert!(changes.nodes.contains("n1"), "what else changed does not wait");
}
