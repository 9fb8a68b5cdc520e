//! Writes to the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{NodeTieringSpec, TieringPolicyStatus};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::node_labels::NodeLabel;
use crate::watch::objects::{self, Guarded};
use crate::watch::with_causes;

/// Whom the API server says that our fields belong to.
pub const FIELD_MANAGER: &str = "thermocline-controller";
/// A write that takes longer counts as failed. With it, a write that began while the lease was held ends before the lease could
/// have been taken.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a write failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct WriteError {
    /// Why.
    pub fault: WriteFault,
    /// For people.
    pub message: String,
}

impl WriteError {
    /// Whether the same write may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use WriteFault::{Connection, Server, Throttled, Timeout};
        matches!(self.fault, Connection | Timeout | Server | Throttled)
    }
}

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Whoever we are, the server does not know us.
    Unauthorized,
    /// We may not.
    Forbidden,
    /// There is no such object.
    NotFound,
    /// There is one already, or another than we meant.
    Conflict,
    /// The object is not as its definition says.
    Invalid,
    /// The object is larger than the server takes.
    TooLarge,
    /// The server has too much to do for us.
    Throttled,
    /// The server failed.
    Server,
    /// The server refused for another reason.
    Refused,
    /// No answer in time.
    Timeout,
    /// The server was not reached, or its answer not understood.
    Connection,
}

impl WriteFault {
    /// As a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
        }
    }
}

/// What a server says of an object that etcd does not take.
const LARGER_THAN_ETCD: [&str; 2] = ["request is too large", "message larger than max"];

impl From<&kube::Error> for WriteFault {
    fn from(error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Connection };
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            422 => Self::Invalid,
            429 => Self::Throttled,
            // Of etcd, and of the server's connection to it: trying again does not make the object smaller.
            500 if LARGER_THAN_ETCD.iter().any(|words| status.message.contains(words)) => Self::TooLarge,
            500.. => Self::Server,
            _ => Self::Refused,
        }
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
        let nodes: Api<Guarded<objects::NodeTiering>> = Api::all(self.client.clone());
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        match bounded(nodes.delete(node, &DeleteParams::default().preconditions(only))).await {
            Err(error) if error.fault == WriteFault::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Labels a node by its slow tier, unless another of the same name has taken its place. Takes away no label but one of ours.
    pub async fn node_label(&self, node: &str, label: &NodeLabel) -> Result<(), WriteError> {
        let labels: BTreeMap<_, _> =
            label.slow_tier.map(|name| (api::SLOW_TIER, name.to_string())).into_iter().collect();
        let object = json!({
            "apiVersion": v1::Node::api_version(&()),
            "kind": v1::Node::kind(&()),
            "metadata": { "name": node, "uid": label.uid, "labels": labels },
        });
        let nodes: Api<v1::Node> = Api::all(self.client.clone());
        bounded(nodes.patch_metadata(node, &ours(), &Patch::Apply(&object))).await.map(|_| ())
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
            Err(error) if error.fault == WriteFault::Conflict => Ok(()),
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
        Ok(Err(error)) => Err(WriteError { fault: (&error).into(), message: with_causes(&error) }),
        Err(_) => {
            let message = format!("no answer within {} s", WRITE_TIMEOUT.as_secs());
            Err(WriteError { fault: WriteFault::Timeout, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_etcd_finds_too_large_does_not_pass_and_what_else_fails_in_a_server_may() {
        let check = |code, message: &str, fault| {
            let status = Status::failure(message, "InternalError").with_code(code);
            let found = WriteFault::from(&kube::Error::Api(Box::new(status)));
            assert_eq!(found, fault, "{message}");
        };
        check(500, "etcdserver: request is too large", WriteFault::TooLarge);
        let grpc = "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2200000 vs. 2097152)";
        check(500, grpc, WriteFault::TooLarge);
        check(413, "Request entity too large: limit is 3145728", WriteFault::TooLarge);
        check(500, "etcdserver: leader changed", WriteFault::Server);
        check(429, "storage is (re)initializing", WriteFault::Throttled);
        let error = |fault| WriteError { fault, message: String::new() };
        assert!(!error(WriteFault::TooLarge).may_pass() && error(WriteFault::Server).may_pass());
    }
}
