//! One pod that is annotated again and again, and when its node's object and its cgroup's file follow.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use api::NodeTiering;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;

/// Longer than this is a defect and no latency.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the file is read while it is waited for.
const EVERY: Duration = Duration::from_millis(1);

/// The pod.
pub(crate) struct Probe {
    pods: Api<Pod>,
    name: String,
    uid: String,
    /// Names of policies, and what they make of `memory.high`.
    policies: [(&'static str, u64); 2],
    file: PathBuf,
    /// The policy that the node's object has for the pod, and since when that is seen.
    assigned: watch::Receiver<Option<(String, Instant)>>,
}

/// The stations of one annotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    sent: Instant,
    accepted: Instant,
    assigned: Instant,
    written: Instant,
}

impl Latency {
    pub(crate) fn accepted(&self) -> Duration {
        self.accepted.duration_since(self.sent)
    }

    pub(crate) fn assigned(&self) -> Duration {
        self.assigned.duration_since(self.sent)
    }

    /// Nothing where the agent was faster than the watch of the benchmark.
    pub(crate) fn carried_out(&self) -> Duration {
        self.written.saturating_duration_since(self.assigned)
    }

    pub(crate) fn total(&self) -> Duration {
        self.written.duration_since(self.sent)
    }
}

impl Probe {
    /// An existing pod of the namespace `default` on this node.
    pub(crate) async fn of(
        client: &Client,
        node: &'static str,
        name: &str,
        policies: [(&'static str, u64); 2],
    ) -> Result<Self> {
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let uid = pods.get(name).await?.uid().context("a pod has a uid")?;
        let tierings: Api<NodeTiering> = Api::all(client.clone());
        let (seen, assigned) = watch::channel(None);
        let of = uid.clone();
        tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
            let mut objects = std::pin::pin!(watcher(tierings, config).default_backoff().applied_objects());
            while let Some(object) = objects.next().await {
                let Ok(object) = object else { continue };
                let pod = object.spec.pods.iter().find(|pod| pod.uid == of);
                let policy = pod.and_then(|pod| object.spec.policy(pod.policy.as_ref()));
                if let Some(policy) = policy.cloned() {
                    let now = Instant::now();
                    seen.send_if_modified(|before| {
                        let is_new = before.as_ref().is_none_or(|(name, _)| *name != policy.name);
                        if is_new {
                            *before = Some((policy.name, now));
                        }
                        is_new
                    });
                }
            }
        });
        Ok(Self { pods, name: name.to_owned(), uid, policies, file: PathBuf::new(), assigned })
    }

    pub(crate) fn in_file(self, file: PathBuf) -> Self {
        Self { file, ..self }
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// Annotates it so many times, with either policy in turn.
    pub(crate) async fn measure(&self, annotations: u32, spacing: Duration) -> Result<Vec<Latency>> {
        let mut latencies = Vec::new();
        for (number, (policy, bytes)) in (0..annotations).zip(self.policies.iter().cycle()) {
            latencies
                .push(self.annotate(policy, *bytes).await.with_context(|| format!("annotation {number}"))?);
            // Not in step with anything that has a period.
            let step = Duration::from_millis(u64::from(number % 7) * 9);
            tokio::time::sleep(spacing + step).await;
        }
        Ok(latencies)
    }

    async fn annotate(&self, policy: &str, bytes: u64) -> Result<Latency> {
        let annotation = json!({ "metadata": { "annotations": { "thermocline.io/policy": policy } } });
        let (file, expected) = (self.file.clone(), bytes.to_string());
        let sent = Instant::now();
        // It may be written before the answer is here.
        let written = tokio::task::spawn_blocking(move || {
            while sent.elapsed() < PATIENCE {
                if std::fs::read_to_string(&file)?.trim_end() == expected {
                    return Ok(Instant::now());
                }
                std::thread::sleep(EVERY);
            }
            bail!("{} is not {expected} within {} s", file.display(), PATIENCE.as_secs())
        });
        self.pods.patch(&self.name, &PatchParams::default(), &Patch::Merge(&annotation)).await?;
        let accepted = Instant::now();
        let mut seen = self.assigned.clone();
        let is_assigned =
            |seen: &Option<(String, Instant)>| seen.as_ref().is_some_and(|(name, _)| name == policy);
        let assigned = tokio::time::timeout(PATIENCE, seen.wait_for(is_assigned)).await;
        let assigned = assigned.context("the policy is not assigned")??.as_ref().map(|(_, at)| *at);
        let assigned = assigned.context("it was waited for")?;
        Ok(Latency { sent, accepted, assigned, written: written.await?? })
    }
}

/// The median, the 99th percentile, and the longest, in milliseconds.
pub(crate) fn percentiles(latencies: &[Latency], of: fn(&Latency) -> Duration) -> [f64; 3] {
    let mut sorted: Vec<f64> = latencies.iter().map(|latency| of(latency).as_secs_f64() * 1000.0).collect();
    sorted.sort_by(f64::total_cmp);
    // Nearest rank.
    let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).max(1) - 1;
    [50, 99, 100].map(|percent| sorted.get(rank(percent)).copied().unwrap_or(f64::NAN))
}
