//! Lists by stream, as the controller asks for them, of a current API server.

use anyhow::{Context as _, Result, ensure};
use api::TieringPolicy;
use cluster_tests::{PATIENCE, not_run};
use controller::watch::objects::{Kind, Object, Policy};
use controller::watch::{Change, Watched, watch};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{Servers, servers};

/// The next thing that a watch says, in words.
async fn next(events: &mut mpsc::Receiver<Watched>) -> Result<String> {
    let watched = tokio::time::timeout(PATIENCE, events.recv()).await?.context("it ended")?;
    Ok(match watched.change {
        Change::Listing => "list".to_owned(),
        Change::Listed => "listed".to_owned(),
        Change::Applied(object) => match *object {
            Object::Policy(policy) => format!("applied {}", policy.name_any()),
            other => format!("{other:?}"),
        },
        Change::Gone { name, .. } => format!("gone {name}"),
        other => format!("{other:?}"),
    })
}

#[tokio::test]
async fn a_list_is_of_the_most_recent_state_and_goes_on_with_what_changes() -> Result<()> {
    let Servers { _etcd, _server, client } = servers().await?;
    let policies: Api<TieringPolicy> = Api::all(client.clone());
    for name in ["a", "b", "c"] {
        let policy = TieringPolicy::new(name, serde_json::from_value(json!({}))?);
        policies.create(&PostParams::default(), &policy).await?;
    }
    policies.delete("b", &DeleteParams::default()).await?;

    // Whether what follows comes by stream: with an etcd that is too old it comes in pages, and must be the same.
    let list = "/apis/thermocline.io/v1alpha1/tieringpolicies";
    let request = http::Request::get(format!(
        "{list}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion="
    ));
    let text = client.request_text(request.body(Vec::new())?).await.context("a list by stream")?;
    if text.contains("RequestWatchProgress is disabled") {
        not_run("lists by stream: etcd is too old for them, and lists came in pages");
    } else {
        ensure!(text.contains("k8s.io/initial-events-end"), "{text}");
    }

    let (events, mut seen) = mpsc::channel(16);
    let watching = tokio::spawn(watch::<Policy, Watched>(client, Kind::Policy, events));
    let mut listed = Vec::new();
    while listed.last().is_none_or(|last| last != "listed") {
        listed.push(next(&mut seen).await?);
    }
    // A list that did not come by stream begins again.
    listed.dedup();
    assert_eq!(listed, ["list", "applied a", "applied c", "listed"]);
    let change = Patch::Merge(json!({ "spec": { "mode": "Observe" } }));
    policies.patch("c", &PatchParams::default(), &change).await?;
    policies.delete("a", &DeleteParams::default()).await?;
    assert_eq!(next(&mut seen).await?, "applied c");
    assert_eq!(next(&mut seen).await?, "gone a");
    watching.abort();
    Ok(())
}
