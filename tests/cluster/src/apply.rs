//! Objects as manifests have them, to the server.

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::eventually;

/// Applies each document by server-side apply, in the order given. Namespaced objects without a namespace go to `default`.
///
/// # Errors
/// The first document that the server refuses, by kind and name.
pub async fn apply(client: &Client, documents: impl IntoIterator<Item = Value>) -> Result<()> {
    for document in documents {
        let object: DynamicObject = serde_json::from_value(document)?;
        let name = object.name_any();
        let types = object.types.as_ref().with_context(|| format!("{name} has no apiVersion and kind"))?;
        let kind = GroupVersionKind::try_from(types)?;
        let (resource, capabilities) = oneshot::pinned_kind(client, &kind)
            .await
            .with_context(|| format!("the server does not know {}", types.kind))?;
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
        };
        api.patch(&name, &PatchParams::apply("cluster-tests").force(), &Patch::Apply(&object))
            .await
            .with_context(|| format!("{} {name} is refused", types.kind))?;
    }
    Ok(())
}

/// Creates or replaces definitions of custom resources and waits until the server serves them.
///
/// Not by server-side apply: a server that does not know a keyword of theirs (`x-kubernetes-validations` before 1.23) drops
/// it from what is created, but refuses to apply it.
///
/// # Errors
/// When the server refuses one, or does not serve it.
pub async fn install_crds(client: &Client, definitions: &[CustomResourceDefinition]) -> Result<()> {
    let installed: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in definitions {
        let name = definition.name_any();
        match installed.get_opt(&name).await? {
            None => installed.create(&PostParams::default(), definition).await?,
            Some(old) => {
                let mut definition = definition.clone();
                definition.metadata.resource_version = old.metadata.resource_version;
                installed.replace(&name, &PostParams::default(), &definition).await?
            }
        };
    }
    for definition in definitions {
        let spec = &definition.spec;
        let version = &spec.versions.first().context("a definition without a version")?.name;
        let kind = GroupVersionKind::gvk(&spec.group, version, &spec.names.kind);
        eventually(&format!("{} is served", definition.name_any()), async || {
            let Ok((resource, _)) = oneshot::pinned_kind(client, &kind).await else { return Ok(None) };
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            Ok(api.list(&ListParams::default().limit(1)).await.ok().map(|_| ()))
        })
        .await?;
    }
    Ok(())
}
