//! What the watches see.

use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::Controller;
use crate::index::Name;
use crate::policy_status::StoredPolicy;
use crate::watch::objects::{IndexedKind, Kind, Malformed, Node, Object};
use crate::watch::{Change, Watched};

impl Controller {
    pub(super) fn watched(&mut self, Watched { kind, change, .. }: Watched) {
        match change {
            Change::Applied(object) => self.applied(*object),
            Change::Gone { namespace, name } => self.gone(kind, &namespace, &name),
            Change::Listing => {
                self.tallies.list_began(kind);
                match kind.indexed() {
                    Some(kind) => self.index.begin_list(kind),
                    None => self.tierings.begin_list(),
                }
            }
            Change::Listed => self.listed(kind),
            Change::Malformed(malformed) => self.malformed(kind, &malformed),
            Change::Failed(error) => {
                self.tallies.watch_failed(kind);
                tracing::warn!(kind = kind.plural(), %error, "a watch failed; it is tried again");
            }
        }
    }

    fn applied(&mut self, object: Object) {
        match object {
            Object::Pod(pod) => self.index.apply_pod(&pod),
            Object::Namespace(namespace) => self.index.apply_namespace(&namespace),
            Object::Node(node) => {
                self.index.apply_node(&node);
                self.observe_label(&node);
            }
            Object::Policy(policy) => {
                self.index.apply_policy(&policy);
                let status = policy.status.clone().unwrap_or_default();
                self.observe_policy(&policy.metadata, StoredPolicy { status, ..StoredPolicy::default() });
            }
            Object::NodeTiering(object) => {
                let node = Name::from(object.name_any());
                self.index.apply_dram(&node, object.dram());
                self.observe_slow_tier(&node, object.slow_tier());
                let (changed, suspensions) = self.tierings.observe(&node, &object);
                for suspension in &suspensions {
                    self.warn_of_suspension(suspension);
                }
                if changed {
                    self.look_again(&node);
                }
            }
        }
    }

    fn observe_policy(&mut self, metadata: &ObjectMeta, policy: StoredPolicy) {
        let name = Name::from(metadata.name.as_deref().unwrap_or_default());
        let policy = StoredPolicy {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            ..policy
        };
        if self.policies.observe(&name, policy) && self.may_mark() {
            self.policy_changed(&name, std::time::Instant::now());
        }
    }

    fn gone(&mut self, kind: Kind, namespace: &str, name: &str) {
        match kind.indexed() {
            Some(kind) => self.index.delete(kind, namespace, name),
            None => self.index.apply_dram(name, None),
        }
        match kind {
            Kind::Policy => {
                self.policies.deleted(name);
                self.statuses.forget(name);
            }
            Kind::NodeTiering => {
                self.tierings.deleted(name);
                self.look_again(&Name::from(name));
            }
            Kind::Node => self.forget_label(name),
            Kind::Pod | Kind::Namespace => {}
        }
    }

    fn listed(&mut self, kind: Kind) {
        let missing = match kind.indexed() {
            Some(kind) => self.index.missing(kind),
            None => self.tierings.missing(),
        };
        for (namespace, name) in missing {
            self.gone(kind, &namespace, &name);
        }
        tracing::info!(kind = kind.plural(), "listed");
        self.synced.insert(kind);
    }

    /// A pod, namespace or policy that can't be read stays as it was when it could. A node is one all the same, and its
    /// `NodeTiering` is written again unless it was ourselves who wrote it.
    fn malformed(&mut self, kind: Kind, malformed: &Malformed) {
        let metadata = &malformed.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        self.tallies.malformed(kind);
        tracing::error!(
            kind = kind.plural(),
            namespace,
            name,
            error = malformed.message,
            "an object can't be read"
        );
        match kind {
            Kind::Policy => {
                self.index.keep(IndexedKind::Policy, namespace, name);
                let unreadable = Some(malformed.message.clone());
                // What it says already is not to be said again, with a new time.
                let status = serde_json::from_value(malformed.status.clone()).unwrap_or_else(|_| {
                    let known = self.policies.get(name);
                    let same = known.filter(|known| metadata.uid.as_deref() == Some(&*known.uid));
                    same.map(|known| known.status.clone()).unwrap_or_default()
                });
                self.observe_policy(metadata, StoredPolicy { unreadable, status, ..StoredPolicy::default() });
            }
            Kind::Node if self.index.node_uid(name) != metadata.uid.as_deref() => {
                self.index.apply_node(&Node::unreadable(metadata));
            }
            Kind::Pod => self.index.keep(IndexedKind::Pod, namespace, name),
            Kind::Namespace => self.index.keep(IndexedKind::Namespace, namespace, name),
            Kind::Node => self.index.keep(IndexedKind::Node, namespace, name),
            Kind::NodeTiering => {
                let node = Name::from(name);
                if self.tierings.observe_unreadable(&node, metadata) {
                    self.look_again(&node);
                }
            }
        }
    }

    /// What is stored for a node may differ from what should be.
    fn look_again(&mut self, node: &Name) {
        if self.may_mark() {
            self.nodes.changed(node, None, std::time::Instant::now());
        }
    }

    pub(super) fn may_mark(&self) -> bool {
        self.leading && self.is_synced()
    }
}
