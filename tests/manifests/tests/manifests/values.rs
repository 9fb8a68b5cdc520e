//! The chart's values: each is explained where it is, and none goes in that is not known.

use manifest_tests::{helm_template, parse, root};
use serde_json::Value;

/// A value with its comment.
pub(crate) struct Documented {
    /// As `--set` takes it.
    pub(crate) path: String,
    /// As JSON.
    pub(crate) default: String,
    /// What stands above it.
    pub(crate) comment: String,
}

fn text() -> String {
    std::fs::read_to_string(root().join("charts/thermocline/values.yaml")).unwrap()
}

fn defaults() -> Value {
    parse(&text()).unwrap().remove(0)
}

/// Every commented value, in the file's order.
pub(crate) fn documented() -> Vec<Documented> {
    let defaults = defaults();
    let mut values = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    for line in text().lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(words) = content.strip_prefix("# ") {
            comment.push(words.to_owned());
        } else if let Some((key, _)) = content.split_once(':') {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            if !comment.is_empty() {
                let keys: Vec<_> = path.iter().map(|(_, key)| key.as_str()).collect();
                let value = defaults.pointer(&format!("/{}", keys.join("/"))).unwrap();
                let comment = std::mem::take(&mut comment).join(" ");
                values.push(Documented { path: keys.join("."), default: value.to_string(), comment });
            }
        } else {
            // The file's own heading ends at an empty line.
            comment.clear();
        }
    }
    values
}

/// Paths of all values that are no maps, or empty ones.
fn leaves(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, &path, into);
            }
        }
        _ => into.push(path.to_owned()),
    }
}

#[test]
fn every_value_is_explained_where_it_stands() {
    let documented = documented();
    let mut all = Vec::new();
    leaves(&defaults(), "", &mut all);
    assert!(all.len() > 60, "{all:?}");
    for leaf in all {
        let explained = documented
            .iter()
            .any(|value| leaf == value.path || leaf.starts_with(&format!("{}.", value.path)));
        assert!(explained, "{leaf} has no comment");
    }
}

/// Every object of the schema that a user fills in refuses what it does not know, or says what its values are.
#[test]
fn the_schema_is_strict_everywhere() {
    fn walk(schema: &Value, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            // What is global is everybody's: a chart around this one has values of its own there.
            assert!(schema["additionalProperties"] == false || path == ".global", "{path}");
            for (key, schema) in properties {
                walk(schema, &format!("{path}.{key}"));
            }
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() {
                walk(&schema[key], &format!("{path}.{key}"));
            }
        }
    }
    let text = std::fs::read(root().join("charts/thermocline/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&text).unwrap();
    walk(&schema, "");
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        walk(definition, name);
    }
    // What has a default has a schema.
    let mut all = Vec::new();
    leaves(&defaults(), "", &mut all);
    for leaf in all {
        let mut at = &schema;
        for key in leaf.split('.') {
            if at["type"] == "string" {
                // The rest of a key that has dots itself, such as a label's.
                break;
            }
            if let Some(name) = at["$ref"].as_str() {
                at = &schema["definitions"][name.rsplit('/').next().unwrap()];
            }
            let next = &at["properties"][key];
            at = if next.is_null() { &at["additionalProperties"] } else { next };
            assert!(at.is_object(), "{leaf} has no schema");
        }
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_place() {
    for (set, says) in [
        ("agnt.mode=full", "additional properties 'agnt' not allowed"),
        ("agent.moed=full", "at '/agent': additional properties 'moed' not allowed"),
        ("agent.mode=privileged", "at '/agent/mode'"),
        ("agent.config.interval=1h", "at '/agent/config/interval'"),
        ("agent.config.interval=99s", "at '/agent/config/interval'"),
        ("agent.config.interval=99ms", "at '/agent/config/interval'"),
        ("agent.config.tiers[0].name=dram,agent.config.tiers[0].nodes={0}", "at '/agent/config/tiers'"),
        ("agent.logLevel=warning", "at '/agent/logLevel'"),
        ("controller.logLevel=info\\,controller", "at '/controller/logLevel'"),
        (
            "agent.config.policies[0].name=x",
            "at '/agent/config': additional properties 'policies' not allowed",
        ),
        ("agent.port=70000", "at '/agent/port'"),
        (
            "agent.updateStrategy.rollingUpdate.maxUnavailable=0",
            "at '/agent/updateStrategy/rollingUpdate/maxUnavailable'",
        ),
        ("agent.updateStrategy.rollingUpdate.maxSurge=1", "additional properties 'maxSurge' not allowed"),
        ("agent.terminationGracePeriodSeconds=5", "at '/agent/terminationGracePeriodSeconds'"),
        ("agent.seccomp.profile=../../etc/shadow", "at '/agent/seccomp/profile'"),
        ("agent.resources.limits.memory=lots", "at '/agent/resources/limits/memory'"),
        ("controller.replicaCount=two", "at '/controller/replicaCount'"),
        ("controller.defaultPolicy=none", "at '/controller/defaultPolicy'"),
        ("controller.image.digest=latest", "at '/controller/image/digest'"),
        ("controller.extraArgs[0]=once", "at '/controller/extraArgs/0'"),
        ("monitoring.podMonitor.labels.release=1", "at '/monitoring/podMonitor/labels/release'"),
        ("image.registry=https://registry.example", "at '/image/registry'"),
        ("agent.pools[0].name=cxl", "at '/agent/pools/0': missing property 'nodeSelector'"),
        ("agent.pools[0].name=default,agent.pools[0].nodeSelector.a=b", "at '/agent/pools/0/name'"),
        (
            "agent.pools[0].name=x,agent.pools[0].nodeSelector.a=b,agent.pools[0].nodeSelector.c=d",
            "at '/agent/pools/0/nodeSelector'",
        ),
        (
            "agent.pools[0].name=x,agent.pools[0].nodeSelector.a=b,agent.pools[0].moed=full",
            "at '/agent/pools/0': additional properties 'moed' not allowed",
        ),
        ("networkPolicy.apiServerPorts[0]=0", "at '/networkPolicy/apiServerPorts/0'"),
        ("openshift.enabled=maybe", "at '/openshift/enabled'"),
    ] {
        let error = helm_template(&["--set", set]).expect_err(set).to_string();
        assert!(error.contains(says), "{set}: {error}");
    }
}

#[test]
fn what_the_agent_takes_is_not_refused() {
    for set in [
        "agent.config.interval=100ms",
        "agent.config.interval=1.5s",
        "agent.config.interval=0.1s",
        "agent.config.interval=10s",
        "agent.config.interval=10000ms",
        "agent.logLevel=info\\,node_agent::engine=debug",
        "controller.logLevel=off",
    ] {
        helm_template(&["--set", set]).unwrap();
    }
}
