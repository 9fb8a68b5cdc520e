//! Events for people: what happened to a pod, a namespace or a policy.
//!
//! They are posted one at a time and at a bounded rate, from a bounded queue: a storm of them delays nothing else. Of good news,
//! what does not fit is counted and forgotten; a part of the queue is for warnings alone, and whoever has one that does not fit
//! pushes it again later. The name of an Event follows from what it says, so that a restart does not repeat it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::conditions::events as reasons;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::ObjectMeta;
use tokio::sync::mpsc;

use crate::lease::Fence;
use crate::snapshot::EventCounts;
use crate::write::{FIELD_MANAGER, WriteError, Writer};

/// Events that may wait.
const QUEUE: usize = 2048;
/// Places that only warnings may take.
const FOR_WARNINGS: usize = QUEUE / 4;
/// Between two posts.
const SPACING: Duration = Duration::from_millis(40);
/// After a post that failed and may pass later.
const RETRY: Duration = Duration::from_secs(1);
/// The longest note that an API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// An Event that is to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeEvent {
    /// What it is about.
    pub regarding: Regarding,
    /// What happened.
    pub reason: Reason,
    /// Tells it from the same that happens again.
    pub occasion: u64,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regarding {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A namespace.
    Namespace(String),
    /// A node.
    Node {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A policy.
    Policy {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A pod has a policy; the words say which and why.
    Assigned(String),
    /// A pod has none any more; the words say why.
    Unassigned(String),
    /// Annotations that do not apply.
    InvalidAnnotation(String),
    /// The agent stood down.
    Suspended(String),
    /// A policy makes no sense.
    Rejected(String),
    /// A pod's floor does not apply.
    FloorDenied(String),
    /// Floors of a node's pods sum to more than its DRAM.
    Overcommitted(String),
}

impl Reason {
    /// Whether somebody has to do something about it.
    fn is_warning(&self) -> bool {
        match self {
            Self::Assigned(_) | Self::Unassigned(_) => false,
            Self::InvalidAnnotation(_)
            | Self::Suspended(_)
            | Self::Rejected(_)
            | Self::FloorDenied(_)
            | Self::Overcommitted(_) => true,
        }
    }

    fn parts(&self) -> (&'static str, &'static str, &'static str, &str) {
        match self {
            Self::Assigned(note) => ("Normal", reasons::ASSIGNED, "Assign", note),
            Self::Unassigned(note) => ("Normal", reasons::UNASSIGNED, "Unassign", note),
            Self::InvalidAnnotation(note) => {
                ("Warning", reasons::INVALID_ANNOTATION, "ReadAnnotations", note)
            }
            Self::Suspended(note) => ("Warning", reasons::SUSPENDED, "StandDown", note),
            Self::Rejected(note) => ("Warning", reasons::REJECTED, "ReadPolicy", note),
            Self::FloorDenied(note) => ("Warning", reasons::FLOOR_DENIED, "GrantFloor", note),
            Self::Overcommitted(note) => ("Warning", reasons::OVERCOMMITTED, "GrantFloor", note),
        }
    }
}

impl KubeEvent {
    /// The Event as it is posted, by the process of this identity.
    #[must_use]
    pub fn object(&self, instance: &str, now: Timestamp) -> Event {
        let (type_, reason, action, note) = self.reason.parts();
        let reference = |kind: &str, version: &str, name: &str, uid: &str| ObjectReference {
            api_version: Some(version.to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        // Servers take an Event into the namespace that it says its object is in, or of an object that is in none into `kube-system`. A
        // namespace's own is where its owner looks. Of a policy or node `kubectl describe` asks for Events about an object in no namespace.
        let (namespace, regarding) = match &self.regarding {
            Regarding::Pod { namespace, name, uid } => {
                (namespace.as_str(), reference("Pod", "v1", name, uid))
            }
            Regarding::Namespace(name) => (name.as_str(), reference("Namespace", "v1", name, "")),
            Regarding::Node { name, uid } => ("kube-system", reference("Node", "v1", name, uid)),
            Regarding::Policy { name, uid } => {
                let version = api::TieringPolicy::api_version(&());
                ("kube-system", reference(&api::TieringPolicy::kind(&()), &version, name, uid))
            }
        };
        let in_none = matches!(self.regarding, Regarding::Policy { .. } | Regarding::Node { .. });
        let of_object = Some(namespace.to_owned()).filter(|_| !in_none);
        let regarding = ObjectReference { namespace: of_object, ..regarding };
        let mut hasher = DefaultHasher::new();
        (&regarding.kind, &regarding.uid, reason, note, self.occasion).hash(&mut hasher);
        let name = regarding.name.clone().unwrap_or_default();
        let name = format!("{}.{:016x}", cut(&name, 200), hasher.finish());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some(action.to_owned()),
            note: Some(cut(note, LONGEST_NOTE).to_owned()),
            reason: Some(reason.to_owned()),
            type_: Some(type_.to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(format!("thermocline.io/{FIELD_MANAGER}")),
            reporting_instance: Some(cut(instance, 128).to_owned()),
            ..Event::default()
        }
    }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Counts of Events since the start.
#[derive(Debug, Default)]
pub struct Counts {
    posted: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// As they are now.
    #[must_use]
    pub fn read(&self) -> EventCounts {
        let [posted, failed, dropped] =
            [&self.posted, &self.failed, &self.dropped].map(|count| count.load(Ordering::Relaxed));
        EventCounts { posted, failed, dropped }
    }
}

/// Where queue go.
#[derive(Clone, Debug)]
pub struct EventQueue {
    queue: mpsc::Sender<KubeEvent>,
    counts: Arc<Counts>,
}

/// What posts them.
pub struct Poster {
    queue: mpsc::Receiver<KubeEvent>,
    counts: Arc<Counts>,
    writer: Writer,
    instance: String,
    fence: Fence,
}

/// A queue, and what posts from it while the fence holds.
#[must_use]
pub fn queue(writer: Writer, instance: String, fence: Fence) -> (EventQueue, Poster) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let counts = Arc::<Counts>::default();
    let poster = Poster { queue: receiver, counts: Arc::clone(&counts), writer, instance, fence };
    (EventQueue { queue: sender, counts }, poster)
}

impl EventQueue {
    /// Posts it some time. `false` for a warning that there is no room for: it is to be pushed again.
    #[must_use]
    pub fn push(&self, event: KubeEvent) -> bool {
        let is_warning = event.reason.is_warning();
        if (is_warning || self.queue.capacity() > FOR_WARNINGS) && self.queue.try_send(event).is_ok() {
            return true;
        }
        if !is_warning {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        !is_warning
    }

    /// Whether there is room for warnings that there was none for.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.capacity() >= QUEUE / 2
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// What became of them.
    #[must_use]
    pub fn counts(&self) -> EventCounts {
        self.counts.read()
    }
}

impl Poster {
    /// What waits, instead of a post.
    #[cfg(test)]
    pub(crate) fn take_all(&mut self) -> Vec<KubeEvent> {
        std::iter::from_fn(|| self.queue.try_recv().ok()).collect()
    }

    /// Posts until nobody pushes any more. What the server refused is handed back.
    pub async fn run(mut self, mut refused: impl AsyncFnMut(KubeEvent)) {
        while let Some(event) = self.queue.recv().await {
            if !self.fence.holds(Instant::now()) {
                // Who leads next posts all warnings, this process included; good news of before is lost.
                continue;
            }
            let object = event.object(&self.instance, Timestamp::now());
            let mut result = self.writer.event(&object).await;
            // Others wait meanwhile: while the server is away, they would fail, too.
            while result.as_ref().is_err_and(WriteError::may_pass) && self.fence.holds(Instant::now()) {
                tokio::time::sleep(RETRY).await;
                result = self.writer.event(&object).await;
            }
            match result {
                Ok(()) => self.counts.posted.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    tracing::debug!(%error, regarding = ?event.regarding, "an Event was not posted");
                    refused(event).await;
                    self.counts.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
            tokio::time::sleep(SPACING).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(note: &str, occasion: u64) -> KubeEvent {
        let regarding =
            Regarding::Pod { namespace: "a".to_owned(), name: "web".to_owned(), uid: "u".to_owned() };
        KubeEvent { regarding, reason: Reason::InvalidAnnotation(note.to_owned()), occasion }
    }

    #[test]
    fn the_same_warning_is_the_same_event_whoever_posts_it() {
        let name = |event: &KubeEvent, instance, second| {
            event.object(instance, Timestamp::from_second(second).unwrap()).metadata.name.unwrap()
        };
        assert_eq!(name(&warning("x", 0), "one", 1), name(&warning("x", 0), "two", 2));
        assert_ne!(name(&warning("x", 0), "one", 1), name(&warning("y", 0), "one", 1));
        assert_ne!(name(&warning("x", 0), "one", 1), name(&warning("x", 1), "one", 1));
    }

    #[tokio::test]
    async fn good_news_leaves_room_for_warnings_and_warnings_that_do_not_fit_are_not_lost() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let writer = Writer::new(kube::Client::try_from(config).unwrap());
        let (queue, poster) = queue(writer, "one".to_owned(), Fence::new());
        let news = |n| {
            let assigned = Reason::Assigned("policy batch".to_owned());
            KubeEvent { reason: assigned, ..warning("", n) }
        };
        assert!((0..3000).all(|n| queue.push(news(n))));
        assert_eq!(queue.waiting(), QUEUE - FOR_WARNINGS);
        assert_eq!(
            queue.counts(),
            EventCounts { dropped: (3000 - (QUEUE - FOR_WARNINGS)) as u64, ..EventCounts::default() }
        );
        let taken = (0..3000).filter(|n| queue.push(warning("x", *n))).count();
        assert_eq!(taken, FOR_WARNINGS);
        assert!(!queue.has_room());
        drop(poster);
    }

    #[test]
    fn a_long_note_is_cut_to_what_a_server_takes() {
        let event = warning(&"ü".repeat(2000), 0).object("one", Timestamp::UNIX_EPOCH);
        assert_eq!(event.note.unwrap().len(), LONGEST_NOTE);
    }

    #[test]
    fn an_event_of_a_policy_is_about_an_object_in_no_namespace() {
        let check = |regarding, namespace: Option<&str>, of_object: Option<&str>| {
            let event = KubeEvent { regarding, reason: Reason::Rejected("why".to_owned()), occasion: 0 };
            let event = event.object("me", Timestamp::UNIX_EPOCH);
            assert_eq!(event.metadata.namespace.as_deref(), namespace);
            assert_eq!(event.regarding.unwrap().namespace.as_deref(), of_object);
        };
        let (name, uid) = ("any".to_owned(), "u1".to_owned());
        check(Regarding::Policy { name: name.clone(), uid: uid.clone() }, Some("kube-system"), None);
        check(Regarding::Pod { namespace: "apps".to_owned(), name, uid }, Some("apps"), Some("apps"));
    }
}
