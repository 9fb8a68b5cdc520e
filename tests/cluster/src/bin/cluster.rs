//! etcd and kube-apiserver in the foreground, with our definitions installed: `cargo xtask cluster`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cluster_tests::{ApiServer, Etcd, install_crds, tool};
use kube::CustomResourceExt as _;

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.context("usage: cluster KUBECONFIG (the file to write)")?;
    let mut err = std::io::stderr();
    let etcd = Etcd::start().await?;
    let server = ApiServer::start(&etcd).await?;
    let access = server.administrator();
    install_crds(&access.client().await?, &[api::TieringPolicy::crd(), api::NodeTiering::crd()]).await?;
    access.write_kubeconfig(&file)?;
    let file = file.canonicalize()?;
    let kubectl = tool("kubectl").map_or_else(|_| "kubectl".to_owned(), |path| path.display().to_string());
    writeln!(err, "kube-apiserver at https://{}, its log in {}", access.address(), server.dir().display())?;
    writeln!(err, "  export KUBECONFIG={}", file.display())?;
    writeln!(err, "  {kubectl} get tieringpolicies,nodetierings")?;
    writeln!(err, "  cargo run -p thermocline-controller -- --once")?;
    writeln!(err, "Ctrl-C ends both servers and removes what they stored.")?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
    }
    std::fs::remove_file(&file)?;
    Ok(())
}
