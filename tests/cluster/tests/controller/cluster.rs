//! An API server with our definitions, and the objects that tests put there.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result};
use api::{NodeTiering, NodeTieringSpec, TieringPolicy};
use cluster_tests::{ApiServer, AuditLog, Etcd, User, Write, install_crds};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::replica::Replica;

/// Whom replicas talk to the server as, so that the audit log keeps them apart.
pub(crate) const REPLICAS: [&str; 2] = ["controller-a", "controller-b"];
/// Where the lease is.
pub(crate) const SYSTEM: &str = "thermocline-system";

/// A server with our definitions.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) etcd: Etcd,
    audit: AuditLog,
}

impl Cluster {
    pub(crate) async fn start() -> Result<Self> {
        let cluster = Self::without_definitions().await?;
        cluster.install_definitions().await?;
        Ok(cluster)
    }

    /// Installs our definitions without their rules, as servers have them that know none: what rules refuse reaches the controller then,
    /// whatever the server.
    pub(crate) async fn install_definitions(&self) -> Result<()> {
        let definitions = [TieringPolicy::crd(), NodeTiering::crd()].map(without_rules);
        let definitions: Vec<_> = definitions.into_iter().collect::<Result<_>>()?;
        install_crds(&self.server.administrator().client().await?, &definitions).await
    }

    pub(crate) async fn without_definitions() -> Result<Self> {
        let etcd = Etcd::start().await?;
        let audit = AuditLog::of(&REPLICAS)?;
        let users =
            REPLICAS.map(|name| User { name: name.to_owned(), groups: vec!["system:masters".to_owned()] });
        let server = ApiServer::start_with(&etcd, &users, &audit.arguments()).await?;
        let cluster = Self { server, etcd, audit };
        cluster.objects().await?.namespace(SYSTEM, json!({})).await?;
        Ok(cluster)
    }

    /// For this runtime.
    pub(crate) async fn objects(&self) -> Result<Objects> {
        Ok(Objects { client: self.server.administrator().client().await? })
    }

    /// Starts a replica that talks to the server as one of [`REPLICAS`].
    pub(crate) fn replica(&self, user: &str, arguments: &[&str]) -> Result<Replica> {
        Replica::start(&self.server.user(user)?, user, arguments)
    }

    /// All writes of replicas so far.
    pub(crate) fn writes(&self) -> Result<Vec<Write>> {
        self.audit.writes()
    }

    /// What was written for a node so far, in order, by whom: the writes that succeeded.
    pub(crate) fn written(&self, node: &str) -> Result<Vec<(String, NodeTieringSpec)>> {
        let writes = self.writes()?.into_iter();
        let assigned =
            writes.filter(|write| write.resource == "nodetierings" && write.name == node && write.code < 300);
        assigned
            .filter(|write| write.verb == "patch")
            .map(|write| Ok((write.user, serde_json::from_value(write.body["spec"].clone())?)))
            .collect()
    }
}

/// A cluster with one replica that leads, for tests that mind only their own objects.
pub(crate) struct Shared {
    pub(crate) replica: Mutex<Replica>,
    pub(crate) cluster: Cluster,
}

/// The policy that the shared replica gives pods which nothing else says anything of.
pub(crate) const DEFAULT_POLICY: &str = "by-default";

/// The one that runs, or one that is started. It ends with the last test that holds it.
pub(crate) async fn shared() -> Result<Arc<Shared>> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::const_new(Weak::new());
    let mut known = SHARED.lock().await;
    if let Some(shared) = known.upgrade() {
        return Ok(shared);
    }
    let cluster = Cluster::start().await?;
    cluster.objects().await?.policy(DEFAULT_POLICY, json!({})).await?;
    let mut replica = cluster.replica(REPLICAS[0], &["--default-policy", DEFAULT_POLICY])?;
    replica.until_leading().await?;
    let shared = Arc::new(Shared { replica: Mutex::new(replica), cluster });
    *known = Arc::downgrade(&shared);
    Ok(shared)
}

/// Makes and changes objects, as users and kubelet would.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) client: Client,
}

/// Namespace and name of `NAMESPACE/NAME`.
pub(crate) fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("default", key))
}

impl Objects {
    pub(crate) async fn node(&self, name: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({ "metadata": { "name": name }, "status": { "allocatable": { "memory": "4Gi" } } });
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await.context("a node")?;
        self.report(name).await
    }

