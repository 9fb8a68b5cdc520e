//! What the API server has for each node, as far as it has to be known in order to write only what changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use api::conditions::reasons;
use api::{NodeTieringSpec, PodAssignment, RENEW_EVERY, ResolvedPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::index::{Before, Name, PodKey};
use crate::listed::Listed;
use crate::watch::objects::NodeTiering;

/// The content of an assignment with its owner: equal where there is nothing to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// Of this spec, in an object that belongs to what has this uid.
    #[must_use]
    pub fn of(spec: &NodeTieringSpec, owner: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        owner.hash(&mut hasher);
        // Text, for what is compared has been through the API server: two notations of one value are the same there and here.
        serde_json::to_string(spec).unwrap_or_default().hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What is known of one `NodeTiering`.
#[derive(Clone, Debug)]
pub struct StoredTiering {
    /// Its uid.
    pub uid: Box<str>,
    /// Its generation.
    pub generation: i64,
    /// What it says; `None` where that can't be read.
    pub content: Option<Content>,
    /// Whether an agent reported: nothing is assigned to other nodes.
    pub has_agent: bool,
    /// When it was written or confirmed last, in seconds since 1970.
    renewed: Option<u64>,
    /// Pods that are left alone for want of room.
    cut: u32,
    /// What each pod has, sorted by its uid's hash.
    pods: Box<[StoredPod]>,
    /// Pods whose agent stood down: few, if any.
    suspended: Vec<Suspension>,
}

/// What is known of a pod in it: small, for there may be a hundred thousand.
#[derive(Clone, Debug)]
struct StoredPod {
    /// A hash of its uid.
    uid: u64,
    /// A hash of the names of its policies.
    policies: u64,
    policy: Option<Arc<ResolvedPolicy>>,
    /// Containers with a policy of their own, by a hash of their name.
    containers: Box<[(u64, Arc<ResolvedPolicy>)]>,
}

/// A pod whose agent stood down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// What the agent says.
    pub message: String,
    /// Since when.
    pub since: Time,
}

/// How a pod's assignment differs from the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// None.
    Same,
    /// There was none.
    New,
    /// It has other policies.
    Other,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A hash of the names of a pod's policies.
fn policies(spec: &NodeTieringSpec, pod: &PodAssignment) -> u64 {
    let name = |key| spec.policy(key).map(|policy| &policy.name);
    let of_containers =
        pod.containers.iter().map(|container| (&container.name, name(container.policy.as_ref())));
    hash((name(pod.policy.as_ref()), of_containers.collect::<Vec<_>>()))
}

impl Before for StoredTiering {
    fn policy(&self, uid: &str, container: Option<&str>) -> Option<&ResolvedPolicy> {
        let pod = self.pod(uid)?;
        match container.map(hash) {
            None => pod.policy.as_deref(),
            Some(name) => {
                pod.containers.iter().find(|(known, _)| *known == name).map(|(_, policy)| &**policy)
            }
        }
    }
}

impl Before for Option<&StoredTiering> {
    fn policy(&self, uid: &str, container: Option<&str>) -> Option<&ResolvedPolicy> {
        (*self)?.policy(uid, container)
    }
}

impl StoredTiering {
    /// After a write of this spec gave the object this uid and generation.
    #[must_use]
    pub fn of(
        spec: &NodeTieringSpec,
        content: Content,
        uid: &str,
        generation: i64,
        renewed: Option<u64>,
    ) -> Self {
        let shared: BTreeMap<&String, Arc<ResolvedPolicy>> =
            spec.policies.iter().map(|(key, policy)| (key, Arc::new(policy.clone()))).collect();
        let policy = |key: &Option<String>| key.as_ref().and_then(|key| shared.get(key)).cloned();
        let pod = |pod: &PodAssignment| {
            let containers = pod.containers.iter();
            StoredPod {
                uid: hash(pod.uid.as_str()),
                policies: policies(spec, pod),
                policy: policy(&pod.policy),
                containers: containers
                    .filter_map(|container| Some((hash(container.name.as_str()), policy(&container.policy)?)))
                    .collect(),
            }
        };
        let mut pods: Vec<StoredPod> = spec.pods.iter().map(pod).collect();
        pods.sort_unstable_by_key(|pod| pod.uid);
        Self {
            uid: uid.into(),
            generation,
            content: Some(content),
            has_agent: false,
            renewed,
            cut: spec.cut.iter().map(|cut| cut.pods).sum(),
            pods: pods.into(),
            suspended: Vec::new(),
        }
    }

    /// Whether it is time to confirm it. Nodes of different names come at different times.
    #[must_use]
    pub fn is_due_for_renewal(&self, node: &str, now: Duration) -> bool {
        let spread = hash(node) % (RENEW_EVERY.as_secs() / 2);
        let until = |renewed: u64| renewed + RENEW_EVERY.as_secs() - spread;
        !self.pods.is_empty() && self.renewed.is_none_or(|renewed| now.as_secs() >= until(renewed))
    }

    fn pod(&self, uid: &str) -> Option<&StoredPod> {
        let uid = hash(uid);
        self.pods.binary_search_by_key(&uid, |pod| pod.uid).ok().map(|place| &self.pods[place])
    }

    /// When it can't be read what the object of this uid and generation says. An agent may have reported in it.
    fn unreadable(uid: &str, generation: i64) -> Self {
        Self {
            content: None,
            has_agent: true,
            ..Self::of(&NodeTieringSpec::default(), Content(0), uid, generation, None)
        }
    }

    /// How a pod's assignment in this spec differs.
    #[must_use]
    pub fn difference(&self, spec: &NodeTieringSpec, pod: &PodAssignment) -> Difference {
        match self.pod(&pod.uid) {
            None => Difference::New,
            Some(known) if known.policies == policies(spec, pod) => Difference::Same,
            Some(_) => Difference::Other,
        }
    }

    /// Whether the pod of this uid is in it.
    #[must_use]
    pub fn has(&self, uid: &str) -> bool {
        self.pod(uid).is_some()
    }
}

/// What the API server has for all nodes.
#[derive(Debug, Default)]
pub struct NodeTierings {
    nodes: Listed<StoredTiering>,
    /// The newest in any of them.
    newest_epoch: u64,
    /// Nodes that are being written, and whether their object was seen to go since the write began.
    writing: BTreeMap<Name, bool>,
}

impl NodeTierings {
    /// What is stored for a node.
    #[must_use]
    pub fn get(&self, node: &str) -> Option<&StoredTiering> {
        self.nodes.get(node)
    }

    /// All nodes that have one.
    pub fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.names()
    }

    /// Since when the newest controller has led that wrote any of them, in seconds since 1970.
    #[must_use]
    pub fn newest_epoch(&self) -> u64 {
        self.newest_epoch
    }

    /// Pods that are left alone for want of room.
    #[must_use]
    pub fn cut_pods(&self) -> u32 {
        self.nodes.iter().map(|(_, stored)| stored.cut).sum()
    }

    /// Nodes that were written long ago.
    pub fn due_for_renewal(&self, now: Duration) -> impl Iterator<Item = &Name> {
        self.nodes
            .iter()
            .filter(move |(node, stored)| stored.is_due_for_renewal(node, now))
            .map(|(node, _)| node)
    }

    /// A write begins. [`Self::written`] or [`Self::write_failed`] must follow.
    pub fn write_began(&mut self, node: &Name) {
        self.writing.insert(Name::clone(node), false);
    }

    /// A write succeeded. A watch may have seen more than that already: what is newer stays, and where the object went meanwhile,
    /// before or after the write, it is not known what is stored.
    pub fn written(&mut self, node: &Name, mut stored: StoredTiering) {
        let went = self.writing.remove(node).unwrap_or_default();
        let before = self.nodes.get(node);
        if before.is_some_and(|before| before.uid == stored.uid && before.generation > stored.generation) {
            return;
        }
        if let Some(before) = before {
            stored.suspended.clone_from(&before.suspended);
            stored.has_agent = before.has_agent;
        }
        if went {
            stored.content = None;
        }
        self.nodes.store(Name::clone(node), stored);
    }

    /// A write failed.
    pub fn write_failed(&mut self, node: &str) {
        self.writing.remove(node);
    }

    /// A write ended without an answer, and may have been carried out: it is not known any more what is stored.
    pub fn forget_content(&mut self, node: &str) {
        if let Some(stored) = self.nodes.get_mut(node) {
            stored.content = None;
        }
    }

    /// A watch observed an object: whether it says another thing than was known, and the pods whose agent newly stood down.
    ///
    /// What is older than the last write is an echo of it, and says nothing of the spec. Generations count changes of the spec.
    pub fn observe(&mut self, node: &Name, object: &NodeTiering) -> (bool, Vec<Suspension>) {
        self.newest_epoch = self.newest_epoch.max(object.epoch().unwrap_or_default());
        let metadata = &object.metadata;
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let generation = metadata.generation.unwrap_or_default();
        let before = self.nodes.get(node).filter(|before| *before.uid == *uid);
        let suspended = suspensions(object);
        let known = before.map(|before| &before.suspended);
        let is_known = |pod: &Suspension| known.into_iter().flatten().any(|known| known.uid == pod.uid);
        let newly: Vec<_> = suspended.iter().filter(|pod| !is_known(pod)).cloned().collect();

        let stored = match before {
            Some(before) if before.generation >= generation && before.content.is_some() => {
                let renewed = object.renewed().max(before.renewed);
                StoredTiering { renewed, suspended, ..before.clone() }
            }
            _ => {
                let stored = match object.spec() {
                    Some(spec) => {
                        let content = Content::of(&spec, object.owner().unwrap_or_default());
                        StoredTiering::of(&spec, content, uid, generation, object.renewed())
                    }
                    None => StoredTiering::unreadable(uid, generation),
                };
                StoredTiering { suspended, ..stored }
            }
        };
        let stored = StoredTiering { has_agent: object.has_agent(), ..stored };
        let changed = before.is_none_or(|before| {
            before.content != stored.content
                || stored.content.is_none()
                || before.has_agent != stored.has_agent
        });
        self.nodes.insert(Name::clone(node), stored);
        (changed, newly)
    }

    /// A watch observed an object that can't be read: whether it has to be written again. Not where we wrote this
    /// generation: then it is what the agent says that can't be read.
    pub fn observe_unreadable(&mut self, node: &Name, metadata: &ObjectMeta) -> bool {
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let generation = metadata.generation.unwrap_or_default();
        let is_ours = |stored: &StoredTiering| {
            *stored.uid == *uid && stored.generation >= generation && stored.content.is_some()
        };
        if self.nodes.keep(node).is_some_and(|stored| is_ours(stored)) {
            return false;
        }
        self.nodes.insert(Name::clone(node), StoredTiering::unreadable(uid, generation));
        true
    }

    /// All pods whose agent stood down.
    pub fn suspensions(&self) -> impl Iterator<Item = &Suspension> {
        self.nodes.iter().flat_map(|(_, stored)| &stored.suspended)
    }

    /// An object is gone.
    pub fn deleted(&mut self, node: &str) {
        if let Some(went) = self.writing.get_mut(node) {
            *went = true;
        }
        self.nodes.remove(node);
    }

    /// All objects come again.
    pub fn begin_list(&mut self) {
        self.nodes.begin_list();
    }

    /// What did not come with the list, by namespace and name: it is gone.
    #[must_use]
    pub fn missing(&self) -> Vec<PodKey> {
        self.nodes.missing().into_iter().map(|node| (Name::from(""), node)).collect()
    }
}

