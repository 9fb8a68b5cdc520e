//! Both programs do all they must with their own accounts, and use every right that they have.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use api::{NodeTiering, QosClass, TieringPolicy};
use cluster_tests::{
    Agent, Cluster, Driver, NodeTree, Process, Request, apply, eventually, free_port, is_at_least,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use manifest_tests::NAMESPACE;
use rustix::process::Signal;
use serde_json::json;

use crate::accounts;
use crate::rules::{rights, rules_of};

/// From here on servers have them by default, with an etcd that can tell how far it is.
const LISTS_BY_STREAM: u32 = 36;

/// A node, a namespace, a policy, and a pod that names it and misspells another annotation.
async fn populate(client: &Client) -> Result<String> {
    apply(
        client,
        [
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }),
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "jobs" } }),
            json!({
                "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": "high" },
                "spec": { "memoryHigh": { "mode": "Fixed", "value": "512Mi" } },
            }),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web", "namespace": "jobs",
                    "annotations": { "thermocline.io/policy": "high", "thermocline.io/tires": "dram" },
                },
                "spec": { "nodeName": "n1", "containers": [{ "name": "main", "image": "none" }] },
            }),
        ],
    )
    .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "jobs");
    pods.get("web").await?.uid().context("a pod has a uid")
}

#[tokio::test]
async fn both_do_all_they_must_and_use_every_right_they_have() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.administrator().await?;
    let [agent_account, controller_account] = accounts(&cluster).await?;
    let uid = populate(&client).await?;

    let tree = NodeTree::new(Driver::Systemd)?;
    tree.add_pod(&uid, QosClass::BestEffort, &["main"])?;
    let program = Path::new(env!("CARGO_BIN_EXE_agent-on-files"));
    let mut agent = Agent::start(program, &tree, &agent_account.access, "n1", &[])?;

    let dir = tempfile::tempdir()?;
    let (kubeconfig, log) = (dir.path().join("kubeconfig"), dir.path().join("controller.log"));
    controller_account.access.write_kubeconfig(&kubeconfig)?;
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--lease-namespace={NAMESPACE}"),
        "--identity=replica-1".to_owned(),
        format!("--owner-role={}", controller_account.name),
        format!("--http-address=127.0.0.1:{}", free_port()?),
    ];
    // As the chart does where a policy can hold the controller to that label.
    let labels = rights(&rules_of(&cluster.chart, controller_account.name)?)?.contains("patch nodes");
    let arguments: Vec<_> =
        arguments.into_iter().chain(labels.then(|| "--slow-tier-label".to_owned())).collect();
    let mut controller =
        Process::start(Path::new(env!("CARGO_BIN_EXE_controller-under-test")), &arguments, &log)?;

    // From an annotation to a file, and back to a status.
    let file = tree.pod(&uid, QosClass::BestEffort).join("memory.high");
    let written = agent.writes(&file, &(512 << 20).to_string()).await;
    written.with_context(|| controller.last_words())?;
    let policies: Api<TieringPolicy> = Api::all(client.clone());
    let tierings: Api<NodeTiering> = Api::all(client.clone());
    let events: Api<Event> = Api::namespaced(client.clone(), "jobs");
    eventually("the policy, the pod and the node are told of", async || {
        let matched = policies.get("high").await?.status.and_then(|status| status.matched_pods);
        // Of a pod that is as it should be a status says nothing.
        let told = tierings.get("n1").await?.status.is_some_and(|status| !status.conditions.is_empty());
        let typo = events.list(&ListParams::default()).await?;
        let typo = typo.iter().any(|event| event.note.as_ref().is_some_and(|note| note.contains("tires")));
        Ok((matched == Some(1) && told && typo).then_some(()))
    })
    .await
    .with_context(|| controller.last_words())?;
    if labels {
        let nodes: Api<Node> = Api::all(client.clone());
        eventually("the node is labelled", async || {
            let node = nodes.get("n1").await?;
            Ok((node.labels().get(api::SLOW_TIER).map(String::as_str) == Some("slow")).then_some(()))
        })
        .await
        .with_context(|| controller.last_words())?;
    }
    // A node that goes takes its object along; the lease is renewed, and given back in the end.
    Api::<Node>::all(client.clone()).delete("n1", &DeleteParams::default()).await?;
    eventually("the node's object is deleted", async || {
        Ok(tierings.get_opt("n1").await?.is_none().then_some(()))
    })
    .await
    .with_context(|| controller.last_words())?;
    controller.signal(Signal::TERM)?;
    let ended = eventually("the controller ends", async || controller.ended()).await?;
    ensure!(ended.success(), "{ended}; {}", controller.last_words());
    ensure!(agent.terminate().await?.success());

    if is_at_least(&client, LISTS_BY_STREAM, "lists by stream").await? {
        let requests = cluster.requests.of(NAMESPACE, controller_account.name)?;
        let by_stream =
            |request: &&Request| request.uri.contains("sendInitialEvents=true") && request.code == 200;
        let kinds: BTreeSet<_> = requests.iter().filter(by_stream).map(|request| &request.resource).collect();
        ensure!(kinds.len() >= 5, "by stream came {kinds:?}");
    }

    let mut wrong = Vec::new();
    for account in [agent_account, controller_account] {
        let requests = cluster.requests.of(NAMESPACE, account.name)?;
        let mut used = BTreeSet::new();
        for request in &requests {
            ensure!(request.code != 401 && request.code != 403, "{} may not: {request:?}", account.name);
            if request.code < 400 && !request.resource.is_empty() {
                used.insert(request.right());
            }
            // Where a server has no lists by stream, or did not end one, they come in pages.
            if request.verb == "watch" && request.uri.contains("sendInitialEvents=true") {
                used.insert(format!("list {}", request.resource));
            }
            // An apply that creates takes the right to create, too.
            if request.verb == "patch" && request.code == 201 {
                used.insert(format!("create {}", request.resource));
            }
        }
        let granted = rights(&rules_of(&cluster.chart, account.name)?)?;
        println!("{} used, in {} requests: {used:#?}", account.name, requests.len());
        let spare: Vec<_> = granted.difference(&used).cloned().collect();
        let missing: Vec<_> = used.difference(&granted).cloned().collect();
        wrong.extend(spare.into_iter().map(|right| format!("{}: nothing uses `{right}`", account.name)));
        wrong.extend(
            missing.into_iter().map(|right| format!("{}: not of the chart: `{right}`", account.name)),
        );
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
