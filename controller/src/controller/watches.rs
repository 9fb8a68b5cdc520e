//! What the watches see.

use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::Controller;
use crate::index::Name;
use crate::policy_status::Policy;
use crate::watch::{Change, Watched};
use crate::watched::{Kind, Malformed, Node, Object};

impl Controller {
    pub(super) fn watched(&mut self, Watched { kind, change, .. }: Watched) {
        match change {
            Change::Applied(object) => self.applied(*object),
            Change::Gone { namespace, name } => self.gone(kind, &namespace, &name),
            Change::Listing => {
                self.tallies.list_began(kind);
                self.index.begin_relist(kind);
                match kind {
                    Kind::Policy => self.policies.begin_relist(),
                    Kind::NodeTiering => self.tierings.begin_relist(),
                    Kind::Pod | Kind::Namespace | Kind::Node => {}
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
            Object::Node(node) => self.index.apply_node(&node),
            Object::Policy(policy) => {
                self.index.apply_policy(&policy);
                let status = policy.status.clone().unwrap_or_default();
                self.saw_policy(&policy.metadata, Policy { status, ..Policy::default() });
            }
            Object::NodeTiering(object) => {
                let node = Name::from(object.name_any());
                self.index.apply_dram(&node, object.dram());
                let (changed, suspensions) = self.tierings.saw(&node, &object);
                for suspension in &suspensions {
                    self.tell_of_suspension(suspension);
                }
                if changed {
                    self.look_again(&node);
                }
            }
        }
    }

    fn saw_policy(&mut self, metadata: &ObjectMeta, policy: Policy) {
        let name = Name::from(metadata.name.as_deref().unwrap_or_default());
        let policy = Policy {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            ..policy
        };
        if self.policies.saw(&name, policy) && self.may_mark() {
            self.policy_changed(&name, std::time::Instant::now());
        }
    }

    fn gone(&mut self, kind: Kind, namespace: &str, name: &str) {
        match kind {
            Kind::Pod => self.index.delete_pod(namespace, name),
            Kind::Namespace => self.index.delete_namespace(name),
            Kind::Node => self.index.delete_node(name),
            Kind::Policy => {
                self.policies.gone(name);
                self.statuses.forget(name);
                self.index.delete_policy(name);
            }
            Kind::NodeTiering => {
                self.index.apply_dram(name, None);
                self.tierings.gone(name);
                self.look_again(&Name::from(name));
            }
        }
    }

    fn listed(&mut self, kind: Kind) {
        self.index.end_relist(kind);
        match kind {
            Kind::Policy => self.policies.end_relist(),
            Kind::NodeTiering => {
                for node in self.tierings.end_relist() {
                    self.look_again(&node);
                }
            }
            Kind::Pod | Kind::Namespace | Kind::Node => {}
        }
        tracing::info!(kind = kind.plural(), "listed");
        if self.synced.insert(kind) && self.is_synced() {
            tracing::info!(
                pods = self.index.len(Kind::Pod),
                nodes = self.index.len(Kind::Node),
                policies = self.index.len(Kind::Policy),
                seconds = self.started.elapsed().as_secs_f64(),
                "everything is known"
            );
            if self.leading {
                self.mark_all();
            }
        }
    }

    /// A pod, namespace or policy that can't be read stays as it was when it could. A node is one all the same, and what it was told
    /// is told again unless it was ourselves who told it.
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
                self.index.keep(kind, namespace, name);
                let unreadable = Some(malformed.message.clone());
                // What it says already is not to be said again, with a new time.
                let status = serde_json::from_value(malformed.status.clone()).unwrap_or_else(|_| {
                    let known = self.policies.get(name);
                    let same = known.filter(|known| metadata.uid.as_deref() == Some(&*known.uid));
                    same.map(|known| known.status.clone()).unwrap_or_default()
                });
                self.saw_policy(metadata, Policy { unreadable, status, ..Policy::default() });
            }
            Kind::Node if self.index.node_uid(name) != metadata.uid.as_deref() => {
                self.index.apply_node(&Node::unreadable(metadata));
            }
            Kind::Pod | Kind::Namespace | Kind::Node => self.index.keep(kind, namespace, name),
            Kind::NodeTiering => {
                let node = Name::from(name);
                if self.tierings.saw_unreadable(&node, metadata) {
                    self.look_again(&node);
                }
            }
        }
    }

    /// What a node was told may differ from what it should be told.
    fn look_again(&mut self, node: &Name) {
        if self.may_mark() {
            self.nodes.changed(node, None, std::time::Instant::now());
        }
    }

    pub(super) fn may_mark(&self) -> bool {
        self.leading && self.is_synced()
    }
}
