//! What each node was told last, as far as it has to be known in order to tell it again only if it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use api::conditions::{reasons, types};
use api::{NodeTieringSpec, PodAssignment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::index::Name;
use crate::watched::NodeTiering;

/// The content of an assignment with its owner: equal where there is nothing to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// Of this spec, in an object that belongs to the node of this uid.
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
pub struct Told {
    /// Its uid.
    pub uid: Box<str>,
    /// Its generation.
    pub generation: i64,
    /// What it says; `None` where that can't be read.
    pub content: Option<Content>,
    /// Hashes of uid and policies of each pod, sorted.
    pods: Box<[(u64, u64)]>,
    /// Pods whose agent stood down: few, if any.
    suspended: Vec<Suspension>,
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

/// How a pod's assignment differs from what was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// None.
    Same,
    /// It was told nothing of the pod.
    New,
    /// It was told other policies.
    Other,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Of a pod's uid, and of the names of its policies.
fn hashes(pod: &PodAssignment) -> (u64, u64) {
    let of_containers = pod
        .containers
        .iter()
        .map(|container| (&container.name, container.policy.as_ref().map(|policy| &policy.name)));
    let policies: (_, Vec<_>) = (pod.policy.as_ref().map(|policy| &policy.name), of_containers.collect());
    (hash(&pod.uid), hash(policies))
}

impl Told {
    /// After a write of this spec gave the object this uid and generation.
    #[must_use]
    pub fn written(spec: &NodeTieringSpec, content: Content, uid: &str, generation: i64) -> Self {
        let mut pods: Vec<_> = spec.pods.iter().map(hashes).collect();
        pods.sort_unstable();
        Self { uid: uid.into(), generation, content: Some(content), pods: pods.into(), suspended: Vec::new() }
    }

    /// When it can't be read what the object of this uid and generation says.
    fn unreadable(uid: &str, generation: i64) -> Self {
        Self { content: None, ..Self::written(&NodeTieringSpec::default(), Content(0), uid, generation) }
    }

    /// How what is to be told of a pod differs.
    #[must_use]
    pub fn difference(&self, pod: &PodAssignment) -> Difference {
        let (uid, policies) = hashes(pod);
        match self.pods.binary_search_by_key(&uid, |(uid, _)| *uid) {
            Err(_) => Difference::New,
            Ok(place) if self.pods[place].1 == policies => Difference::Same,
            Ok(_) => Difference::Other,
        }
    }

    /// Whether it was told anything of the pod of this uid.
    #[must_use]
    pub fn has(&self, uid: &str) -> bool {
        self.pods.binary_search_by_key(&hash(uid), |(uid, _)| *uid).is_ok()
    }
}

/// What all nodes were told.
#[derive(Debug, Default)]
pub struct AllTold {
    nodes: BTreeMap<Name, Told>,
    /// Nodes that a list under way has had; `None` while none is.
    listed: Option<BTreeSet<Name>>,
    /// Nodes that are being written, and whether their object was seen to go since the write began.
    writing: BTreeMap<Name, bool>,
}

impl AllTold {
    /// What a node was told.
    #[must_use]
    pub fn get(&self, node: &str) -> Option<&Told> {
        self.nodes.get(node)
    }

    /// All nodes that were told anything.
    pub fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.keys()
    }

    /// A write begins. [`Self::wrote`] or [`Self::not_written`] must follow.
    pub fn writing(&mut self, node: &Name) {
        self.writing.insert(Name::clone(node), false);
    }

    /// A write succeeded. A watch may have seen more than that already: what is newer stays, and where the object went meanwhile,
    /// before or after the write, it is not known what the node was told.
    pub fn wrote(&mut self, node: &Name, mut told: Told) {
        let went = self.writing.remove(node).unwrap_or_default();
        let before = self.nodes.get(node);
        if before.is_some_and(|before| before.uid == told.uid && before.generation > told.generation) {
            return;
        }
        if let Some(before) = before {
            told.suspended.clone_from(&before.suspended);
        }
        if went {
            told.content = None;
        }
        self.nodes.insert(Name::clone(node), told);
    }

    /// A write failed.
    pub fn not_written(&mut self, node: &str) {
        self.writing.remove(node);
    }

    /// A write ended without an answer, and may have been carried out: it is not known any more what the node was told.
    pub fn doubt(&mut self, node: &str) {
        if let Some(told) = self.nodes.get_mut(node) {
            told.content = None;
        }
    }

    /// A watch saw an object: whether it says another thing than was known, and the pods whose agent newly stood down.
    ///
    /// What is older than the last write is an echo of it, and says nothing of the spec. Generations count changes of the spec.
    pub fn saw(&mut self, node: &Name, object: &NodeTiering) -> (bool, Vec<Suspension>) {
        if let Some(listed) = &mut self.listed {
            listed.insert(Name::clone(node));
        }
        let metadata = &object.metadata;
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let generation = metadata.generation.unwrap_or_default();
        let before = self.nodes.get(node).filter(|before| *before.uid == *uid);
        let suspended = suspensions(object);
        let known = before.map(|before| &before.suspended);
        let is_known = |pod: &Suspension| known.into_iter().flatten().any(|known| known.uid == pod.uid);
        let newly: Vec<_> = suspended.iter().filter(|pod| !is_known(pod)).cloned().collect();

        let told = match before {
            Some(before) if before.generation >= generation && before.content.is_some() => {
                Told { suspended, ..before.clone() }
            }
            _ => {
                let told = match object.spec() {
                    Some(spec) => {
                        let content = Content::of(&spec, object.owner().unwrap_or_default());
                        Told::written(&spec, content, uid, generation)
                    }
                    None => Told::unreadable(uid, generation),
                };
                Told { suspended, ..told }
            }
        };
        let changed = before.is_none_or(|before| before.content != told.content || told.content.is_none());
        self.nodes.insert(Name::clone(node), told);
        (changed, newly)
    }

    /// A watch saw an object that can't be read: whether the node has to be told again. Not where it was told by a write of this
    /// generation: then it is what the agent says that can't be read.
    pub fn saw_unreadable(&mut self, node: &Name, metadata: &ObjectMeta) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(Name::clone(node));
        }
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let generation = metadata.generation.unwrap_or_default();
        let is_ours =
            |told: &Told| *told.uid == *uid && told.generation >= generation && told.content.is_some();
        if self.nodes.get(node).is_some_and(is_ours) {
            return false;
        }
        self.nodes.insert(Name::clone(node), Told::unreadable(uid, generation));
        true
    }

    /// All pods whose agent stood down.
    pub fn suspensions(&self) -> impl Iterator<Item = &Suspension> {
        self.nodes.values().flat_map(|told| &told.suspended)
    }

    /// An object is gone.
    pub fn gone(&mut self, node: &str) {
        if let Some(went) = self.writing.get_mut(node) {
            *went = true;
        }
        self.nodes.remove(node);
    }

    /// All objects come again.
    pub fn begin_relist(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// All have come: nodes whose object is gone.
    pub fn end_relist(&mut self) -> Vec<Name> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<Name> = self.nodes.keys().filter(|node| !listed.contains(*node)).cloned().collect();
        for node in &gone {
            self.gone(node);
        }
        gone
    }
}

