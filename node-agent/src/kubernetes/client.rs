//! The one place that talks to the API server: watches this node's `NodeTiering`, and writes its status.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{NodeTiering, NodeTieringStatus};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Config, Resource as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tower::BoxError;
use tower::util::MapResultLayer;

use super::assignment::Assignment;
use super::last_known::LastKnown;
use super::mailbox;
use super::status::{Facts, Pace};
use crate::snapshot::{ClusterView, Published};

/// Who owns the fields of the status.
pub const FIELD_MANAGER: &str = "thermocline-agent";

/// The API server ends each watch after this much time, and the next one proves that it is still there.
const WATCH_FOR: Duration = Duration::from_mins(1);

/// A server that says nothing for this long is away, though nothing ended the connection.
const SILENCE: Duration = Duration::from_secs(90);

/// A write of the status that takes longer counts as failed: the next one says the same, or what is newer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// The status is compared with what was written this often, at least.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Between two looks whether what is assigned was confirmed lately.
const LOOK_FOR_RENEWAL: Duration = Duration::from_secs(30);

/// Why the API server can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No service account, and no kubeconfig was named.
    #[error(
        "cannot tell where the API server is: {0}; in a pod, it needs a service account's token \
         (automountServiceAccountToken), elsewhere --kubeconfig FILE"
    )]
    InCluster(#[from] kube::config::InClusterError),
    /// The kubeconfig can't be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// The client can't be set up, for example for a certificate that can't be read.
    #[error("cannot set up the client of the API server: {0}")]
    Setup(#[from] kube::Error),
}

/// Where the API server is and how to be let in.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let mut config = match kubeconfig {
        None => Config::incluster()?,
        Some(path) => {
            let failed = |source| ClientError::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
        }
    };
    if config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTP) {
        // There is nothing to verify: the system's authorities, which an image from scratch has none of, are not looked for.
        config.root_cert.get_or_insert_default();
    }
    config.read_timeout = Some(SILENCE);
    // A client that tries again by itself hides for minutes that the server is away: watch and writer try again, and say so.
    config.default_retry = false;
    Ok(config)
}

/// What a client is started with.
#[derive(Debug)]
pub struct Settings {
    /// Where the API server is.
    pub config: Config,
    /// Name of this node.
    pub node: String,
    /// Least time between two writes of the status.
    pub between_writes: Duration,
}

/// The client of one node.
pub struct Client {
    node: String,
    api: Api<DynamicObject>,
    watch: Watch,
    writer: Writer,
}

impl Client {
    /// A client that goes on from what was last `known`, which the loop has already. To be called within a runtime.
    pub fn new(
        settings: Settings,
        last_known: LastKnown,
        known: Arc<Assignment>,
        sender: mailbox::Sender,
        published: Published,
    ) -> Result<Self, ClientError> {
        let Settings { config, node, between_writes } = settings;
        published.update(|snapshot| snapshot.cluster.get_or_insert_default().node.clone_from(&node));
        // A watch that begins, or a list that is answered, is what proves that changes would be heard of.
        let watched = published.clone();
        let answered = MapResultLayer::new(move |answer: Result<http::Response<_>, BoxError>| {
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                note_contact(&watched);
            }
            answer
        });
        let watching = ClientBuilder::try_from(config.clone())?.with_layer(&answered).build();
        let (assignment, assignments) = watch::channel(None);
        let (status, statuses) = watch::channel(NodeTieringStatus::default());
        let writer = Writer {
            api: api(kube::Client::try_from(config)?),
            node: node.clone(),
            pace: Pace::new(between_writes),
            published: published.clone(),
            assignments,
            statuses,
            written: Written::default(),
            failing: None,
            outage: Outage::default(),
        };
        let hears = Hears { assignment, status, uid: None };
        let watch = Watch { hears, last_known, known, sender, published, told_away: false, object: None };
        Ok(Self { node, api: api(watching), watch, writer })
    }

    /// Watches and writes, for ever.
    pub async fn run(self) {
        futures::join!(self.watch.run(self.api, &self.node), self.writer.run());
    }
}

/// What the watch hears, for who writes the status.
struct Hears {
    /// `None` while there is no `NodeTiering`.
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    /// The status that the object came with: an agent before this one may have written it.
    status: watch::Sender<NodeTieringStatus>,
    /// The uid of the object.
    uid: Option<String>,
}

impl Hears {
    /// There is another object, or none: what was written to that before says nothing of its status.
    fn another(&mut self, object: Option<&DynamicObject>) {
        self.uid = object.and_then(|object| object.metadata.uid.clone());
        self.status.send_replace(object.map(status_of).unwrap_or_default());
    }

    /// The object changed: another may have written its status, or a write of ours that was given up came late.
    fn changed(&mut self, object: &DynamicObject) {
        let status = status_of(object);
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }
}

