use serde_json::json;

use super::*;

fn pod(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn memory(request: Option<u64>, limit: Option<u64>) -> Memory {
    Memory { request: request.map(Bytes::mib), limit: limit.map(Bytes::mib) }
}

#[test]
fn of_annotations_only_ours_are_kept() {
    let pod = pod(json!({ "metadata": {
        "name": "web",
        "labels": { "app": "web" },
        "annotations": {
            "thermocline.io/policy": "batch",
            "container.thermocline.io/db": "none",
            "containers.Thermocline.io/db": "none",
            "kubectl.kubernetes.io/last-applied-configuration": "long",
        },
        "managedFields": [{ "manager": "kubelet" }],
    } }));
    assert_eq!(
        pod.annotations().collect::<Vec<_>>(),
        [
            ("container.thermocline.io/db", "none"),
            ("containers.Thermocline.io/db", "none"),
            ("thermocline.io/policy", "batch"),
        ]
    );
    assert_eq!(pod.metadata.annotations.map(|annotations| annotations.len()), Some(3));
    assert_eq!(pod.metadata.managed_fields, None);
}

#[test]
fn what_is_too_long_for_a_value_is_kept_in_part_and_is_none() {
    let long = |start: &str| format!("{start}{}", " ".repeat(10_000));
    let pod = pod(json!({ "metadata": { "annotations": {
        "thermocline.io/policy": long("batch"), "thermocline.io/mode": long("Observe"), "thermocline.io/tiers": long("dram"),
        "thermocline.io/dram-floor": long("1Gi"), "thermocline.io/memory-high": "ü".repeat(1000),
        "container.thermocline.io/db": long(""),
    } } }));
    assert!(pod.annotations().all(|(_, value)| value.len() <= 1024 + '…'.len_utf8()));
    let requests = annotations::Requests::parse(pod.annotations());
    assert!(requests.overrides.is_empty(), "{requests:?}");
    assert_eq!(requests.problems.len(), 4, "{requests:?}");
    let named = |choice: &annotations::PolicyChoice| matches!(choice, annotations::PolicyChoice::Named(name) if name.ends_with('…'));
    assert!(
        requests.policy.as_ref().is_some_and(named) && requests.containers.values().all(named),
        "{requests:?}"
    );
}

#[test]
fn the_cgroup_of_a_mirror_pod_is_named_after_the_static_pod() {
    let of = |annotations| {
        pod(json!({ "metadata": { "uid": "api-uid", "annotations": annotations } })).cgroup_uid().to_owned()
    };
    assert_eq!(of(json!({})), "api-uid");
    assert_eq!(of(json!({ "kubernetes.io/config.hash": "h" })), "api-uid");
    assert_eq!(of(json!({ "kubernetes.io/config.hash": "h", "kubernetes.io/config.mirror": "h" })), "h");
    // Anybody may write it; the whole node's assignment would be refused for it.
    assert_eq!(
        of(json!({ "kubernetes.io/config.hash": "../h", "kubernetes.io/config.mirror": "h" })),
        "api-uid"
    );
    assert_eq!(of(json!({ "kubernetes.io/config.hash": "", "kubernetes.io/config.mirror": "h" })), "api-uid");
}

#[test]
fn critical_is_what_kubernetes_calls_so() {
    let check =
        |spec, critical| assert_eq!(pod(json!({ "metadata": {}, "spec": spec })).is_critical(), critical);
    check(json!({}), false);
    check(json!({ "priority": 1_000_000_000 }), false);
    check(json!({ "priority": 2_000_000_000 }), true);
    check(json!({ "priorityClassName": "system-node-critical" }), true);
    check(json!({ "priorityClassName": "system-cluster-critical" }), true);
}

#[test]
fn a_pod_may_use_what_its_containers_may_together() {
    let check = |spec: serde_json::Value, status: serde_json::Value, expected: Memory| {
        let shown = spec.to_string();
        assert_eq!(
            pod(json!({ "metadata": {}, "spec": spec, "status": status })).memory(),
            expected,
            "{shown}"
        );
    };
    let container = |name: &str, request: &str, limit: &str| {
        let amount = |text: &str| if text.is_empty() { json!({}) } else { json!({ "memory": text }) };
        json!({ "name": name, "resources": { "requests": amount(request), "limits": amount(limit) } })
    };
    let nothing = || json!({});
    check(nothing(), nothing(), memory(None, None));
    check(json!({ "containers": [container("a", "64Mi", "128Mi")] }), nothing(), memory(Some(64), Some(128)));
    let two = |limit| json!({ "containers": [container("a", "64Mi", "128Mi"), container("b", "", limit)] });
    check(two("64Mi"), nothing(), memory(Some(64), Some(192)));
    check(two(""), nothing(), memory(Some(64), None));
    // A container that only prepares the pod does not add to those after it; a sidecar does.
    let mut prepared = json!({ "containers": [container("a", "64Mi", "128Mi")], "initContainers": [container("i", "1Gi", "")] });
    check(prepared.clone(), nothing(), memory(Some(64), Some(128)));
    prepared["initContainers"][0]["restartPolicy"] = json!("Always");
    check(prepared, nothing(), memory(Some(1088), None));
    // What is said of the whole pod goes before the sum.
    let whole =
        json!({ "containers": [container("a", "64Mi", "")], "resources": { "limits": { "memory": "1Gi" } } });
    check(whole, nothing(), memory(Some(64), Some(1024)));
    // In-place resize: what the node has put in force.
    let resized =
        json!({ "containerStatuses": [{ "name": "a", "resources": { "requests": { "memory": "32Mi" } } }] });
    check(json!({ "containers": [container("a", "64Mi", "128Mi")] }), resized, memory(Some(32), None));
}

#[test]
fn amounts_are_whole_bytes() {
    assert_eq!(bytes("1500m"), Some(Bytes(2)));
    assert_eq!(bytes("128Mi"), Some(Bytes::mib(128)));
    assert_eq!(bytes("1e9"), Some(Bytes(1_000_000_000)));
    assert_eq!(bytes("much"), None);
}

#[test]
fn containers_are_known_by_id_without_the_runtime() {
    let pod = pod(json!({
        "metadata": {},
        "spec": { "containers": [{ "name": "a" }, { "name": "b" }], "initContainers": [{ "name": "i" }] },
        "status": { "containerStatuses": [{ "name": "a", "containerID": "containerd://abc" }, { "name": "b", "containerID": "" }] },
    }));
    let ids: Vec<_> = pod.containers().map(|container| (container.name, container.id)).collect();
    assert_eq!(ids, [("i", None), ("a", Some("abc")), ("b", None)]);
}
