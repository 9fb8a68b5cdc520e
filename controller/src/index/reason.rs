//! Why a pod or container has its policy, or none.

use std::fmt;

use serde::Serialize;

/// What gave a policy, from what goes first to what goes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Source {
    /// A policy that can't be left.
    Enforced,
    /// The container's annotation.
    ContainerAnnotation,
    /// The pod's annotation.
    PodAnnotation,
    /// The namespace's annotation.
    NamespaceAnnotation,
    /// The policy's selector, of all that match the one of the greatest priority, then the first by name.
    Selector,
    /// The controller's default.
    ClusterDefault,
}

/// Why there is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Unmanaged {
    /// An annotation says so.
    OptedOut(Source),
    /// The mirror of a static pod, which no annotation of its own names a policy for.
    Mirror,
    /// A critical pod, which no annotation of its own names a policy for.
    Critical,
    /// All its containers have ended.
    Finished,
    /// It is on no node yet.
    NotScheduled,
    /// Nothing says anything of it.
    NoPolicy,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforced => "enforced",
            Self::ContainerAnnotation => "annotation of the container",
            Self::PodAnnotation => "annotation of the pod",
            Self::NamespaceAnnotation => "annotation of the namespace",
            Self::Selector => "selector of the policy",
            Self::ClusterDefault => "default of the cluster",
        })
    }
}

impl fmt::Display for Unmanaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OptedOut(source) => write!(f, "opted out by {source}"),
            Self::Mirror => f.write_str("mirror of a static pod"),
            Self::Critical => f.write_str("critical pod"),
            Self::Finished => f.write_str("finished"),
            Self::NotScheduled => f.write_str("on no node yet"),
            Self::NoPolicy => f.write_str("no policy applies"),
        }
    }
}

/// A policy by name, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict<Name> {
    /// This policy.
    Policy(Name, Source),
    /// Of this name there is no policy, or none that makes sense: what it had it keeps, or else it is observed.
    Unusable(Name, Source),
    /// Pods of its namespace may not have the policy of this name: it is observed.
    NotAllowed(Name, Source),
    /// Its namespace, and so what applies to it, is not known yet: what it had it keeps.
    UnknownNamespace,
    /// None.
    Unmanaged(Unmanaged),
}

impl<Name> Verdict<Name> {
    /// The policy, if there is one.
    pub fn policy(&self) -> Option<&Name> {
        match self {
            Self::Policy(name, _) => Some(name),
            Self::Unusable(..) | Self::NotAllowed(..) | Self::UnknownNamespace | Self::Unmanaged(_) => None,
        }
    }

    /// Whether it is in its node's assignment.
    pub fn is_managed(&self) -> bool {
        !matches!(self, Self::Unmanaged(_))
    }

    /// Whether it depends on what was assigned before.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Unusable(..) | Self::UnknownNamespace)
    }
}

impl<Name: fmt::Display> fmt::Display for Verdict<Name> {
    /// The reason alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(_, source) => source.fmt(f),
            Self::Unusable(name, source) => {
                write!(
                    f,
                    "{source} names {name}, of which there is no usable policy: it keeps what it had, or is observed"
                )
            }
            Self::NotAllowed(name, source) => {
                write!(f, "{source} names {name}, which is not for pods of this namespace: it is observed")
            }
            Self::UnknownNamespace => f.write_str("its namespace is not known yet: it keeps what it had"),
            Self::Unmanaged(unmanaged) => unmanaged.fmt(f),
        }
    }
}
