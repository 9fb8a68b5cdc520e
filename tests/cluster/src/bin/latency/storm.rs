//! Many pods that change all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use cluster_tests::apply;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

/// Requests under way at a time.
const AT_A_TIME: usize = 16;

/// A storm that blows until it is ended.
pub(crate) struct Storm {
    blowing: JoinHandle<Result<()>>,
    count: Arc<AtomicU32>,
    began: Instant,
}

/// What it was.
pub(crate) struct Changes {
    pub(crate) count: u32,
    /// A second.
    pub(crate) rate: f64,
}

/// Creates its nodes and pods. Of the nodes, the first may be there already.
pub(crate) async fn populate(client: &Client, nodes: u32, pods: u32) -> Result<()> {
    let node = |number| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("node-{number}") } });
    apply(client, (0..nodes).map(node)).await?;
    // Only nodes whose agent has reported are assigned anything.
    let tiering = |number| json!({ "apiVersion": "thermocline.io/v1alpha1", "kind": "NodeTiering", "metadata": { "name": format!("node-{number}") }, "spec": {} });
    apply(client, (0..nodes).map(tiering)).await?;
    let tierings: Api<api::NodeTiering> = Api::all(client.clone());
    let report = Patch::Merge(json!({ "status": { "agentVersion": "test" } }));
    for number in 0..nodes {
        tierings.patch_status(&format!("node-{number}"), &PatchParams::default(), &report).await?;
    }
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let mut creating = JoinSet::new();
    for number in 0..pods {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": pod_name(number), "annotations": { "thermocline.io/policy": "lower" } },
            "spec": { "nodeName": format!("node-{}", number % nodes), "containers": [{ "name": "main", "image": "none" }] },
        }))?;
        let api = api.clone();
        if creating.len() == AT_A_TIME {
            creating.join_next().await.transpose()?.transpose()?;
        }
        creating.spawn(async move { api.create(&PostParams::default(), &pod).await.map(drop) });
    }
    while let Some(created) = creating.join_next().await {
        created??;
    }
    Ok(())
}

fn pod_name(number: u32) -> String {
    format!("pod-{number}")
}

impl Storm {
    /// Annotates each pod in turn, so many a second, or as many as the server takes.
    pub(crate) fn start(client: Client, pods: u32, rate: u32) -> Self {
        let count = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&count);
        let blowing = tokio::spawn(async move {
            let api: Api<Pod> = Api::default_namespaced(client);
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            let mut changing = JoinSet::new();
            for number in 0_u32.. {
                ticks.tick().await;
                if changing.len() == AT_A_TIME {
                    changing.join_next().await.transpose()?.transpose()?;
                }
                let policy = if (number / pods.max(1)).is_multiple_of(2) { "higher" } else { "lower" };
                let annotation =
                    json!({ "metadata": { "annotations": { "thermocline.io/policy": policy } } });
                let (api, counted) = (api.clone(), Arc::clone(&counted));
                changing.spawn(async move {
                    let name = pod_name(number % pods.max(1));
                    let changed = api.patch(&name, &PatchParams::default(), &Patch::Merge(&annotation)).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                    changed.map(drop)
                });
            }
            anyhow::Ok(())
        });
        Self { blowing, count, began: Instant::now() }
    }

    /// Ends it.
    pub(crate) async fn end(self) -> Result<Changes> {
        let seconds = self.began.elapsed().as_secs_f64();
        let count = self.count.load(Ordering::Relaxed);
        self.blowing.abort();
        if let Ok(ended) = self.blowing.await {
            ended?;
        }
        Ok(Changes { count, rate: f64::from(count) / seconds })
    }
}
