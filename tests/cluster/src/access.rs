//! How somebody reaches a server: its address, whom to trust, and a token.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::process::write_private;

/// One user's way to one server.
#[derive(Clone)]
pub struct Access {
    address: SocketAddr,
    identity: Option<Identity>,
}

/// Who the server must prove to be, and what the user says.
#[derive(Clone)]
struct Identity {
    authority: String,
    token: String,
}

impl Access {
    /// To a loopback port that serves plain text to everybody.
    #[must_use]
    pub fn open(port: u16) -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), identity: None }
    }

    /// To a loopback port whose certificate the authority (PEM) signed.
    pub(crate) fn with_token(port: u16, authority: String, token: String) -> Self {
        Self { identity: Some(Identity { authority, token }), ..Self::open(port) }
    }

    /// Where connections go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same user by another way, for example through a [`Proxy`](crate::Proxy), or from a virtual machine.
    #[must_use]
    pub fn via(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The same server, as the bearer of another token.
    pub(crate) fn with_bearer(mut self, other: String) -> Self {
        if let Some(identity) = &mut self.identity {
            identity.token = other;
        }
        self
    }

    /// What kubectl, kubelet and our own programs read. JSON, which is YAML.
    #[must_use]
    pub fn kubeconfig(&self) -> Value {
        let (cluster, user) = match &self.identity {
            None => (json!({ "server": format!("http://{}", self.address) }), json!({})),
            Some(Identity { authority, token }) => (
                json!({
                    "server": format!("https://{}", self.address),
                    "certificate-authority-data": STANDARD.encode(authority),
                }),
                json!({ "token": token }),
            ),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        })
    }

    /// Writes [`Self::kubeconfig`] to a file, for `--kubeconfig`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        write_private(path, &format!("{:#}\n", self.kubeconfig()))
    }

    /// For a client with settings of its own.
    ///
    /// # Errors
    /// When the client library refuses the kubeconfig.
    pub async fn config(&self) -> Result<Config> {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig())?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// A client. It belongs to the calling runtime: each test makes its own.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }
}
