//! What holds for any history.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Pod {
        key: &'static str,
        node: &'static str,
        annotations: Vec<(&'static str, &'static str)>,
        finished: bool,
        mirror: bool,
    },
    NoPod(&'static str),
    Namespace {
        name: &'static str,
        policy: Option<&'static str>,
    },
    NoNamespace(&'static str),
    Policy {
        name: &'static str,
        priority: i32,
        selects: Option<&'static str>,
        sensible: bool,
    },
    NoPolicy(&'static str),
    Node {
        name: &'static str,
        memory: u64,
    },
    NoNode(&'static str),
    /// The caller takes what changed, as it may at any time.
    Take,
}

const KEYS: [&str; 4] = [
    "thermocline.io/policy",
    "thermocline.io/mode",
    "container.thermocline.io/main",
    "container.thermocline.io/gone",
];
const PODS: [&str; 4] = ["a/web", "a/db", "b/web", "b/job"];
const POLICIES: [&str; 4] = ["p", "q", "r", "none"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let annotation = || (select(&KEYS[..]), select(&["p", "q", "none", "Observe", "x"][..]));
    let nodes = || select(&["n1", "n2", ""][..]);
    let pod = (
        select(&PODS[..]),
        nodes(),
        prop::collection::vec(annotation(), 0..3),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(key, node, annotations, finished, mirror)| Step::Pod {
            key,
            node,
            annotations,
            finished,
            mirror,
        });
    let policy = (
        select(&POLICIES[..]),
        -1..2,
        prop::option::of(select(&["web", "db"][..])),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(name, priority, selects, sensible)| Step::Policy {
            name,
            priority,
            selects,
            sensible,
        });
    let step = prop_oneof![
        6 => pod,
        2 => select(&PODS[..]).prop_map(Step::NoPod),
        2 => (select(&["a", "b"][..]), prop::option::of(select(&POLICIES[..])))
            .prop_map(|(name, policy)| Step::Namespace { name, policy }),
        1 => select(&["a", "b"][..]).prop_map(Step::NoNamespace),
        4 => policy,
        1 => select(&POLICIES[..]).prop_map(Step::NoPolicy),
        2 => (select(&["n1", "n2"][..]), 1_u64..3).prop_map(|(name, memory)| Step::Node { name, memory }),
        1 => select(&["n1", "n2"][..]).prop_map(Step::NoNode),
        2 => Just(Step::Take),
    ];
    prop::collection::vec(step, 0..40)
}

fn perform(index: &mut Index, step: &Step) {
    match step {
        Step::Pod { key, node, annotations, finished, mirror } => {
            let mut pod =
                serde_json::to_value(PodText { key, node, annotations, finished: *finished }.json()).unwrap();
            if *mirror {
                pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
            }
            pod["spec"]["nodeName"] = json!(node);
            index.apply_pod(&serde_json::from_value(pod).unwrap());
        }
        Step::NoPod(key) => {
            let (namespace, name) = key.split_once('/').unwrap();
            index.delete_pod(namespace, name);
        }
        Step::Namespace { name, policy } => {
            let annotations = policy.map_or(json!({}), |policy| json!({ "thermocline.io/policy": policy }));
            index.apply_namespace(&namespace(name, annotations));
        }
        Step::NoNamespace(name) => index.delete_namespace(name),
        Step::Policy { name, priority, selects, sensible } => {
            let selector = selects.map(|app| json!({ "pods": { "matchLabels": { "app": app } } }));
            let weight = if *sensible { 100 } else { 0 };
            let spec = json!({ "priority": priority, "selector": selector, "dram": { "weight": weight }, "allowOverrides": ["mode"] });
            index.apply_policy(&policy(name, 1, spec));
        }
        Step::NoPolicy(name) => index.delete_policy(name),
        Step::Node { name, memory } => {
            let mut node = json!({ "metadata": { "name": name, "uid": name } });
            node["status"]["allocatable"]["memory"] = json!(format!("{memory}Gi"));
            index.apply_node(&serde_json::from_value(node).unwrap());
        }
        Step::NoNode(name) => index.delete_node(name),
        Step::Take => drop(index.take_changes()),
    }
}

struct PodText<'a> {
    key: &'a str,
    node: &'a str,
    annotations: &'a [(&'a str, &'a str)],
    finished: bool,
}

impl PodText<'_> {
    fn json(&self) -> Value {
        let (namespace, name) = self.key.split_once('/').unwrap();
        let annotations: BTreeMap<_, _> = self.annotations.iter().copied().collect();
        json!({
            "metadata": { "namespace": namespace, "name": name, "uid": name, "annotations": annotations, "labels": { "app": name } },
            "spec": { "nodeName": self.node, "containers": [{ "name": "main" }] },
            "status": { "phase": if self.finished { "Succeeded" } else { "Running" } },
        })
    }
}

/// What a step is about; a later step about the same replaces it.
fn subject(step: &Step) -> Option<String> {
    Some(match step {
        Step::Pod { key, .. } | Step::NoPod(key) => format!("pod {key}"),
        Step::Namespace { name, .. } | Step::NoNamespace(name) => format!("namespace {name}"),
        Step::Policy { name, .. } | Step::NoPolicy(name) => format!("policy {name}"),
        Step::Node { name, .. } | Step::NoNode(name) => format!("node {name}"),
        Step::Take => return None,
    })
}

/// The last step about each subject; where that is a policy without sense, after the last that had some.
fn last(steps: &[Step]) -> Vec<Step> {
    let mut by_subject: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for step in steps {
        let Some(subject) = subject(step) else { continue };
        let last = by_subject.entry(subject).or_default();
        last.retain(|before| {
            matches!(step, Step::Policy { sensible: false, .. })
                && matches!(before, Step::Policy { sensible: true, .. })
        });
        last.push(step.clone());
    }
    by_subject.into_values().flatten().collect()
}

/// A list does not say whether a policy is the same one as before: here each makes sense.
fn with_sense(mut steps: Vec<Step>) -> Vec<Step> {
    for step in &mut steps {
        if let Step::Policy { sensible, .. } = step {
            *sensible = true;
        }
    }
    steps
}

#[derive(Debug, PartialEq)]
struct Picture {
    assignments: BTreeMap<Name, Option<NodeTieringSpec>>,
    explained: String,
    matched: BTreeMap<Name, u32>,
    unmanaged: BTreeMap<Unmanaged, u32>,
    invalid: Vec<PodKey>,
}

fn picture(index: &mut Index) -> Picture {
    index.take_changes();
    Picture {
        assignments: index.nodes().map(|node| (Name::clone(node), index.assignment(node, &()))).collect(),
        explained: explain(index),
        matched: index.policies().map(|(name, _, _, matched)| (Name::clone(name), matched)).collect(),
        unmanaged: index
            .unmanaged()
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(why, count)| (*why, *count))
            .collect(),
        invalid: index.invalid_pods().collect(),
    }
}

