//! Everything of a cluster but its nodes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use crate::current::minor;
use crate::process::Process;
use crate::{Access, ApiServer, Etcd, User, eventually, server_binary};

const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";
/// From this minor version of Kubernetes on accounts have no secret with a token.
const WITHOUT_TOKEN_SECRETS: u32 = 24;
/// From this one on servers have no port without TLS, nor a flag that closes it.
const WITHOUT_PLAIN_PORT: u32 = 24;
/// The service account of our controller in the chart's release.
const CONTROLLER: &str = "thermocline-controller";

/// etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback. Unlike with an [`ApiServer`] alone, daemon
/// sets and deployments make pods, pods are scheduled, get tokens, and are evicted from dead nodes.
pub struct ControlPlane {
    controller: Option<Process>,
    _scheduler: Process,
    _controller_manager: Process,
    api_server: ApiServer,
    node: String,
    _etcd: Etcd,
}

impl ControlPlane {
    /// Starts one that knows a kubelet as the node of that name.
    ///
    /// # Errors
    /// When a binary is missing, or a server does not get ready.
    pub async fn start(node: &str) -> Result<Self> {
        let etcd = Etcd::start().await?;
        let user = |name: &str, groups: &[&str]| User {
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        let node = format!("system:node:{node}");
        let users = [
            user(&node, &["system:nodes"]),
            user(&format!("system:{CONTROLLER_MANAGER}"), &[]),
            user(&format!("system:{SCHEDULER}"), &[]),
        ];
        let restricted = "--enable-admission-plugins=NodeRestriction".to_owned();
        let api_server = ApiServer::start_for_controllers(&etcd, &users, &[restricted]).await?;
        let file = |name: &str| api_server.dir().join(name).display().to_string();
        let controller_manager = start(
            &api_server,
            CONTROLLER_MANAGER,
            vec![
                "--use-service-account-credentials=true".to_owned(),
                format!("--service-account-private-key-file={}", file("tokens.key")),
                format!("--root-ca-file={}", file("ca.crt")),
            ],
        )?;
        let scheduler = start(&api_server, SCHEDULER, Vec::new())?;
        let plane = Self {
            controller: None,
            _scheduler: scheduler,
            _controller_manager: controller_manager,
            api_server,
            node,
            _etcd: etcd,
        };
        let client = plane.administrator().client().await?;
        let needs_secret = minor(&client.apiserver_version().await?.minor)? < WITHOUT_TOKEN_SECRETS;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
        eventually("pods of the default namespace have a token", async || {
            let has_secret = |account: &ServiceAccount| account.secrets.iter().flatten().next().is_some();
            let account = accounts.get_opt("default").await?;
            Ok(account.filter(|account| !needs_secret || has_secret(account)).map(|_| ()))
        })
        .await?;
        Ok(plane)
    }

    /// Runs our controller with the token and the rights of its service account, which has to be there.
    ///
    /// # Errors
    /// When there is no such account, or the binary cannot be started.
    pub async fn start_controller(&mut self, binary: &Path, namespace: &str, log: &Path) -> Result<()> {
        let access = self.api_server.service_account(namespace, CONTROLLER).await?;
        let kubeconfig = self.api_server.dir().join(CONTROLLER).with_extension("kubeconfig");
        access.write_kubeconfig(&kubeconfig)?;
        let arguments = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--lease-namespace={namespace}"),
            "--http-address=127.0.0.1:0".to_owned(),
            "--default-policy=observe".to_owned(),
            format!("--owner-role={CONTROLLER}"),
        ];
        self.controller = Some(Process::start(binary, &arguments, log)?);
        Ok(())
    }

    /// The administrator's access: everything is allowed.
    #[must_use]
    pub fn administrator(&self) -> Access {
        self.api_server.administrator()
    }

    /// The access of the kubelet.
    ///
    /// # Errors
    /// None: the server was started with it.
    pub fn node(&self) -> Result<Access> {
        self.api_server.user(&self.node)
    }
}

/// Starts a client of the API server, which listens nowhere.
fn start(api_server: &ApiServer, name: &str, mut arguments: Vec<String>) -> Result<Process> {
    let kubeconfig = api_server.dir().join(name).with_extension("kubeconfig");
    api_server.user(&format!("system:{name}"))?.write_kubeconfig(&kubeconfig)?;
    arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
    arguments.extend(["--leader-elect=false", "--secure-port=0"].map(str::to_owned));
    let binary = server_binary(name)?;
    if version_of(&binary)? < WITHOUT_PLAIN_PORT {
        arguments.push("--port=0".to_owned());
    }
    Process::start(&binary, &arguments, &api_server.dir().join(name).with_extension("log"))
}

/// The minor version of a server of Kubernetes, as in `Kubernetes v1.36.2`.
fn version_of(binary: &Path) -> Result<u32> {
    let output = Command::new(binary).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    minor(text.split('.').nth(1).with_context(|| format!("{} says `{text}`", binary.display()))?)
}
