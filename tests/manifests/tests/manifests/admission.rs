//! The admission policies say what the binaries say: whatever has a meaning passes without a warning, whatever has none does not.
//!
//! kube-cel evaluates them, which has Kubernetes' functions; no server at hand serves both pods and such policies.

use std::collections::{BTreeSet, HashMap};

use api::annotations::{CONTAINER_PREFIX, FLOOR_QUOTA, Key, PREFIX, Requests};
use kube_cel::KubeCelExt as _;
use kube_cel::cel::{Context, ExecutionError, Program, Value as Cel};
use manifest_tests::helm_template;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::chart::object;

struct Policy {
    conditions: Vec<Program>,
    variables: Vec<(String, Program)>,
    /// Expression and message.
    validations: Vec<(Program, Program)>,
}

impl Policy {
    fn of_the_chart(name: &str) -> Self {
        Self::rendered(&[], name)
    }

    fn rendered(arguments: &[&str], name: &str) -> Self {
        let spec =
            object(&helm_template(arguments).unwrap(), "ValidatingAdmissionPolicy", name)["spec"].take();
        for validation in spec["validations"].as_array().unwrap() {
            // Where the expression of a message fails, or gives several lines, the server says this one.
            let message =
                validation["message"].as_str().unwrap_or_else(|| panic!("no message: {validation}"));
            assert!(!message.is_empty() && !message.contains('\n'));
            assert!(["Invalid", "Forbidden"].contains(&validation["reason"].as_str().unwrap()));
        }
        let program = |value: &Value| {
            let text = value.as_str().unwrap();
            Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        let each = |key: &str| spec[key].as_array().cloned().unwrap_or_default();
        Self {
            conditions: each("matchConditions").iter().map(|found| program(&found["expression"])).collect(),
            variables: each("variables")
                .iter()
                .map(|found| (found["name"].as_str().unwrap().to_owned(), program(&found["expression"])))
                .collect(),
            validations: each("validations")
                .iter()
                .map(|found| (program(&found["expression"]), program(&found["messageExpression"])))
                .collect(),
        }
    }

    /// What is said about a new object; nothing where it passes or is not looked at.
    fn messages(&self, object: &Value, request: &Value) -> Vec<String> {
        self.of_an_update(&Value::Null, object, request)
    }

    /// What is said about an object that was another before, or none (null).
    fn of_an_update(&self, before: &Value, object: &Value, request: &Value) -> Vec<String> {
        let mut context = Context::default().with_all();
        context.add_function("dyn", |value: Cel| Ok::<_, ExecutionError>(value));
        context.add_variable("object", object).unwrap();
        context.add_variable("oldObject", before).unwrap();
        context.add_variable("request", request).unwrap();
        let truth =
            |program: &Program, context: &Context<'_>| program.execute(context).unwrap() == Cel::Bool(true);
        if !self.conditions.iter().all(|condition| truth(condition, &context)) {
            return Vec::new();
        }
        let mut variables: HashMap<String, Cel> = HashMap::new();
        for (name, program) in &self.variables {
            context.add_variable_from_value("variables", variables.clone());
            variables.insert(name.clone(), program.execute(&context).unwrap());
        }
        context.add_variable_from_value("variables", variables);
        self.validations
            .iter()
            .filter(|(expression, _)| !truth(expression, &context))
            .map(|(_, message)| match message.execute(&context).unwrap() {
                Cel::String(message) => {
                    // The server takes no other.
                    assert!(!message.contains('\n') && message.len() < 5 << 10, "{message:?}");
                    message.to_string()
                }
                other => panic!("{other:?} is no message"),
            })
            .collect()
    }
}

fn pod(annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "shop", "annotations": annotations },
        "spec": { "containers": [{ "name": "app" }], "initContainers": [{ "name": "setup" }] },
    })
}

/// Whether the controller would complain.
fn has_problem(annotations: &[(&str, &str)]) -> bool {
    let requests = Requests::parse(annotations.iter().copied());
    !requests.problems.is_empty()
        || requests.containers.keys().any(|name| !["app", "setup"].contains(&name.as_str()))
}