fn after<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Index {
    let mut index = Index::new(Some("r"));
    steps.into_iter().for_each(|step| perform(&mut index, step));
    index
}

proptest! {
    #[test]
    fn any_order_of_the_same_changes_gives_the_same_assignments(steps in steps(), seed in any::<u64>()) {
        let mut shuffled = last(&steps);
        shuffled.sort_by_key(|step| {
            let mut hasher = DefaultHasher::new();
            (seed, subject(step)).hash(&mut hasher);
            hasher.finish()
        });
        prop_assert_eq!(picture(&mut after(&steps)), picture(&mut after(&shuffled)));
    }

    #[test]
    fn a_list_equals_the_changes_that_it_replaces(steps in steps().prop_map(with_sense), missed in steps().prop_map(with_sense)) {
        let mut index = after(&steps);
        let all: Vec<Step> = steps.iter().chain(&missed).cloned().collect();
        for kind in [IndexedKind::Pod, IndexedKind::Namespace, IndexedKind::Policy, IndexedKind::Node] {
            index.begin_list(kind);
        }
        let gone = |step: &Step| matches!(step, Step::NoPod(_) | Step::NoNamespace(_) | Step::NoPolicy(_) | Step::NoNode(_));
        last(&all).iter().filter(|step| !gone(step)).for_each(|step| perform(&mut index, step));
        for kind in [IndexedKind::Node, IndexedKind::Policy, IndexedKind::Namespace, IndexedKind::Pod] {
            end_list(&mut index, kind);
        }
        prop_assert_eq!(picture(&mut index), picture(&mut after(&all)));
    }

    #[test]
    fn a_changed_assignment_is_always_written(steps in steps()) {
        let mut index = Index::new(Some("r"));
        let mut assigned: BTreeMap<Name, NodeTieringSpec> = BTreeMap::new();
        for step in &steps {
            perform(&mut index, step);
            let Changes { nodes, annotated, .. } = index.take_changes();
            for node in nodes.into_iter().chain(annotated.into_values()) {
                match index.assignment(&node, &()) {
                    Some(assignment) => assigned.insert(node, assignment),
                    None => assigned.remove(&node),
                };
            }
            let actual: BTreeMap<_, _> =
                index.nodes().map(|node| (Name::clone(node), index.assignment(node, &()).unwrap())).collect();
            prop_assert_eq!(&assigned, &actual, "after {:?}", step);
        }
    }

    #[test]
    fn portions_of_any_size_come_to_what_one_look_comes_to(steps in steps(), size in 1..5_usize) {
        let mut index = Index::new(Some("r"));
        let mut assigned: BTreeMap<Name, NodeTieringSpec> = BTreeMap::new();
        let mut write = |index: &mut Index| {
            let Changes { nodes, annotated, .. } = index.take_some_changes(size);
            for node in nodes.into_iter().chain(annotated.into_values()) {
                index.resolve_node(&node);
                match index.assignment(&node, &()) {
                    Some(assignment) => assigned.insert(node, assignment),
                    None => assigned.remove(&node),
                };
            }
        };
        for step in steps.iter().filter(|step| !matches!(step, Step::Take)) {
            perform(&mut index, step);
            write(&mut index);
        }
        while index.has_more() {
            write(&mut index);
        }
        let actual: BTreeMap<_, _> =
            index.nodes().map(|node| (Name::clone(node), index.assignment(node, &()).unwrap())).collect();
        prop_assert_eq!(&assigned, &actual);
        prop_assert_eq!(picture(&mut index), picture(&mut after(&steps)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_annotations_give_a_defined_assignment(
        annotations in prop::collection::btree_map(
            prop_oneof![
                "thermocline\\.io/[a-z-]{0,12}",
                "container\\.thermocline\\.io/(main|side|\\PC{0,8})",
                select(api::annotations::Key::ALL.map(api::annotations::Key::as_str).to_vec()).prop_map(str::to_owned),
                "\\PC{0,20}",
            ],
            prop_oneof!["\\PC{0,24}", "(batch|none|[0-9]{1,20}(Mi|%|m|h)?|dram,slow|Observe|-1)"],
            0..8,
        ),
        many in prop_oneof![40 => Just(0), 1 => 60..80_usize],
        tiers in prop_oneof![3 => Just(0), 1 => 6..11_usize],
    ) {
        let mut index = two_nodes();
        let spec = json!({ "allowOverrides": ["mode", "tiers", "floor", "ceiling", "after", "memoryHigh"], "selector": {} });
        index.apply_policy(&policy("batch", 1, spec));
        let mut annotations = annotations;
        annotations.extend((0..many).map(|n| (format!("container.thermocline.io/c{n}"), "batch".to_owned())));
        if tiers > 0 {
            let ranks: Vec<String> = (0..tiers).map(|rank| rank.to_string()).collect();
            annotations.insert("thermocline.io/tiers".to_owned(), ranks.join(","));
        }
        let pairs: Vec<_> = annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut web = serde_json::to_value(PodText { key: "a/web", node: "n1", annotations: &pairs, finished: false }.json()).unwrap();
        web["spec"]["containers"] = ["main".to_owned(), "side".to_owned()].into_iter().chain((0..many).map(|n| format!("c{n}")))
            .map(|name| json!({ "name": name })).collect();
        index.apply_pod(&serde_json::from_value(web).unwrap());
        index.take_changes();
        let assignment = index.assignment("n1", &()).unwrap();
        for pod in &assignment.pods {
            prop_assert!(pod.containers.len() <= api::MOST_APART);
            let policies = pod.policy.iter().map(|key| (key, pod.memory));
            let own = pod.containers.iter().filter_map(|container| Some((container.policy.as_ref()?, container.memory)));
            for (key, memory) in policies.chain(own) {
                let policy = assignment.policy(Some(key)).unwrap();
                prop_assert!(policy.spec.to_policy(memory.inputs()).is_ok(), "{:?}", policy);
                prop_assert!(policy.spec.tiers.as_ref().is_none_or(|tiers| tiers.len() <= api::MOST_TIERS));
            }
        }
        // The pod beside it has what it had.
        prop_assert!(assignment.pods.iter().any(|pod| pod.name == "plain"));
        prop_assert!(index.explain("a", "web").is_some());
        let written = serde_json::to_string(&assignment).unwrap();
        prop_assert_eq!(serde_json::from_str::<NodeTieringSpec>(&written).unwrap(), assignment);
    }
}
