//! Manifests as helm and kustomize render them.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tool::run;

/// The release's name, which object names are made of.
pub const RELEASE: &str = "thermocline";
/// The release's namespace.
pub const NAMESPACE: &str = "thermocline-system";

/// The documents of the chart, its definitions among them, without the pod of `helm test`. `arguments` are those of `helm template`, such as `--set` and `--values`.
///
/// # Errors
/// Where helm refuses, with what it says.
pub fn helm_template(arguments: &[&str]) -> Result<Vec<Value>> {
    parse(&helm_template_text(arguments)?)
}

/// The same as text, comments included.
///
/// # Errors
/// Where helm refuses, with what it says.
pub fn helm_template_text(arguments: &[&str]) -> Result<String> {
    let fixed = [
        "template",
        RELEASE,
        "charts/thermocline",
        "--namespace",
        NAMESPACE,
        "--include-crds",
        "--skip-tests",
    ];
    run("helm", fixed.iter().chain(arguments))
}

/// The documents of a directory with a `kustomization.yaml`.
///
/// # Errors
/// Where kustomize refuses, with what it says.
pub fn kustomize(directory: &str) -> Result<Vec<Value>> {
    parse(&run("kubectl", ["kustomize", directory])?)
}

/// The documents of a YAML text that are not empty.
///
/// # Errors
/// Where it is no YAML.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
