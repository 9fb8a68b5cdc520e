//! Which policy applies.

use expect_test::{Expect, expect};

use super::*;

/// A cluster where each thing that gives a policy gives one named after it.
fn cluster(pod: &objects::Pod, namespace_says: Value) -> Index {
    let mut index = index(Some("by-default"));
    index.apply_node(&node("n1"));
    index.apply_namespace(&namespace("a", namespace_says));
    for name in ["by-container", "by-pod", "by-namespace", "by-default"] {
        index.apply_policy(&policy(name, 1, json!({})));
    }
    let selecting = |app: &str, priority: i32| json!({ "priority": priority, "selector": { "pods": { "matchLabels": { "app": app } } } });
    index.apply_policy(&policy("by-selector-late", 1, selecting("web", 5)));
    index.apply_policy(&policy("by-selector", 1, selecting("web", 5)));
    index.apply_policy(&policy("by-selector-of-less", 1, selecting("web", 4)));
    index.apply_policy(&policy("a-policy-of-others", 1, selecting("db", 100)));
    let broken = json!({ "priority": 1000, "tiers": ["dram", "dram"], "selector": {} });
    index.apply_policy(&policy("broken", 1, broken));
    index.apply_pod(pod);
    index.take_changes();
    index
}

const POD: &str = "thermocline.io/policy";
const CONTAINER: &str = "container.thermocline.io/main";

fn check(annotations: &[(&str, &str)], namespace_says: Value, expected: Expect) {
    expected.assert_eq(&explain(&cluster(&pod("a/web", "n1", annotations), namespace_says)));
}

