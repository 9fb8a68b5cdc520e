//! What is kept of the objects: small, for there may be a hundred thousand pods.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use api::annotations::{NamespaceRequests, PolicyChoice, Problem, Requests};
use api::{PolicySpec, QosClass, SpecError};
use tiering::Bytes;

use super::shared::Shared;
use crate::watch::objects;

/// A name, kept once however many have it.
pub type Name = Arc<str>;

/// Namespace and name of a pod.
pub type PodKey = (Name, Name);

/// Labels, sorted by key.
pub(super) type Labels = [(Name, Name)];

/// What pods share with each other.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) names: Shared<str>,
    labels: Shared<Labels>,
    annotations: Shared<Annotations>,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodRecord {
    pub(super) uid: Box<str>,
    pub(super) node: Option<Name>,
    /// In seconds since 1970: of two pods the older has its floor.
    pub(super) created: i64,
    pub(super) labels: Arc<Labels>,
    pub(super) annotations: Option<Arc<Annotations>>,
    pub(super) containers: Box<[Container]>,
    pub(super) memory: objects::Memory,
    pub(super) qos_class: QosClass,
    pub(super) kind: PodKind,
}

/// Whether a pod may be managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodKind {
    Usual,
    Mirror,
    Critical,
    Finished,
}

/// What is kept of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: Name,
    pub(super) id: Option<ContainerId>,
    pub(super) memory: objects::Memory,
}

/// A container's id: runtimes write 32 bytes as 64 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContainerId {
    Digits(Box<[u8; 32]>),
    Other(Box<str>),
}

/// Annotations of a pod that are ours, read when somebody first asks.
#[derive(Debug)]
pub(super) struct Annotations {
    pairs: Box<[(Box<str>, Box<str>)]>,
    requests: OnceLock<Requests>,
}

impl Annotations {
    pub(super) fn requests(&self) -> &Requests {
        self.requests
            .get_or_init(|| Requests::parse(self.pairs.iter().map(|(key, value)| (&**key, &**value))))
    }
}

impl PartialEq for Annotations {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Annotations {}

impl Hash for Annotations {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pairs.hash(state);
    }
}

impl ContainerId {
    fn new(text: &str) -> Self {
        let mut bytes = [0; 32];
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        if text.len() == 64 {
            let pairs = text.as_bytes().chunks_exact(2);
            let read = pairs.zip(&mut bytes).all(|(pair, byte)| match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => {
                    *byte = high << 4 | low;
                    true
                }
                _ => false,
            });
            if read {
                return Self::Digits(Box::new(bytes));
            }
        }
        Self::Other(text.into())
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digits(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl PodRecord {
    pub(super) fn new(pod: &objects::Pod, pool: &mut Pool) -> Self {
        let kind = if pod.is_finished() {
            PodKind::Finished
        } else if pod.is_mirror() {
            PodKind::Mirror
        } else if pod.is_critical() {
            PodKind::Critical
        } else {
            PodKind::Usual
        };
        let whole = pod.whole();
        let containers = pod.containers().map(|container| Container {
            name: pool.names.get(container.name),
            id: container.id.map(ContainerId::new),
            memory: container.memory.within(whole),
        });
        let containers = containers.collect();
        let pairs: Box<[_]> = pod.annotations().map(|(key, value)| (key.into(), value.into())).collect();
        Self {
            uid: pod.cgroup_uid().into(),
            node: pod.node().map(|node| pool.names.get(node)),
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            labels: pool.labels(pod.labels().into_iter().flatten()),
            annotations: (!pairs.is_empty())
                .then(|| pool.annotations.get(Annotations { pairs, requests: OnceLock::new() })),
            containers,
            memory: pod.memory(),
            qos_class: pod.qos_class(),
            kind,
        }
    }

    pub(super) fn requests(&self) -> Option<&Requests> {
        self.annotations.as_ref().map(|annotations| annotations.requests())
    }
}

impl Pool {
    fn labels<'a>(&mut self, labels: impl Iterator<Item = (&'a String, &'a String)>) -> Arc<Labels> {
        let names = &mut self.names;
        let labels: Vec<_> =
            labels.map(|(key, value)| (names.get(key.as_str()), names.get(value.as_str()))).collect();
        self.labels.get(labels)
    }
}

/// The value of a label.
pub(super) fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    let place = labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
    Some(&labels[place].1)
}

/// What is kept of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NamespaceRecord {
    pub(super) labels: Vec<(Name, Name)>,
    pub(super) policy: Option<PolicyChoice>,
    /// What the floors of its pods may sum to.
    pub(super) floor_quota: Option<Bytes>,
    pub(super) problems: Vec<Problem>,
}

impl NamespaceRecord {
    pub(super) fn new(namespace: &objects::Namespace, pool: &mut Pool) -> Self {
        let metadata = &namespace.metadata;
        let annotations = metadata.annotations.iter().flatten();
        let NamespaceRequests { policy, floor_quota, problems } =
            NamespaceRequests::parse(annotations.map(|(key, value)| (key.as_str(), value.as_str())));
        let labels = metadata.labels.iter().flatten();
        let labels = labels
            .map(|(key, value)| (pool.names.get(key.as_str()), pool.names.get(value.as_str())))
            .collect();
        Self { labels, policy, floor_quota: floor_quota.map(|quota| quota.0), problems }
    }
}

/// What is kept of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyRecord {
    pub(super) generation: i64,
    pub(super) spec: PolicySpec,
    pub(super) accepted: Result<(), SpecError>,
    /// Whether `spec` makes a policy: where the newest was refused, it is the last that was not.
    pub(super) usable: bool,
}

impl PolicyRecord {
    pub(super) fn new(policy: &api::TieringPolicy) -> Self {
        let spec = policy.spec.clone().complete();
        let accepted = spec.check();
        let usable = accepted.is_ok();
        Self { generation: policy.metadata.generation.unwrap_or_default(), accepted, usable, spec }
    }
}

/// What is kept of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeRecord {
    /// Absent while only pods say that there is such a node.
    pub(super) known: Option<NodeFacts>,
    pub(super) pods: BTreeSet<PodKey>,
    /// Those of them that are mirrors: which cgroup is theirs depends on what the others claim.
    pub(super) mirrors: BTreeSet<PodKey>,
    /// The sum of its pods' floors, as they apply.
    pub(super) floors: Bytes,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFacts {
    pub(super) uid: Box<str>,
    pub(super) allocatable: Option<Bytes>,
}
