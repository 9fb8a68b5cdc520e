//! A list of all objects of a kind, instead of what changed.

use super::Index;
use super::record::{Name, PodKey};
use crate::listed::Listed;
use crate::watch::objects::IndexedKind;

impl Index {
    /// All objects of a kind come again, each by its `apply`; those of before stay.
    pub fn begin_list(&mut self, kind: IndexedKind) {
        match kind {
            IndexedKind::Pod => self.pods.values_mut().for_each(Listed::begin_list),
            IndexedKind::Namespace => self.namespaces.begin_list(),
            IndexedKind::Policy => self.policies.begin_list(),
            IndexedKind::Node => self.nodes.begin_list(),
        }
    }

    /// An object has come that can't be read: it stays as it was.
    pub fn keep(&mut self, kind: IndexedKind, namespace: &str, name: &str) {
        match kind {
            IndexedKind::Pod => {
                self.pods.get_mut(namespace).and_then(|pods| pods.keep(name));
            }
            IndexedKind::Namespace => {
                self.namespaces.keep(name);
            }
            // It is there, though it may never have said anything.
            IndexedKind::Policy => {
                self.policies.insert(self.pool.names.get(name), ());
            }
            IndexedKind::Node => {
                self.nodes.keep(name);
            }
        }
    }

    /// What did not come with the list, by namespace and name: it is gone.
    #[must_use]
    pub fn missing(&self, kind: IndexedKind) -> Vec<PodKey> {
        let in_none = |names: Vec<Name>| names.into_iter().map(|name| (Name::from(""), name)).collect();
        match kind {
            IndexedKind::Pod => {
                let of_namespace = |(namespace, pods): (&Name, &Listed<_>)| {
                    let missing = pods.missing().into_iter();
                    missing.map(|name| (Name::clone(namespace), name)).collect::<Vec<_>>()
                };
                self.pods.iter().flat_map(of_namespace).collect()
            }
            IndexedKind::Namespace => in_none(self.namespaces.missing()),
            IndexedKind::Policy => in_none(self.policies.missing()),
            IndexedKind::Node => in_none(self.nodes.missing()),
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, kind: IndexedKind, namespace: &str, name: &str) {
        match kind {
            IndexedKind::Pod => self.delete_pod(namespace, name),
            IndexedKind::Namespace => self.delete_namespace(name),
            IndexedKind::Policy => self.delete_policy(name),
            IndexedKind::Node => self.delete_node(name),
        }
    }
}
