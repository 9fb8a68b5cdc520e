#![allow(clippy::needless_pass_by_value, reason = "tables read better with values")]

mod precedence;
mod properties;
mod tenants;

use std::fmt::Write as _;

use api::{NodeTieringSpec, TieringPolicy};
use expect_test::expect;
use serde_json::{Value, json};

use super::*;
use crate::watch::objects::IndexedKind;

fn pod(key: &str, node: &str, annotations: &[(&str, &str)]) -> objects::Pod {
    let (namespace, name) = key.split_once('/').unwrap();
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"), "annotations": annotations,
            "labels": { "app": name },
        },
        "spec": { "nodeName": node, "containers": [
            { "name": "main", "resources": { "requests": { "memory": "64Mi" } } }, { "name": "side" }
        ] },
        "status": { "qosClass": "Burstable", "containerStatuses": [{ "name": "main", "containerID": "containerd://c1" }] },
    }))
    .unwrap()
}

fn namespace(name: &str, annotations: Value) -> objects::Namespace {
    let labels = json!({ "kubernetes.io/metadata.name": name });
    serde_json::from_value(
        json!({ "metadata": { "name": name, "labels": labels, "annotations": annotations } }),
    )
    .unwrap()
}

fn policy(name: &str, generation: i64, spec: Value) -> TieringPolicy {
    let mut policy = TieringPolicy::new(name, serde_json::from_value(spec).unwrap());
    policy.metadata.generation = Some(generation);
    policy
}

fn node(name: &str) -> objects::Node {
    serde_json::from_value(json!({
        "metadata": { "name": name, "uid": format!("uid-{name}") }, "status": { "allocatable": { "memory": "4Gi" } },
    }))
    .unwrap()
}

/// One that knows the namespaces of the tests.
fn index(default: Option<&str>) -> Index {
    let mut index = Index::new(default);
    for name in ["a", "b", "kube-system"] {
        index.apply_namespace(&namespace(name, json!({})));
    }
    index
}

/// One line a pod: what it has and why; below it what does not apply.
fn explain(index: &Index) -> String {
    let mut text = String::new();
    for (namespace, name) in index.keys() {
        let found = index.explain(&namespace, &name).unwrap();
        let policy = |policy: &Option<api::ResolvedPolicy>| {
            policy.as_ref().map_or("-".to_owned(), |policy| policy.name.clone())
        };
        write!(text, "{namespace}/{name}: {} ({})", policy(&found.policy), found.reason).unwrap();
        for container in &found.containers {
            write!(text, ", {}: {} ({})", container.name, policy(&container.policy), container.reason)
                .unwrap();
        }
        text.push('\n');
        found.problems.iter().for_each(|problem| writeln!(text, "  {problem}").unwrap());
    }
    text
}

fn changed(index: &mut Index) -> String {
    let Changes { mut nodes, invalid, policies, annotated, .. } = index.take_changes();
    nodes.extend(annotated.into_values());
    let pods = invalid.iter().map(|(namespace, name)| format!("{namespace}/{name}"));
    format!(
        "nodes {}; invalid {}; policies {}",
        nodes.iter().map(|name| &**name).collect::<Vec<_>>().join(" "),
        pods.collect::<Vec<_>>().join(" "),
        policies.iter().map(|name| &**name).collect::<Vec<_>>().join(" "),
    )
}

fn two_nodes() -> Index {
    let mut index = index(None);
    index.apply_node(&node("n1"));
    index.apply_node(&node("n2"));
    index.apply_policy(&policy("batch", 1, json!({ "allowOverrides": ["mode"] })));
    index.apply_pod(&pod("a/web", "n1", &[("thermocline.io/policy", "batch")]));
    index.apply_pod(&pod("a/plain", "n1", &[]));
    index.apply_pod(&pod("b/db", "n2", &[("container.thermocline.io/main", "batch")]));
    index.take_changes();
    index
}

