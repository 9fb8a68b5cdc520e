//! What people may do by the chart's roles; those of the pods are beside their pods.

use manifest_tests::helm_template;
use serde_json::{Value, json};

use crate::chart::{object, rights};

/// The labels by which Kubernetes adds a role to its own, and which of them it has.
fn aggregated(role: &Value) -> Vec<&str> {
    ["view", "edit", "admin"]
        .into_iter()
        .filter(|to| {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] == "true"
        })
        .collect()
}

#[test]
fn who_must_name_policies_may_read_them() {
    let documents = helm_template(&[]).unwrap();
    assert_eq!(
        rights(&documents, "ClusterRole", "thermocline-view"),
        ["thermocline.io/tieringpolicies: get,list,watch"]
    );
    assert_eq!(aggregated(&object(&documents, "ClusterRole", "thermocline-view")), ["view", "edit", "admin"]);
    // A RoleBinding of `view` gives nothing on objects of the cluster: this does.
    let binding = object(&documents, "ClusterRoleBinding", "thermocline-policy-readers");
    assert_eq!(binding["roleRef"]["name"], "thermocline-view");
    assert_eq!(binding["subjects"][0]["name"], "system:authenticated");
}

#[test]
fn who_may_change_policies_is_said_by_the_cluster_s_owner_alone() {
    let documents = helm_template(&[]).unwrap();
    let name = "thermocline-policy-admin";
    assert_eq!(
        rights(&documents, "ClusterRole", name),
        [
            "thermocline.io/tieringpolicies: get,list,watch,create,update,patch,delete",
            "thermocline.io/nodetierings: get,list,watch"
        ]
    );
    assert_eq!(aggregated(&object(&documents, "ClusterRole", name)), [""; 0]);
    assert!(documents.iter().all(|document| document["roleRef"]["name"] != name), "it is bound to somebody");
}

#[test]
fn rights_are_switched_off_by_values() {
    let documents = helm_template(&["--values", "charts/thermocline/ci/rights-values.yaml"]).unwrap();
    assert_eq!(aggregated(&object(&documents, "ClusterRole", "thermocline-view")), [""; 0]);
    let named = |name: &str| documents.iter().filter(|document| document["metadata"]["name"] == name).count();
    assert_eq!(named("thermocline-policy-readers"), 0);
    let none = helm_template(&["--set", "rbac.create=false"]).unwrap();
    let group = json!("rbac.authorization.k8s.io/v1");
    assert!(none.iter().all(|document| document["apiVersion"] != group));
}

/// Every pod runs as the account that the rights are bound to, whatever it is called.
#[test]
fn rights_are_bound_to_the_accounts_that_pods_have() {
    let names = ["--set", "agent.serviceAccount.name=one,controller.serviceAccount.name=two"];
    let documents = helm_template(&names).unwrap();
    for (kind, workload, account) in
        [("DaemonSet", "thermocline-agent", "one"), ("Deployment", "thermocline-controller", "two")]
    {
        let pod = &object(&documents, kind, workload)["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], account);
        object(&documents, "ServiceAccount", account);
        let binding = object(&documents, "ClusterRoleBinding", workload);
        assert_eq!(binding["subjects"][0]["name"], account);
    }
    let policy = object(&documents, "ValidatingAdmissionPolicy", "thermocline-own-node").to_string();
    assert!(policy.contains("system:serviceaccount:thermocline-system:one"));
}
