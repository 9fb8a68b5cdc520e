//! The loop: takes what the watches see into the index, and writes what follows.
//!
//! It alone changes state; watches, writes and the lease are tasks that send it [`Event`]s. Who does not hold the lease does all but
//! write, so that it can begin at once.

mod publish;
mod warnings;
mod watches;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::annotations::Cause;
use api::{NodeTieringSpec, TieringPolicyStatus};
use tokio::sync::{mpsc, oneshot, watch};

use crate::debounce::Debounce;
use crate::index::{Changes, Explanation, Index, Name, PodKey};
use crate::lease::Fence;
use crate::node_tierings::{Content, NodeTierings};
use crate::node_writes::{Due, NodeWrites};
use crate::occurrence::{Occurrence, Occurrences};
use crate::owner::Owner;
use crate::policy_status::{Policies, StatusWrites};
use crate::snapshot::{Snapshot, Tallies};
use crate::watch::Watched;
use crate::watched::Kind;
use crate::write::{WriteError, WriteFault, Writer};

use warnings::Warning;

/// Events taken at a time.
const BATCH: usize = 256;
/// Writes under way when asked to stop are waited for this long.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Between two times that it says how things are.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Between two looks which nodes were told long ago.
const RENEW_LOOK: Duration = Duration::from_mins(1);

/// Until it is looked whether there is room for warnings that there was none for.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// Until a warning is told that is to wait: the server refused to take it, as while its namespace is missing, or it changes all the time.
const TELL_LATER: Duration = Duration::from_secs(20);

/// Between two times that everybody is told what is wrong: servers forget Events.
const TELL_AGAIN: Duration = Duration::from_hours(1);

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// A watch saw something.
    Watched(Box<Watched>),
    /// The lease was taken or lost.
    Leading(bool),
    /// A write of a node ended.
    Wrote(Box<Wrote>),
    /// A write of a policy's status ended.
    WroteStatus(Name, Result<TieringPolicyStatus, WriteError>),
    /// It is known whom `NodeTiering`s belong to, or that has changed.
    Owner(Owner),
    /// The server refused to take an Event.
    NotPosted(Box<Occurrence>),
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
pub struct Wrote {
    due: Due,
    what: Written,
    took: Duration,
}

