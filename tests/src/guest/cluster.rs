//! The API server as a scenario calls it: one call after the other, each waited for.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client, Config, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::node::ADMIN_CONFIG;

/// The administrator's connection.
pub struct Cluster {
    client: Client,
    runtime: Runtime,
}

impl Cluster {
    /// Connects with the administrator's file.
    pub fn connect() -> Result<Self> {
        // Its thread keeps connections alive between calls.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let config = Kubeconfig::read_from(ADMIN_CONFIG)?;
            let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { client, runtime })
    }

    /// All objects of a kind, in all namespaces.
    pub fn list<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let list = self.runtime.block_on(api.list(&ListParams::default()));
        Ok(list.with_context(|| format!("list {}", K::plural(&())))?.items)
    }

    /// An object that belongs to no namespace, or `None` where there is none of that name.
    pub fn get<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        self.runtime.block_on(api.get_opt(name)).with_context(|| format!("{} {name}", K::kind(&())))
    }

    /// An object of a namespace, or `None` where there is none of that name.
    pub fn get_in<K>(&self, namespace: &str, name: &str) -> Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.runtime.block_on(api.get_opt(name)).with_context(|| format!("{} {name}", K::kind(&())))
    }

    /// Sets annotations of a pod; those that are null are removed.
    pub fn annotate(&self, namespace: &str, pod: &str, annotations: &Value) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
        let patched = self.runtime.block_on(api.patch(pod, &PatchParams::default(), &patch));
        patched.map(|_| ()).with_context(|| format!("annotate {pod}"))
    }

    /// Gives a running container another limit of memory, as a Vertical Pod Autoscaler does.
    pub fn resize(&self, namespace: &str, pod: &str, container: &str, limit: &str) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let resources = json!({ "limits": { "memory": limit } });
        let patch = json!({ "spec": { "containers": [{ "name": container, "resources": resources }] } });
        let parameters = PatchParams::default();
        let patched = self.runtime.block_on(api.patch_subresource(
            "resize",
            pod,
            &parameters,
            &Patch::Strategic(patch),
        ));
        patched.map(|_| ()).with_context(|| format!("resize {pod}"))
    }

    /// Creates an object as a manifest has it. Unlike server-side apply, an older server drops what it does not know.
    pub fn create(&self, manifest: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(manifest)?;
        self.runtime.block_on(async {
            let (api, what) = self.place(&object).await?;
            api.create(&PostParams::default(), &object).await.with_context(|| format!("create {what}"))?;
            Ok(())
        })
    }

    /// Deletes an object that a manifest names; what it made goes with it. One that is not there is no error.
    pub fn delete(&self, manifest: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(manifest)?;
        self.runtime.block_on(async {
            let (api, what) = self.place(&object).await?;
            match api.delete(&object.name_any(), &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                deleted => deleted.map(drop).with_context(|| format!("delete {what}")),
            }
        })
    }

    /// Server-side apply of an object as a manifest has it.
    pub fn apply(&self, manifest: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(manifest)?;
        self.runtime.block_on(async {
            let (api, what) = self.place(&object).await?;
            let parameters = PatchParams::apply("scenario").force();
            api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await.with_context(|| what)?;
            Ok(())
        })
    }

    /// Where an object belongs, and its kind and name.
    async fn place(&self, object: &DynamicObject) -> Result<(Api<DynamicObject>, String)> {
        let name = object.name_any();
        let types = object.types.as_ref().with_context(|| format!("{name} has no apiVersion and kind"))?;
        let kind = GroupVersionKind::try_from(types)?;
        let (resource, capabilities) = oneshot::pinned_kind(&self.client, &kind)
            .await
            .with_context(|| format!("the server does not know {}", types.kind))?;
        let api = match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
                Api::namespaced_with(self.client.clone(), &namespace, &resource)
            }
        };
        Ok((api, format!("{} {name}", types.kind)))
    }
}
