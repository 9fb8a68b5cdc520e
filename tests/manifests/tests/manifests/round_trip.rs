//! Every rendered document is what its type says: read into it and written again, nothing is lost. A misspelt or misplaced field is.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use manifest_tests::{helm_template, kustomize};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::chart::values_files;
use crate::distributions::{NodeFeatureRule, SecurityContextConstraints};
use crate::monitoring::{PodMonitor, PrometheusRule, ServiceMonitor};

fn through<T: DeserializeOwned + Serialize>(document: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(document.clone())?)
}

/// The document as its type has it.
fn typed(document: &Value) -> Result<Value, serde_json::Error> {
    let kind = (document["apiVersion"].as_str().unwrap(), document["kind"].as_str().unwrap());
    match kind {
        ("v1", "ConfigMap") => through::<ConfigMap>(document),
        ("v1", "Namespace") => through::<Namespace>(document),
        ("v1", "Pod") => through::<Pod>(document),
        ("v1", "ResourceQuota") => through::<ResourceQuota>(document),
        ("v1", "Service") => through::<Service>(document),
        ("v1", "ServiceAccount") => through::<ServiceAccount>(document),
        ("apps/v1", "DaemonSet") => through::<DaemonSet>(document),
        ("apps/v1", "Deployment") => through::<Deployment>(document),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(document),
        ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(document),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(document),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<ClusterRoleBinding>(document),
        ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(document),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(document),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            through::<ValidatingAdmissionPolicy>(document)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            through::<ValidatingAdmissionPolicyBinding>(document)
        }
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            through::<CustomResourceDefinition>(document)
        }
        ("thermocline.io/v1alpha1", "TieringPolicy") => through::<api::TieringPolicy>(document),
        ("nfd.k8s-sigs.io/v1alpha1", "NodeFeatureRule") => through::<NodeFeatureRule>(document),
        ("security.openshift.io/v1", "SecurityContextConstraints") => {
            through::<SecurityContextConstraints>(document)
        }
        ("monitoring.coreos.com/v1", "PodMonitor") => through::<PodMonitor>(document),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => through::<ServiceMonitor>(document),
        ("monitoring.coreos.com/v1", "PrometheusRule") => through::<PrometheusRule>(document),
        other => panic!("{other:?} has no type here: add it"),
    }
}

/// Where `document` has something that `typed` has not, as a path. A type may add what is not there: defaults.
fn lost(document: &Value, typed: &Value, path: &str) -> Vec<String> {
    match (document, typed) {
        (Value::Object(document), Value::Object(typed)) => document
            .iter()
            .flat_map(|(key, value)| {
                lost(value, typed.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"))
            })
            .collect(),
        (Value::Array(document), Value::Array(typed)) if document.len() == typed.len() => document
            .iter()
            .zip(typed)
            .enumerate()
            .flat_map(|(i, (document, typed))| lost(document, typed, &format!("{path}[{i}]")))
            .collect(),
        // What is empty may be left out, and a whole number may be written as one.
        (Value::Object(document), Value::Null) if document.is_empty() => Vec::new(),
        (Value::Array(document), Value::Null) if document.is_empty() => Vec::new(),
        (Value::Number(document), Value::Number(typed)) if document.as_f64() == typed.as_f64() => Vec::new(),
        (document, typed) if document == typed => Vec::new(),
        (document, typed) => vec![format!("{path}: {document} became {typed}")],
    }
}

pub(crate) fn check(documents: &[Value], source: &str) {
    for document in documents {
        let name = format!("{} {} of {source}", document["kind"], document["metadata"]["name"]);
        let typed = typed(document).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lost = lost(document, &typed, "");
        assert!(lost.is_empty(), "{name}:\n{}", lost.join("\n"));
    }
}

#[test]
fn every_document_of_the_chart_is_what_its_type_says() {
    for values in values_files() {
        check(&helm_template(&["--values", &values]).unwrap(), &values);
    }
}

#[test]
fn every_document_of_kustomize_is_what_its_type_says() {
    for directory in crate::kustomize::directories() {
        check(&kustomize(&directory).unwrap(), &directory);
    }
}

#[test]
fn the_pod_that_restores_a_node_is_what_its_type_says() {
    check(&[crate::chart::restorer()], "deploy/restore");
}

#[test]
fn a_misspelt_and_a_misplaced_field_are_found() {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "x", "labls": { "a": "b" } },
        "hostPID": true,
    });
    let typed = typed(&document).unwrap();
    assert_eq!(
        lost(&document, &typed, ""),
        [".hostPID: true became null", r#".metadata.labls: {"a":"b"} became null"#]
    );
}

#[test]
fn every_policy_of_the_chart_is_one_to_the_agent_and_its_example_in_the_documentation() {
    let page = std::fs::read_to_string(manifest_tests::root().join("docs/policies-by-example.md")).unwrap();
    let policies: Vec<_> = helm_template(&[])
        .unwrap()
        .into_iter()
        .filter(|document| document["kind"] == "TieringPolicy")
        .collect();
    assert_eq!(policies.len(), 4);
    for policy in policies {
        let policy: api::TieringPolicy = serde_json::from_value(policy).unwrap();
        policy.spec.to_policy(None).unwrap();
        let name = policy.metadata.name.unwrap();
        assert!(page.contains(&format!("metadata: {{ name: {name} }}")), "{name} has no example");
    }
}
