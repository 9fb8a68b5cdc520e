//! What is made from the types: the CRDs, and the reference of policies and annotations.
//!
//! Each is committed and compared here; `cargo xtask codegen`, or `UPDATE_EXPECT=1 cargo test`, writes it.

use std::fmt::Write as _;

use expect_test::expect_file;
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::annotations::{CONTAINER_PREFIX, FLOOR_QUOTA, Key};
use crate::{NodeTiering, TieringPolicy};

fn yaml(value: &impl serde::Serialize) -> String {
    format!(
        "# Made from the types of the api crate by `cargo xtask codegen`.\n{}",
        serde_saphyr::to_string(value).unwrap()
    )
}

#[test]
fn the_crds_are_up_to_date() {
    for definition in [TieringPolicy::crd(), NodeTiering::crd()] {
        // `kubectl explain` shows descriptions as they are.
        assert!(!yaml(&definition).contains("[`"), "a description has a link that only rustdoc follows");
        assert!(
            !yaml(&definition).contains(crate::notation::ACCEPTED),
            "a value's notation is not described"
        );
    }
    expect_file!["../../charts/thermocline/crds/tieringpolicies.yaml"]
        .assert_eq(&yaml(&TieringPolicy::crd()));
    expect_file!["../../charts/thermocline/crds/nodetierings.yaml"].assert_eq(&yaml(&NodeTiering::crd()));
}

#[test]
fn the_reference_of_annotations_is_up_to_date() {
    let mut page = String::from(
        "# Annotations\n\n<!-- Made from the types of the api crate by `cargo xtask codegen`. -->\n\n\
         On a pod, or in the `metadata.annotations` of a pod template. A value that has no meaning never stops or slows a pod: that \
         key alone does not apply, and an Event on the pod says so.\n\n\
         | key | what it does | value | example |\n|---|---|---|---|\n",
    );
    for key in Key::ALL {
        let (does, value, example) = key.describe();
        writeln!(page, "| `{key}` | {does} | {value} | `{example}` |").unwrap();
    }
    writeln!(
        page,
        "| `{CONTAINER_PREFIX}<container>` | The `TieringPolicy` of one container. | the name of a policy; `none` or empty opts \
         out | `latency` |"
    )
    .unwrap();
    writeln!(
        page,
        "| `{FLOOR_QUOTA}` | On a namespace alone: what the floors in DRAM of its pods may sum to; the oldest pods have theirs \
         first. | an amount | `16Gi` |"
    )
    .unwrap();
    page.push_str(
        "\nAll but the policies themselves need the policy's leave: its `allowOverrides` lists what pods may override, and its \
         `overrideBounds` how far. Overrides hold for the pod's policy, not for policies of single containers.\n\n\
         ## Which policy a container gets\n\n\
         A policy that is `enforced` on the pod by its selector, whatever the annotations say. Else the first that says anything: the container's annotation, the pod's, the namespace's, the `TieringPolicy` whose selector \
         matches (the greatest `priority`, then the first by name), the controller's `--default-policy`. An annotation that names \
         a policy that is gone, or makes no sense, puts nothing else in its place: a pod that had a policy keeps it, another is only \
         observed, and an Event says so. One that is not for the namespace (`allowedNamespaces`) is observed. Of a policy whose newest spec is refused, the last that was not still applies. A pod whose namespace \
         is not known yet keeps what it had.\n\n\
         Static and mirror pods, and pods of priority `system-node-critical` and `system-cluster-critical`, are left alone unless an annotation of the \
         pod or container names a policy, or an enforced policy selects them. Pods whose memory nodes kubelet's memory manager pinned are observed \
         unless such an annotation names their policy.\n",
    );
    expect_file!["../../docs/annotations.md"].assert_eq(&page);
}

#[test]
fn the_reference_of_policies_is_up_to_date() {
    let crd = serde_json::to_value(TieringPolicy::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut page = String::from(
        "# Policies\n\n<!-- Made from the types of the api crate by `cargo xtask codegen`. -->\n\n\
         The fields of a `TieringPolicy`'s `spec`, and of each `spec` in the agent's own file. All may be left out. Policies by example are in [policies-by-example.md](policies-by-example.md), annotations in [annotations.md](annotations.md).\n\n\
         | field | what it is | value | default |\n|---|---|---|---|\n",
    );
    rows(&mut page, "", schema);
    page.push_str(
        "\n## Rules across fields\n\nAn API server refuses what breaks them, and so does the agent.\n\n",
    );
    rules(&mut page, "", schema);
    expect_file!["../../docs/policy.md"].assert_eq(&page);
}

fn rows(page: &mut String, path: &str, schema: &Value) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        let description = field["description"].as_str().unwrap_or_default();
        let description = description.replace('\n', " ");
        // Both have columns of their own.
        let description = description.split(" Default:").next().unwrap_or_default();
        let description = description.split(" Written as ").next().unwrap_or_default();
        let default = match &field["default"] {
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        writeln!(page, "| `{path}` | {description} | {} | {default} |", values(field)).unwrap();
        if name != "matchLabels" {
            rows(page, &format!("{path}."), field);
        }
        rows(page, &format!("{path}[]."), &field["items"]);
    }
}

fn values(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array().or_else(|| field["items"]["enum"].as_array()) {
        return values
            .iter()
            .filter_map(Value::as_str)
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    match (field["type"].as_str(), field["pattern"].as_str()) {
        (Some("integer"), _) => format!("{} to {}", whole(&field["minimum"]), whole(&field["maximum"])),
        (Some("string"), Some(pattern)) if pattern.contains("ms|") => {
            "duration, such as `90s` or `2m`".to_owned()
        }
        (Some("string"), Some(pattern)) if pattern.starts_with("^(0(") => {
            "`0` to `1`, or a percentage".to_owned()
        }
        (Some("string"), Some(_)) => "percentage, such as `0.2%`".to_owned(),
        (None, Some(pattern)) if pattern.contains('%') => "amount, such as `256Mi`, or percentage".to_owned(),
        (None, Some(_)) => "amount, such as `256Mi`".to_owned(),
        (Some(kind), _) => kind.to_owned(),
        (None, None) => String::new(),
    }
}

fn whole(number: &Value) -> String {
    number.as_f64().map(|number| format!("{number:.0}")).unwrap_or_default()
}

fn rules(page: &mut String, path: &str, schema: &Value) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let place = if path.is_empty() { "spec" } else { path.trim_end_matches('.') };
        let line = format!("- `{place}`: {}\n", rule["message"].as_str().unwrap_or_default());
        if !page.contains(&line) {
            page.push_str(&line);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        rules(page, &format!("{path}{name}."), field);
        rules(page, &format!("{path}{name}[]."), &field["items"]);
    }
}