/// Who watches.
struct Watch {
    hears: Hears,
    last_known: LastKnown,
    known: Arc<Assignment>,
    sender: mailbox::Sender,
    published: Published,
    /// Whether it was told that the API server is away.
    told_away: bool,
    /// What was heard last.
    object: Option<Value>,
}

impl Watch {
    async fn run(mut self, api: Api<DynamicObject>, node: &str) {
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={node}"))
            .timeout(u32::try_from(WATCH_FOR.as_secs()).unwrap_or(u32::MAX));
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut listed = None;
        let mut looks = tokio::time::interval(LOOK_FOR_RENEWAL);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = looks.tick() => {
                    // Before anything was heard, what is known stands.
                    if self.object.is_some() && self.is_stale(self.known.renewed) != self.known.stale {
                        self.carry_out();
                    }
                    continue;
                }
            };
            // The stream has no end.
            let Some(event) = event else { return };
            match event {
                Ok(watcher::Event::Init) => listed = None,
                Ok(watcher::Event::InitApply(object)) => listed = Some(object),
                Ok(watcher::Event::InitDone) => {
                    let object = listed.take();
                    self.hears.another(object.as_ref());
                    self.take(object);
                }
                Ok(watcher::Event::Apply(object)) => {
                    if object.metadata.uid == self.hears.uid {
                        self.hears.changed(&object);
                    } else {
                        self.hears.another(Some(&object));
                    }
                    self.take(Some(object));
                }
                Ok(watcher::Event::Delete(_)) => {
                    self.hears.another(None);
                    self.take(None);
                }
                Err(error) => self.lost(&error),
            }
        }
    }

    /// Hands an object on to the loop, then to the disk. Without one nothing is assigned.
    fn take(&mut self, object: Option<DynamicObject>) {
        self.object = object.map(|object| {
            let annotations = object.metadata.annotations.unwrap_or_default();
            let ours = [api::EPOCH, api::RENEWED].map(|key| (key, annotations.get(key)));
            let metadata = json!({
                "name": object.metadata.name,
                "generation": object.metadata.generation,
                "resourceVersion": object.metadata.resource_version,
                "annotations": ours.into_iter().filter_map(|(key, value)| Some((key, value?))).collect::<BTreeMap<_, _>>(),
            });
            json!({ "metadata": metadata, "spec": object.data["spec"] })
        });
        self.carry_out();
    }

    /// Whether nobody has confirmed for long what is assigned. What was written by hand has no such time, and while the API server
    /// is away nobody can: then time stands still.
    fn is_stale(&self, renewed: Option<u64>) -> bool {
        let contact =
            self.published.latest().cluster.as_ref().and_then(|cluster| cluster.last_contact_unix_seconds);
        let age = |(contact, renewed): (f64, u64)| contact - Duration::from_secs(renewed).as_secs_f64();
        contact.zip(renewed).is_some_and(|both| age(both) > api::STALE_AFTER.as_secs_f64())
    }

    fn carry_out(&mut self) {
        let object = self.object.clone();
        let mut assignment =
            object.as_ref().map_or_else(Assignment::default, |object| Assignment::read(object, &self.known));
        if assignment.epoch.is_some() && assignment.epoch < self.known.epoch {
            tracing::warn!(
                epoch = assignment.epoch,
                known = self.known.epoch,
                "a controller that leads no more wrote what is assigned; what is known is newer and is carried out"
            );
            return;
        }
        if self.is_stale(assignment.renewed) {
            if !self.known.stale {
                tracing::warn!(
                    renewed = assignment.renewed,
                    "no controller has confirmed for long what is assigned: it is observed"
                );
            }
            assignment = assignment.observing();
        }
        let is_new = assignment != *self.known;
        if is_new {
            self.known = Arc::new(assignment);
            self.sender.send(Arc::clone(&self.known));
            for pod in self.known.pods.values() {
                if let Some(problem) = &pod.problem {
                    tracing::warn!(
                        pod = format!("{}/{}", pod.namespace, pod.name),
                        problem,
                        "not understood"
                    );
                }
            }
        }
        self.hears.assignment.send_replace(object.is_some().then(|| Arc::clone(&self.known)));
        if is_new && let Err(error) = self.last_known.store(object.as_ref()) {
            let path = self.last_known.path().display();
            tracing::error!(%path, %error, "what is assigned can't be kept: while the API server is away, a new agent knows nothing");
        }
    }

    fn lost(&mut self, error: &watcher::Error) {
        let mut was_up = false;
        self.published.update(|snapshot| {
            let cluster = snapshot.cluster.get_or_insert_default();
            was_up = std::mem::take(&mut cluster.api_server_up);
        });
        if was_up || !self.told_away {
            tracing::warn!(%error, "the API server is away; what was last known is carried out");
        } else {
            tracing::debug!(%error, "the API server is still away");
        }
        self.told_away = true;
    }
}

