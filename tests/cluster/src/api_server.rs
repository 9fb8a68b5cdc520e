//! kube-apiserver: pods, nodes, RBAC, events, leases.

use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tempfile::TempDir;

use crate::process::{random_token, write_private};
use crate::server::Server;
use crate::{Access, Etcd, certificates};

/// Somebody whom the server knows by a fixed token, beside its administrator. Service accounts need none.
#[derive(Clone, Debug)]
pub struct User {
    /// For example `system:node:worker`.
    pub name: String,
    /// For example `system:nodes`.
    pub groups: Vec<String>,
}

/// A kube-apiserver on loopback: RBAC on, no controllers, no scheduler, no kubelet.
pub struct ApiServer {
    server: Server,
    users: Vec<(String, Access)>,
}

impl ApiServer {
    /// Starts one that has only an administrator.
    ///
    /// # Errors
    /// When the binary is missing or does not get ready.
    pub async fn start(etcd: &Etcd) -> Result<Self> {
        Self::start_with(etcd, &[], &[]).await
    }

    /// Starts one with more users, and more arguments than it always has. RBAC gives rights to users and groups as to
    /// anybody; the Node authorizer knows `system:node:NAME` of the group `system:nodes`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(etcd: &Etcd, users: &[User], arguments: &[String]) -> Result<Self> {
        // It wants the token secrets that only kube-controller-manager makes, or refuses every pod.
        let without = "--disable-admission-plugins=ServiceAccount".to_owned();
        let arguments = [arguments, &[without]].concat();
        Self::start_for_controllers(etcd, users, &arguments).await
    }

    /// Starts one whose pods get the token of their service account, which kube-controller-manager makes.
    pub(crate) async fn start_for_controllers(
        etcd: &Etcd,
        users: &[User],
        arguments: &[String],
    ) -> Result<Self> {
        let dir = TempDir::with_prefix("thermocline-apiserver-")?;
        let authority = certificates::server_certificate(dir.path())?;
        certificates::token_keys(dir.path())?;
        let administrator = random_token()?;
        let mut lines = vec![format!("{administrator},admin,admin,system:masters")];
        let mut known = Vec::new();
        for User { name, groups } in users {
            let token = random_token()?;
            lines.push(format!("{token},{name},{name},\"{}\"", groups.join(",")));
            known.push((name.clone(), token));
        }
        write_private(&dir.path().join("tokens.csv"), &lines.join("\n"))?;

        let on_port = |port, dir: &Path| {
            let mut all = base_arguments(etcd, port, dir);
            all.extend_from_slice(arguments);
            Ok((all, Access::with_token(port, authority.clone(), administrator.clone())))
        };
        let server = Server::start("kube-apiserver", dir, "/readyz", on_port).await?;
        let user = |(name, token)| (name, server.access().clone().with_bearer(token));
        Ok(Self { users: known.into_iter().map(user).collect(), server })
    }

    /// The administrator's access: everything is allowed.
    #[must_use]
    pub fn administrator(&self) -> Access {
        self.server.access().clone()
    }

    /// The access of one of the users that the server was started with.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn user(&self, name: &str) -> Result<Access> {
        let found = self.users.iter().find(|(known, _)| known == name);
        Ok(found.with_context(|| format!("the server was started without a user {name}"))?.1.clone())
    }

    /// The access of an existing service account, by a token that the server issues as it does for a pod: with the
    /// account's rights and no others.
    ///
    /// # Errors
    /// When there is no such service account.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Access> {
        self.token(namespace, name, None).await
    }

    /// The access that a pod on a node has by its service account: newer servers have the token name the node. The pod is made, the node
    /// need not be there.
    ///
    /// # Errors
    /// When there is no such service account, or the server refuses the pod.
    pub async fn pod_of_account(&self, namespace: &str, name: &str, node: &str) -> Result<Access> {
        let pods: Api<Pod> = Api::namespaced(self.server.access().client().await?, namespace);
        let pod = json!({
            "metadata": { "generateName": format!("{name}-") },
            "spec": {
                "serviceAccountName": name, "automountServiceAccountToken": false, "nodeName": node,
                "containers": [{ "name": "main", "image": "none" }],
            },
        });
        let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            uid: pod.uid(),
            name: pod.metadata.name,
        };
        self.token(namespace, name, Some(bound)).await
    }

    async fn token(
        &self,
        namespace: &str,
        name: &str,
        bound: Option<BoundObjectReference>,
    ) -> Result<Access> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.server.access().client().await?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(24 * 3600),
                bound_object_ref: bound,
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("no token for {namespace}/{name}"))?;
        let status = answer.status.context("the server issued no token")?;
        Ok(self.administrator().with_bearer(status.token))
    }

    /// Its process, for measurements.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// Where its log is (`kube-apiserver.log`), as long as this lives.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port with the same keys, having killed it if it still ran.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }
}

fn base_arguments(etcd: &Etcd, port: u16, dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--etcd-servers={}", etcd.url()),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file("tls.crt")),
        format!("--tls-private-key-file={}", file("tls.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("tokens.pub")),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Without a lease in etcd that outlives a kill.
        "--endpoint-reconciler-type=none".to_owned(),
    ]
}
