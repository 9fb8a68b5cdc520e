//! The chart on an API server.

use std::collections::BTreeSet;
use std::sync::Once;

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client, ResourceExt as _};
use manifest_tests::{NAMESPACE, helm_template};
use serde_json::{Value, json};

use crate::current::not_run;
use crate::{apply, install_crds};

/// Kinds of the chart that Kubernetes 1.20 does not have, or not in the version that later ones have. A server that has them gets them.
const TOO_NEW: [&str; 3] =
    ["PodDisruptionBudget", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];

/// Whether it was said what the server has none of.
static SAID: Once = Once::new();

/// Installs the chart as rendered with these arguments of `helm template`, by create requests as helm's, in its own namespace.
/// Returns its documents.
///
/// # Errors
/// What the server refuses, by kind and name.
pub async fn install_chart(client: &Client, arguments: &[&str]) -> Result<Vec<Value>> {
    let documents = helm_template(arguments)?;
    apply(client, [json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })])
        .await?;
    let (definitions, others): (Vec<_>, Vec<_>) =
        documents.iter().cloned().partition(|document| document["kind"] == "CustomResourceDefinition");
    let definitions: Vec<CustomResourceDefinition> =
        definitions.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    install_crds(client, &definitions).await?;
    let mut left_out = BTreeSet::new();
    for document in others {
        let object: DynamicObject = serde_json::from_value(document)?;
        let types = object.types.as_ref().context("a document has apiVersion and kind")?;
        let kind = GroupVersionKind::try_from(types)?;
        let (resource, capabilities) = match oneshot::pinned_kind(client, &kind).await {
            Ok(found) => found,
            Err(_) if TOO_NEW.contains(&types.kind.as_str()) => {
                left_out.insert(types.kind.clone());
                continue;
            }
            Err(error) => {
                let what = format!("the server does not know {} of {}", types.kind, types.api_version);
                return Err(error).context(what);
            }
        };
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(
                client.clone(),
                &object.namespace().context("a namespaced document of the chart names its namespace")?,
                &resource,
            ),
        };
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("{} {} is refused", types.kind, object.name_any()))?;
    }
    // Said at each start: a green run must not look as if it had tried them.
    if !left_out.is_empty() {
        let version = client.apiserver_version().await?.git_version;
        SAID.call_once(|| not_run(&format!("{left_out:?} of the chart: this server, {version}, has none")));
    }
    Ok(documents)
}
