//! Kustomize's rendering is the chart's, document by document, for the values that each component stands for.

use std::collections::BTreeMap;

use manifest_tests::{helm_template, kustomize, root};
use serde_json::{Value, json};

/// Components of `deploy/components` and the values that do the same in the chart.
const COMPONENTS: [(&str, &str); 5] = [
    ("network-policy", "networkPolicy.enabled=true"),
    (
        "no-admission-policies",
        "admissionPolicies.warnOfAnnotations=false,admissionPolicies.ownNodeOnly=false,controller.slowTierLabel=false",
    ),
    ("no-default-policy", "controller.defaultPolicy="),
    (
        "prometheus",
        "monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true,\
         monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true",
    ),
    ("reclaim", "agent.mode=reclaim"),
];

/// Everything in `deploy/` that kustomize renders, components on the base.
pub(crate) fn directories() -> Vec<String> {
    let mut directories = vec!["deploy/base".to_owned(), "deploy/policies".to_owned()];
    directories.extend(COMPONENTS.iter().map(|(name, _)| on_base(name)));
    directories
}

/// A directory that puts the component on the base.
fn on_base(component: &str) -> String {
    let directory = format!("target/kustomize/{component}");
    std::fs::create_dir_all(root().join(&directory)).unwrap();
    let text = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../../deploy/base"],
        "components": [format!("../../../deploy/components/{component}")],
    });
    let file = root().join(&directory).join("kustomization.yaml");
    // Tests run at the same time and write the same: never a part of it.
    let beside = tempfile::NamedTempFile::new_in(root().join("target/kustomize")).unwrap();
    std::fs::write(beside.path(), text.to_string()).unwrap();
    beside.persist(file).unwrap();
    directory
}

/// What only one of the two can have: who manages an object, hooks, and the checksum that rolls pods.
fn normalised(documents: Vec<Value>) -> BTreeMap<(String, String), Value> {
    documents
        .into_iter()
        .map(|mut document| {
            // Data of the two ends, or does not, in an empty line.
            for text in document["data"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
                *text = text.as_str().unwrap().trim_end().into();
            }
            strip(&mut document);
            // Helm leaves definitions as they lie in crds/.
            if document["kind"] == "CustomResourceDefinition" {
                document["metadata"]["labels"] = Value::Null;
            }
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            ((word(&document["kind"]), word(&document["metadata"]["name"])), document)
        })
        .collect()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| {
                !key.starts_with("helm.sh/")
                    && key != "checksum/config"
                    && key != "app.kubernetes.io/managed-by"
            });
            object.values_mut().for_each(strip);
            object.retain(|key, value| {
                key != "annotations" || value.as_object().is_none_or(|map| !map.is_empty())
            });
        }
        Value::Array(array) => array.iter_mut().for_each(strip),
        // 1.0 and 1 are one number; kustomize writes the second for the first.
        Value::Number(number) => *value = number.as_f64().into(),
        _ => {}
    }
}

fn check(directory: &str, values: &str, wanted: impl Fn(&Value) -> bool) {
    let mut kustomize = normalised(kustomize(directory).unwrap());
    // Helm makes it, if at all, with --create-namespace.
    kustomize.retain(|(kind, _), _| kind != "Namespace");
    let arguments: &[&str] = if values.is_empty() { &[] } else { &["--set", values] };
    let helm: Vec<_> = helm_template(arguments).unwrap().into_iter().filter(wanted).collect();
    let helm = normalised(helm);
    assert_eq!(
        kustomize.keys().collect::<Vec<_>>(),
        helm.keys().collect::<Vec<_>>(),
        "objects of {directory} and of the chart with {values:?}"
    );
    for (key, document) in &helm {
        assert_eq!(&kustomize[key], document, "{key:?} of {directory} and of the chart with {values:?}");
    }
}

#[test]
fn the_base_is_the_chart_with_its_defaults() {
    check("deploy/base", "", |document| document["kind"] != "TieringPolicy");
}

#[test]
fn policies_are_those_of_the_chart() {
    check("deploy/policies", "", |document| document["kind"] == "TieringPolicy");
}

#[test]
fn each_component_is_the_chart_with_its_values() {
    for (component, values) in COMPONENTS {
        check(&on_base(component), values, |document| document["kind"] != "TieringPolicy");
    }
}

#[test]
fn every_component_is_compared() {
    let mut found: Vec<_> = std::fs::read_dir(root().join("deploy/components"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, COMPONENTS.map(|(name, _)| name));
}