#[test]
fn an_assignment_has_what_the_agent_needs_and_no_more() {
    let mut index = two_nodes();
    let annotations = [
        ("thermocline.io/policy", "batch"),
        ("thermocline.io/mode", "Observe"),
        ("container.thermocline.io/main", "none"),
    ];
    index.apply_pod(&pod("a/web", "n1", &annotations));
    let assignment = index.assignment("n1", &()).unwrap();
    expect![[r#"
        {
          "policies": {
            "KEY": {
              "name": "batch",
              "spec": {
                "mode": "Observe"
              }
            }
          },
          "pods": [
            {
              "uid": "uid-web",
              "namespace": "a",
              "name": "web",
              "explicit": true,
              "policy": "KEY",
              "containers": [
                {
                  "name": "main",
                  "id": "c1",
                  "unmanaged": true
                }
              ]
            }
          ],
          "assignedPods": 1
        }"#]]
    .assert_eq(
        &serde_json::to_string_pretty(&assignment)
            .unwrap()
            .replace(assignment.policies.keys().next().unwrap(), "KEY"),
    );

    let spec = index.assignment("n2", &()).unwrap();
    let of_container = &spec.pods[0];
    assert_eq!((&of_container.policy, of_container.explicit), (&None, false));
    assert_eq!(spec.policy(of_container.containers[0].policy.as_ref()).unwrap().name, "batch");
    assert_eq!(index.assignment("n3", &()), None);
}

/// What two pods and a container were assigned before.
struct StoredTiering(api::ResolvedPolicy);

impl Before for StoredTiering {
    fn policy(&self, uid: &str, container: Option<&str>) -> Option<&api::ResolvedPolicy> {
        (uid == "uid-web" || container == Some("main")).then_some(&self.0)
    }
}

#[test]
fn what_names_no_usable_policy_keeps_what_it_had_or_is_observed_and_never_gets_another() {
    let mut index = index(Some("harsh"));
    index.apply_node(&node("n1"));
    index.apply_policy(&policy("harsh", 1, json!({ "selector": {}, "dram": { "ceiling": "10%" } })));
    index.apply_namespace(&namespace("b", json!({ "thermocline.io/policy": "gone" })));
    index.apply_pod(&pod("a/web", "n1", &[("thermocline.io/policy", "gone")]));
    index.apply_pod(&pod("a/late", "n1", &[("thermocline.io/policy", "gone")]));
    index.apply_pod(&pod(
        "a/part",
        "n1",
        &[("thermocline.io/policy", "none"), ("container.thermocline.io/main", "gone")],
    ));
    index.apply_pod(&pod("b/db", "n1", &[]));
    // Of a namespace that is not known nobody knows what it says.
    index.apply_pod(&pod("c/new", "n1", &[]));
    index.take_changes();
    let before = StoredTiering(api::ResolvedPolicy::new(
        "gone",
        serde_json::from_value(json!({ "tiers": ["dram"] })).unwrap(),
    ));
    let spec = index.assignment("n1", &before).unwrap();
    let assigned: Vec<String> = spec
        .pods
        .iter()
        .map(|pod| {
            let key = pod.policy.as_ref().or_else(|| pod.containers[0].policy.as_ref());
            let policy = spec.policy(key).unwrap();
            format!(
                "{}/{}: {} {:?} {:?}",
                pod.namespace,
                pod.name,
                policy.name,
                policy.spec.mode,
                policy.spec.tiers.is_some()
            )
        })
        .collect();
    assert_eq!(
        assigned,
        [
            "a/late: gone Some(Observe) false",
            "a/part: gone None true",
            "a/web: gone None true",
            "b/db: gone Some(Observe) false",
        ]
    );
    assert_eq!(index.held(), 5);
    assert_eq!(spec.problems.iter().map(|pod| &*pod.name).collect::<Vec<_>>(), ["late", "part", "web"]);
    // Once it is there, it applies.
    index.apply_policy(&policy("gone", 1, json!({})));
    index.apply_namespace(&namespace("c", json!({})));
    index.take_changes();
    let spec = index.assignment("n1", &before).unwrap();
    assert_eq!((index.held(), spec.pods.len(), spec.policies.len(), spec.problems.len()), (0, 5, 2, 0));
}

#[test]
fn of_a_policy_that_makes_no_sense_any_more_what_made_sense_stays() {
    let mut index = two_nodes();
    index.apply_policy(&policy("batch", 2, json!({ "tiers": ["dram", "dram"] })));
    index.apply_pod(&pod("a/late", "n1", &[("thermocline.io/policy", "batch")]));
    index.take_changes();
    assert!(index.policy("batch").unwrap().1.is_err());
    assert_eq!(
        explain(&index),
        "a/late: batch (annotation of the pod)\na/plain: - (no policy applies)\na/web: batch (annotation of the pod)\n\
         b/db: - (no policy applies), main: batch (annotation of the container)\n"
    );
    index.delete_policy("batch");
    index.apply_policy(&policy("batch", 1, json!({ "tiers": ["dram", "dram"] })));
    index.take_changes();
    assert_eq!(index.held(), 3, "of another policy of the name nothing made sense");
}

#[test]
fn a_formula_gets_the_memory_to_compute_with() {
    let mut index = two_nodes();
    let memory = |index: &Index| {
        let memory = index.assignment("n1", &()).unwrap().pods[0].memory;
        [memory.request, memory.limit]
            .map(|amount| amount.map(|amount| amount.to_string()).unwrap_or_default())
    };
    assert_eq!(memory(&index), ["", ""]);
    index.apply_policy(&policy("batch", 2, json!({ "memoryHigh": { "mode": "Formula" } })));
    index.take_changes();
    // Without a limit, it is what the node can give.
    assert_eq!(memory(&index), ["64Mi", "4Gi"]);
}

#[test]
fn only_what_changes_an_assignment_is_written() {
    let mut index = two_nodes();
    let mut check = |change: &dyn Fn(&mut Index), expected: &str| {
        change(&mut index);
        assert_eq!(changed(&mut index), expected);
    };
    let unchanged = "nodes ; invalid ; policies ";
    check(&|_| {}, unchanged);
    check(&|index| index.apply_pod(&pod("a/web", "n1", &[("thermocline.io/policy", "batch")])), unchanged);
    check(&|index| index.apply_pod(&pod("a/new", "n1", &[])), unchanged);
    check(&|index| index.apply_policy(&policy("batch", 1, json!({ "allowOverrides": ["mode"] }))), unchanged);
    check(&|index| index.apply_node(&node("n1")), unchanged);
    check(&|index| index.apply_namespace(&namespace("a", json!({}))), unchanged);
    check(&|index| index.delete_pod("a", "plain"), unchanged);
    check(
        &|index| index.apply_policy(&policy("batch", 2, json!({ "mode": "Observe" }))),
        "nodes n1 n2; invalid ; policies batch",
    );
    check(
        &|index| index.apply_namespace(&namespace("a", json!({ "thermocline.io/policy": "batch" }))),
        "nodes n1; invalid ; policies batch",
    );
    check(
        &|index| index.apply_pod(&pod("b/db", "n2", &[("container.thermocline.io/main", "btch")])),
        "nodes n2; invalid b/db; policies batch",
    );
    check(
        &|index| index.apply_pod(&pod("a/new", "n2", &[("thermocline.io/policy", "batch")])),
        "nodes n1 n2; invalid ; policies batch",
    );
    check(&|index| index.delete_pod("a", "web"), "nodes n1; invalid ; policies batch");
    check(&|index| index.delete_node("n2"), "nodes n2; invalid ; policies ");
    check(&|index| index.delete_policy("batch"), "nodes n2; invalid a/new; policies batch");
}

/// All of a kind have come.
fn end_list(index: &mut Index, kind: IndexedKind) {
    for (namespace, name) in index.missing(kind) {
        index.delete(kind, &namespace, &name);
    }
}

#[test]
fn what_a_list_does_not_have_is_gone() {
    let mut index = two_nodes();
    for kind in [IndexedKind::Pod, IndexedKind::Node, IndexedKind::Policy, IndexedKind::Namespace] {
        index.begin_list(kind);
    }
    index.apply_namespace(&namespace("a", json!({})));
    index.apply_pod(&pod("a/web", "n1", &[("thermocline.io/policy", "batch")]));
    index.apply_node(&node("n1"));
    index.apply_policy(&policy("batch", 1, json!({ "allowOverrides": ["mode"] })));
    assert_eq!(changed(&mut index), "nodes ; invalid ; policies ");
    for kind in [IndexedKind::Pod, IndexedKind::Node, IndexedKind::Policy, IndexedKind::Namespace] {
        end_list(&mut index, kind);
    }
    assert_eq!(changed(&mut index), "nodes n2; invalid ; policies batch");
    assert_eq!(explain(&index), "a/web: batch (annotation of the pod)\n");
    assert_eq!(index.nodes().map(|name| &**name).collect::<Vec<_>>(), ["n1"]);
}

#[test]
fn windows_has_no_agent() {
    let mut index = two_nodes();
    let mut windows = node("n1");
    windows.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
    index.apply_node(&windows);
    assert_eq!(changed(&mut index), "nodes n1; invalid ; policies ");
    assert_eq!(index.assignment("n1", &()), None);
}

#[test]
fn annotations_of_a_namespace_that_do_not_apply_are_problems_of_the_namespace() {
    let mut index = two_nodes();
    index.apply_namespace(&namespace(
        "a",
        json!({ "thermocline.io/policy": "btch", "thermocline.io/mode": "Observe" }),
    ));
    index.take_changes();
    let problems: Vec<String> = index.namespace_problems("a").iter().map(ToString::to_string).collect();
    expect![[r#"
        [
            "annotation thermocline.io/mode: it has no meaning on a namespace: only thermocline.io/policy and thermocline.io/dram-floor-quota have; annotate the pods",
            "annotation thermocline.io/policy: there is no TieringPolicy `btch` that can be read: `kubectl get tpol` lists those that there are",
        ]
    "#]]
    .assert_debug_eq(&problems);
    assert!(index.problems(&("a".into(), "plain".into())).is_empty());
}

#[test]
fn a_mirror_pod_cannot_claim_the_cgroup_of_another() {
    let mut index = two_nodes();
    let claiming = |key, uid| {
        let mirror = [
            ("thermocline.io/policy", "batch"),
            ("kubernetes.io/config.mirror", "x"),
            ("kubernetes.io/config.hash", uid),
        ];
        pod(key, "n1", &mirror)
    };
    index.apply_pod(&claiming("kube-system/static", "hash"));
    index.apply_pod(&claiming("b/forged", "uid-plain"));
    index.take_changes();
    let assigned = |index: &Index| {
        let pods = index.assignment("n1", &()).unwrap().pods.into_iter();
        pods.map(|pod| (pod.name, pod.uid)).collect::<Vec<_>>()
    };
    let named = |name: &str, uid: &str| (name.to_owned(), uid.to_owned());
    assert_eq!(assigned(&index), [named("web", "uid-web"), named("static", "hash")]);
    // Which of two is the static pod's own nobody knows.
    index.apply_pod(&claiming("b/forged", "hash"));
    index.take_changes();
    assert_eq!(assigned(&index), [named("web", "uid-web")]);
}

#[test]
fn a_node_is_assigned_no_more_than_its_object_can_hold() {
    let mut index = two_nodes();
    let name = |n: usize| format!("c{n:02}");
    let names = || (0..api::MOST_APART + 2).map(name);
    let annotations: BTreeMap<_, _> =
        names().map(|name| (format!("container.thermocline.io/{name}"), "batch")).collect();
    let containers: Vec<_> = names().map(|name| json!({ "name": name })).collect();
    let web = json!({
        "metadata": { "namespace": "a", "name": "web", "uid": "uid-web", "annotations": annotations },
        "spec": { "nodeName": "n1", "containers": containers },
    });
    index.apply_pod(&serde_json::from_value(web).unwrap());
    index.take_changes();
    let assigned = index.assignment("n1", &()).unwrap().pods.remove(0);
    assert_eq!((&*assigned.name, assigned.containers.len()), ("web", api::MOST_APART));
    let problems = index.problems(&("a".into(), "web".into()));
    expect![[r#"
        [
            "annotation container.thermocline.io/c64: at most 64 containers of a pod can have a policy of their own; name the policy of most of them by thermocline.io/policy",
            "annotation container.thermocline.io/c65: at most 64 containers of a pod can have a policy of their own; name the policy of most of them by thermocline.io/policy",
        ]
    "#]]
    .assert_debug_eq(&problems.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn a_default_that_no_pod_can_get_is_a_problem() {
    let mut index = index(Some("absent"));
    let problem =
        |index: &Index| index.problem_of_default().map(|cause| cause.to_string()).unwrap_or_default();
    assert!(problem(&index).starts_with("there is no TieringPolicy `absent`"), "{}", problem(&index));
    index.apply_policy(&policy("absent", 1, json!({ "tiers": ["dram", "dram"] })));
    assert!(problem(&index).starts_with("TieringPolicy `absent` is rejected"), "{}", problem(&index));
    index.apply_policy(&policy("absent", 2, json!({})));
    assert_eq!(problem(&index), "");
    assert_eq!(Index::new(None).problem_of_default(), None);
}

#[test]
fn a_policy_of_all_pods_is_resolved_in_portions_and_others_changes_are_told_meanwhile() {
    const PODS: usize = 300;
    let mut index = index(None);
    for n in 0..3 {
        index.apply_node(&node(&format!("n{n}")));
    }
    for n in 0..PODS {
        let namespace = ["a", "b"][n % 2];
        index.apply_pod(&pod(&format!("{namespace}/p{n}"), &format!("n{}", n % 2), &[]));
    }
    index.take_changes();
    index.apply_policy(&policy("all", 1, json!({ "selector": {} })));
    let mut told = Vec::new();
    for _ in 0..PODS / 100 {
        assert!(index.has_more());
        let mut changes = index.take_some_changes(100);
        told.extend(std::mem::take(&mut changes.nodes));
        // A pod that comes meanwhile has the new policy, and its node is told at once.
        let name = format!("b/late-{}", told.len());
        index.apply_pod(&pod(&name, "n2", &[]));
    }
    while index.has_more() {
        told.extend(index.take_some_changes(100).nodes);
    }
    let count = |name: &str| told.iter().filter(|node| &***node == name).count();
    assert_eq!((count("n0"), count("n1")), (1, 1), "each is told once, when all is known: {told:?}");
    assert!(count("n2") >= 2, "{told:?}");
    assert_eq!(index.policy("all").unwrap().2 as usize, PODS + 3);
}

/// Who changes its namespace all the time has only its own pods resolved, and others' turn comes.
#[test]
fn changes_without_end_hold_up_nobody_else() {
    let mut index = index(None);
    index.apply_node(&node("n1"));
    index.apply_policy(&policy("batch", 1, json!({})));
    for n in 0..50 {
        index.apply_pod(&pod(&format!("a/p{n}"), "n1", &[]));
    }
    index.apply_node(&node("n2"));
    index.apply_pod(&pod("b/web", "n2", &[]));
    index.take_changes();
    let flip = |index: &mut Index, n: usize| {
        let policy =
            if n.is_multiple_of(2) { json!({ "thermocline.io/policy": "batch" }) } else { json!({}) };
        index.apply_namespace(&namespace("a", policy));
    };
    flip(&mut index, 0);
    index.take_some_changes(10);
    index.apply_namespace(&namespace("b", json!({ "thermocline.io/policy": "batch" })));
    let told = (1..20).position(|n| {
        flip(&mut index, n);
        index.take_some_changes(10).nodes.contains("n2")
    });
    assert!(told.is_some_and(|turns| turns <= 10), "{told:?}");
}
