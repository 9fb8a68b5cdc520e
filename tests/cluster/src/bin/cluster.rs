//! etcd and kube-apiserver in the foreground, with our definitions installed: `cargo xtask cluster`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cluster_tests::{ApiServer, Etcd, install_crds, tool};
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::CustomResourceExt as _;

/// `kubeVersion` of charts/thermocline/Chart.yaml.
const CHARTS_OLDEST: (u32, u32) = (1, 33);

/// A policy to begin with, in one line.
const POLICY: &str = r#"{"apiVersion":"thermocline.io/v1alpha1","kind":"TieringPolicy","metadata":{"name":"observe"},"spec":{"mode":"Observe"}}"#;

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
    let version = access.client().await?.apiserver_version().await?;
    writeln!(err, "  export KUBECONFIG={}", file.display())?;
    writeln!(err, "  {kubectl} get tieringpolicies,nodetierings")?;
    writeln!(err, "  target/debug/thermocline-controller --once")?;
    write!(err, "{}", to_install(&version, &kubectl))?;
    writeln!(err, "Ctrl-C ends both servers and removes what they stored.")?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

/// How the product gets onto a server of this version: by the chart, or else by lines that work there.
fn to_install(version: &Info, kubectl: &str) -> String {
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().unwrap_or_default();
    if (number(&version.major), number(&version.minor)) >= CHARTS_OLDEST {
        return "  helm install thermocline charts/thermocline --namespace thermocline-system --create-namespace\n".to_owned();
    }
    let (major, minor) = CHARTS_OLDEST;
    format!(
        "This server is Kubernetes {}, and `helm install` asks for {major}.{minor} or later. What works here:\n  {kubectl} create \
         namespace thermocline-system\n  {kubectl} apply -f - <<< '{POLICY}'\n  target/debug/thermocline-controller\n",
        version.git_version
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_server_too_old_for_the_chart_is_named_with_lines_that_work_there() {
        let install = |major: &str, minor: &str| {
            let version = super::Info {
                major: major.to_owned(),
                minor: minor.to_owned(),
                git_version: format!("v{major}.{minor}.2"),
                ..super::Info::default()
            };
            super::to_install(&version, "kubectl")
        };
        assert!(install("1", "33").contains("helm install thermocline"));
        assert!(install("1", "36+").contains("helm install thermocline"));
        let old = install("1", "20");
        assert!(
            old.contains("This server is Kubernetes v1.20.2, and `helm install` asks for 1.33 or later"),
            "{old}"
        );
        assert!(
            old.contains("kubectl create namespace thermocline-system") && old.contains("kubectl apply -f -"),
            "{old}"
        );
    }

    #[test]
    fn the_oldest_server_of_the_chart_is_the_charts_own() {
        let chart = include_str!("../../../../charts/thermocline/Chart.yaml");
        let (major, minor) = super::CHARTS_OLDEST;
        assert!(chart.contains(&format!("kubeVersion: \">={major}.{minor}.0-0\"")), "{chart}");
        serde_json::from_str::<api::TieringPolicy>(super::POLICY).unwrap();
    }
}
