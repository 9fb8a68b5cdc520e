//! A list of all objects of a kind, instead of what changed.

use super::Index;
use super::record::{Name, PodKey};
use crate::listed::Listed;
use crate::watched::Kind;

impl Index {
    /// All objects of a kind come again, each by its `apply`; those of before stay.
    pub fn begin_list(&mut self, kind: Kind) {
        match kind {
            Kind::Pod => self.pods.values_mut().for_each(Listed::begin_list),
            Kind::Namespace => self.namespaces.begin_list(),
            Kind::Policy => self.policies.begin_list(),
            Kind::Node => self.nodes.begin_list(),
            Kind::NodeTiering => {}
        }
    }

    /// An object has come that can't be read: it stays as it was.
    pub fn keep(&mut self, kind: Kind, namespace: &str, name: &str) {
        match kind {
            Kind::Pod => {
                self.pods.get_mut(namespace).and_then(|pods| pods.keep(name));
            }
            Kind::Namespace => {
                self.namespaces.keep(name);
            }
            // It is there, though it may never have said anything.
            Kind::Policy => {
                self.policies.insert(self.pool.names.get(name), ());
            }
            Kind::Node => {
                self.nodes.keep(name);
            }
            Kind::NodeTiering => {}
        }
    }

    /// What did not come with the list, by namespace and name: it is gone.
    #[must_use]
    pub fn missing(&self, kind: Kind) -> Vec<PodKey> {
        let in_none = |names: Vec<Name>| names.into_iter().map(|name| (Name::from(""), name)).collect();
        match kind {
            Kind::Pod => {
                let of_namespace = |(namespace, pods): (&Name, &Listed<_>)| {
                    let missing = pods.missing().into_iter();
                    missing.map(|name| (Name::clone(namespace), name)).collect::<Vec<_>>()
                };
                self.pods.iter().flat_map(of_namespace).collect()
            }
            Kind::Namespace => in_none(self.namespaces.missing()),
            Kind::Policy => in_none(self.policies.missing()),
            Kind::Node => in_none(self.nodes.missing()),
            Kind::NodeTiering => Vec::new(),
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        match kind {
            Kind::Pod => self.delete_pod(namespace, name),
            Kind::Namespace => self.delete_namespace(name),
            Kind::Policy => self.delete_policy(name),
            Kind::Node => self.delete_node(name),
            Kind::NodeTiering => self.apply_dram(name, None),
        }
    }
}
