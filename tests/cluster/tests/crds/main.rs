//! What a current API server makes of our definitions: every rule and every bound of the schemas, on crdserver.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, outside of its own function, too")]

mod bounds;
mod streams;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use cluster_tests::{CrdServer, Etcd, install_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, CustomResourceExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

/// The servers of one test, with our definitions.
struct Servers {
    _etcd: Etcd,
    _server: CrdServer,
    client: Client,
}

impl Servers {
    async fn offered_policy(&self, policy: &Value, unknown: Unknown) -> Result<Result<Value, String>> {
        offered(&self.client, &api::TieringPolicy::api_resource(), policy, unknown).await
    }
}

async fn servers() -> Result<Servers> {
    let etcd = Etcd::start().await?;
    let server = CrdServer::start(&etcd).await?;
    let client = server.administrator().client().await?;
    install_crds(&client, &[api::TieringPolicy::crd(), api::NodeTiering::crd()]).await?;
    Ok(Servers { _etcd: etcd, _server: server, client })
}

/// The object as the server would store it, or why it would not. JSON: what our own types cannot hold is tried, too.
async fn offered(
    client: &Client,
    resource: &ApiResource,
    object: &Value,
    unknown: Unknown,
) -> Result<Result<Value, String>> {
    let (path, plural) = (&resource.api_version, &resource.plural);
    let validation = match unknown {
        Unknown::Refused => "Strict",
        Unknown::Dropped => "Ignore",
    };
    let request =
        http::Request::post(format!("/apis/{path}/{plural}?dryRun=All&fieldValidation={validation}"))
            .header("Content-Type", "application/json")
            .body(serde_json::to_vec(object)?)?;
    answer(client, request).await
}

/// What a server stored, or why it did not.
async fn answer(client: &Client, request: http::Request<Vec<u8>>) -> Result<Result<Value, String>> {
    match client.request(request).await {
        Ok(stored) => Ok(Ok(stored)),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => Ok(Err(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// What the server is to do about fields that the schema does not know.
#[derive(Clone, Copy)]
enum Unknown {
    Refused,
    Dropped,
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy",
        "metadata": { "name": name }, "spec": spec,
    })
}

/// One of the api crate's `cases/tieringpolicies.yaml`.
#[derive(Deserialize)]
struct Case {
    about: String,
    #[serde(default = "any_name")]
    name: String,
    spec: Value,
    refused: Option<String>,
}

fn any_name() -> String {
    "any".to_owned()
}

fn cases() -> Result<Vec<Case>> {
    Ok(serde_saphyr::from_str(include_str!("../../../../api/cases/tieringpolicies.yaml"))?)
}

#[tokio::test]
async fn the_rules_refuse_what_they_are_for_and_nothing_else() -> Result<()> {
    let servers = servers().await?;
    for Case { about, name, spec, refused } in cases()? {
        let answer = servers.offered_policy(&policy(&name, &spec), Unknown::Refused).await?;
        match (refused, answer) {
            (None, answer) => ensure!(answer.is_ok(), "{about}: {answer:?}"),
            (Some(message), Ok(_)) => bail!("{about} is accepted, expected: {message}"),
            (Some(message), Err(error)) => ensure!(error.contains(&message), "{about}: {error}"),
        }
    }
    Ok(())
}

/// Messages of the rules, wherever they are in a schema.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                found.insert(rule["message"].as_str().unwrap_or("a rule without a message").to_owned());
            }
            fields.values().for_each(|field| rules(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
        _ => {}
    }
}

#[test]
fn every_rule_has_a_case_that_it_refuses() -> Result<()> {
    let mut messages = BTreeSet::new();
    for definition in [api::TieringPolicy::crd(), api::NodeTiering::crd()] {
        rules(&serde_json::to_value(definition)?, &mut messages);
    }
    let refused: Vec<_> = cases()?.into_iter().filter_map(|case| case.refused).collect();
    ensure!(!messages.is_empty());
    let untried = |message: &&String| !refused.iter().any(|refusal| message.starts_with(refusal.as_str()));
    assert_eq!(messages.iter().filter(untried).collect::<Vec<_>>(), Vec::<&String>::new());
    Ok(())
}

fn schema_of(definition: &CustomResourceDefinition) -> Result<Value> {
    let version = definition.spec.versions.first().context("a definition without a version")?;
    let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    Ok(serde_json::to_value(schema.context("a version without a schema")?)?)
}

/// Puts every value that breaks one bound into an object made from the schema, and sees that the server refuses it there.
async fn every_bound_holds(definition: CustomResourceDefinition, resource: &ApiResource) -> Result<()> {
    let servers = servers().await?;
    let schema = schema_of(&definition)?;
    let object = |fields: Value| {
        let mut object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": { "name": "any" },
        });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        object
    };
    for bound in bounds::tries(&schema["properties"]["spec"], "spec") {
        let new = object(json!({ "spec": bound.value }));
        bound.must_be(&offered(&servers.client, resource, &new, Unknown::Dropped).await?)?;
    }

