//! The servers do what the tests on them rely on: data outlives a crash, a cut is a cut, a compacted revision is gone, and
//! an account has its own rights and no others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cluster_tests::{Access, ApiServer, Etcd, Proxy, User, apply, eventually, install_crds};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _};
use serde_json::json;

/// What a test stores.
fn note(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some(BTreeMap::from([("text".to_owned(), "x".repeat(1000))])),
        ..Default::default()
    }
}

async fn create(client: &Client, name: &str) -> Result<()> {
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &note(name)).await?;
    Ok(())
}

/// Names of the stored notes.
async fn names(client: &Client) -> Result<Vec<String>> {
    let notes: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let list = notes.list(&ListParams::default()).await?;
    let names = list.iter().map(kube::ResourceExt::name_any);
    // Newer servers have a controller's own.
    Ok(names.filter(|name| name != "kube-root-ca.crt").collect())
}

/// What is refused, as the server says it.
fn refused<T>(answer: kube::Result<T>) -> Result<Box<Status>> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(status),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was allowed"),
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_crash_of_either_server() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let mut server = ApiServer::start(&etcd).await?;
    let client = server.administrator().client().await?;
    create(&client, "before").await?;

    server.kill();
    ensure!(names(&client).await.is_err(), "a killed server answered");
    server.restart().await?;
    assert_eq!(names(&client).await?, ["before"]);

    create(&client, "between").await?;
    etcd.restart().await?;
    // The server finds its store again by itself.
    let stored = eventually("the notes are listed", async || Ok(names(&client).await.ok())).await?;
    assert_eq!(stored, ["before", "between"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_dropped_is_gone() -> Result<()> {
    let etcd = Etcd::start().await?;
    let address: SocketAddr = etcd.url().trim_start_matches("http://").parse()?;
    ensure!(std::net::TcpStream::connect(address).is_ok());
    drop(etcd);
    ensure!(std::net::TcpStream::connect(address).is_err());
    Ok(())
}

type Watch = Pin<Box<dyn Stream<Item = watcher::Result<Event<ConfigMap>>> + Send>>;

fn watch(client: &Client) -> Watch {
    Box::pin(watcher(Api::default_namespaced(client.clone()), watcher::Config::default()))
}

/// Reads the watch up to the note of this name. What came on the way: `init` where it listed, names of notes.
async fn until(watch: &mut Watch, name: &str) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    let read = async {
        loop {
            match watch.next().await.context("a watch never ends")? {
                Ok(Event::Init) => seen.push("init".to_owned()),
                Ok(Event::InitApply(note) | Event::Apply(note)) => {
                    seen.push(note.name_any());
                    if note.name_any() == name {
                        return anyhow::Ok(());
                    }
                }
                // It tries again by itself.
                Err(_) | Ok(Event::InitDone | Event::Delete(_)) => {}
            }
        }
    };
    let read = tokio::time::timeout(cluster_tests::PATIENCE, read).await;
    read.with_context(|| format!("the watch never came to {name}"))??;
    Ok(seen)
}

#[tokio::test]
async fn a_watch_survives_cuts_holds_and_a_slow_server() -> Result<()> {
    let etcd = Etcd::start().await?;
    let server = ApiServer::start(&etcd).await?;
    let direct = server.administrator().client().await?;
    let proxy = Proxy::to(server.administrator().address()).await?;
    let client = server.administrator().via(proxy.address()).client().await?;

    let mut watch = watch(&client);
    create(&direct, "first").await?;
    until(&mut watch, "first").await?;

    let connections = proxy.connections();
    proxy.cut();
    create(&direct, "cut").await?;
    let seen = until(&mut watch, "cut").await?;
    ensure!(proxy.connections() > connections, "it goes on over a connection that was cut: {seen:?}");
    // It went on where it was: nothing is listed again.
    assert_eq!(seen, ["cut"]);

    let connections = proxy.connections();
    proxy.cut_after(300);
    create(&direct, "torn").await?;
    assert_eq!(until(&mut watch, "torn").await?, ["torn"]);
    ensure!(proxy.connections() > connections, "it read an event over a connection that was cut in it");

    proxy.hold(true);
    create(&direct, "held").await?;
    let early = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    ensure!(early.is_err(), "something came through a held connection: {early:?}");
    proxy.hold(false);
    until(&mut watch, "held").await?;

    proxy.slow(Duration::from_millis(700));
    let start = Instant::now();
    create(&direct, "slow").await?;
    until(&mut watch, "slow").await?;
    ensure!(start.elapsed() >= Duration::from_millis(700), "it was not slow: {:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_compacted_revision_is_gone_and_a_watcher_lists_again() -> Result<()> {
    let etcd = Etcd::start().await?;
    let mut server = ApiServer::start(&etcd).await?;
    let client = server.administrator().client().await?;
    let notes: Api<ConfigMap> = Api::default_namespaced(client.clone());
    create(&client, "first").await?;
    let revision = notes.list(&ListParams::default()).await?.metadata.resource_version;
    let revision = revision.context("a list has a revision")?;
    let page = notes.list(&ListParams::default().limit(1)).await?;
    ensure!(page.metadata.continue_.is_none(), "one note is one page");
    let mut watch = watch(&client);
    until(&mut watch, "first").await?;

    server.kill();
    let mut other = ApiServer::start(&etcd).await?;
    let writer = other.administrator().client().await?;
    for name in ["second", "third"] {
        create(&writer, name).await?;
    }
    etcd.compact().await?;
    other.kill();
    server.restart().await?;

    let mut events = pin!(notes.watch(&WatchParams::default(), &revision).await?);
    match events.try_next().await? {
        Some(WatchEvent::Error(status)) => assert_eq!(status.code, 410, "{}", status.message),
        other => bail!("expected 410, got {other:?}"),
    }
    let seen = until(&mut watch, "third").await?;
    ensure!(seen.contains(&"init".to_owned()), "it did not list again: {seen:?}");
    Ok(())
}

#[tokio::test]
async fn an_account_has_its_own_rights_and_no_others() -> Result<()> {
    let etcd = Etcd::start().await?;
    let node = User { name: "system:node:worker".to_owned(), groups: vec!["system:nodes".to_owned()] };
    let server = ApiServer::start_with(&etcd, &[node], &[]).await?;
    let client = server.administrator().client().await?;
    apply(
        &client,
        [
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "reader" } }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reader" },
                "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }],
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "reader" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
                "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": "default" }],
            }),
        ],
    )
    .await?;
    let reader = server.service_account("default", "reader").await?;
    // Rights reach the authorizer through a watch of its own.
    eventually("the account may list", async || Ok(names(&reader.client().await?).await.ok())).await?;
    let notes: Api<ConfigMap> = Api::default_namespaced(reader.client().await?);
    let status = refused(notes.create(&PostParams::default(), &note("mine")).await)?;
    assert_eq!(status.code, 403, "{}", status.message);
    ensure!(status.message.contains("system:serviceaccount:default:reader"), "{}", status.message);

    let worker: Api<Node> = Api::all(server.user("system:node:worker")?.client().await?);
    assert_eq!(refused(worker.get("worker").await)?.code, 404);
    assert_eq!(refused(worker.delete("worker", &DeleteParams::default()).await)?.code, 403);
    ensure!(server.service_account("default", "nobody").await.is_err());
    Ok(())
}

