//! What the controller is compared with.

use std::io::Write as _;
use std::path::Path;
use std::pin::pin;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, Client, Config};

/// Printed when all pods have come.
pub(crate) const LISTED: &str = "listed";

/// Keeps whole pods until it is killed, as kube's documentation shows it.
pub(crate) async fn run(kubeconfig: &Path) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let pods: Api<Pod> = Api::all(Client::try_from(config)?);
    let (store, writer) = reflector::store();
    let mut stream = pin!(watcher(pods, watcher::Config::default()).default_backoff().reflect(writer));
    let reflecting = async {
        while let Some(event) = stream.next().await {
            if let Err(error) = event {
                let _ = writeln!(std::io::stderr(), "reflector: {error}");
            }
        }
    };
    let telling = async {
        store.wait_until_ready().await?;
        writeln!(std::io::stdout(), "{LISTED}").context("nobody listens")
    };
    tokio::join!(reflecting, telling).1
}