    let objects: Api<DynamicObject> = Api::all_with(servers.client.clone(), resource);
    objects.create(&PostParams::default(), &serde_json::from_value(object(json!({ "spec": {} })))?).await?;
    let path = format!("/apis/{}/{}/any/status?dryRun=All", resource.api_version, resource.plural);
    for bound in bounds::tries(&schema["properties"]["status"], "status") {
        let body = serde_json::to_vec(&json!({ "status": bound.value }))?;
        let request = http::Request::patch(&path).header("Content-Type", "application/merge-patch+json");
        bound.must_be(&answer(&servers.client, request.body(body)?).await?)?;
    }
    Ok(())
}

#[tokio::test]
async fn every_bound_of_a_policy_is_enforced() -> Result<()> {
    every_bound_holds(api::TieringPolicy::crd(), &api::TieringPolicy::api_resource()).await
}

#[tokio::test]
async fn every_bound_of_a_nodes_tiering_is_enforced() -> Result<()> {
    every_bound_holds(api::NodeTiering::crd(), &api::NodeTiering::api_resource()).await
}

#[tokio::test]
async fn what_is_left_out_has_the_defaults_of_the_binaries() -> Result<()> {
    let servers = servers().await?;
    let stored = servers
        .offered_policy(&policy("any", &json!({})), Unknown::Refused)
        .await?
        .map_err(anyhow::Error::msg)?;
    let spec: api::PolicySpec = serde_json::from_value(stored["spec"].clone())?;
    assert_eq!(spec, api::PolicySpec::default().complete());
    Ok(())
}

#[tokio::test]
async fn a_field_that_is_not_known_is_refused_where_asked_and_dropped_otherwise() -> Result<()> {
    let servers = servers().await?;
    let typo = policy("any", &json!({ "demote": { "aftre": "5m" } }));
    let refusal =
        servers.offered_policy(&typo, Unknown::Refused).await?.err().context("a typo is accepted")?;
    ensure!(refusal.contains("unknown field \"spec.demote.aftre\""), "{refusal}");
    let stored = servers.offered_policy(&typo, Unknown::Dropped).await?.map_err(anyhow::Error::msg)?;
    ensure!(stored["spec"]["demote"].get("aftre").is_none(), "{stored}");
    Ok(())
}

#[tokio::test]
async fn status_and_spec_are_written_apart() -> Result<()> {
    let servers = servers().await?;
    let nodes: Api<DynamicObject> = Api::all_with(servers.client.clone(), &api::NodeTiering::api_resource());
    let node = |fields: Value| {
        let mut object = json!({
            "apiVersion": "thermocline.io/v1alpha1", "kind": "NodeTiering", "metadata": { "name": "worker" },
        });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Patch::Apply(object)
    };
    let pod = json!({ "uid": "1", "namespace": "default", "name": "pod" });
    let both = node(json!({ "spec": { "pods": [pod] }, "status": { "engine": "lru-gen" } }));
    let stored = nodes.patch("worker", &PatchParams::apply("controller"), &both).await?;
    ensure!(stored.data.get("status").is_none(), "the spec's writer set the status: {}", stored.data);

    let both = node(json!({ "spec": { "pods": [] }, "status": { "engine": "lru-gen" } }));
    let stored = nodes.patch_status("worker", &PatchParams::apply("agent").force(), &both).await?;
    assert_eq!(stored.data["status"]["engine"], "lru-gen");
    assert_eq!(
        stored.data["spec"]["pods"].as_array().map(Vec::len),
        Some(1),
        "the status' writer set the spec"
    );
    Ok(())
}

