//! The node agent against a real API server, with the rights of its own account, on a node of plain files.

mod malformed;
mod outage;
mod pods;
mod requests;
mod status;
mod watch;

use std::path::Path;

use anyhow::{Context as _, Result};
use api::{NodeTiering, QosClass};
use cluster_tests::{Access, Agent, Cluster, Driver, NodeTree};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

/// Class of the tests' pods, where it does not matter.
const CLASS: QosClass = QosClass::Burstable;

/// A node and its agent.
struct Node {
    name: &'static str,
    tree: NodeTree,
    agent: Agent,
    /// Untyped, for what is not as the type has it.
    tierings: Api<DynamicObject>,
}

impl Node {
    /// One with these pods of one container, each named as its pod with `-main`; its agent reaches the server by `access`.
    async fn start(cluster: &Cluster, access: &Access, name: &'static str, pods: &[&str]) -> Result<Self> {
        Self::start_with(cluster, access, name, pods, &[]).await
    }

    async fn start_with(
        cluster: &Cluster,
        access: &Access,
        name: &'static str,
        pods: &[&str],
        arguments: &[&str],
    ) -> Result<Self> {
        let tree = NodeTree::new(Driver::Systemd)?;
        for uid in pods {
            tree.add_pod(uid, CLASS, &[&format!("{uid}-main")])?;
        }
        Self::of(cluster, access, name, tree, arguments).await
    }

    /// The node whose files are these.
    async fn of(
        cluster: &Cluster,
        access: &Access,
        name: &'static str,
        tree: NodeTree,
        arguments: &[&str],
    ) -> Result<Self> {
        let agent = start_agent(&tree, access, name, arguments)?;
        Ok(Self { name, tree, agent, tierings: tierings(cluster).await? })
    }

    /// Assigns these pods to it.
    async fn assign(&self, pods: &[Value]) -> Result<()> {
        assign(&self.tierings, self.name, pods).await
    }

    /// Waits until a pod's `memory.high` is this.
    async fn high(&mut self, uid: &str, text: &str) -> Result<()> {
        let file = self.tree.pod(uid, CLASS).join("memory.high");
        self.agent.writes(&file, text).await
    }

    /// Waits until the status is as asked for.
    async fn status(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let (tierings, name) = (&self.tierings, self.name);
        let mut last = Value::Null;
        let seen = self
            .agent
            .eventually(what, async |_| {
                // One that answers nothing is away for now.
                if let Ok(object) = tierings.get(name).await {
                    last = object.data["status"].clone();
                }
                Ok(is_so(&last).then(|| last.clone()))
            })
            .await;
        seen.with_context(|| format!("the last status: {last:#}"))
    }
}

async fn tierings(cluster: &Cluster) -> Result<Api<DynamicObject>> {
    let resource = ApiResource::erase::<NodeTiering>(&());
    Ok(Api::all_with(cluster.administrator().await?, &resource))
}

/// Assigns these pods to a node, as the controller does.
async fn assign(tierings: &Api<DynamicObject>, node: &str, pods: &[Value]) -> Result<()> {
    let object = json!({
        "apiVersion": "thermocline.io/v1alpha1",
        "kind": "NodeTiering",
        "metadata": { "name": node },
        "spec": spec(pods),
    });
    let params = PatchParams::apply("thermocline-controller").force();
    let patched = tierings.patch(node, &params, &Patch::Apply(&object)).await;
    patched.context("the assignment is refused")?;
    Ok(())
}

/// Each policy once, and pods that refer to it.
fn spec(pods: &[Value]) -> Value {
    let (mut pods, mut policies) = (pods.to_vec(), serde_json::Map::new());
    let mut lift = |holder: &mut Value| {
        if let Some(policy) = holder.get_mut("policy").filter(|policy| policy.is_object()) {
            let key = format!("p{}", policies.len());
            policies.insert(key.clone(), std::mem::replace(policy, json!(key)));
        }
    };
    for pod in &mut pods {
        lift(pod);
        pod.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten().for_each(&mut lift);
    }
    // As the controller does: an old server takes an empty map that is applied for null, and refuses it.
    if policies.is_empty() { json!({ "pods": pods }) } else { json!({ "policies": policies, "pods": pods }) }
}

fn start_agent(tree: &NodeTree, access: &Access, name: &str, arguments: &[&str]) -> Result<Agent> {
    let program = Path::new(env!("CARGO_BIN_EXE_agent-on-files"));
    Agent::start(program, tree, access, name, arguments)
}

/// A pod of this uid, and name, with a policy.
fn pod(uid: &str, spec: &Value) -> Value {
    json!({ "uid": uid, "namespace": "jobs", "name": uid, "policy": policy(spec) })
}

fn policy(spec: &Value) -> Value {
    json!({ "name": "batch", "spec": spec })
}

/// A policy that can be seen in a file: `memory.high` at so many MiB.
fn high(mebibytes: u64) -> Value {
    json!({ "memoryHigh": { "mode": "Fixed", "value": format!("{mebibytes}Mi") } })
}

/// The same as the file has it.
fn bytes(mebibytes: u64) -> String {
    (mebibytes << 20).to_string()
}

/// A condition of an object's or a pod's list by its type.
fn condition<'a>(of: &'a Value, kind: &str) -> &'a Value {
    let found = of["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.unwrap_or(&Value::Null)
}

/// A pod of a status.
fn pod_status<'a>(status: &'a Value, uid: &str) -> &'a Value {
    let found = status["pods"].as_array().and_then(|all| all.iter().find(|one| one["uid"] == uid));
    found.unwrap_or(&Value::Null)
}

/// Why a pod's policy is not carried out; `Enforced` where the agent has reported and says nothing of the pod.
fn enforcing<'a>(status: &'a Value, uid: &str) -> &'a str {
    let otherwise = if status["agentVersion"].is_string() { "Enforced" } else { "" };
    pod_status(status, uid)["reason"].as_str().unwrap_or(otherwise)
}
