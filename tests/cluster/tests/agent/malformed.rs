use anyhow::{Result, ensure};
use cluster_tests::{Cluster, install_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt as _;
use serde_json::json;

use crate::{CLASS, Node, bytes, enforcing, high, pod, pod_status, start_agent};

/// The definition of a later version, for whose fields the agent is too old: nothing is checked.
fn anything_goes() -> CustomResourceDefinition {
    let mut definition = api::NodeTiering::crd();
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(spec) = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("spec")) {
            *spec = JSONSchemaProps {
                type_: Some("object".to_owned()),
                x_kubernetes_preserve_unknown_fields: Some(true),
                ..JSONSchemaProps::default()
            };
        }
    }
    definition
}

#[tokio::test]
async fn one_pod_that_is_not_understood_does_not_keep_the_others_from_their_policies() -> Result<()> {
    let cluster = Cluster::start().await?;
    install_crds(&cluster.administrator().await?, &[anything_goes()]).await?;
    let access = cluster.agent("n1").await?;
    let mut node =
        Node::start(&cluster, &access, "n1", &["good", "bad", "kept", "wrong", "floor", "newer"]).await?;
    node.assign(&[pod("kept", &high(512))]).await?;
    node.high("kept", &bytes(512)).await?;

    let mut bad =
        pod("bad", &json!({ "memoryHigh": { "mode": "Fixed", "value": "256Mi" }, "teleport": true }));
    bad["policy"]["mustUnderstand"] = json!(["teleport"]);
    let with = |uid: &str, field: &str, value: serde_json::Value| {
        let mut pod = pod(uid, &high(256));
        pod[field] = value;
        pod
    };
    node.assign(&[
        bad,
        // Of a newer version, too, but not so that it must be understood.
        pod("newer", &json!({ "memoryHigh": { "mode": "Fixed", "value": "384Mi" }, "teleport": true })),
        pod("kept", &json!({ "memoryHigh": { "mode": "Guess" } })),
        with("wrong", "containers", json!("none")),
        with("nobody", "uid", json!(7)),
        json!("no pod at all"),
        json!(null),
        pod("floor", &json!({ "dram": { "floor": "80%", "ceiling": "20%" } })),
        pod("good", &high(1024)),
    ])
    .await?;
    node.high("good", &bytes(1024)).await?;
    node.high("newer", &bytes(384)).await?;
    let status = node
        .status("each is told of", |status| {
            let not = |uid: &&str| enforcing(status, uid) == "NotUnderstood";
            ["bad", "kept", "wrong", "floor"].iter().all(not) && enforcing(status, "good") == "Enforced"
        })
        .await?;
    let message = |uid| pod_status(&status, uid)["message"].to_string();
    ensure!(
        message("bad").contains("teleport") && message("bad").contains("left alone"),
        "{}",
        message("bad")
    );
    ensure!(message("kept").contains("what was assigned before is carried out"), "{}", message("kept"));
    ensure!(message("floor").contains("floor"), "{}", message("floor"));
    for (uid, text) in [("bad", "max"), ("wrong", "max"), ("kept", &bytes(512)), ("good", &bytes(1024))] {
        let file = node.tree.pod(uid, CLASS).join("memory.high");
        assert_eq!(std::fs::read_to_string(file)?.trim_end(), text, "{uid}");
    }

    // Mended, it is carried out.
    node.assign(&[pod("bad", &high(256)), pod("kept", &high(640)), pod("good", &high(1024))]).await?;
    node.high("bad", &bytes(256)).await?;
    node.high("kept", &bytes(640)).await?;

    // No list at all assigns nothing, and is no reason to end.
    let tierings = node.tierings.clone();
    let nonsense = kube::api::Patch::Merge(json!({ "spec": { "pods": "none" } }));
    tierings.patch("n1", &kube::api::PatchParams::default(), &nonsense).await.ok();
    node.agent.get("/healthz").await?;
    node.assign(&[pod("good", &high(896))]).await?;
    node.high("good", &bytes(896)).await?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_of_what_was_last_known_is_told_of_and_stops_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let mut node = Node::start(&cluster, &access, "n1", &["a"]).await?;
    node.assign(&[pod("a", &high(512))]).await?;
    node.high("a", &bytes(512)).await?;
    let file = node.tree.run().join("nodetiering.json");
    node.agent.eventually("it is on disk", async |_| Ok(file.exists().then_some(()))).await?;
    let whole = std::fs::read_to_string(&file)?;

    cluster.server.kill();
    let cut = &whole[..whole.len() / 2];
    let other = whole.replace("\"n1\"", "\"n2\"");
    for (text, says) in
        [(cut, "can't be understood"), ("\0\0\0", "can't be understood"), (&other, "is for another node")]
    {
        node.agent.kill();
        std::fs::write(&file, text)?;
        node.agent = start_agent(&node.tree, &access, "n1", &[])?;
        node.agent
            .eventually("it says what is wrong with which file", async |agent| {
                Ok(agent.said(&["WARN", "nodetiering.json", says]).then_some(()))
            })
            .await?;
        // It runs; that it knows nothing is what keeps it from being ready.
        node.agent.eventually("it is alive", async |agent| Ok(agent.get("/healthz").await.ok())).await?;
        ensure!(node.agent.get("/readyz").await.is_err(), "ready, without knowing anything");
        assert_eq!(node.agent.metric("thermocline_api_server_up").await?.to_string(), "0");
    }
    // A pod whose assignment is not known is put back, not held by nobody's order.
    node.high("a", "max").await?;
    cluster.server.restart().await?;
    node.high("a", &bytes(512)).await?;
    let object = node.tierings.get("n1").await?;
    node.agent
        .eventually("the file is whole again", async |_| {
            let text = std::fs::read_to_string(&file)?;
            let kept: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let generation = kept.map(|kept| kept["metadata"]["generation"].clone());
            Ok((generation == Some(json!(object.metadata.generation))).then_some(()))
        })
        .await?;
    Ok(())
}