fn api(client: kube::Client) -> Api<DynamicObject> {
    Api::all_with(client, &ApiResource::erase::<NodeTiering>(&()))
}

fn status_of(object: &DynamicObject) -> NodeTieringStatus {
    // One that an agent of another version wrote may not be understood; then it is written anew.
    serde_json::from_value(object.data["status"].clone()).unwrap_or_default()
}

fn note_contact(published: &Published) {
    let now = Timestamp::now().as_duration().as_secs_f64();
    published.update(|snapshot| {
        let cluster = snapshot.cluster.get_or_insert_default();
        if !cluster.api_server_up {
            tracing::info!("the API server is there");
        }
        cluster.api_server_up = true;
        cluster.last_contact_unix_seconds = Some(now);
    });
}

/// When the API server was away.
#[derive(Debug, Default)]
struct Outage {
    began: Option<Timestamp>,
    last: Option<(Timestamp, Timestamp)>,
}

impl Outage {
    fn note(&mut self, cluster: &ClusterView, now: Timestamp) {
        match (cluster.api_server_up, self.began) {
            (true, Some(began)) => {
                self.last = Some((began, now));
                self.began = None;
            }
            // Before the first contact it is no outage but a start.
            (false, None) if cluster.last_contact_unix_seconds.is_some() => self.began = Some(now),
            _ => {}
        }
    }
}

/// What the API server has, and what of it is ours.
#[derive(Debug, Default)]
struct Written {
    /// What it has, as far as is known.
    has: NodeTieringStatus,
    /// What was sent last.
    sent: NodeTieringStatus,
    /// What it made of that: one with older definitions drops what it does not know.
    stored: NodeTieringStatus,
}

impl Written {
    /// The watch says what it has: what was sent last, or what another wrote, or a write of ours that was given up and came late.
    fn heard(&mut self, heard: NodeTieringStatus) {
        self.has = if heard == self.stored { self.sent.clone() } else { heard };
    }
}

/// Who writes the status.
struct Writer {
    api: Api<DynamicObject>,
    node: String,
    pace: Pace,
    published: Published,
    assignments: watch::Receiver<Option<Arc<Assignment>>>,
    statuses: watch::Receiver<NodeTieringStatus>,
    written: Written,
    /// Why the last write failed, if it did.
    failing: Option<String>,
    outage: Outage,
}

impl Writer {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(COMPARE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let snapshot = self.published.latest();
            let cluster = snapshot.cluster.clone().unwrap_or_default();
            let now = whole_seconds(Timestamp::now());
            self.outage.note(&cluster, now);
            if self.statuses.has_changed().unwrap_or(false) {
                let heard = self.statuses.borrow_and_update().clone();
                self.written.heard(heard);
            }
            let assignment = self.assignments.borrow().clone();
            // What the loop has not carried out yet can't be told of.
            let Some(assignment) = assignment.filter(|known| known.generation == cluster.generation) else {
                continue;
            };
            let clock = Instant::now();
            if snapshot.rounds == 0 || !self.pace.allows(clock) {
                continue;
            }
            let facts = Facts { assignment: &assignment, snapshot: &snapshot, outage: self.outage.last, now };
            let status = facts.status(&self.written.has);
            if status == self.written.has {
                continue;
            }
            self.pace.tried(clock);
            if let Some(stored) = self.write(&status).await {
                self.written = Written { has: status.clone(), sent: status, stored };
            }
        }
    }

    /// The status as the API server stored it; `None` where it did not take it.
    async fn write(&mut self, status: &NodeTieringStatus) -> Option<NodeTieringStatus> {
        let body: Value = json!({
            "apiVersion": NodeTiering::api_version(&()),
            "kind": NodeTiering::kind(&()),
            "metadata": { "name": self.node },
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let answer = match timeout(WRITE_TIMEOUT, self.api.patch_status(&self.node, &params, &patch)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", WRITE_TIMEOUT.as_secs())),
        };
        let (stored, failure) = match answer {
            Ok(object) => (Some(status_of(&object)), None),
            Err(failure) => (None, Some(failure)),
        };
        match &failure {
            None if self.failing.is_some() => tracing::info!("the status is written again"),
            Some(error) if self.failing != failure => {
                tracing::warn!(error, "the status can't be written; tried again later");
            }
            _ => {}
        }
        self.failing = failure;
        self.published.update(|snapshot| {
            let cluster = snapshot.cluster.get_or_insert_default();
            *(if stored.is_some() { &mut cluster.status_writes } else { &mut cluster.status_failures }) += 1;
        });
        stored
    }
}

/// As the API server keeps times.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
