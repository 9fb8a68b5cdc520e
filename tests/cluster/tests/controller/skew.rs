//! Definitions of a newer or older version than the controller: nothing is un-assigned.

use anyhow::{Context as _, Result, ensure};
use cluster_tests::{eventually, install_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, REPLICAS};

/// Both definitions, with what is said below `demote` of every policy changed.
fn definitions(change: impl Fn(&mut Value)) -> Result<[CustomResourceDefinition; 2]> {
    fn visit(schema: &mut Value, change: &impl Fn(&mut Value)) {
        if let Some(demote) = schema.get_mut("properties").and_then(|properties| properties.get_mut("demote"))
        {
            change(&mut demote["properties"]);
        }
        match schema {
            Value::Object(fields) => fields.values_mut().for_each(|value| visit(value, change)),
            Value::Array(values) => values.iter_mut().for_each(|value| visit(value, change)),
            _ => {}
        }
    }
    let changed = |definition: CustomResourceDefinition, has_defaults: bool| {
        let mut value = serde_json::to_value(definition)?;
        visit(&mut value["spec"]["versions"][0]["schema"], &|demote| {
            change(demote);
            // What nodes are assigned has no defaults: what is not said there is the reader's own.
            for field in demote.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
                field.as_object_mut().filter(|_| !has_defaults).map(|field| field.remove("default"));
            }
        });
        anyhow::Ok(serde_json::from_value(value)?)
    };
    Ok([changed(api::TieringPolicy::crd(), true)?, changed(api::NodeTiering::crd(), false)?])
}

async fn check(others: [CustomResourceDefinition; 2], of_the_policy: impl Fn(&Value) -> bool) -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    objects.node("n1").await?;
    objects.policy("by-default", json!({ "mode": "Observe" })).await?;
    objects.policy("named", json!({ "demote": { "after": "5m", "slowTouchRate": "0.3%" } })).await?;
    objects
        .policy("selecting", json!({ "selector": { "pods": { "matchLabels": { "app": "db" } } } }))
        .await?;
    objects.pod_with("default/web", "n1", "named").await?;
    objects.pod("default/db", "n1", &json!({ "metadata": { "labels": { "app": "db" } } })).await?;
    objects.pod("default/any", "n1", &json!({})).await?;
    let assigned = [("default/web", "named"), ("default/db", "selecting"), ("default/any", "by-default")];
    let arguments = ["--default-policy", "by-default"];
    let mut first = cluster.replica(REPLICAS[0], &arguments)?;
    objects.until_assigned("n1", &assigned).await?;

    install_crds(&objects.client, &others).await?;
    let get = "/apis/thermocline.io/v1alpha1/tieringpolicies/named";
    eventually("the server goes by the other definition", async || {
        let answer = objects.client.request::<Value>(http::Request::get(get).body(Vec::new())?).await;
        Ok(answer.ok().filter(&of_the_policy).map(|_| ()))
    })
    .await?;
    // It sees every policy anew: by a watch of the one, and by a list of its next life.
    objects.policy("named", json!({ "demote": { "after": "6m" } })).await?;
    objects.pod_with("default/late", "n1", "named").await?;
    let assigned: Vec<_> = assigned.into_iter().chain([("default/late", "named")]).collect();
    objects.until_assigned("n1", &assigned).await?;
    first.terminate().await?;
    let mut second = cluster.replica(REPLICAS[1], &arguments)?;
    second.until_leading().await?;
    objects.pod_with("default/later", "n1", "named").await?;
    let assigned: Vec<_> = assigned.into_iter().chain([("default/later", "named")]).collect();
    objects.until_assigned("n1", &assigned).await?;

    for (by, spec) in cluster.written("n1")? {
        let has = |name: &str| spec.pods.iter().any(|pod| pod.name == name);
        ensure!(["web", "db", "any"].iter().all(|name| has(name)), "{by} un-assigned pods: {spec:?}");
    }
    let spec = objects.node_tiering("n1").await?.context("it has an assignment")?.spec;
    let after = spec
        .policies
        .values()
        .find(|policy| policy.name == "named")
        .and_then(|policy| policy.spec.demote.after);
    assert_eq!(after, Some("6m".parse()?));
    Ok(())
}

#[tokio::test]
async fn a_newer_definition_under_the_controller_un_assigns_nothing() -> Result<()> {
    let newer = definitions(|demote| demote["grace"] = json!({ "type": "string", "default": "5s" }))?;
    check(newer, |policy| policy["spec"]["demote"]["grace"] == "5s").await
}

#[tokio::test]
async fn an_older_definition_under_the_controller_un_assigns_nothing() -> Result<()> {
    let older = definitions(|demote| {
        demote.as_object_mut().map(|demote| demote.remove("slowTouchRate"));
    })?;
    check(older, |policy| policy["spec"]["demote"].get("slowTouchRate").is_none()).await
}