/// What was written.
#[derive(Debug)]
enum Written {
    /// A node was told this; on success, with the uid and generation of the object.
    Assignment {
        spec: NodeTieringSpec,
        content: Content,
        renewed: u64,
        then: Vec<Occurrence>,
        result: Result<(String, i64), WriteError>,
    },
    /// What a node that is no more was told, was removed.
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
    policies: Policies,
    /// Kinds of which all objects have come once.
    synced: BTreeSet<Kind>,
    leading: bool,
    /// Whom `NodeTiering`s belong to; `None` until that is known.
    owner: Option<Owner>,
    fence: Fence,
    nodes: NodeWrites,
    debounce: Debounce,
    statuses: StatusWrites,
    occurrences: Occurrences,
    writer: Writer,
    /// For the tasks that write.
    events: mpsc::Sender<Event>,
    tallies: Tallies,
    /// Errors of each node's writes since the last success, for the log.
    failing: BTreeMap<Name, WriteFault>,
    /// What is to be told of pods once it is known that a write without an answer was carried out.
    unconfirmed: BTreeMap<Name, Vec<Occurrence>>,
    /// Warnings that there was no room for.
    pending: BTreeSet<Warning>,
    /// From which of them on it goes on telling: each namespace has its turn.
    next_warning: Option<Warning>,
    /// Warnings that are to wait, and until when.
    later: BTreeSet<Warning>,
    tell_later_at: Instant,
    /// When to tell again what is wrong.
    tell_again_at: Instant,
    /// Why the default policy does not apply, as it was logged last.
    default_problem: Option<Cause>,
    /// Since when it has led, in seconds since 1970.
    epoch: u64,
    /// When to look next which nodes were told long ago.
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
        occurrences: Occurrences,
        fence: Fence,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            index,
            tierings: NodeTierings::default(),
            policies: Policies::default(),
            synced: BTreeSet::new(),
            leading: false,
            owner: None,
            fence,
            nodes: NodeWrites::default(),
            debounce: Debounce::default(),
            statuses: StatusWrites::default(),
            occurrences,
            writer,
            events,
            tallies: Tallies::default(),
            failing: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            pending: BTreeSet::new(),
            next_warning: None,
            later: BTreeSet::new(),
            tell_later_at: Instant::now(),
            tell_again_at: Instant::now() + TELL_AGAIN,
            default_problem: None,
            epoch: 0,
            renew_at: Instant::now(),
            published: watch::Sender::default(),
            started: Instant::now(),
        }
    }

    /// Where it says how things are, every second.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Runs until it is told to stop, and writes under way have ended.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping: Option<Instant> = None;
        loop {
            let publish_at = self.publish(Instant::now());
            let due = stopping.or_else(|| self.next_due()).map_or(publish_at, |due| due.min(publish_at));
            let idle = tokio::time::sleep_until(due.into());
            tokio::select! {
                taken = events.recv_many(&mut batch, BATCH) => if taken == 0 { return },
                () = idle => {}
            }
            let mut oldest = None;
            for event in batch.drain(..) {
                match event {
                    Event::Watched(watched) => {
                        oldest = Some(oldest.map_or(watched.at, |oldest: Instant| oldest.min(watched.at)));
                        self.watched(*watched);
                    }
                    Event::Leading(leading) => self.lead(leading),
                    Event::Wrote(wrote) => self.wrote(*wrote),
                    Event::WroteStatus(policy, result) => self.wrote_status(&policy, result),
                    Event::Owner(owner) => self.owned_by(owner),
                    Event::NotPosted(occurrence) => self.not_posted(*occurrence, Instant::now()),
                    Event::Asked(question) => self.answer(question),
                    Event::Stop => stopping = Some(Instant::now() + LAST_WRITES),
                }
            }
            if let Some(until) = stopping {
                let in_flight = self.nodes.in_flight() + self.statuses.in_flight();
                if in_flight == 0 || Instant::now() >= until {
                    return;
                }
                continue;
            }
            if self.is_synced() {
                let changes = self.index.take_changes();
                self.note(&changes, oldest);
                self.log_default();
            }
            self.renew();
            self.write_what_is_due();
            self.tell_what_waited(Instant::now());
            self.tell_pending();
        }
    }

    fn is_synced(&self) -> bool {
        self.synced.len() == Kind::ALL.len()
    }

    fn may_write(&self) -> bool {
        self.leading && self.is_synced() && self.owner.is_some() && self.fence.holds(Instant::now())
    }

    fn next_due(&self) -> Option<Instant> {
        if !self.may_write() {
            return None;
        }
        let warning = (!self.pending.is_empty()).then(|| Instant::now() + LOOK_FOR_ROOM);
        let later = (!self.later.is_empty()).then_some(self.tell_later_at);
        [
            self.nodes.next_due(),
            self.statuses.next_due(),
            warning,
            later,
            Some(self.renew_at),
            Some(self.tell_again_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Marks for writing what changed. A follower has nothing to mark: it looks at everything when it begins to lead.
    fn note(&mut self, changes: &Changes, event: Option<Instant>) {
        if !self.leading {
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
            self.tell_of_namespace(namespace);
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
            // What changes all the time is not told all the time: its last state is.
            if waiting.contains(pod) {
                self.tell_later(Warning::Pod(pod.clone()), now);
            } else {
                self.tell_of_invalid(pod);
            }
        }
        for pod in &changes.denied {
            self.tell_of_floor(pod);
        }
        for node in &changes.overcommitted {
            self.tell_of_node(node);
        }
    }

    fn lead(&mut self, leading: bool) {
        self.leading = leading;
        // Clocks differ: whoever leads now is newer than whoever led before.
        self.epoch = unix_now().as_secs().max(self.tierings.newest_epoch() + 1);
        self.nodes.clear();
        self.statuses.clear();
        self.unconfirmed.clear();
        self.pending.clear();
        self.later.clear();
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
        let _ = self.index.take_changes();
        for node in self.index.nodes().chain(self.tierings.nodes()) {
            self.nodes.changed(node, None, now);
        }
        let policies: Vec<Name> = self.policies.names().cloned().collect();
        for policy in &policies {
            self.policy_changed(policy, now);
        }
        self.tell_all(now);
    }

    /// Tells everything that is wrong. What was told in the same hour, the server has already.
    fn tell_all(&mut self, now: Instant) {
        self.tell_again_at = now + TELL_AGAIN;
        let policies: Vec<Name> = self.policies.names().cloned().collect();
        for policy in &policies {
            self.tell_of_policy(policy);
        }
        let namespaces: Vec<Name> = self.index.invalid_namespaces().cloned().collect();
        for namespace in &namespaces {
            self.tell_of_namespace(namespace);
        }
        let invalid: Vec<_> = self.index.invalid_pods().collect();
        for pod in &invalid {
            self.tell_of_invalid(pod);
        }
        let denied: Vec<_> = self.index.denied_pods().collect();
        for pod in &denied {
            self.tell_of_floor(pod);
        }
        let overcommitted: Vec<Name> = self.index.overcommitted().cloned().collect();
        for node in &overcommitted {
            self.tell_of_node(node);
        }
        // Whoever led before may not have come to it.
        let suspensions: Vec<_> = self.tierings.suspensions().cloned().collect();
        for suspension in &suspensions {
            self.tell_of_suspension(suspension);
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