fn suspensions(object: &NodeTiering) -> Vec<Suspension> {
    let pods = object.pods().iter().filter_map(|pod| {
        let stood_down = pod.conditions.iter().find(|condition| {
            condition.type_ == types::ENFORCING
                && condition.status == "False"
                && condition.reason == reasons::STOOD_DOWN
        })?;
        Some(Suspension {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            message: stood_down.message.clone(),
            since: stood_down.last_transition_time.clone(),
        })
    });
    pods.collect()
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
        let condition = json!({
            "type": types::ENFORCING, "status": "False", "reason": reasons::STOOD_DOWN, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        json!({ "uid": pod, "namespace": "a", "name": pod, "conditions": [condition] })
    }

    #[test]
    fn a_suspension_is_new_once_and_known_until_it_ends() {
        let mut all = AllTold::default();
        let node = Name::from("n1");
        let mut check = |generation, status: &[Value], newly: &[&str], known: &[&str]| {
            let (_, found) = all.saw(&node, &object(generation, status));
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
    fn after_a_write_without_an_answer_the_node_is_told_again() {
        let mut all = AllTold::default();
        let node = Name::from("n1");
        let spec = NodeTieringSpec::default();
        all.wrote(&node, Told::written(&spec, Content::of(&spec, ""), "u", 1));
        all.doubt("n1");
        assert_eq!(all.get("n1").unwrap().content, None);
        // The watch says what became of it.
        assert!(all.saw(&node, &object(1, &[])).0);
        assert_eq!(all.get("n1").unwrap().content, Some(Content::of(&spec, "")));
    }

    #[test]
    fn a_late_answer_hides_nothing_that_was_seen_since() {
        let mut all = AllTold::default();
        let node = Name::from("n1");
        let spec = NodeTieringSpec::default();
        let ours = |generation| Told::written(&spec, Content(7), "u", generation);
        // Another wrote after us.
        all.writing(&node);
        all.saw(&node, &object(3, &[]));
        all.wrote(&node, ours(2));
        assert_eq!(
            (all.get("n1").unwrap().generation, all.get("n1").unwrap().content == Some(Content(7))),
            (3, false)
        );
        // An echo is not newer, and what was there before is older.
        all.writing(&node);
        all.saw(&node, &object(4, &[]));
        all.wrote(&node, ours(4));
        assert_eq!(all.get("n1").unwrap().content, Some(Content(7)));
        // It went after us, or before: it is written once more.
        all.writing(&node);
        all.gone("n1");
        all.wrote(&node, ours(5));
        assert_eq!(all.get("n1").unwrap().content, None);
        // What went before the write began says nothing of it.
        all.gone("n1");
        all.writing(&node);
        all.wrote(&node, ours(1));
        assert_eq!(all.get("n1").unwrap().content, Some(Content(7)));
    }

    #[test]
    fn what_cannot_be_read_is_told_again_once() {
        let mut all = AllTold::default();
        let node = Name::from("n1");
        let metadata = |generation| ObjectMeta {
            uid: Some("u".to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        assert!(all.saw_unreadable(&node, &metadata(1)));
        assert!(all.saw_unreadable(&node, &metadata(1)), "it was not told yet");
        let spec = NodeTieringSpec::default();
        all.wrote(&node, Told::written(&spec, Content::of(&spec, ""), "u", 2));
        // What the agent says changes no generation.
        assert!(!all.saw_unreadable(&node, &metadata(2)));
        assert!(all.saw_unreadable(&node, &metadata(3)), "another wrote to it");
        all.begin_relist();
        all.saw_unreadable(&node, &metadata(3));
        assert!(all.end_relist().is_empty(), "it is there, read or not");
    }
}
