//! The loop: takes what the watches see into the index, and writes what follows.
//!
//! It alone changes state; watches, writes and the lease are tasks that send it [`Event`]s. Who does not hold the lease does all but
//! write, so that it can begin at once.

mod apply;
mod labels;
mod publish;
mod warnings;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::annotations::Cause;
use api::{NodeTieringSpec, TieringPolicyStatus};
use tokio::sync::{mpsc, oneshot, watch};

use crate::debounce::Debounce;
use crate::event_queue::{EventQueue, KubeEvent};
use crate::index::{Changes, Explanation, Index, Name, PodKey};
use crate::lease::Fence;
use crate::node_labels::NodeLabels;
use crate::node_tierings::{Content, NodeTierings};
use crate::node_writes::{Due, NodeWrites};
use crate::owner::Owner;
use crate::policy_status::{StatusWrites, StoredPolicies};
use crate::snapshot::{Snapshot, Tallies};
use crate::watch::Watched;
use crate::watch::objects::{IndexedKind, Kind};
use crate::write::{WriteError, WriteFault, Writer};

use warnings::Warning;

/// Events taken at a time.
const BATCH: usize = 256;
/// So many pods are resolved, after a change of what concerns more of them, before events have their turn again: a few milliseconds.
const PODS_IN_A_TURN: usize = 1024;
/// Writes under way when asked to stop are waited for this long.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Between two times that it says how things are.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Between two looks which nodes were written long ago.
const RENEW_LOOK: Duration = Duration::from_mins(1);

/// Until it is looked whether there is room for warnings that there was none for.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// Until a warning is posted that was postponed: the server refused to take it, as while its namespace is missing, or it changes all the time.
const POSTPONE_FOR: Duration = Duration::from_secs(20);

/// Between two times that every warning is posted: servers forget Events.
const REPEAT_EVERY: Duration = Duration::from_hours(1);

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// A watch observed something.
    Watched(Box<Watched>),
    /// The lease was taken or lost.
    Leading(bool),
    /// A write of a node ended.
    NodeWritten(Box<NodeWrite>),
    /// A write of a node's label ended.
    Labelled(Due, Result<(), WriteError>),
    /// A write of a policy's status ended.
    StatusWritten(Name, Result<TieringPolicyStatus, WriteError>),
    /// It is known whom `NodeTiering`s belong to, or that has changed.
    Owner(Owner),
    /// The server refused to take an Event.
    NotPosted(Box<KubeEvent>),
    /// Somebody asks.
    Asked(Question),
    /// It is time to end.
    Stop,
}

impl From<Watched> for Event {
    fn from(watched: Watched) -> Self {
        Self::Watched(Box::new(watched))
    }
}

/// How a write of a node ended.
#[derive(Debug)]
pub struct NodeWrite {
    due: Due,
    outcome: Outcome,
    took: Duration,
}

/// What was tried, and what came of it.
#[derive(Debug)]
enum Outcome {
    /// This was to be assigned to a node; on success, with the uid and generation of the object.
    Assigned {
        spec: NodeTieringSpec,
        content: Content,
        renewed: u64,
        /// To be posted where it succeeded.
        events: Vec<KubeEvent>,
        result: Result<(String, i64), WriteError>,
    },
    /// The object of a node that is no more was to be removed.
    Removed { result: Result<(), WriteError> },
}

/// A question from outside the loop: why a pod has what it has; `None` where there is no such pod.
#[derive(Debug)]
pub struct Question {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Where to answer.
    pub answer: oneshot::Sender<Option<Explanation>>,
}

/// How things were when the loop said so last. Whoever asks reads this: nothing that anybody asks costs the loop anything.
#[derive(Clone, Debug)]
pub struct Published {
    /// How things were.
    pub snapshot: Arc<Snapshot>,
    /// When. A loop that is well says so every second.
    pub at: Instant,
}

impl Default for Published {
    fn default() -> Self {
        Self { snapshot: Arc::default(), at: Instant::now() }
    }
}

/// The state of the loop.
pub struct Controller {
    index: Index,
    tierings: NodeTierings,
    policies: StoredPolicies,
    /// Kinds of which all objects have come once.
    synced: BTreeSet<Kind>,
    /// Whether what follows from them is known.
    resolved: bool,
    /// When the oldest event came that is not taken up yet.
    oldest: Option<Instant>,
    /// The same of those that are, while not all is known that follows.
    oldest_taken_up: Option<Instant>,
    leading: bool,
    /// Whom `NodeTiering`s belong to; `None` until that is known.
    owner: Option<Owner>,
    fence: Fence,
    nodes: NodeWrites,
    /// Where nodes are to be labelled.
    labels: Option<NodeLabels>,
    debounce: Debounce,
    statuses: StatusWrites,
    event_queue: EventQueue,
    writer: Writer,
    /// For the tasks that write.
    events: mpsc::Sender<Event>,
    tallies: Tallies,
    /// Errors of each node's writes since the last success, for the log.
    failing: BTreeMap<Name, WriteFault>,
    /// Events of pods, to be posted once it is known that a write without an answer was carried out.
    unconfirmed: BTreeMap<Name, Vec<KubeEvent>>,
    /// Warnings that there was no room for.
    pending: BTreeSet<Warning>,
    /// From which of them on it goes on posting: each namespace has its turn.
    next_warning: Option<Warning>,
    /// Warnings that are to wait, and until when.
    postponed: BTreeSet<Warning>,
    postponed_until: Instant,
    /// When to post all warnings again.
    repeat_at: Instant,
    /// Why the default policy does not apply, as it was logged last.
    default_problem: Option<Cause>,
    /// Since when it has led, in seconds since 1970.
    epoch: u64,
    /// When to look next which nodes were written long ago.
    renew_at: Instant,
    published: watch::Sender<Published>,
    started: Instant,
}