#[test]
fn the_first_that_says_anything_gives_the_policy() {
    let says = || json!({ POD: "by-namespace" });
    check(
        &[(CONTAINER, "by-container"), (POD, "by-pod")],
        says(),
        expect![[r"
            a/web: by-pod (annotation of the pod), main: by-container (annotation of the container)
        "]],
    );
    check(
        &[],
        says(),
        expect![[r"
        a/web: by-namespace (annotation of the namespace)
    "]],
    );
    check(
        &[],
        json!({}),
        expect![[r"
        a/web: by-selector (selector of the policy)
    "]],
    );
    let index = cluster(&pod("a/other", "n1", &[]), json!({}));
    expect![[r"
        a/other: by-default (default of the cluster)
    "]]
    .assert_eq(&explain(&index));
}

#[test]
fn whoever_opts_out_is_left_alone() {
    check(
        &[(POD, "none")],
        json!({ POD: "by-namespace" }),
        expect![[r"
        a/web: - (opted out by annotation of the pod)
    "]],
    );
    check(
        &[(POD, "")],
        json!({}),
        expect![[r"
        a/web: - (opted out by annotation of the pod)
    "]],
    );
    check(
        &[],
        json!({ POD: "none" }),
        expect![[r"
        a/web: - (opted out by annotation of the namespace)
    "]],
    );
    check(
        &[(POD, "by-pod")],
        json!({ POD: "none" }),
        expect![[r"
        a/web: by-pod (annotation of the pod)
    "]],
    );
    check(
        &[(POD, "none"), (CONTAINER, "by-container")],
        json!({}),
        expect![[r"
        a/web: - (opted out by annotation of the pod), main: by-container (annotation of the container)
    "]],
    );
    check(
        &[(CONTAINER, "none")],
        json!({}),
        expect![[r"
        a/web: by-selector (selector of the policy), main: - (opted out by annotation of the container)
    "]],
    );
}

#[test]
fn what_names_no_usable_policy_is_held() {
    check(
        &[(POD, "by-pdo"), (CONTAINER, "broken")],
        json!({ POD: "broken" }),
        expect![[r"
        a/web: - (annotation of the pod names by-pdo, of which there is no usable policy: it keeps what it had, or is observed), main: - (annotation of the container names broken, of which there is no usable policy: it keeps what it had, or is observed)
          annotation thermocline.io/policy: there is no TieringPolicy `by-pdo` that can be read: `kubectl get tpol` lists those that there are
          annotation container.thermocline.io/main: TieringPolicy `broken` is rejected: `kubectl get tpol broken -o yaml` says why
    "]],
    );
    check(
        &[("container.thermocline.io/mian", "by-container")],
        json!({}),
        expect![[r"
        a/web: by-selector (selector of the policy)
          annotation container.thermocline.io/mian: the pod has no container `mian`
    "]],
    );
}

#[test]
fn overrides_hold_where_the_policy_allows_them() {
    let mut index = cluster(
        &pod(
            "a/web",
            "n1",
            &[(POD, "open"), ("thermocline.io/mode", "Observe"), ("thermocline.io/dram-floor", "1Gi")],
        ),
        json!({}),
    );
    index.apply_policy(&policy("open", 1, json!({ "allowOverrides": ["mode"] })));
    index.take_changes();
    expect![[r"
        a/web: open (annotation of the pod)
          annotation thermocline.io/dram-floor: policy open does not allow this override; its allowOverrides would have to list floor
    "]].assert_eq(&explain(&index));
    let policy = index.explain("a", "web").unwrap().policy.unwrap();
    assert_eq!(policy.spec.mode, Some(api::ModeSpec::Observe));
    assert_eq!(policy.spec.dram.floor, None);
}

#[test]
fn what_must_not_be_slowed_is_managed_only_by_its_own_annotation() {
    let check = |change: &dyn Fn(&mut Value), annotations: Value, expected: Expect| {
        let mut pod = json!({
            "metadata": { "namespace": "a", "name": "web", "labels": { "app": "web" }, "annotations": annotations },
            "spec": { "nodeName": "n1", "containers": [{ "name": "main" }] }, "status": {},
        });
        change(&mut pod);
        let pod = serde_json::from_value(pod).unwrap();
        expected.assert_eq(&explain(&cluster(&pod, json!({ POD: "by-namespace" }))));
    };
    let critical = |pod: &mut Value| pod["spec"]["priorityClassName"] = json!("system-node-critical");
    let mirror = |pod: &mut Value| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
    check(
        &critical,
        json!({}),
        expect![[r"
        a/web: - (critical pod)
    "]],
    );
    check(
        &critical,
        json!({ POD: "by-pod" }),
        expect![[r"
        a/web: by-pod (annotation of the pod)
    "]],
    );
    check(
        &critical,
        json!({ CONTAINER: "by-container" }),
        expect![[r"
        a/web: - (critical pod), main: by-container (annotation of the container)
    "]],
    );
    check(
        &mirror,
        json!({}),
        expect![[r"
        a/web: - (mirror of a static pod)
    "]],
    );
    check(
        &mirror,
        json!({ POD: "by-pod" }),
        expect![[r"
        a/web: by-pod (annotation of the pod)
    "]],
    );
    check(
        &|pod| pod["status"]["phase"] = json!("Succeeded"),
        json!({ POD: "by-pod" }),
        expect![[r"
        a/web: - (finished)
    "]],
    );
    check(
        &|pod| pod["spec"]["nodeName"] = Value::Null,
        json!({ POD: "by-pod" }),
        expect![[r"
        a/web: - (on no node yet)
    "]],
    );
}

#[test]
fn nothing_said_is_no_policy() {
    let mut index = index(Some("absent"));
    index.apply_pod(&pod("a/web", "n1", &[]));
    index.take_changes();
    assert_eq!(explain(&index), "a/web: - (no policy applies)\n");
}

#[test]
fn selectors_of_namespaces_see_the_labels_of_namespaces() {
    let mut index = Index::new(None);
    let spec = |label: &str| json!({ "selector": { "namespaces": { "matchLabels": { "kubernetes.io/metadata.name": label } } } });
    index.apply_policy(&policy("of-a", 1, spec("a")));
    index.apply_policy(&policy("everywhere", 1, json!({ "selector": {}, "priority": -1 })));
    index.apply_pod(&pod("a/web", "n1", &[]));
    index.apply_pod(&pod("b/web", "n1", &[]));
    index.take_changes();
    assert_eq!(
        explain(&index),
        "a/web: - (its namespace is not known yet: it keeps what it had)\nb/web: - (its namespace is not known yet: it keeps what it had)\n"
    );
    index.apply_namespace(&namespace("a", json!({})));
    index.apply_namespace(&namespace("b", json!({})));
    index.take_changes();
    assert_eq!(
        explain(&index),
        "a/web: of-a (selector of the policy)\nb/web: everywhere (selector of the policy)\n"
    );
}
