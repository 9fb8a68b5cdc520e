//! Pools: several settings in one cluster, and never two agents on a node.

use std::collections::BTreeSet;

use manifest_tests::helm_template;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::chart::object;
use crate::nodes::{may_run, node};

const VALUES: [&str; 2] = ["--values", "charts/thermocline/ci/pools-values.yaml"];

fn daemonsets(documents: &[Value]) -> Vec<Value> {
    documents.iter().filter(|document| document["kind"] == "DaemonSet").cloned().collect()
}

fn settings(documents: &[Value], name: &str) -> String {
    object(documents, "ConfigMap", name)["data"]["agent.yaml"].as_str().unwrap().to_owned()
}

#[test]
fn a_pool_has_its_own_values_and_otherwise_those_of_all() {
    let documents = helm_template(&VALUES).unwrap();
    let cxl = object(&documents, "DaemonSet", "thermocline-agent-cxl")["spec"]["template"]["spec"].clone();
    let limits = &cxl["containers"][0]["resources"];
    assert_eq!(limits["limits"]["memory"], "256Mi");
    assert_eq!(limits["requests"], json!({ "cpu": "50m", "memory": "64Mi" }));
    assert_eq!(cxl["priorityClassName"], "system-node-critical");
    assert!(settings(&documents, "thermocline-agent-cxl").contains("interval: 500ms"));
    assert!(settings(&documents, "thermocline-agent").contains("interval: 1s"));
    assert!(settings(&documents, "thermocline-agent-pmem").contains("interval: 1s"));

    let pmem = object(&documents, "DaemonSet", "thermocline-agent-pmem")["spec"]["template"]["spec"].clone();
    assert!(pmem.get("hostPID").is_none());
    assert_eq!(pmem["priorityClassName"], "pmem-agents");
    let old = object(&documents, "DaemonSet", "thermocline-agent-old-kernel").to_string();
    assert!(!old.contains("numa_balancing,"), "false is a value, too");
    let empty = r#"agent.pools=[{ "name": "x", "nodeSelector": { "a": "b" }, "tolerations": [] }]"#;
    let documents = helm_template(&["--set-json", empty]).unwrap();
    let pool = object(&documents, "DaemonSet", "thermocline-agent-x")["spec"]["template"]["spec"].take();
    assert!(pool.get("tolerations").is_none(), "an empty list is a value, too");
    assert_eq!(pool["nodeSelector"], json!({ "kubernetes.io/os": "linux", "a": "b" }));
}

#[test]
fn without_pools_there_is_one_daemonset_and_with_them_one_more_each() {
    let names = |arguments: &[&str]| -> Vec<String> {
        let name = |document: &Value| document["metadata"]["name"].as_str().unwrap().to_owned();
        daemonsets(&helm_template(arguments).unwrap()).iter().map(name).collect()
    };
    assert_eq!(names(&[]), ["thermocline-agent"]);
    assert_eq!(
        names(&VALUES),
        [
            "thermocline-agent-cxl",
            "thermocline-agent-pmem",
            "thermocline-agent-old-kernel",
            "thermocline-agent"
        ]
    );
}

#[test]
fn a_daemonset_s_selector_finds_its_own_pods_alone() {
    let all = daemonsets(&helm_template(&VALUES).unwrap());
    for (i, daemonset) in all.iter().enumerate() {
        let selector = daemonset["spec"]["selector"]["matchLabels"].as_object().unwrap();
        let found: Vec<_> = (0..all.len())
            .filter(|&j| {
                let labels = &all[j]["spec"]["template"]["metadata"]["labels"];
                selector.iter().all(|(key, value)| labels[key] == *value)
            })
            .collect();
        assert_eq!(found, [i]);
    }
}

#[test]
fn two_pools_of_one_name_are_refused() {
    let pools = "agent.pools[0].name=x,agent.pools[0].nodeSelector.a=b,agent.pools[1].name=x,agent.pools[1].nodeSelector.a=c";
    let error = helm_template(&["--set", pools]).unwrap_err().to_string();
    assert!(error.contains("agent.pools: two are named x"), "{error}");
}

proptest! {
    /// A node is in the first pool that selects it, and in none where none does; so nowhere are two agents.
    #[test]
    fn no_node_has_two_agents(
        pool in proptest::option::of(prop_oneof!["cxl", "pmem", "other"]),
        kernel in proptest::option::of(prop_oneof!["6\\.1", "6\\.12"]),
        slow in any::<bool>(),
        zone in proptest::option::of("[ab]"),
    ) {
        thread_local!(static ALL: Vec<Value> = daemonsets(&helm_template(&VALUES).unwrap()));
        let mut labels = Vec::new();
        labels.extend(pool.as_deref().map(|pool| ("example.com/pool", pool)));
        labels.extend(kernel.as_deref().map(|kernel| ("example.com/kernel", kernel)));
        labels.extend(zone.as_deref().map(|zone| ("zone", zone)));
        if slow {
            labels.push(("feature.node.kubernetes.io/slow-memory", "true"));
        }
        let node = node(&labels);
        let agents: BTreeSet<usize> =
            ALL.with(|all| (0..all.len()).filter(|&i| may_run(&all[i], &node)).collect());
        // The third pool's own affinity is by a zone, or by a name, which is not looked at here: it may be any.
        let expected = match (slow, pool.as_deref(), kernel.as_deref()) {
            (false, ..) => None,
            (true, Some("cxl"), _) => Some(0),
            (true, Some("pmem"), _) => Some(1),
            (true, _, Some("6.1")) => Some(2),
            (true, ..) => Some(3),
        };
        prop_assert_eq!(agents, expected.into_iter().collect(), "{:?}", node);
    }
}
