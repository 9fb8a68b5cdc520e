//! `--once`: what would be assigned, and nothing written.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use cluster_tests::{Access, apply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, REPLICAS, annotated, refused};
use crate::replica::PROGRAM;

async fn once(access: &Access, arguments: &[&str]) -> Result<Output> {
    let dir = TempDir::new()?;
    let kubeconfig = dir.path().join("kubeconfig");
    access.write_kubeconfig(&kubeconfig)?;
    let mut command = Command::new(PROGRAM);
    command.arg("--once").arg("--kubeconfig").arg(kubeconfig).args(arguments);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn ended(output: &Output, code: i32, says: &str) -> Result<()> {
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{}: {error}", output.status);
    ensure!(error.contains(says), "it does not say {says:?}: {error}");
    ensure!(code == 0 || output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[tokio::test]
async fn once_prints_what_would_be_assigned_and_writes_nothing() -> Result<()> {
    let cluster = Cluster::without_definitions().await?;
    let objects = cluster.objects().await?;
    let access = cluster.server.user(REPLICAS[0])?;
    ended(&once(&access, &[]).await?, 5, "helm install")?;
    cluster.install_definitions().await?;

    objects.node("node-a").await?;
    objects.policy("batch", json!({ "allowOverrides": ["floor"] })).await?;
    objects.policy("broken", refused()).await?;
    let mut web = annotated("thermocline.io/policy", "batch");
    web["metadata"]["annotations"]["container.thermocline.io/side"] = json!("none");
    web["metadata"]["annotations"]["thermocline.io/dram-floor"] = json!("much");
    objects.pod("default/web", "node-a", &web).await?;
    objects.pod("default/plain", "node-a", &json!({})).await?;

    let table = once(&access, &[]).await?;
    ended(&table, 0, "")?;
    let table = String::from_utf8(table.stdout)?;
    let row = |words: &[&str]| {
        table.lines().any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
    };
    ensure!(row(&["NODE", "POD", "POLICY", "REASON"]), "{table}");
    ensure!(row(&["node-a", "default/web", "batch", "annotation", "of", "the", "pod"]), "{table}");
    ensure!(row(&["node-a", "default/web/side", "-", "opted", "out"]), "{table}");
    ensure!(row(&["node-a", "default/plain", "-", "no", "policy"]), "{table}");
    ensure!(table.contains("! pod default/web: annotation thermocline.io/dram-floor"), "{table}");
    ensure!(table.contains("! policy broken is not assigned"), "{table}");

    let absent = once(&access, &["--default-policy", "absent"]).await?;
    ended(&absent, 0, "")?;
    let absent = String::from_utf8(absent.stdout)?;
    ensure!(
        absent.contains("! the default policy does not apply: there is no TieringPolicy `absent`"),
        "{absent}"
    );

    let output = once(&access, &["--output", "json", "--default-policy", "batch"]).await?;
    ended(&output, 0, "")?;
    let printed: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let pods: BTreeMap<&str, &Value> =
        printed.iter().filter_map(|found| Some((found["pod"].as_str()?, found))).collect();
    let plain = pods.get("plain").context("every pod is there")?;
    assert_eq!(
        (&plain["policy"]["name"], &plain["reason"]),
        (&json!("batch"), &json!("default of the cluster"))
    );
    let web = pods.get("web").context("every pod is there")?;
    assert_eq!(
        (&web["policy"]["name"], web["problems"].as_array().map(Vec::len)),
        (&json!("batch"), Some(1))
    );
    ensure!(web["policy"]["spec"].is_object(), "{web}");

    ended(&once(&access, &["--output", "yaml"]).await?, 2, "--output")?;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "nobody" } });
    apply(&objects.client, [account]).await?;
    let nobody = cluster.server.service_account("default", "nobody").await?;
    ended(&once(&nobody, &[]).await?, 3, "may not list tieringpolicies")?;
    let nowhere = access.via(([127, 0, 0, 1], cluster_tests::free_port()?).into());
    ended(&once(&nowhere, &[]).await?, 4, "cannot list tieringpolicies")?;

    assert_eq!(cluster.writes()?.len(), 0);
    Ok(())
}
