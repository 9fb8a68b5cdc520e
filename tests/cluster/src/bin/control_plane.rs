//! A cluster whose only node is elsewhere: `cargo xtask node` starts it for a virtual machine.
//!
//! With the controller's half of the chart applied, and our controller running as its service account. When the node can come,
//! it says the API server's port on standard output; it ends with its standard input.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use api::{NodeTiering, TieringPolicy};
use clap::Parser;
use cluster_tests::{ControlPlane, apply, install_crds};
use kube::CustomResourceExt as _;
use manifest_tests::{NAMESPACE, helm_template, helm_template_text};
use serde_json::json;

/// What of the chart is not the agent's. The controller itself is started here, and is no pod.
const CONTROLLER: [&str; 2] =
    ["--show-only=templates/controller/rbac.yaml", "--show-only=templates/policies.yaml"];
/// What the node's scenario installs.
const AGENT: [&str; 3] = [
    "--show-only=templates/agent/rbac.yaml",
    "--show-only=templates/agent/configmap.yaml",
    "--show-only=templates/agent/daemonset.yaml",
];

/// The cluster to be.
#[derive(Parser)]
struct Args {
    /// Name of the node
    #[arg(long)]
    node: String,
    /// Where the node reaches the API server
    #[arg(long)]
    address: SocketAddr,
    /// Our controller's binary
    #[arg(long)]
    controller: PathBuf,
    /// Gets `admin.conf` and `kubelet.conf` (kubeconfigs for the node), `agent.yaml` (the agent's half of the chart) and
    /// `controller.log`
    directory: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let file = |name: &str| args.directory.join(name);
    let mut plane = ControlPlane::start(&args.node).await?;

    let client = plane.administrator().client().await?;
    install_crds(&client, &[TieringPolicy::crd(), NodeTiering::crd()]).await?;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    apply(&client, [namespace].into_iter().chain(helm_template(&CONTROLLER)?)).await?;
    std::fs::write(file("agent.yaml"), helm_template_text(&AGENT)?)?;

    plane.administrator().via(args.address).write_kubeconfig(&file("admin.conf"))?;
    plane.node()?.via(args.address).write_kubeconfig(&file("kubelet.conf"))?;
    plane.start_controller(&args.controller, NAMESPACE, &file("controller.log")).await?;

    writeln!(std::io::stdout(), "{}", plane.administrator().address().port())?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
