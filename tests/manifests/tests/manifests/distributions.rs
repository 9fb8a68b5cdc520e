//! Where people have their clusters: what each distribution is known to refuse, the chart with its values does not ask for.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use manifest_tests::{NAMESPACE, helm_template, root};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chart::object;
use crate::nodes::{may_run, node};

const DIRECTORY: &str = "deploy/distributions";

/// The files of values for distributions.
pub(crate) fn values_files() -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(root().join(DIRECTORY))
        .unwrap()
        .map(|entry| format!("{DIRECTORY}/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    files.sort();
    assert!(files.len() > 7, "{files:?}");
    files
}

fn rendered(name: &str) -> Vec<Value> {
    helm_template(&["--values", &format!("{DIRECTORY}/{name}.yaml")]).unwrap()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// security.openshift.io/v1, as its API reference has it; a field that is not here is an error.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "OpenShift has them so")]
pub(crate) struct SecurityContextConstraints {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    users: Vec<String>,
    groups: Vec<String>,
    priority: Option<i32>,
    allow_privileged_container: bool,
    allow_privilege_escalation: bool,
    default_add_capabilities: Vec<String>,
    required_drop_capabilities: Vec<String>,
    allowed_capabilities: Vec<String>,
    allow_host_dir_volume_plugin: bool,
    #[serde(rename = "allowHostIPC")]
    allow_host_ipc: bool,
    allow_host_network: bool,
    #[serde(rename = "allowHostPID")]
    allow_host_pid: bool,
    allow_host_ports: bool,
    read_only_root_filesystem: bool,
    run_as_user: Strategy,
    se_linux_context: Strategy,
    fs_group: Strategy,
    supplemental_groups: Strategy,
    seccomp_profiles: Vec<String>,
    volumes: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Strategy {
    r#type: String,
}

/// nfd.k8s-sigs.io/v1alpha1, what of it the chart uses; a field that is not here is an error.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeFeatureRule {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: NodeFeatureRuleSpec,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NodeFeatureRuleSpec {
    rules: Vec<FeatureRule>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FeatureRule {
    name: String,
    labels: std::collections::BTreeMap<String, String>,
    match_features: Vec<FeatureMatcher>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FeatureMatcher {
    feature: String,
    match_expressions: std::collections::BTreeMap<String, FeatureExpression>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FeatureExpression {
    op: FeatureOperator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    value: Vec<String>,
}

#[derive(Deserialize, Serialize)]
enum FeatureOperator {
    In,
    NotIn,
    InRegexp,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    GtLt,
    IsTrue,
    IsFalse,
}

/// GKE and others admit pods of critical priority outside of kube-system only where a quota speaks of their class.
/// <https://kubernetes.io/docs/concepts/policy/resource-quotas/#limit-priority-class-consumption-by-default>
#[test]
fn a_quota_speaks_of_every_critical_pod() {
    for values in crate::chart::values_files() {
        let documents = helm_template(&["--values", &values]).unwrap();
        let scopes: BTreeSet<_> = of_kind(&documents, "ResourceQuota")
            .iter()
            .flat_map(|quota| {
                quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"].as_array().unwrap()
            })
            .map(|class| class.as_str().unwrap().to_owned())
            .collect();
        if scopes.is_empty() {
            assert!(values.ends_with("reclaim-values.yaml"), "{values} has no quota");
            continue;
        }
        for document in documents.iter().filter(|document| document["spec"]["template"].is_object()) {
            let class = document["spec"]["template"]["spec"]["priorityClassName"].as_str().unwrap();
            assert!(scopes.contains(class), "{class} of {values}");
        }
    }
}

/// A pod that waits for a node that runs no `DaemonSet` counts as unavailable, and an update never ends.
#[test]
fn agents_are_on_real_nodes_alone() {
    for values in values_files().into_iter().chain(["charts/thermocline/values.yaml".to_owned()]) {
        let documents = helm_template(&["--values", &values]).unwrap();
        let agent = object(&documents, "DaemonSet", "thermocline-agent");
        let check = |labels: &[(&str, &str)], runs: bool| {
            assert_eq!(may_run(&agent, &node(labels)), runs, "{labels:?} with {values}");
        };
        check(&[], true);
        // `cargo xtask image` makes images of this architecture alone.
        check(&[("kubernetes.io/arch", "arm64")], false);
        check(&[("eks.amazonaws.com/compute-type", "ec2")], true);
        check(&[("eks.amazonaws.com/compute-type", "auto")], true);
        check(&[("eks.amazonaws.com/compute-type", "fargate")], false);
        check(&[("type", "virtual-kubelet")], false);
        check(&[("kubernetes.io/os", "windows")], false);
        check(&[("kubernetes.io/arch", "s390x")], false);
        check(&[("thermocline.io/exclude", "true")], false);
    }
}

#[test]
fn replicas_are_not_on_nodes_that_are_somebody_else_s_machines() {
    let controller = |name: &str| object(&rendered(name), "Deployment", "thermocline-controller");
    assert!(!may_run(&controller("eks"), &node(&[("eks.amazonaws.com/compute-type", "fargate")])));
    assert!(!may_run(&controller("aks"), &node(&[("type", "virtual-kubelet")])));
    for name in ["eks", "aks"] {
        assert!(may_run(&controller(name), &node(&[])), "{name}");
    }
}

/// What of the pod the constraints refuse.
fn refused(constraints: &Value, namespace: &str, pod: &Value) -> Vec<String> {
    let mut refused = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            refused.push(what.to_owned());
        }
    };
    let listed = |key: &str, value: &Value| constraints[key].as_array().unwrap().contains(value);
    let account =
        format!("system:serviceaccount:{namespace}:{}", pod["serviceAccountName"].as_str().unwrap());
    demand(listed("users", &json!(account)), "its account");
    for (field, allows) in
        [("hostPID", "allowHostPID"), ("hostIPC", "allowHostIPC"), ("hostNetwork", "allowHostNetwork")]
    {
        demand(pod[field] != true || constraints[allows] == true, field);
    }
    for volume in pod["volumes"].as_array().unwrap() {
        let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
        demand(listed("volumes", &json!(kind)), kind);
        demand(kind != "hostPath" || constraints["allowHostDirVolumePlugin"] == true, "host paths");
    }
    // Of the token that kubelet mounts.
    demand(listed("volumes", &json!("projected")), "projected");
    for kind in ["initContainers", "containers"] {
        for container in pod[kind].as_array().into_iter().flatten() {
            let security = &container["securityContext"];
            demand(security.get("privileged").is_none(), "privileged");
            demand(security["allowPrivilegeEscalation"] == false, "escalation");
            demand(security["readOnlyRootFilesystem"] == true, "a writable root");
            for capability in security["capabilities"]["add"].as_array().into_iter().flatten() {
                demand(listed("allowedCapabilities", capability), &capability.to_string());
            }
            let profile = security.get("seccompProfile").unwrap_or(&pod["securityContext"]["seccompProfile"]);
            let profile = match profile["type"].as_str().unwrap() {
                "RuntimeDefault" => "runtime/default",
                "Localhost" => "localhost/*",
                other => other,
            };
            demand(listed("seccompProfiles", &json!(profile)), profile);
        }
    }
    refused
}

#[test]
fn openshift_admits_the_agents_and_gives_them_no_more_than_they_ask_for() {
    let values = "deploy/distributions/openshift.yaml";
    for set in ["agent.mode=full", "agent.mode=reclaim", "agent.serviceAccount.name=agent"] {
        let documents = helm_template(&["--values", values, "--set", set]).unwrap();
        let agent = object(&documents, "DaemonSet", "thermocline-agent")["spec"]["template"]["spec"].clone();
        let constraints = object(&documents, "SecurityContextConstraints", "thermocline-agent");
        assert_eq!(refused(&constraints, NAMESPACE, &agent), [""; 0], "{set}");
        let full = !set.ends_with("reclaim");
        let asked = agent["containers"][0]["securityContext"]["capabilities"]["add"].clone();
        assert_eq!(constraints["allowedCapabilities"], if full { asked } else { json!([]) }, "{set}");
        assert_eq!(constraints["allowHostPID"], full, "{set}");
    }
    // Without the value there is no such kind.
    assert!(of_kind(&helm_template(&[]).unwrap(), "SecurityContextConstraints").is_empty());
}

/// <https://docs.redhat.com/en/documentation/openshift_container_platform/4.20/html/authentication_and_authorization/managing-pod-security-policies>:
/// `restricted-v2` takes a user of the namespace's range and no other.
#[test]
fn openshift_gives_the_controller_a_user_of_its_own() {
    let deployment = object(&rendered("openshift"), "Deployment", "thermocline-controller");
    let pod = &deployment["spec"]["template"]["spec"];
    let expected = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    assert_eq!(pod["securityContext"], expected);
    let container = &pod["containers"][0]["securityContext"];
    assert!(container.get("runAsUser").is_none());
    assert_eq!(container["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(container["allowPrivilegeEscalation"], false);
}

#[test]
fn where_a_kernel_has_no_numa_balancing_no_pod_waits_for_its_file() {
    for name in ["gke", "talos"] {
        let agent = object(&rendered(name), "DaemonSet", "thermocline-agent").to_string();
        assert!(!agent.contains("/proc/sys/kernel/numa_balancing"), "{name}");
    }
}

#[test]
fn agents_have_an_selinux_type_that_the_system_knows() {
    for (name, expected) in [
        ("talos", Value::Null),
        ("flatcar", Value::Null),
        ("bottlerocket", json!({ "user": "system_u", "role": "system_r", "type": "super_t", "level": "s0" })),
        ("openshift", json!({ "type": "spc_t", "level": "s0" })),
    ] {
        let agent = object(&rendered(name), "DaemonSet", "thermocline-agent");
        assert_eq!(
            agent["spec"]["template"]["spec"]["securityContext"]["seLinuxOptions"], expected,
            "{name}"
        );
    }
}

/// All nodes of kind are containers of one host: an agent in each that acted would be several on one kernel.
#[test]
fn on_kind_no_agent_may_change_the_host() {
    let documents = rendered("kind");
    let agent = object(&documents, "DaemonSet", "thermocline-agent");
    let container = &agent["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    let default = json!({ "name": "THERMOCLINE_DEFAULT_POLICY", "value": "observe" });
    let controller = object(&documents, "Deployment", "thermocline-controller");
    let env = &controller["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(env.as_array().unwrap().contains(&default), "{env}");
}

#[test]
fn the_label_of_the_rule_for_slow_memory_is_the_one_that_values_select_by() {
    let rule = helm_template(&["--set", "nodeFeatureRule.enabled=true"]).unwrap();
    let rules = &object(&rule, "NodeFeatureRule", "thermocline-slow-memory")["spec"]["rules"];
    let values = ["--values", "charts/thermocline/ci/pools-values.yaml"];
    let agent = object(&helm_template(&values).unwrap(), "DaemonSet", "thermocline-agent");
    for rule in rules.as_array().unwrap() {
        let labels = rule["labels"].as_object().unwrap();
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap())).collect();
        assert!(may_run(&agent, &node(&labels)), "{labels:?}");
    }
    assert!(!may_run(&agent, &node(&[])));
    // The default has no rule: it needs a kind that most clusters lack.
    assert!(of_kind(&helm_template(&[]).unwrap(), "NodeFeatureRule").is_empty());
}

#[test]
fn every_distribution_has_a_section_with_its_values() {
    let page = std::fs::read_to_string(root().join("docs/distributions.md")).unwrap();
    for values in values_files() {
        let sections =
            page.split("\n## ").filter(|section| section.contains(&format!("({})", link(&values))));
        assert_eq!(sections.count(), 1, "docs/distributions.md names {values} in one section");
    }
}

/// As a page of `docs/` links a file of the checkout.
fn link(path: &str) -> String {
    format!("../{path}")
}