#[test]
fn warnings_are_the_controller_s_complaints() {
    let policy = Policy::of_the_chart("thermocline-annotations");
    let check = |annotations: &[(&str, &str)], says: &str| {
        let messages = policy.messages(&pod(annotations), &json!({}));
        assert_eq!(has_problem(annotations), !says.is_empty(), "{annotations:?}");
        assert_eq!(messages.len(), usize::from(!says.is_empty()), "{annotations:?}: {messages:?}");
        assert!(messages.iter().all(|message| message.contains(says)), "{annotations:?}: {messages:?}");
    };
    check(&[], "");
    check(&[("example.com/policy", "batch"), ("thermocline.example/mode", "x")], "");
    for (key, good, bad) in [
        (Key::Mode, &["Observe", " Enforce "][..], &["observe", "Off", ""][..]),
        (Key::Tiers, &["dram", "dram,slow", "0, 1", "pmem ,cxl"], &["", "disk", "dram;slow", "dram,"]),
        (
            Key::DramFloor,
            &["0", "256Mi", "1.5Gi", "80%", "0.5%", "1e9"],
            &["lots", "-1", "101%", "256mi", "5 Mi"],
        ),
        (Key::DramCeiling, &["60%", "1G"], &["60 %", "%", ""]),
        (Key::DemoteAfter, &["90s", "2m", "1h30m", "1.5h"], &["5", "2d", "soon", "-1s", ""]),
        (Key::MemoryHigh, &["none", "1Gi", "90%"], &["max", "None", "1 Gi"]),
    ] {
        for value in good {
            check(&[(key.as_str(), value)], "");
        }
        for value in bad {
            check(
                &[(key.as_str(), value)],
                &format!("annotation {key}: \"{value}\" does not apply; it takes "),
            );
        }
    }
    for name in ["batch", "none", "", "a.b-c"] {
        check(&[(Key::Policy.as_str(), name)], "");
    }
    check(
        &[("thermocline.io/demote-afer", "2m")],
        "thermocline has no annotation thermocline.io/demote-afer",
    );
    check(&[("container.thermocline.io/app", "batch"), ("container.thermocline.io/setup", "none")], "");
    check(&[("container.thermocline.io/ap", "batch")], "the pod has no container that is named by");
    check(&[(FLOOR_QUOTA, "16Gi")], "has a meaning on a namespace alone");
}

/// The controller takes any word for a name, and says later that there is no such policy; what can be no name is told at once.
#[test]
fn what_can_be_no_policy_s_name_is_told_of_containers_too() {
    let policy = Policy::of_the_chart("thermocline-annotations");
    for bad in ["Batch", "a_b", "-x", "two words"] {
        let messages = policy.messages(&pod(&[("container.thermocline.io/app", bad)]), &json!({}));
        assert_eq!(messages.len(), 1, "{bad}: {messages:?}");
        assert!(messages[0].ends_with(": container.thermocline.io/app"), "{messages:?}");
        let messages = policy.messages(&pod(&[("thermocline.io/policy", bad)]), &json!({}));
        assert_eq!(messages.len(), 1, "{bad}: {messages:?}");
    }
}