#[tokio::test]
async fn our_definitions_are_accepted_by_an_old_server() -> Result<()> {
    let etcd = Etcd::start().await?;
    let server = ApiServer::start(&etcd).await?;
    let client = server.administrator().client().await?;
    install_crds(&client, &[api::TieringPolicy::crd(), api::NodeTiering::crd()]).await?;
    let policies: Api<api::TieringPolicy> = Api::all(client);
    let policy = serde_json::from_value(json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy",
        "metadata": { "name": "all-defaults" }, "spec": {},
    }))?;
    policies.create(&PostParams::default(), &policy).await?;
    assert_eq!(policies.list(&ListParams::default()).await?.items.len(), 1);
    Ok(())
}

#[tokio::test]
async fn kubectl_reads_the_kubeconfig() -> Result<()> {
    let etcd = Etcd::start().await?;
    let server = ApiServer::start(&etcd).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("kubeconfig");
    let access: Access = server.administrator();
    access.write_kubeconfig(&file)?;
    let output = std::process::Command::new(cluster_tests::tool("kubectl")?)
        .arg("--kubeconfig")
        .arg(&file)
        .args(["get", "namespaces", "--output=name"])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(String::from_utf8_lossy(&output.stdout).contains("namespace/kube-system"));
    Ok(())
}
