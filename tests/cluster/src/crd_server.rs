//! crdserver: the custom resource machinery of a current Kubernetes, without anything else.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::{random_token, write_private};
use crate::server::Server;
use crate::{Access, Etcd, certificates};

/// A server of custom resources alone, from `k8s.io/apiextensions-apiserver` 0.36. What an older kube-apiserver drops from a
/// CRD silently, it enforces: CEL rules, selectable fields, field validation.
pub struct CrdServer(Server);

impl CrdServer {
    /// Starts one.
    ///
    /// # Errors
    /// When the binary is missing (no distribution packs it), or does not get ready.
    pub async fn start(etcd: &Etcd) -> Result<Self> {
        let dir = TempDir::with_prefix("thermocline-crdserver-")?;
        let authority = certificates::server_certificate(dir.path())?;
        let token = random_token()?;
        write_private(&dir.path().join("tokens.csv"), &format!("{token},admin,admin,system:masters\n"))?;
        let on_port = |port, dir: &Path| {
            let file = |name: &str| dir.join(name).display().to_string();
            let arguments = vec![
                format!("--etcd-servers={}", etcd.url()),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                format!("--tls-cert-file={}", file("tls.crt")),
                format!("--tls-private-key-file={}", file("tls.key")),
                format!("--token-auth-file={}", file("tokens.csv")),
            ];
            Ok((arguments, Access::with_token(port, authority.clone(), token.clone())))
        };
        Ok(Self(Server::start("crdserver", dir, "/readyz", on_port).await?))
    }

    /// The access of its only user, who may do everything.
    #[must_use]
    pub fn administrator(&self) -> Access {
        self.0.access().clone()
    }
}