#[test]
fn a_value_of_many_lines_is_told_in_one() {
    let policy = Policy::of_the_chart("thermocline-annotations");
    let messages = policy.messages(&pod(&[("thermocline.io/mode", "Observe\nEnforce")]), &json!({}));
    assert_eq!(
        messages,
        [r#"annotation thermocline.io/mode: "Observe Enforce" does not apply; it takes Observe or Enforce"#]
    );
    let messages = policy.messages(&pod(&[("thermocline.io/tiers", &"x\n".repeat(90_000))]), &json!({}));
    assert!(messages[0].len() < 300, "{messages:?}");
}

#[test]
fn what_an_update_leaves_as_it_was_is_not_told_again() {
    let policy = Policy::of_the_chart("thermocline-annotations");
    let bad = [
        ("thermocline.io/mode", "Off"),
        ("thermocline.io/tires", "dram"),
        ("container.thermocline.io/ap", "x"),
    ];
    let check = |before: &Value, after: &Value, expected: usize| {
        let messages = policy.of_an_update(before, after, &json!({}));
        assert_eq!(messages.len(), expected, "{before} {after}: {messages:?}");
    };
    check(&pod(&bad), &pod(&bad), 0);
    check(&pod(&[]), &pod(&bad), 3);
    check(&pod(&bad[..2]), &pod(&bad), 1);
    check(&pod(&bad[..1]), &pod(&[("thermocline.io/mode", "off")]), 1);
    check(&pod(&bad), &pod(&[]), 0);
    // In a template as on a pod.
    let deployment = |annotations: &[(&str, &str)]| {
        let pod = pod(annotations);
        json!({ "kind": "Deployment", "spec": { "replicas": 1, "template": { "metadata": pod["metadata"], "spec": pod["spec"] } } })
    };
    check(&deployment(&bad), &deployment(&bad), 0);
    check(&deployment(&[]), &deployment(&bad), 3);
    // A template that had no annotations at all.
    let bare = json!({ "kind": "Deployment", "spec": { "template": { "spec": { "containers": [] } } } });
    check(&bare, &deployment(&bad[..1]), 1);
}

#[test]
fn a_namespace_has_a_policy_and_no_more() {
    let policy = Policy::of_the_chart("thermocline-annotations");
    let namespace = |annotations: &[(&str, &str)]| json!({ "kind": "Namespace", "metadata": pod(annotations)["metadata"], "spec": { "finalizers": ["kubernetes"] } });
    let check = |annotations: &[(&str, &str)], says: &str| {
        let messages = policy.messages(&namespace(annotations), &json!({}));
        assert_eq!(messages.len(), usize::from(!says.is_empty()), "{messages:?}");
        assert!(messages.iter().all(|message| message.contains(says)), "{messages:?}");
    };
    check(&[], "");
    check(&[("thermocline.io/policy", "batch"), ("team", "shop")], "");
    check(&[("thermocline.io/policy", "none"), (FLOOR_QUOTA, "16Gi")], "");
    check(&[(FLOOR_QUOTA, "half")], r#"annotation thermocline.io/dram-floor-quota: "half" does not apply"#);
    check(
        &[("thermocline.io/policy", "Batch!")],
        r#"annotation thermocline.io/policy: "Batch!" does not apply"#,
    );
    check(&[("thermocline.io/mode", "Observe")], "and not thermocline.io/mode");
    check(&[("container.thermocline.io/app", "batch")], "and not container.thermocline.io/app");
    check(&[("thermocline.io/polcy", "batch")], "thermocline has no annotation thermocline.io/polcy");
    assert!(policy.messages(&json!({ "kind": "Namespace", "metadata": {} }), &json!({})).is_empty());
}

#[test]
fn only_who_may_sets_changes_and_removes_annotations() {
    let values = ["--values", "charts/thermocline/ci/monitoring-values.yaml"];
    let policy = Policy::rendered(&values, "thermocline-annotators");
    let by = |name: &str, groups: &[&str]| json!({ "userInfo": { "username": name, "groups": groups } });
    let somebody = by("bob", &["developers", "system:authenticated"]);
    let batch = pod(&[("thermocline.io/policy", "batch")]);
    let check = |before: &Value, after: &Value, request: &Value, allowed: bool| {
        let messages = policy.of_an_update(before, after, request);
        assert_eq!(messages.is_empty(), allowed, "{before} {after} {request}: {messages:?}");
    };
    let none = Value::Null;
    check(&none, &pod(&[]), &somebody, true);
    check(&none, &pod(&[("team", "shop")]), &somebody, true);
    check(&none, &batch, &somebody, false);
    check(&batch, &batch, &somebody, true);
    check(&batch, &pod(&[]), &somebody, false);
    check(&batch, &pod(&[("thermocline.io/policy", "none")]), &somebody, false);
    check(&pod(&[]), &pod(&[("container.thermocline.io/app", "batch")]), &somebody, false);
    for allowed in [
        by("alice", &["system:authenticated"]),
        by("carol", &["platform"]),
        by(
            "system:serviceaccount:kube-system:replicaset-controller",
            &["system:serviceaccounts:kube-system"],
        ),
        by("system:node:n1", &["system:nodes"]),
    ] {
        check(&none, &batch, &allowed, true);
        check(&batch, &pod(&[]), &allowed, true);
    }
    let said = policy.messages(&batch, &somebody);
    assert!(said[0].starts_with("bob may not set"), "{said:?}");
    check(&none, &batch, &json!({ "userInfo": { "username": "nobody" } }), false);
    let binding = object(
        &helm_template(&values).unwrap(),
        "ValidatingAdmissionPolicyBinding",
        "thermocline-annotators",
    );
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    // Off by default.
    let named = |document: &Value| document["metadata"]["name"] == "thermocline-annotators";
    assert!(!helm_template(&[]).unwrap().iter().any(named));
}

#[test]
fn templates_are_looked_at_where_users_write_them() {
    let policy = Policy::of_the_chart("thermocline-annotations");
    let bad = pod(&[("thermocline.io/mode", "Off")]);
    let template = json!({ "metadata": bad["metadata"], "spec": bad["spec"] });
    for object in [
        json!({ "kind": "Deployment", "spec": { "template": template } }),
        json!({ "kind": "Job", "spec": { "template": template } }),
        json!({ "kind": "CronJob", "spec": { "jobTemplate": { "spec": { "template": template } } } }),
    ] {
        assert_eq!(policy.messages(&object, &json!({})).len(), 1, "{object}");
    }
    let none = json!({ "kind": "Deployment", "spec": { "template": { "spec": bad["spec"] } } });
    assert!(policy.messages(&none, &json!({})).is_empty());
}

#[test]
fn every_key_is_known_to_the_policy_and_no_other() {
    let spec = object(&helm_template(&[]).unwrap(), "ValidatingAdmissionPolicy", "thermocline-annotations");
    let text = spec.to_string();
    let mentioned: BTreeSet<String> = text
        .split('\'')
        .filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len() && !word.contains(' '))
        .map(str::to_owned)
        .collect();
    let known = Key::ALL.map(Key::as_str).into_iter().chain([FLOOR_QUOTA]);
    assert_eq!(mentioned, known.map(str::to_owned).collect());
    assert!(text.contains(CONTAINER_PREFIX));
}

#[test]
fn admission_only_warns_of_annotations_and_denies_writes_of_other_nodes() {
    let documents = helm_template(&[]).unwrap();
    for (name, failure, actions) in [
        ("thermocline-annotations", "Ignore", json!(["Warn", "Audit"])),
        ("thermocline-own-node", "Fail", json!(["Deny"])),
        ("thermocline-slow-tier-label", "Fail", json!(["Deny"])),
    ] {
        let policy = object(&documents, "ValidatingAdmissionPolicy", name);
        let binding = object(&documents, "ValidatingAdmissionPolicyBinding", name);
        assert_eq!(policy["spec"]["failurePolicy"], failure);
        assert_eq!(binding["spec"]["validationActions"], actions);
        assert_eq!(binding["spec"]["policyName"], name);
        let reason = if failure == "Fail" { "Forbidden" } else { "Invalid" };
        for validation in policy["spec"]["validations"].as_array().unwrap() {
            assert_eq!(validation["reason"], reason);
        }
    }
}

#[test]
fn of_a_node_the_controller_writes_the_label_of_its_slow_tier_alone() {
    let policy = Policy::of_the_chart("thermocline-slow-tier-label");
    let by = |name: &str, operation: &str| {
        let username = format!("system:serviceaccount:thermocline-system:{name}");
        json!({ "userInfo": { "username": username }, "operation": operation, "name": "n1" })
    };
    let bare = json!({ "metadata": { "name": "n1" }, "spec": {} });
    let full = json!({
        "metadata": {
            "name": "n1", "labels": { "zone": "a" }, "annotations": { "a": "b" }, "finalizers": ["f"],
            "ownerReferences": [{ "uid": "o" }],
        },
        "spec": { "podCIDR": "10.0.0.0/24", "taints": [{ "key": "gpu", "effect": "NoSchedule" }] },
    });
    let changed = |from: &Value, path: &str, value: Value| {
        let mut to = from.clone();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = to.pointer_mut(parent).unwrap();
        if parent.is_null() {
            *parent = json!({});
        }
        match value {
            Value::Null => drop(parent.as_object_mut().unwrap().remove(key)),
            value => parent[key] = value,
        }
        to
    };
    let check = |before: &Value, after: &Value, operation: &str, allowed: bool| {
        let messages = policy.of_an_update(before, after, &by("thermocline-controller", operation));
        assert_eq!(messages.is_empty(), allowed, "{operation} {before} {after}: {messages:?}");
        // Of others it says nothing.
        assert!(policy.of_an_update(before, after, &by("another", operation)).is_empty());
    };
    let label = |value: &str| json!({ "thermocline.io/slow-tier": value });
    let labelled = changed(&bare, "/metadata/labels", label("cxl"));
    check(&bare, &labelled, "UPDATE", true);
    check(&labelled, &bare, "UPDATE", true);
    check(&labelled, &changed(&bare, "/metadata/labels", label("pmem")), "UPDATE", true);
    let both = changed(&full, "/metadata/labels", json!({ "zone": "a", "thermocline.io/slow-tier": "cxl" }));
    check(&full, &both, "UPDATE", true);
    check(&both, &full, "UPDATE", true);
    check(&full, &full, "UPDATE", true);
    check(&Value::Null, &bare, "CREATE", false);
    check(&full, &Value::Null, "DELETE", false);
    for (path, value) in [
        ("/metadata/labels", json!({ "zone": "b" })),
        ("/metadata/labels", json!({ "zone": "a", "thermocline.io/exclude": "true" })),
        ("/metadata/labels", Value::Null),
        ("/metadata/annotations", json!({ "a": "c" })),
        ("/metadata/annotations", Value::Null),
        ("/metadata/finalizers", Value::Null),
        ("/metadata/ownerReferences", json!([])),
        ("/spec/unschedulable", json!(true)),
        ("/spec/taints", Value::Null),
        ("/spec", Value::Null),
    ] {
        check(&full, &changed(&full, path, value.clone()), "UPDATE", false);
    }
    for path in ["/metadata/annotations", "/metadata/finalizers", "/metadata/ownerReferences"] {
        check(&bare, &changed(&bare, path, full.pointer(path).unwrap().clone()), "UPDATE", false);
    }
}

/// A right that nothing limits is not given.
#[test]
fn the_controller_patches_nodes_only_where_a_policy_holds_it_to_one_label() {
    let has = |arguments: &[&str]| {
        let documents = helm_template(arguments).unwrap();
        let text = |document: &&Value| document.to_string();
        let named = |kind: &str| {
            documents.iter().any(|document| {
                document["kind"] == kind && document["metadata"]["name"] == "thermocline-slow-tier-label"
            })
        };
        let asks = documents
            .iter()
            .map(|document| text(&document))
            .any(|text| text.contains("THERMOCLINE_SLOW_TIER_LABEL"));
        [named("ValidatingAdmissionPolicy"), named("ClusterRole"), named("ClusterRoleBinding"), asks]
    };
    assert_eq!(has(&[]), [true; 4]);
    assert_eq!(has(&["--set", "controller.slowTierLabel=false"]), [false; 4]);
    assert_eq!(has(&["--set", "rbac.create=false"]), [true, false, false, true]);
}

#[test]
fn an_agent_writes_its_own_node_alone() {
    let policy = Policy::of_the_chart("thermocline-own-node");
    let agent = "system:serviceaccount:thermocline-system:thermocline-agent";
    let check = |user: &str, extra: Value, name: &str, allowed: bool| {
        let request = json!({ "name": name, "userInfo": { "username": user, "extra": extra } });
        let messages = policy.messages(&json!({}), &request);
        assert_eq!(messages.is_empty(), allowed, "{request}: {messages:?}");
    };
    let of = |node: &str| json!({ "authentication.kubernetes.io/node-name": [node] });
    check(agent, of("a"), "a", true);
    check(agent, of("a"), "b", false);
    check(agent, json!({}), "a", false);
    check(agent, json!({ "authentication.kubernetes.io/node-name": [] }), "a", false);
    check(agent, json!({ "authentication.kubernetes.io/node-name": ["a", "b"] }), "a", false);
    check("system:serviceaccount:thermocline-system:thermocline-controller", json!({}), "a", true);
}

proptest! {
    #[test]
    fn no_value_that_has_a_meaning_is_warned_of(
        key in proptest::sample::select(&Key::ALL[1..]),
        value in prop_oneof![
            "[0-9]{1,3}(\\.[0-9]{1,2})?(Ki|Mi|Gi|k|M|G|%|s|m|h|ms)?",
            "(Observe|Enforce|none|dram|slow|pmem)(, ?[0-9])?",
            "\\PC{0,12}",
        ],
    ) {
        thread_local!(static POLICY: Policy = Policy::of_the_chart("thermocline-annotations"));
        let annotations = [(key.as_str(), value.as_str())];
        let messages = POLICY.with(|policy| policy.messages(&pod(&annotations), &json!({})));
        prop_assert!(messages.is_empty() || has_problem(&annotations), "{messages:?}");
    }
}
