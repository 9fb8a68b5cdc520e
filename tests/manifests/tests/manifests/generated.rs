//! What `cargo xtask codegen` makes from the chart: the manifests of `deploy/`, and the table of values in the chart's README.

use std::fmt::Write as _;

use expect_test::expect_file;
use manifest_tests::{helm_template_text, root};

use crate::values::documented;

/// Files below `deploy/` and the templates that they are made of.
const FILES: [(&str, &[&str]); 8] = [
    ("base/agent.yaml", &["templates/agent/"]),
    ("base/controller.yaml", &["templates/controller/"]),
    ("base/rights.yaml", &["templates/rights.yaml"]),
    ("base/resource-quota.yaml", &["templates/resourcequota.yaml"]),
    ("base/admission-policies.yaml", &["templates/admission/"]),
    ("components/network-policy/network-policies.yaml", &["templates/networkpolicy.yaml"]),
    ("components/prometheus/monitors.yaml", &["templates/monitoring/monitors.yaml"]),
    ("components/prometheus/alerts.yaml", &["templates/monitoring/alerts.yaml"]),
];

const EVERYTHING: &str = "networkPolicy.enabled=true,monitoring.podMonitor.enabled=true,\
     monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true";

/// What only a release of Helm has.
const OF_HELM: [&str; 4] =
    ["helm.sh/chart:", "app.kubernetes.io/managed-by:", "checksum/config:", "# A change of the settings"];

#[test]
fn the_manifests_are_what_the_chart_renders() {
    let text = helm_template_text(&["--set", EVERYTHING]).unwrap();
    for (path, templates) in FILES {
        let mut file = "# Made from charts/thermocline by `cargo xtask codegen`.\n".to_owned();
        for document in text.split("\n---\n") {
            let document = document.trim_start_matches("---\n");
            let source =
                document.lines().next().unwrap_or_default().trim_start_matches("# Source: thermocline/");
            if !templates.iter().any(|template| source.starts_with(template)) {
                continue;
            }
            file.push_str("---\n");
            for line in document.lines().skip(1) {
                if !OF_HELM.iter().any(|word| line.trim_start().starts_with(word)) && !line.trim().is_empty()
                {
                    file.push_str(line.trim_end());
                    file.push('\n');
                }
            }
        }
        expect_file![root().join("deploy").join(path)].assert_eq(&file);
    }
}

/// The chart of the definitions alone holds those of the main chart: a chart reads no file beside it.
#[test]
fn the_chart_of_the_definitions_has_those_of_the_chart() {
    for name in ["nodetierings", "tieringpolicies"] {
        let path = format!("charts/thermocline/crds/{name}.yaml");
        let definition = std::fs::read_to_string(root().join(&path)).unwrap();
        assert!(!definition.contains("{{"), "{path} would be taken for a template");
        // Uninstalling the chart must not delete what users wrote.
        let named = format!("metadata:\n  name: {name}.thermocline.io\n");
        assert_eq!(definition.matches(&named).count(), 1, "{path} has changed shape");
        let text = definition
            .replace(&named, &format!("{named}  annotations:\n    helm.sh/resource-policy: keep\n"));
        let template = format!("charts/thermocline-crds/templates/{name}.yaml");
        expect_file![root().join(template)].assert_eq(&text);
    }
}

#[test]
fn the_readme_lists_every_value() {
    let path = root().join("charts/thermocline/README.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, after) = page.split_once("<!-- values -->\n").unwrap();
    let (_, after) = after.split_once("<!-- end of values -->").unwrap();
    let mut table = "| value | default | what it is |\n|---|---|---|\n".to_owned();
    for value in documented() {
        let _ = writeln!(table, "| `{}` | `{}` | {} |", value.path, value.default, value.comment);
    }
    expect_file![path].assert_eq(&format!("{before}<!-- values -->\n{table}<!-- end of values -->{after}"));
}
