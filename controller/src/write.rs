//! Writes to the API server.

use std::time::Duration;

use api::{NodeTieringSpec, TieringPolicyStatus};
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::watch::with_causes;
use crate::watched::{self, Guarded};

/// Whom the API server says that our fields belong to.
pub const FIELD_MANAGER: &str = "thermocline-controller";
/// A write that takes longer counts as failed. With it, a write that began while the lease was held ends before the lease could
/// have been taken.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a write failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct WriteError {
    /// For metrics.
    pub kind: &'static str,
    /// For people.
    pub message: String,
}

impl WriteError {
    /// Whether the same write may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, "connection" | "timeout" | "server" | "throttled")
    }
}

/// Since when who writes has led, and when it writes, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Since when it has led.
    pub epoch: u64,
    /// Now.
    pub now: u64,
}

impl Times {
    /// Not in the spec: what is only confirmed is no new generation, and nobody has to do anything about it.
    fn annotations(self) -> Value {
        json!({ api::EPOCH: self.epoch.to_string(), api::RENEWED: self.now.to_string() })
    }
}

/// Writes to the API server. Clones share the connection.
#[derive(Clone)]
pub struct Writer {
    client: Client,
}

impl Writer {
    /// One that uses this connection.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Tells a node's agent its assignment: the uid and generation of the object.
    pub async fn node_tiering(
        &self,
        node: &str,
        owner: &OwnerReference,
        spec: &NodeTieringSpec,
        times: Times,
    ) -> Result<(String, i64), WriteError> {
        let object = json!({
            "apiVersion": api::NodeTiering::api_version(&()),
            "kind": api::NodeTiering::kind(&()),
            "metadata": { "name": node, "ownerReferences": [owner], "annotations": times.annotations() },
            "spec": spec,
        });
        let nodes: Api<api::NodeTiering> = Api::all(self.client.clone());
        let written = bounded(nodes.patch_metadata(node, &ours(), &Patch::Apply(&object))).await?;
        Ok((written.uid().unwrap_or_default(), written.metadata.generation.unwrap_or_default()))
    }

    /// Removes the object of a node that is no more, unless another of the same name has taken its place.
    pub async fn remove_node_tiering(&self, node: &str, uid: &str) -> Result<(), WriteError> {
        // Guarded: what can't be read is answered, too.
        let nodes: Api<Guarded<watched::NodeTiering>> = Api::all(self.client.clone());
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        match bounded(nodes.delete(node, &DeleteParams::default().preconditions(only))).await {
            Err(error) if error.kind == "not_found" => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Says what became of a policy.
    pub async fn policy_status(&self, name: &str, status: &TieringPolicyStatus) -> Result<(), WriteError> {
        let object: Value = json!({
            "apiVersion": api::TieringPolicy::api_version(&()),
            "kind": api::TieringPolicy::kind(&()),
            "metadata": { "name": name },
            "status": status,
        });
        // Guarded: a policy that can't be read has a status, too.
        let policies: Api<Guarded<api::TieringPolicy>> = Api::all(self.client.clone());
        bounded(policies.patch_status(name, &ours(), &Patch::Apply(&object))).await.map(|_| ())
    }

    /// Posts an Event, unless there is one of its name.
    pub async fn event(&self, event: &events::Event) -> Result<(), WriteError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let events: Api<events::Event> = Api::namespaced(self.client.clone(), namespace);
        match bounded(events.create(&PostParams::default(), event)).await {
            Err(error) if error.kind == "conflict" => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn ours() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    match timeout(WRITE_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(WriteError { kind: kind(&error), message: with_causes(&error) }),
        Err(_) => {
            let message = format!("no answer within {} s", WRITE_TIMEOUT.as_secs());
            Err(WriteError { kind: "timeout", message })
        }
    }
}

fn kind(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 => "conflict",
            422 => "invalid",
            413 => "too_large",
            429 => "throttled",
            500.. => "server",
            _ => "refused",
        },
        _ => "connection",
    }
}
