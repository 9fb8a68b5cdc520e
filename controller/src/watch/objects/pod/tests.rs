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

/// A container of this request and limit; empty for none.
fn container(request: &str, limit: &str) -> serde_json::Value {
    let amount = |text: &str| if text.is_empty() { json!({}) } else { json!({ "memory": text }) };
    json!({ "name": "c", "resources": { "requests": amount(request), "limits": amount(limit) } })
}

fn sidecar(request: &str, limit: &str) -> serde_json::Value {
    let mut sidecar = container(request, limit);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

fn named(name: &str, mut container: serde_json::Value) -> serde_json::Value {
    container["name"] = json!(name);
    container
}

#[test]
fn a_pod_may_use_the_most_that_its_containers_may_at_a_time() {
    let check = |init: &[serde_json::Value], main: &[serde_json::Value], expected: Memory| {
        let number = |(n, container): (usize, &serde_json::Value)| named(&format!("c{n}"), container.clone());
        let init: Vec<_> = init.iter().enumerate().map(number).collect();
        let main: Vec<_> =
            main.iter().enumerate().map(|(n, container)| number((n + 64, container))).collect();
        let spec = json!({ "initContainers": init, "containers": main });
        let shown = spec.to_string();
        assert_eq!(pod(json!({ "metadata": {}, "spec": spec })).memory(), expected, "{shown}");
    };
    let app = || container("64Mi", "128Mi");
    check(&[], &[], memory(None, None));
    check(&[], &[container("", "")], memory(None, None));
    check(&[], &[app()], memory(Some(64), Some(128)));
    check(&[], &[app(), container("", "64Mi")], memory(Some(64), Some(192)));
    check(&[], &[app(), container("", "")], memory(Some(64), None));
    // To kubelet a limit of 0 is none.
    check(&[], &[container("64Mi", "0")], memory(Some(64), None));
    // What prepares the pod runs alone, and one after the other.
    check(&[container("256Mi", "512Mi")], &[app()], memory(Some(256), Some(512)));
    check(&[container("32Mi", "96Mi"), container("16Mi", "64Mi")], &[app()], memory(Some(64), Some(128)));
    check(&[container("32Mi", "")], &[app()], memory(Some(64), None));
    check(&[container("", "512Mi")], &[app()], memory(Some(64), Some(512)));
    // A sidecar runs beside the app, and beside what prepares the pod after it, but not beside what did so before.
    check(&[sidecar("64Mi", "64Mi")], &[app()], memory(Some(128), Some(192)));
    check(&[sidecar("64Mi", "64Mi"), container("256Mi", "512Mi")], &[app()], memory(Some(320), Some(576)));
    check(&[container("256Mi", "512Mi"), sidecar("64Mi", "64Mi")], &[app()], memory(Some(256), Some(512)));
    check(
        &[sidecar("64Mi", "64Mi"), container("8Mi", "8Mi"), sidecar("1Gi", "1Gi")],
        &[app()],
        memory(Some(1152), Some(1216)),
    );
    check(&[sidecar("64Mi", "")], &[app()], memory(Some(128), None));
}

#[test]
fn what_is_said_of_the_whole_pod_goes_before_its_containers_once_it_is_in_force() {
    let check = |spec: serde_json::Value, status: serde_json::Value, expected: Memory| {
        let shown = format!("{spec} {status}");
        assert_eq!(
            pod(json!({ "metadata": {}, "spec": spec, "status": status })).memory(),
            expected,
            "{shown}"
        );
    };
    let resources = |request: &str, limit: &str| container(request, limit)["resources"].clone();
    let whole = |request: &str, limit: &str| json!({ "containers": [container("64Mi", "")], "resources": resources(request, limit) });
    check(whole("", "1Gi"), json!({}), memory(Some(64), Some(1024)));
    check(whole("256Mi", "1Gi"), json!({}), memory(Some(256), Some(1024)));
    // A resize that the node has not followed, or never will.
    check(
        whole("256Mi", "2Gi"),
        json!({ "resources": resources("256Mi", "1Gi") }),
        memory(Some(256), Some(1024)),
    );
    check(
        whole("512Mi", "2Gi"),
        json!({ "resources": resources("512Mi", "2Gi") }),
        memory(Some(512), Some(2048)),
    );
    // Where nothing is said of the whole pod, a status of it has no meaning.
    check(
        json!({ "containers": [container("64Mi", "128Mi")] }),
        json!({ "resources": resources("", "1Gi") }),
        memory(Some(64), Some(128)),
    );
    // Of a container, too, it is what the node has put in force.
    let status = |request: &str, limit: &str| json!({ "containerStatuses": [{ "name": "c", "resources": resources(request, limit) }] });
    check(json!({ "containers": [container("64Mi", "128Mi")] }), status("32Mi", ""), memory(Some(32), None));
    check(
        json!({ "containers": [container("64Mi", "256Mi")] }),
        status("64Mi", "128Mi"),
        memory(Some(64), Some(128)),
    );
    // What the runtime itself needs comes on top, but makes no limit.
    let with_overhead = |mut spec: serde_json::Value| {
        spec["overhead"] = json!({ "memory": "120Mi", "cpu": "250m" });
        spec
    };
    check(
        with_overhead(json!({ "containers": [container("64Mi", "128Mi")] })),
        json!({}),
        memory(Some(184), Some(248)),
    );
    check(with_overhead(whole("256Mi", "1Gi")), json!({}), memory(Some(376), Some(1144)));
    check(with_overhead(json!({ "containers": [container("", "")] })), json!({}), memory(Some(120), None));
}

#[test]
fn a_container_may_use_no_more_than_its_pod() {
    let check = |own: Memory, pod: Memory, expected: Memory| assert_eq!(own.within(pod), expected);
    check(memory(None, None), memory(None, None), memory(None, None));
    check(memory(Some(64), None), memory(Some(256), Some(1024)), memory(Some(64), Some(1024)));
    check(memory(Some(64), Some(128)), memory(None, Some(1024)), memory(Some(64), Some(128)));
    check(memory(Some(64), Some(128)), memory(None, None), memory(Some(64), Some(128)));
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