/// What `kubectl get` shows of the objects of a kind: the heads of its columns, and the cells of each row.
async fn table(client: &Client, resource: &ApiResource) -> Result<(Vec<String>, Vec<Vec<Value>>)> {
    let request = http::Request::get(format!("/apis/{}/{}", resource.api_version, resource.plural))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = client.request(request).await?;
    let all = |key: &str| table[key].as_array().cloned().unwrap_or_default();
    let columns: Vec<_> =
        all("columnDefinitions").into_iter().filter(|column| column["priority"] == 0).collect();
    let heads = columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_uppercase());
    // Those for wide terminals stand among the others.
    let usual: Vec<bool> = all("columnDefinitions").iter().map(|column| column["priority"] == 0).collect();
    let cells = |row: &Value| {
        let cells = row["cells"].as_array().cloned().unwrap_or_default();
        cells.into_iter().zip(&usual).filter_map(|(cell, usual)| usual.then_some(cell)).collect()
    };
    Ok((heads.collect(), all("rows").iter().map(cells).collect()))
}

#[tokio::test]
async fn kubectl_get_shows_the_tiers_and_the_pods_of_a_node_and_the_pods_of_a_policy() -> Result<()> {
    let servers = servers().await?;
    let resource = api::NodeTiering::api_resource();
    let nodes: Api<DynamicObject> = Api::all_with(servers.client.clone(), &resource);
    let node = |fields: Value| {
        let mut object = json!({
            "apiVersion": "thermocline.io/v1alpha1", "kind": "NodeTiering", "metadata": { "name": "worker" },
        });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Patch::Apply(object)
    };
    let spec = node(json!({ "spec": { "pods": [], "assignedPods": 12 } }));
    nodes.patch("worker", &PatchParams::apply("controller"), &spec).await?;
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Running", "message": "it is",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = node(json!({ "status": {
        "engine": "lru-gen", "kernel": { "release": "6.12.1" }, "memory": "dram 384 GiB, pmem 1.5 TiB", "conditions": [ready],
    } }));
    nodes.patch_status("worker", &PatchParams::apply("agent"), &status).await?;
    let (heads, rows) = table(&servers.client, &resource).await?;
    assert_eq!(heads, ["NAME", "ENGINE", "KERNEL", "TIERS", "PODS", "READY", "AGE"]);
    let shown = json!(["worker", "lru-gen", "6.12.1", "dram 384 GiB, pmem 1.5 TiB", 12, "True"]);
    assert_eq!(json!(rows[0][..6]), shown);

    let resource = api::TieringPolicy::api_resource();
    let policies: Api<DynamicObject> = Api::all_with(servers.client.clone(), &resource);
    let batch = policy("batch", &json!({ "demote": { "after": "5m" } }));
    policies.create(&PostParams::default(), &serde_json::from_value(batch)?).await?;
    let status = Patch::Merge(json!({ "status": { "matchedPods": 7 } }));
    policies.patch_status("batch", &PatchParams::default(), &status).await?;
    let (heads, rows) = table(&servers.client, &resource).await?;
    assert_eq!(heads, ["NAME", "MODE", "PRIORITY", "AFTER", "MATCHED", "ACCEPTED", "AGE"]);
    assert_eq!(json!(rows[0][..5]), json!(["batch", "Enforce", 0, "5m", 7]));
    Ok(())
}