impl Controller {
    /// One that has seen nothing yet, with an empty index. `events` leads to the receiver that [`Self::run`] gets.
    #[must_use]
    pub fn new(
        index: Index,
        writer: Writer,
        event_queue: EventQueue,
        fence: Fence,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            index,
            tierings: NodeTierings::default(),
            policies: StoredPolicies::default(),
            synced: BTreeSet::new(),
            resolved: false,
            oldest: None,
            oldest_taken_up: None,
            leading: false,
            owner: None,
            fence,
            nodes: NodeWrites::default(),
            labels: None,
            debounce: Debounce::default(),
            statuses: StatusWrites::default(),
            event_queue,
            writer,
            events,
            tallies: Tallies::default(),
            failing: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            pending: BTreeSet::new(),
            next_warning: None,
            postponed: BTreeSet::new(),
            postponed_until: Instant::now(),
            repeat_at: Instant::now() + REPEAT_EVERY,
            default_problem: None,
            epoch: 0,
            renew_at: Instant::now(),
            published: watch::Sender::default(),
            started: Instant::now(),
        }
    }

    /// The same; it labels nodes by their slow tier.
    #[must_use]
    pub fn with_slow_tier_labels(mut self) -> Self {
        self.labels = Some(NodeLabels::default());
        self
    }

    /// Where it says how things are, every second.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Runs until [`Event::Stop`], and writes under way have ended.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping: Option<Instant> = None;
        loop {
            let publish_at = self.publish(Instant::now());
            let due = stopping.or_else(|| self.next_due()).map_or(publish_at, |due| due.min(publish_at));
            let idle = tokio::time::sleep_until(due.into());
            tokio::select! {
                // What has come is always served.
                biased;
                taken = events.recv_many(&mut batch, BATCH) => if taken == 0 { return },
                () = idle => {}
            }
            for event in batch.drain(..) {
                match event {
                    Event::Watched(watched) => {
                        self.oldest = Some(self.oldest.map_or(watched.at, |oldest| oldest.min(watched.at)));
                        self.watched(*watched);
                    }
                    Event::Leading(leading) => self.lead(leading),
                    Event::NodeWritten(write) => self.node_written(*write),
                    Event::Labelled(due, result) => self.labelled(&due, &result),
                    Event::StatusWritten(policy, result) => self.status_written(&policy, result),
                    Event::Owner(owner) => self.owned_by(owner),
                    Event::NotPosted(event) => self.not_posted(*event, Instant::now()),
                    Event::Asked(question) => self.answer(question),
                    Event::Stop => stopping = Some(Instant::now() + LAST_WRITES),
                }
            }
            if let Some(until) = stopping {
                let in_flight = [
                    self.nodes.in_flight(),
                    self.statuses.in_flight(),
                    self.labels.as_ref().map_or(0, NodeLabels::in_flight),
                ];
                let in_flight: usize = in_flight.into_iter().sum();
                if in_flight == 0 || Instant::now() >= until {
                    return;
                }
                continue;
            }
            self.resolve_some();
            self.renew();
            self.write_what_is_due();
            self.label_what_is_due();
            self.post_postponed(Instant::now());
            self.post_pending();
        }
    }

    /// Finds what follows from what has come, as far as a turn goes.
    fn resolve_some(&mut self) {
        if !self.is_listed() {
            return;
        }
        if !self.index.is_resolving() {
            self.oldest_taken_up = self.oldest.take().or(self.oldest_taken_up);
        }
        let changes = self.index.take_some_changes(PODS_IN_A_TURN);
        self.note(&changes, self.oldest_taken_up.or(self.oldest));
        if self.index.has_more() {
            return;
        }
        self.oldest_taken_up = None;
        self.log_default();
        if !self.resolved {
            self.resolved = true;
            tracing::info!(
                pods = self.index.len(IndexedKind::Pod),
                nodes = self.index.len(IndexedKind::Node),
                policies = self.index.len(IndexedKind::Policy),
                seconds = self.started.elapsed().as_secs_f64(),
                "everything is known"
            );
            if self.leading {
                self.mark_all();
            }
        }
    }

    fn is_listed(&self) -> bool {
        self.synced.len() == Kind::ALL.len()
    }

    /// Before it is, an assignment would lack pods.
    fn is_synced(&self) -> bool {
        self.is_listed() && self.resolved
    }

    fn may_write(&self) -> bool {
        self.leading && self.is_synced() && self.owner.is_some() && self.fence.holds(Instant::now())
    }

    fn next_due(&self) -> Option<Instant> {
        if self.is_listed() && self.index.has_more() {
            return Some(Instant::now());
        }
        if !self.may_write() {
            return None;
        }
        let warning = (!self.pending.is_empty()).then(|| Instant::now() + LOOK_FOR_ROOM);
        let later = (!self.postponed.is_empty()).then_some(self.postponed_until);
        [
            self.nodes.next_due(),
            self.statuses.next_due(),
            self.labels.as_ref().and_then(NodeLabels::next_due),
            warning,
            later,
            Some(self.renew_at),
            Some(self.repeat_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Marks for writing what changed. A follower has nothing to mark: it looks at everything when it begins to lead.
    fn note(&mut self, changes: &Changes, event: Option<Instant>) {
        if !self.may_mark() {
            return;
        }
        let now = Instant::now();
        for node in &changes.nodes {
            self.nodes.changed(node, event, now);
        }
        for policy in &changes.policies {
            self.policy_changed(policy, now);
        }
        for namespace in &changes.namespaces {
            self.warn_of_namespace(namespace);
        }
        let waits = changes.annotated.iter().map(|(pod, node)| {
            let wait = self.debounce.changed(pod, now);
            if wait.is_zero() {
                self.nodes.changed(node, event, now);
            } else {
                self.nodes.changed_later(node, now + wait);
            }
            (pod, wait)
        });
        let waiting: BTreeSet<&PodKey> =
            waits.filter(|(_, wait)| !wait.is_zero()).map(|(pod, _)| pod).collect();
        for pod in &changes.invalid {
            // What changes all the time is not posted all the time: its last state is.
            if waiting.contains(pod) {
                self.postpone(Warning::Pod(pod.clone()), now);
            } else {
                self.warn_of_annotations(pod);
            }
        }
        for pod in &changes.denied {
            self.warn_of_floor(pod);
        }
        for node in &changes.overcommitted {
            self.warn_of_overcommit(node);
        }
    }

    fn lead(&mut self, leading: bool) {
        self.leading = leading;
        // Clocks differ: whoever leads now is newer than whoever led before.
        self.epoch = unix_now().as_secs().max(self.tierings.newest_epoch() + 1);
        self.nodes.clear();
        self.statuses.clear();
        if let Some(labels) = &mut self.labels {
            labels.clear();
        }
        self.unconfirmed.clear();
        self.pending.clear();
        self.postponed.clear();
        if leading && self.is_synced() {
            self.mark_all();
        }
    }

    /// What belonged to another is written again.
    fn owned_by(&mut self, owner: Owner) {
        let changed = self.owner.replace(owner).is_some();
        if changed && self.may_mark() {
            let now = Instant::now();
            for node in self.tierings.nodes() {
                self.nodes.changed(node, None, now);
            }
        }
    }

    /// Marks everything: what needs no write is found when it is due.
    fn mark_all(&mut self) {
        let now = Instant::now();
        for node in self.index.nodes().chain(self.tierings.nodes()) {
            self.nodes.changed(node, None, now);
        }
        if let Some(labels) = &mut self.labels {
            labels.all_changed(now);
        }
        let policies: Vec<Name> = self.policies.names().cloned().collect();
        for policy in &policies {
            self.policy_changed(policy, now);
        }
        self.warn_of_all(now);
    }

    /// Posts every warning. What was posted in the same hour, the server has already.
    fn warn_of_all(&mut self, now: Instant) {
        self.repeat_at = now + REPEAT_EVERY;
        let policies: Vec<Name> = self.policies.names().cloned().collect();
        for policy in &policies {
            self.warn_of_policy(policy);
        }
        let namespaces: Vec<Name> = self.index.invalid_namespaces().cloned().collect();
        for namespace in &namespaces {
            self.warn_of_namespace(namespace);
        }
        let invalid: Vec<_> = self.index.invalid_pods().collect();
        for pod in &invalid {
            self.warn_of_annotations(pod);
        }
        let denied: Vec<_> = self.index.denied_pods().collect();
        for pod in &denied {
            self.warn_of_floor(pod);
        }
        let overcommitted: Vec<Name> = self.index.overcommitted().cloned().collect();
        for node in &overcommitted {
            self.warn_of_overcommit(node);
        }
        // Whoever led before may not have come to it.
        let suspensions: Vec<_> = self.tierings.suspensions().cloned().collect();
        for suspension in &suspensions {
            self.warn_of_suspension(suspension);
        }
    }

    /// Says once that the default policy does not apply, and once that it does again.
    fn log_default(&mut self) {
        let problem = self.index.problem_of_default();
        if problem == self.default_problem {
            return;
        }
        if let Some(cause) = &problem {
            tracing::warn!(%cause, "the default policy does not apply: pods that nothing else says anything of have none");
        } else {
            tracing::info!("the default policy applies");
        }
        self.default_problem = problem;
    }
}

/// Time since 1970, as it is written for others.
fn unix_now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
