//! What the rendered chart gives.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::Value;

/// The rules of all roles that are bound to an account.
pub(crate) fn rules_of(chart: &[Value], account: &str) -> Result<Vec<PolicyRule>> {
    let mut rules = Vec::new();
    let binds = |document: &&Value| {
        let subjects = document["subjects"].as_array();
        subjects
            .into_iter()
            .flatten()
            .any(|subject| subject["kind"] == "ServiceAccount" && subject["name"] == account)
    };
    let bound: Vec<&Value> = chart.iter().filter(binds).map(|document| &document["roleRef"]).collect();
    let is_bound = |document: &&Value| {
        let name = &document["metadata"]["name"];
        bound.iter().any(|role| role["kind"] == document["kind"] && role["name"] == *name)
    };
    for document in chart.iter().filter(is_bound) {
        let document = document.clone();
        rules.extend(match document["kind"].as_str() {
            Some("ClusterRole") => serde_json::from_value::<ClusterRole>(document)?.rules.unwrap_or_default(),
            Some("Role") => serde_json::from_value::<Role>(document)?.rules.unwrap_or_default(),
            _ => Vec::new(),
        });
    }
    Ok(rules)
}

/// Each right of a rule by itself, as in `patch nodetierings.thermocline.io/status`.
///
/// # Errors
/// When a rule has wildcards, or is not of resources.
pub(crate) fn rights(rules: &[PolicyRule]) -> Result<BTreeSet<String>> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        let groups = rule.api_groups.as_ref().context("a rule of resources")?;
        for resource in rule.resources.iter().flatten() {
            for (group, verb) in
                groups.iter().flat_map(|group| rule.verbs.iter().map(move |verb| (group, verb)))
            {
                let right = right(verb, group, resource);
                anyhow::ensure!(!right.contains('*'), "a wildcard: {right}");
                rights.insert(right);
            }
        }
    }
    Ok(rights)
}

/// A right in words.
pub(crate) fn right(verb: &str, group: &str, resource: &str) -> String {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if subresource.is_empty() { "" } else { "/" };
    format!("{verb} {resource}{dot}{group}{slash}{subresource}")
}