    /// Has a node's agent report, as soon as the controller made the object for it, or before.
    pub(crate) async fn report(&self, node: &str) -> Result<()> {
        let resource = ApiResource::erase::<NodeTiering>(&());
        let tierings: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let object = DynamicObject::new(node, &resource).data(json!({ "spec": {} }));
        match tierings.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other.context("an object to report in")?),
        }
        let status = json!({ "status": { "agentVersion": "test" } });
        tierings
            .patch_status(node, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .context("a report")?;
        Ok(())
    }

    pub(crate) async fn delete_node(&self, name: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Makes a namespace, or changes its metadata.
    pub(crate) async fn namespace(&self, name: &str, metadata: Value) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let mut namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        merge(&mut namespace["metadata"], &metadata);
        namespaces.patch(name, &tests(), &Patch::Apply(&namespace)).await.context("a namespace")?;
        Ok(())
    }

    /// Makes a policy, or replaces its spec.
    pub(crate) async fn policy(&self, name: &str, spec: Value) -> Result<()> {
        // Untyped: the definition may be of another version.
        let policies: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::erase::<TieringPolicy>(&()));
        let policy = json!({
            "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": name }, "spec": spec,
        });
        policies.patch(name, &tests(), &Patch::Apply(&policy)).await.context("a policy")?;
        Ok(())
    }

    /// Makes a pod of the containers `main` and `side`, with what is in `changes`; its uid.
    pub(crate) async fn pod(&self, key: &str, node: &str, changes: &Value) -> Result<String> {
        let (namespace, name) = split(key);
        let container = |name: &str| json!({ "name": name, "image": "none" });
        let mut pod = json!({
            "metadata": { "name": name },
            "spec": { "nodeName": node, "containers": [container("main"), container("side")] },
        });
        merge(&mut pod, changes);
        let pod = serde_json::from_value(pod)?;
        let made = self.pods(namespace).create(&PostParams::default(), &pod).await;
        Ok(made.with_context(|| format!("pod {key}"))?.uid().unwrap_or_default())
    }

    /// Makes a pod that names a policy; its uid.
    pub(crate) async fn pod_with(&self, key: &str, node: &str, policy: &str) -> Result<String> {
        self.pod(key, node, &annotated("thermocline.io/policy", policy)).await
    }

    /// Changes a pod, by merge.
    pub(crate) async fn change_pod(&self, key: &str, change: &Value) -> Result<()> {
        let (namespace, name) = split(key);
        let pods = self.pods(namespace);
        pods.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.context("a pod")?;
        Ok(())
    }

    /// Has a pod name another policy.
    pub(crate) async fn name_policy(&self, key: &str, policy: &str) -> Result<()> {
        self.change_pod(key, &annotated("thermocline.io/policy", policy)).await
    }

    /// Changes the status of a pod, by merge.
    pub(crate) async fn change_pod_status(&self, key: &str, status: Value) -> Result<()> {
        let (namespace, name) = split(key);
        let change = Patch::Merge(json!({ "status": status }));
        self.pods(namespace).patch_status(name, &PatchParams::default(), &change).await?;
        Ok(())
    }

    pub(crate) async fn delete_pod(&self, key: &str) -> Result<()> {
        let (namespace, name) = split(key);
        self.pods(namespace).delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn node_tiering(&self, node: &str) -> Result<Option<NodeTiering>> {
        let nodes: Api<NodeTiering> = Api::all(self.client.clone());
        Ok(nodes.get_opt(node).await?)
    }

    pub(crate) async fn version_of(&self, node: &str) -> Result<String> {
        let object = self.node_tiering(node).await?.with_context(|| format!("{node} has no assignment"))?;
        object.resource_version().context("an object has a version")
    }

    /// The policies that a node is assigned, by pod.
    pub(crate) async fn assigned(&self, node: &str) -> Result<BTreeMap<String, String>> {
        let spec = self.node_tiering(node).await?.map(|object| object.spec).unwrap_or_default();
        Ok(policies(&spec))
    }

    /// Waits until a node is assigned these policies, by pod, and no others.
    pub(crate) async fn until_assigned(&self, node: &str, expected: &[(&str, &str)]) -> Result<()> {
        let own = |(pod, policy): &(&str, &str)| ((*pod).to_owned(), (*policy).to_owned());
        let expected: BTreeMap<_, _> = expected.iter().map(own).collect();
        let mut found = BTreeMap::new();
        let what = format!("{node} is assigned {expected:?}");
        let waited = cluster_tests::eventually(&what, async || {
            found = self.assigned(node).await?;
            Ok((found == expected).then_some(()))
        });
        waited.await.with_context(|| format!("there was {found:?}"))
    }
}

/// The policies of a spec by pod; those of containers after a semicolon.
pub(crate) fn policies(spec: &NodeTieringSpec) -> BTreeMap<String, String> {
    let of_pod = |pod: &api::PodAssignment| {
        let name = |key: &Option<String>| {
            spec.policy(key.as_ref()).map_or("-".to_owned(), |policy| policy.name.clone())
        };
        let of_containers =
            pod.containers.iter().map(|found| format!("; {}: {}", found.name, name(&found.policy)));
        (format!("{}/{}", pod.namespace, pod.name), name(&pod.policy) + &of_containers.collect::<String>())
    };
    spec.pods.iter().map(of_pod).collect()
}

fn without_rules(definition: CustomResourceDefinition) -> Result<CustomResourceDefinition> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("x-kubernetes-validations");
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut definition = serde_json::to_value(definition)?;
    strip(&mut definition);
    Ok(serde_json::from_value(definition)?)
}

/// A spec that the rules refuse, and the controller.
pub(crate) fn refused() -> Value {
    json!({ "dram": { "floor": "2Gi", "ceiling": "1Gi" } })
}

/// Metadata with one annotation.
pub(crate) fn annotated(key: &str, value: &str) -> Value {
    json!({ "metadata": { "annotations": { key: value } } })
}

fn tests() -> PatchParams {
    PatchParams::apply("cluster-tests").force()
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(into.entry(key).or_insert(Value::Null), change);
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}