fn suspensions(object: &NodeTiering) -> Vec<Suspension> {
    let stood_down = object.pods().iter().filter(|pod| pod.reason == reasons::STOOD_DOWN);
    let suspension = |pod: &api::PodStatus| Suspension {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        message: pod.message.clone(),
        since: pod.since.clone(),
    };
    stood_down.map(suspension).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(generation: i64, status: &[Value]) -> NodeTiering {
        let metadata = json!({ "name": "n1", "uid": "u", "generation": generation });
        let object = json!({ "metadata": metadata, "spec": { "pods": [] }, "status": { "pods": status } });
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn suspended(pod: &str) -> Value {
        json!({
            "uid": pod, "namespace": "a", "name": pod, "reason": reasons::STOOD_DOWN, "message": "", "since": "2026-01-01T00:00:00Z",
        })
    }

    #[test]
    fn a_suspension_is_new_once_and_known_until_it_ends() {
        let mut all = NodeTierings::default();
        let node = Name::from("n1");
        let mut check = |generation, status: &[Value], newly: &[&str], known: &[&str]| {
            let (_, found) = all.observe(&node, &object(generation, status));
            assert_eq!(found.iter().map(|pod| &*pod.uid).collect::<Vec<_>>(), newly);
            assert_eq!(all.suspensions().map(|pod| &*pod.uid).collect::<Vec<_>>(), known);
        };
        check(1, &[suspended("x")], &["x"], &["x"]);
        check(1, &[suspended("x"), suspended("y")], &["y"], &["x", "y"]);
        check(2, &[suspended("y")], &[], &["y"]);
        check(2, &[], &[], &[]);
        check(2, &[suspended("x")], &["x"], &["x"]);
    }

    #[test]
    fn after_a_write_without_an_answer_the_node_is_written_again() {
        let mut all = NodeTierings::default();
        let node = Name::from("n1");
        let spec = NodeTieringSpec::default();
        all.written(&node, StoredTiering::of(&spec, Content::of(&spec, ""), "u", 1, None));
        all.forget_content("n1");
        assert_eq!(all.get("n1").unwrap().content, None);
        // The watch says what became of it.
        assert!(all.observe(&node, &object(1, &[])).0);
        assert_eq!(all.get("n1").unwrap().content, Some(Content::of(&spec, "")));
    }

    #[test]
    fn a_late_answer_hides_nothing_that_was_seen_since() {
        let mut all = NodeTierings::default();
        let node = Name::from("n1");
        let spec = NodeTieringSpec::default();
        let ours = |generation| StoredTiering::of(&spec, Content(7), "u", generation, None);
        // Another wrote after us.
        all.write_began(&node);
        all.observe(&node, &object(3, &[]));
        all.written(&node, ours(2));
        assert_eq!(
            (all.get("n1").unwrap().generation, all.get("n1").unwrap().content == Some(Content(7))),
            (3, false)
        );
        // An echo is not newer, and what was there before is older.
        all.write_began(&node);
        all.observe(&node, &object(4, &[]));
        all.written(&node, ours(4));
        assert_eq!(all.get("n1").unwrap().content, Some(Content(7)));
        // It went after us, or before: it is written once more.
        all.write_began(&node);
        all.deleted("n1");
        all.written(&node, ours(5));
        assert_eq!(all.get("n1").unwrap().content, None);
        // What went before the write began says nothing of it.
        all.deleted("n1");
        all.write_began(&node);
        all.written(&node, ours(1));
        assert_eq!(all.get("n1").unwrap().content, Some(Content(7)));
    }

    #[test]
    fn what_cannot_be_read_is_written_again_once() {
        let mut all = NodeTierings::default();
        let node = Name::from("n1");
        let metadata = |generation| ObjectMeta {
            uid: Some("u".to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        assert!(all.observe_unreadable(&node, &metadata(1)));
        assert!(all.observe_unreadable(&node, &metadata(1)), "it was not stored yet");
        let spec = NodeTieringSpec::default();
        all.written(&node, StoredTiering::of(&spec, Content::of(&spec, ""), "u", 2, None));
        // What the agent says changes no generation.
        assert!(!all.observe_unreadable(&node, &metadata(2)));
        assert!(all.observe_unreadable(&node, &metadata(3)), "another wrote to it");
        all.begin_list();
        all.observe_unreadable(&node, &metadata(3));
        assert!(all.missing().is_empty(), "it is there, read or not");
    }

    #[test]
    fn what_a_pod_had_is_known_after_a_restart_from_what_is_stored() {
        let mut spec = NodeTieringSpec::default();
        let policy = |name: &str| ResolvedPolicy::new(name, api::PolicySpec::default());
        let (of_pod, of_container) = (spec.refer(policy("pinned")), spec.refer(policy("latency")));
        spec.pods.push(
            serde_json::from_value(json!({
                "uid": "u1", "namespace": "a", "name": "db", "policy": of_pod,
                "containers": [{ "name": "main", "policy": of_container }, { "name": "side", "unmanaged": true }],
            }))
            .unwrap(),
        );
        let object = json!({ "metadata": { "name": "n1", "uid": "u", "generation": 1 }, "spec": spec, "status": { "agentVersion": "1" } });
        let mut all = NodeTierings::default();
        all.observe(&Name::from("n1"), &serde_json::from_str(&object.to_string()).unwrap());
        let stored = all.get("n1");
        let name = |uid, container| stored.policy(uid, container).map(|policy| policy.name.as_str());
        assert!(stored.is_some_and(|stored| stored.has_agent));
        assert_eq!(
            [name("u1", None), name("u1", Some("main")), name("u1", Some("side")), name("u2", None)],
            [Some("pinned"), Some("latency"), None, None]
        );
    }

    #[test]
    fn what_is_assigned_is_confirmed_every_hour_at_most_and_half_an_hour_at_least() {
        let mut spec = NodeTieringSpec::default();
        let pod = json!({ "uid": "u1", "namespace": "a", "name": "db" });
        let stored = |spec: &NodeTieringSpec| StoredTiering::of(spec, Content(7), "u", 1, Some(1000));
        let due = |stored: &StoredTiering, minutes: u64| {
            stored.is_due_for_renewal("n1", Duration::from_secs(1000 + 60 * minutes))
        };
        assert!(!due(&stored(&spec), 600), "what says nothing needs no confirmation");
        spec.pods.push(serde_json::from_value(pod).unwrap());
        assert!(!due(&stored(&spec), 29) && due(&stored(&spec), 60));
        assert!(due(&StoredTiering { renewed: None, ..stored(&spec) }, 0));
    }
}
