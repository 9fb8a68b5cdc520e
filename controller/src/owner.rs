//! Whom `NodeTiering`s and the lease belong to. Kubernetes removes them when that goes.
//!
//! Where the release has a `ClusterRole` they belong to that, so that they go with the release. An object stays while one of its owners is
//! there, so it is the only one; the controller itself removes those of nodes that go. Without one the lease is nobody's.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Resource as _};
use tokio::time::{sleep, timeout};

use crate::watch::with_causes;
use crate::write::WRITE_TIMEOUT;

/// Between two looks whether the role was made anew.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// After a server that did not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Whom they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Each to its node.
    Node,
    /// All to a `ClusterRole` of this name and uid.
    Role {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

impl Owner {
    /// The reference in the object of a node, whose uid is given.
    #[must_use]
    pub fn reference(&self, node: &str, node_uid: &str) -> OwnerReference {
        self.of_release().unwrap_or_else(|| reference("v1", "Node", node, node_uid))
    }

    /// The reference in what belongs to no node.
    #[must_use]
    pub fn of_release(&self) -> Option<OwnerReference> {
        match self {
            Self::Node => None,
            Self::Role { name, uid } => {
                Some(reference(&ClusterRole::api_version(&()), &ClusterRole::kind(&()), name, uid))
            }
        }
    }
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        // Nobody who deletes the owner has to wait for what it owns.
        ..OwnerReference::default()
    }
}

/// Says whom they belong to: once it is known, and again when it changes. Never ends.
pub async fn watch(client: Client, role: Option<String>, found: impl AsyncFn(Owner)) {
    let Some(name) = role else {
        found(Owner::Node).await;
        return std::future::pending().await;
    };
    let roles: Api<ClusterRole> = Api::all(client);
    let mut known = None;
    loop {
        let answer = timeout(WRITE_TIMEOUT, roles.get_metadata(&name)).await;
        let pause = match answer {
            Ok(Ok(role)) => {
                let uid = role.metadata.uid.unwrap_or_default();
                let owner = Owner::Role { name: name.clone(), uid };
                if known.as_ref() != Some(&owner) {
                    known = Some(owner.clone());
                    found(owner).await;
                }
                LOOK_EVERY
            }
            // Once known, it stays: a role that is gone is what a release leaves that goes.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                if known.is_none() {
                    tracing::warn!(role = name, error = %status, "the owner of NodeTierings can't be read; uninstalling will leave them");
                    known = Some(Owner::Node);
                    found(Owner::Node).await;
                }
                LOOK_EVERY
            }
            Ok(Err(error)) => {
                tracing::debug!(
                    role = name,
                    error = with_causes(&error),
                    "the owner of NodeTierings can't be read yet"
                );
                RETRY
            }
            Err(_) => RETRY,
        };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_one_owner_that_nobody_waits_for() {
        let role = Owner::Role { name: "r".to_owned(), uid: "of-role".to_owned() };
        let found = [Owner::Node, role].map(|owner| {
            let reference = owner.reference("n1", "of-node");
            assert_eq!((reference.block_owner_deletion, reference.controller), (None, None));
            format!("{} {} {} {}", reference.api_version, reference.kind, reference.name, reference.uid)
        });
        assert_eq!(found, ["v1 Node n1 of-node", "rbac.authorization.k8s.io/v1 ClusterRole r of-role"]);
    }
}
