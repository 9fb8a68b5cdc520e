//! Which nodes a pod of the chart may be on, as the scheduler and the `DaemonSet` controller decide it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use serde_json::Value;

/// Labels of a node.
pub(crate) type Labels<'a> = BTreeMap<&'a str, &'a str>;

/// Labels of a usual node, and these.
pub(crate) fn node<'a>(labels: &[(&'a str, &'a str)]) -> Labels<'a> {
    let usual = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")];
    usual.into_iter().chain(labels.iter().copied()).collect()
}

/// Whether the selector and the required affinity of the pod, a workload's template, match. Taints are not looked at.
pub(crate) fn may_run(workload: &Value, node: &Labels<'_>) -> bool {
    let pod: PodSpec = serde_json::from_value(workload["spec"]["template"]["spec"].clone()).unwrap();
    let selected = pod
        .node_selector
        .unwrap_or_default()
        .iter()
        .all(|(key, value)| node.get(key.as_str()) == Some(&value.as_str()));
    let required = pod
        .affinity
        .and_then(|affinity| affinity.node_affinity)
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
    selected
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
}

fn matches(term: &NodeSelectorTerm, node: &Labels<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    // A term that says nothing matches nothing.
    assert!(!expressions.is_empty() || term.match_fields.is_some(), "an empty term");
    expressions.iter().all(|expression| holds(expression, node))
}

fn holds(expression: &NodeSelectorRequirement, node: &Labels<'_>) -> bool {
    let value = node.get(expression.key.as_str());
    let among = value.is_some_and(|value| expression.values.iter().flatten().any(|listed| listed == value));
    match expression.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        other => panic!("{other} is not known here"),
    }
}
