//! What is left when the release goes, in a cluster whose garbage collector runs.

use std::path::Path;

use anyhow::{Context as _, Result};
use api::{NodeTiering, TieringPolicy};
use cluster_tests::{ControlPlane, eventually, install_chart};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client, ResourceExt as _};
use manifest_tests::NAMESPACE;
use serde_json::{Value, json};

use crate::replica::PROGRAM;

/// Deletes what a release has, as `helm uninstall` does: neither definitions, nor what asks to be kept.
async fn uninstall(client: &Client, release: &[Value]) -> Result<()> {
    for document in release.iter().filter(|document| document["kind"] != "CustomResourceDefinition") {
        if document["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" {
            continue;
        }
        let object: DynamicObject = serde_json::from_value(document.clone())?;
        let types = object.types.as_ref().context("a document has apiVersion and kind")?;
        // What the server does not know was not installed.
        let Ok((resource, capabilities)) =
            oneshot::pinned_kind(client, &GroupVersionKind::try_from(types)?).await
        else {
            continue;
        };
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(client.clone(), NAMESPACE, &resource),
        };
        api.delete(&object.name_any(), &DeleteParams::background()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn when_the_release_goes_assignments_and_the_lease_go_with_it_and_policies_stay() -> Result<()> {
    let mut plane = ControlPlane::start("n1").await?;
    let client = plane.administrator().client().await?;
    let release = install_chart(&client, &[]).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({ "metadata": { "name": "n1" }, "status": { "allocatable": { "memory": "4Gi" } } });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let dir = tempfile::tempdir()?;
    // It goes on while the release goes, as one may that is slow to end.
    plane.start_controller(Path::new(PROGRAM), NAMESPACE, &dir.path().join("controller.log")).await?;

    let tierings: Api<NodeTiering> = Api::all(client.clone());
    let made = eventually("the node has an object", async || Ok(tierings.get_opt("n1").await?)).await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let name = "thermocline-controller";
    let lease = leases.get(name).await?;
    for owners in [made.metadata.owner_references, lease.metadata.owner_references] {
        let owners = owners.unwrap_or_default();
        let owners: Vec<_> = owners.iter().map(|owner| (owner.kind.as_str(), owner.name.as_str())).collect();
        assert_eq!(owners, [("ClusterRole", name)]);
    }

    uninstall(&client, &release).await?;
    eventually("the object is removed", async || Ok(tierings.get_opt("n1").await?.is_none().then_some(())))
        .await?;
    eventually("the lease is removed", async || Ok(leases.get_opt(name).await?.is_none().then_some(())))
        .await?;
    let policies: Api<TieringPolicy> = Api::all(client.clone());
    assert_eq!(policies.list(&ListParams::default()).await?.items.len(), 4);
    Ok(())
}
