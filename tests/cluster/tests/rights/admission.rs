//! What the chart's admission policies do, on a server that has such policies.

use anyhow::{Context as _, Result, ensure};
use cluster_tests::{Access, Cluster, eventually, is_at_least};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::client::Body;
use manifest_tests::NAMESPACE;
use serde_json::{Value, json};

/// From here on policies of admission are served by default.
const ADMISSION_POLICIES: u32 = 30;
/// From here on the token of a pod names its node, unless a feature is switched off.
const NODES_IN_TOKENS: u32 = 32;

/// What a server answers to an agent that writes the status of a node: its code and what it says.
async fn report(access: &Access, node: &str) -> Result<(u16, String)> {
    let request = http::Request::patch(format!("/apis/thermocline.io/v1alpha1/nodetierings/{node}/status"))
        .header("Content-Type", "application/merge-patch+json")
        .body(json!({ "status": { "agentVersion": "test" } }).to_string().into_bytes())?;
    match access.client().await?.request_text(request).await {
        Ok(_) => Ok((200, String::new())),
        Err(kube::Error::Api(status)) => Ok((status.code, status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn an_agent_writes_the_status_of_its_own_node_alone() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.administrator().await?;
    let what = "an agent that writes another node's status";
    if !is_at_least(&client, NODES_IN_TOKENS, what).await? {
        return Ok(());
    }
    for node in ["n1", "n2"] {
        cluster_tests::apply(
            &client,
            [json!({
                "apiVersion": "thermocline.io/v1alpha1", "kind": "NodeTiering", "metadata": { "name": node }, "spec": {},
            })],
        )
        .await?;
    }
    let own = cluster.agent("n1").await?;
    let unbound = cluster.server.service_account(NAMESPACE, "thermocline-agent").await?;
    // A policy is in force some time after it was made.
    let refused = eventually("another node's status is refused", async || {
        let (code, message) = report(&own, "n2").await?;
        Ok((code != 200).then_some((code, message)))
    })
    .await?;
    assert_eq!(refused.0, 403, "{}", refused.1);
    ensure!(refused.1.contains("which is \"n1\", not \"n2\""), "{}", refused.1);
    let of_nobody = report(&unbound, "n1").await?;
    assert_eq!(of_nobody.0, 403, "{}", of_nobody.1);
    assert_eq!(report(&own, "n1").await?, (200, String::new()));
    // Whoever is no agent is none of the policy's business.
    assert_eq!(report(&cluster.server.administrator(), "n2").await?.0, 200);
    Ok(())
}

/// What a server answers to a change of a node, by merge: its code and what it says.
async fn change_node(access: &Access, change: &Value) -> Result<(u16, String)> {
    let request = http::Request::patch("/api/v1/nodes/n1")
        .header("Content-Type", "application/merge-patch+json")
        .body(change.to_string().into_bytes())?;
    match access.client().await?.request_text(request).await {
        Ok(_) => Ok((200, String::new())),
        Err(kube::Error::Api(status)) => Ok((status.code, status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn of_a_node_the_controller_writes_the_label_of_its_slow_tier_alone() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.administrator().await?;
    if !is_at_least(&client, ADMISSION_POLICIES, "a controller that changes nodes").await? {
        return Ok(());
    }
    cluster_tests::apply(
        &client,
        [json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } })],
    )
    .await?;
    let controller = cluster.controller().await?;
    // A policy is in force some time after it was made: until then each try changes something.
    let mut tries = 0;
    let refused = eventually("a change of a node is refused", async || {
        tries += 1;
        let change = json!({ "metadata": { "annotations": { "tries": tries.to_string() } } });
        let (code, message) = change_node(&controller, &change).await?;
        Ok((code != 200).then_some((code, message)))
    })
    .await?;
    assert_eq!(refused.0, 403, "{}", refused.1);
    ensure!(refused.1.contains("thermocline.io/slow-tier alone"), "{}", refused.1);
    for (change, code) in [
        (json!({ "metadata": { "labels": { api::SLOW_TIER: "cxl" } } }), 200),
        (json!({ "metadata": { "labels": { api::SLOW_TIER: null } } }), 200),
        (json!({ "metadata": { "labels": { "zone": "a" } } }), 403),
        (json!({ "metadata": { "annotations": { "a": "b" } } }), 403),
        (json!({ "spec": { "unschedulable": true } }), 403),
        (json!({ "metadata": { "finalizers": ["example.com/hold"] } }), 403),
        (json!({ "spec": { "taints": [{ "key": "a", "effect": "NoExecute" }] } }), 403),
    ] {
        let (answered, message) = change_node(&controller, &change).await?;
        assert_eq!(answered, code, "{change}: {message}");
    }
    // Whoever else may change nodes is none of the policy's business.
    assert_eq!(
        change_node(&cluster.server.administrator(), &json!({ "spec": { "unschedulable": true } })).await?.0,
        200
    );
    Ok(())
}

/// The warnings that the server sends with its answer to a pod with this annotation.
async fn warnings(access: &Access, name: &str, key: &str, value: &str) -> Result<Vec<String>> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "annotations": { key: value } },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    });
    let request = http::Request::post("/api/v1/namespaces/default/pods?dryRun=All")
        .header("Content-Type", "application/json")
        .body(Body::from(pod.to_string().into_bytes()))?;
    let answer = access.client().await?.send(request).await?;
    ensure!(answer.status().is_success(), "{name} is refused: {}", answer.status());
    let warnings = answer.headers().get_all("warning").iter();
    warnings.map(|warning| Ok(warning.to_str().context("a warning is text")?.to_owned())).collect()
}

#[tokio::test]
async fn whoever_writes_an_annotation_without_a_meaning_is_warned_and_not_refused() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.administrator().await?;
    if !is_at_least(&client, ADMISSION_POLICIES, "warnings of annotations").await? {
        return Ok(());
    }
    let access = cluster.server.administrator();
    let warned = eventually("a bad value is warned of", async || {
        let warned = warnings(&access, "bad", "thermocline.io/demote-after", "soon").await?;
        Ok((!warned.is_empty()).then_some(warned))
    })
    .await?;
    ensure!(warned.iter().any(|warning| warning.contains("thermocline.io/demote-after")), "{warned:?}");
    for (name, key, value, is_warned) in [
        ("typo", "thermocline.io/dram-flor", "1Gi", true),
        ("lines", "thermocline.io/policy", "one\ntwo", true),
        ("container", "container.thermocline.io/main", "Not A Name", true),
        ("good", "thermocline.io/demote-after", "5m", false),
        ("anothers", "example.org/demote-after", "soon", false),
    ] {
        let warned = warnings(&access, name, key, value).await?;
        let of_ours: Vec<_> = warned.iter().filter(|warning| warning.contains("thermocline")).collect();
        assert_eq!(!of_ours.is_empty(), is_warned, "{name}: {warned:?}");
        // In words, not as the expression that failed.
        ensure!(of_ours.iter().all(|warning| !warning.contains("failed expression")), "{of_ours:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_replica_may_always_be_evicted() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.administrator().await?;
    if !is_at_least(&client, 31, "the PodDisruptionBudget").await? {
        return Ok(());
    }
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, NAMESPACE);
    let budget = serde_json::to_value(budgets.get("thermocline-controller").await?)?;
    let policy: &Value = &budget["spec"]["unhealthyPodEvictionPolicy"];
    assert_eq!(policy, "AlwaysAllow", "{budget}");
    Ok(())
}
