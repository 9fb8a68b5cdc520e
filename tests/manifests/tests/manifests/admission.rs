//! The admission policies say what the binaries say: whatever has a meaning passes without a warning, whatever has none does not.
//!
//! kube-cel evaluates them, which has Kubernetes' functions; no server at hand serves both pods and such policies.

use std::collections::{BTreeSet, HashMap};

use api::annotations::{CONTAINER_PREFIX, Key, PREFIX, Requests};
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
        let spec = object(&helm_template(&[]).unwrap(), "ValidatingAdmissionPolicy", name)["spec"].take();
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

    /// What is said about the object; nothing where it passes or is not looked at.
    fn messages(&self, object: &Value, request: &Value) -> Vec<String> {
        let mut context = Context::default().with_all();
        context.add_function("dyn", |value: Cel| Ok::<_, ExecutionError>(value));
        context.add_variable("object", object).unwrap();
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
                Cel::String(message) => message.to_string(),
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
        .filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len())
        .map(str::to_owned)
        .collect();
    assert_eq!(mentioned, Key::ALL.map(|key| key.as_str().to_owned()).into());
    assert!(text.contains(CONTAINER_PREFIX));
}

#[test]
fn admission_only_warns_of_annotations_and_denies_writes_of_other_nodes() {
    let documents = helm_template(&[]).unwrap();
    for (name, failure, actions) in [
        ("thermocline-annotations", "Ignore", json!(["Warn", "Audit"])),
        ("thermocline-own-node", "Fail", json!(["Deny"])),
    ] {
        let policy = object(&documents, "ValidatingAdmissionPolicy", name);
        let binding = object(&documents, "ValidatingAdmissionPolicyBinding", name);
        assert_eq!(policy["spec"]["failurePolicy"], failure);
        assert_eq!(binding["spec"]["validationActions"], actions);
        assert_eq!(binding["spec"]["policyName"], name);
    }
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
