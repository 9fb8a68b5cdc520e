//! A list of all objects of a kind, instead of what changed: what is not in it is gone.

use std::collections::BTreeMap;

use super::record::{Name, PodKey};
use super::{Index, Listed};
use crate::watched::Kind;

impl Index {
    /// All objects of a kind come again, each by its `apply`; until [`Self::end_relist`], those of before stay.
    pub fn begin_relist(&mut self, kind: Kind) {
        let relist = self.relists.entry(kind).or_default();
        *relist = relist.wrapping_add(1);
    }

    /// An object has come that can't be read: it stays as it was.
    pub fn keep(&mut self, kind: Kind, namespace: &str, name: &str) {
        let relist = self.relist_of(kind);
        let kept = match kind {
            Kind::Pod => {
                let listed = self.pods.get_mut(namespace).and_then(|pods| pods.get_mut(name));
                listed.map(|listed| &mut listed.relist)
            }
            Kind::Namespace => self.namespaces.get_mut(name).map(|listed| &mut listed.relist),
            Kind::Policy => self.policies_listed.get_mut(name),
            Kind::Node => self.nodes.get_mut(name).map(|listed| &mut listed.relist),
            Kind::NodeTiering => None,
        };
        if let Some(kept) = kept {
            *kept = relist;
        }
    }

    /// All have come: what did not is gone.
    pub fn end_relist(&mut self, kind: Kind) {
        let current = self.relist_of(kind);
        match kind {
            Kind::Pod => {
                let gone: Vec<PodKey> = self
                    .pods
                    .iter()
                    .flat_map(|(namespace, pods)| {
                        gone(pods, current).into_iter().map(|name| (Name::clone(namespace), name))
                    })
                    .collect();
                for (namespace, name) in gone {
                    self.delete_pod(&namespace, &name);
                }
            }
            Kind::Namespace => {
                for name in gone(&self.namespaces, current) {
                    self.delete_namespace(&name);
                }
            }
            Kind::Policy => {
                let gone = self.policies_listed.iter().filter(|(_, relist)| **relist != current);
                let gone: Vec<Name> = gone.map(|(name, _)| Name::clone(name)).collect();
                for name in gone {
                    self.delete_policy(&name);
                }
            }
            Kind::Node => {
                for name in gone(&self.nodes, current) {
                    self.delete_node(&name);
                }
            }
            Kind::NodeTiering => {}
        }
    }

    /// Of which relist of its kind an object is that comes now.
    pub(super) fn relist_of(&self, kind: Kind) -> u32 {
        self.relists.get(&kind).copied().unwrap_or_default()
    }
}

/// Names of what the current relist did not have.
fn gone<T>(all: &BTreeMap<Name, Listed<T>>, current: u32) -> Vec<Name> {
    let gone = all.iter().filter(|(_, listed)| listed.relist != current);
    gone.map(|(name, _)| Name::clone(name)).collect()
}
